"""An invocation is taken up where it ran, or not at all; and a lease that was taken for nothing is given back."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from launcher.config.execution import Local
from launcher.errors import PreflightError
from launcher.orchestrator import cleanup as cleaning
from launcher.orchestrator.cleanup import Outcome, Wish
from launcher.orchestrator.journal import Fact, Journal
from launcher.platforms.base import Platform
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
        refuse_elsewhere(journal, "a1234567", Cloud())
    refuse_elsewhere(journal, "a1234567", FakePlatform())


def test_cleanup_elsewhere_says_that_it_does_not_know(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_cloud(*_: object) -> Platform:
        return Cloud()

    monkeypatch.setattr("launcher.orchestrator.removal.open_platform", open_cloud)
    target = cleaning.find(journal, "a1234567")
    cleaned = asyncio.run(cleaning.cleanup(target, Wish(executions=[Local()], grace=0.0), journal))
    assert cleaned.outcome is Outcome.UNKNOWN
    assert "has run in workspace one" in cleaned.message
    assert [fact.kind for fact in journal.facts("a1234567")] == [Fact.RUN_STARTED]


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
    journal.take_lease("a1234567")
    lease = journal.lease("a1234567")
    assert lease is not None and lease.pid == os.getpid() and lease.age < 5
