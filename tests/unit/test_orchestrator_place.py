"""An invocation is taken up where it ran, or not at all; and a lease that was taken for nothing is given back."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from launcher.config.execution import Local
from launcher.config.places import AnyPlace, DeepInfraAccount
from launcher.errors import PreflightError
from launcher.orchestrator import cleanup as cleaning
from launcher.orchestrator.cleanup import Outcome, Wish
from launcher.orchestrator.journal import Fact, Journal
from launcher.platforms.base import Platform, place_of
from launcher.platforms.pair import BOTH
from launcher.supervise import refuse_elsewhere, take_up
from tests.fakes.platform import FakePlatform
from tests.unit.test_orchestrator_run import make_plan


class Cloud(FakePlatform):
    """A platform that credentials choose."""

    place = "workspace two"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """One invocation that ran in workspace one."""
    made = Journal(tmp_path / "state" / "journal.db")
    folder = tmp_path / "a1234567"
    made.begin("a1234567", execution="local", deployment="m", folder=str(folder), tasks=["t0"], plan=b"{}")
    made.record("a1234567", Fact.RUN_STARTED, place="workspace one")
    made.give_up_lease("a1234567")
    return made


def test_credentials_of_another_place_do_not_take_up_a_run(journal: Journal) -> None:
    with pytest.raises(
        PreflightError, match="has run in workspace one, and the credentials here lead to workspace two"
    ):
        refuse_elsewhere(journal, "a1234567", place_of(Cloud()))
    refuse_elsewhere(journal, "a1234567", place_of(FakePlatform()))


def test_cleanup_elsewhere_says_that_it_does_not_know(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_cloud(*_: object) -> Platform:
        return Cloud()

    monkeypatch.setattr("launcher.orchestrator.removal.open_platform", open_cloud)
    target = cleaning.find(journal, "a1234567")
    cleaned = asyncio.run(cleaning.cleanup(target, Wish(places=[Local()], grace=0.0), journal))
    assert cleaned.outcome is Outcome.UNKNOWN
    assert "has run in workspace one" in cleaned.message
    assert [fact.kind for fact in journal.facts("a1234567")] == [Fact.RUN_STARTED]


class Account(FakePlatform):
    """What an account rents; credentials choose it too."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place


@pytest.fixture
def rented(tmp_path: Path) -> Journal:
    """One invocation that ran on this machine and had its endpoints in account one."""
    made = Journal(tmp_path / "rented" / "journal.db")
    folder = tmp_path / "b1234567"
    plan = msgspec.json.encode({"execution": "local", "deployment": "deepinfra", "config": {"execution": {}}})
    made.begin("b1234567", execution="local", deployment="deepinfra", folder=str(folder), tasks=["t0"], plan=plan)
    return made


def clean(journal: Journal, wish: Wish, *, place: str) -> cleaning.Cleaned:
    journal.record("b1234567", Fact.RUN_STARTED, place=place)
    journal.give_up_lease("b1234567")
    return asyncio.run(cleaning.cleanup(cleaning.find(journal, "b1234567"), wish, journal))


def open_as(monkeypatch: pytest.MonkeyPatch, **platforms: Platform) -> list[AnyPlace]:
    """What places are opened as; returns those that were."""
    opened: list[AnyPlace] = []

    def open_place(place: AnyPlace, _: object) -> Platform:
        opened.append(place)
        return platforms[place.type]

    monkeypatch.setattr("launcher.orchestrator.removal.open_platform", open_place)
    return opened


@pytest.mark.parametrize("places", [None, [Local()]], ids=["as the plan says", "named"])
def test_what_a_run_has_rented_is_looked_for_wherever_it_ran(
    rented: Journal, monkeypatch: pytest.MonkeyPatch, places: list[AnyPlace] | None
) -> None:
    opened = open_as(monkeypatch, local=FakePlatform(), deepinfra=Account("account one"))
    cleaned = clean(rented, Wish(places=places, grace=0.0), place="account one")
    assert cleaned.outcome is Outcome.NOTHING_LEFT
    assert opened == [Local(), DeepInfraAccount()]
    assert rented.facts("b1234567")[-1].kind is Fact.CLEANED


def test_a_place_that_was_left_out_is_told_and_the_journal_does_not_take_all_for_gone(
    rented: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_as(monkeypatch, deepinfra=Account("account one"))
    cleaned = clean(rented, Wish(places=[DeepInfraAccount()], grace=0.0), place="account one")
    assert cleaned.outcome is Outcome.NOTHING_LEFT
    assert cleaned.notes == ("local was not looked at, and b1234567 ran there too",)
    assert rented.facts("b1234567")[-1].kind is Fact.RUN_STARTED


@pytest.mark.parametrize(
    ("here", "message"),
    [
        ("account one", ""),
        ("account two", "has run in account one, and the credentials here lead to account two"),
    ],
)
def test_each_half_of_a_place_is_compared_with_its_like(
    rented: Journal, monkeypatch: pytest.MonkeyPatch, here: str, message: str
) -> None:
    both = f"account one{BOTH}workspace one"
    open_as(monkeypatch, local=Account("workspace one"), deepinfra=Account(here))
    cleaned = clean(rented, Wish(grace=0.0), place=both)
    assert cleaned.message.endswith(message)
    assert cleaned.outcome is (Outcome.UNKNOWN if message else Outcome.NOTHING_LEFT)


def test_a_lease_that_was_taken_for_nothing_is_given_back(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "a1234567").mkdir()
    (tmp_path / "file").write_text("")
    plan = make_plan(tmp_path / "file", 1)
    with pytest.raises(PreflightError, match="cannot move results there"):
        take_up(journal, journal.find("a1234567"), plan)
    assert journal.lease("a1234567") is None


def test_a_process_does_not_end_itself_when_its_own_lease_is_stale(journal: Journal) -> None:
    journal.take_lease("a1234567")
    journal._db.execute("UPDATE leases SET beat = 0")
    for sign in journal.path.parent.glob("*.alive"):
        sign.unlink()
    journal.take_lease("a1234567")
    lease = journal.lease("a1234567")
    assert lease is not None and lease.pid == os.getpid() and lease.age < 5
