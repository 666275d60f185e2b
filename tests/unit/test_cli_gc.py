"""`nv-eval gc`: where it looks, what it lists of money and time, and what it says of what it has removed."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import leftovers
from launcher.config.execution import Local
from launcher.config.places import DeepInfraAccount
from launcher.orchestrator.garbage import Rules, Why, collect
from launcher.orchestrator.journal import Fact, Journal
from launcher.orchestrator.removal import Cleared
from launcher.orchestrator.status import of
from launcher.orchestrator.unfinished import Look, unlooked
from launcher.platforms.base import Leftover, ResourceState
from tests.fakes.clock import run_virtual
from tests.fakes.platform import FakePlatform
from tests.unit.conftest import Desk

PAGE = Path(__file__).resolve().parents[2] / "docs/gc.md"


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("DEEPINFRA_", "LEPTON_", "DOCKER_")):
            monkeypatch.delenv(name)


def endpoint(name: str, **keys: Any) -> Leftover:
    return Leftover(kind="endpoint", name=name, id=name, invocation="a1b2c3d4", state=ResourceState.RUNNING, **keys)


@dataclass
class Account(FakePlatform):
    """An account with a meter, in which everything carries its expiry."""

    name: str = "deepinfra"
    things: list[Leftover] = field(default_factory=list)

    async def sweep(self, invocation: str = "") -> list[Leftover]:
        return [thing for thing in self.things if thing.invocation.startswith(invocation)]

    async def remove(self, leftover: Leftover) -> None:
        self.things = [thing for thing in self.things if thing.id != leftover.id]


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    """A forgotten endpoint, one that is wanted, and one of which nothing is known."""
    told = Account(
        things=[
            endpoint("forgotten", expires_in=-3 * 3600.0, expiry_is_ours=True, age=64 * 3600, usd_per_hour=4, usd=256),
            endpoint("gone", expires_in=-60.0, expiry_is_ours=True),
            endpoint("wanted", expires_in=2 * 3600.0, expiry_is_ours=True, age=600.0, usd_per_hour=4.0, usd=0.6667),
        ]
    )
    monkeypatch.setattr("launcher.orchestrator.removal.open_platform", lambda *_: told)
    return told


def test_the_listing_says_what_each_thing_costs_has_cost_and_when_it_expires(desk: Desk, account: Account) -> None:
    code, out, _ = desk.nv_eval("gc", "-v", "--place", "deepinfra")

    rows = {line.split("  ")[2].strip(): line for line in map(collapsed, out.splitlines())}
    assert code == 0
    assert rows["name"].endswith("  state  age  price  cost  expires  why")
    assert rows["forgotten"].endswith("running  64 h  4.00 USD/h  256.00 USD  3 h ago  it has expired")
    assert rows["wanted"].endswith("running  10 min  4.00 USD/h  0.67 USD  in 2 h  it is wanted until it expires")
    assert rows["gone"].endswith("running  1 min ago  it has expired")
    assert out.endswith("Nothing was removed; to remove it, repeat the command with --yes\n")


def collapsed(line: str) -> str:
    """A row with two spaces between its cells."""
    cells = [cell.strip() for cell in line.split("  ") if cell.strip()]
    return "  ".join(cells if len(cells) > 2 else [*cells, "", "", ""])


def test_the_report_says_what_the_removed_things_have_cost(desk: Desk, account: Account) -> None:
    code, out, _ = desk.nv_eval("gc", "--yes", "--place", "deepinfra")

    assert code == 0
    assert [thing.name for thing in account.things] == ["wanted"]
    assert out.endswith(
        "Removed 2 things from deepinfra\n  endpoint forgotten: 256.00 USD\nWhat was removed has cost 256.00 USD\n"
    )


def test_json_has_the_sums(desk: Desk, account: Account) -> None:
    dry = json.loads(desk.nv_eval("gc", "--json", "--place", "deepinfra")[1])
    done = json.loads(desk.nv_eval("gc", "--json", "--yes", "--place", "deepinfra")[1])

    assert {thing["name"]: thing["why"] for thing in dry["garbage"]} == {"forgotten": "expired", "gone": "expired"}
    assert {thing["name"]: thing["why"] for thing in dry["kept"]} == {"wanted": "not_expired"}
    assert (dry["removed_usd"], dry["places"][0]["usd"]) == (None, None)
    assert (done["removed_usd"], done["places"][0]["usd"]) == (256.0, 256.0)


def test_every_key_of_the_json_is_documented(desk: Desk, account: Account) -> None:
    found = json.loads(desk.nv_eval("gc", "--json", "--place", "deepinfra")[1])
    page = PAGE.read_text()

    keys = {*found, *leftovers.place_as_json(Cleared(platform="x")), *found["garbage"][0]}
    assert {key for key in keys - {"schema"} if f"`{key}`" not in page} == set()
    assert {why for why in Why if f"`{why}`" not in page} == set()
    assert set(asdict(account.things[0])) - keys == {"launcher_alive", "launcher", "is_record"}


# --- where ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("--place", "deepinfra"),
        ("--place", "local", "--place", "deepinfra"),
        ("deployment=deepinfra", "deployment.model_id=m"),
        ("execution=local", "--place", "deepinfra"),
    ],
)
@pytest.mark.parametrize("command", [("gc",), ("cleanup", "abcdef01")], ids=["gc", "cleanup"])
def test_deepinfra_can_be_chosen_in_several_ways(desk: Desk, command: tuple[str, ...], words: tuple[str, ...]) -> None:
    code, out, err = desk.nv_eval(*command, *words)

    assert code in (3, 7) and out == ""
    assert err.startswith("nv-eval: DeepInfra: no API key; make one at https://deepinfra.com/dash/api_keys")
    assert err.count("\n") == 1


def test_without_a_choice_what_cannot_be_looked_at_is_told(desk: Desk) -> None:
    code, _, err = desk.nv_eval("gc")

    assert code == 0
    assert "nv-eval: lepton was not looked at: no workspace" in err
    assert "nv-eval: deepinfra was not looked at: no API key" in err


LOST = "nv-eval: lost0001 ran on {}, which was not looked at: it may still have something there; "


def begun(invocation: str, execution: str, deployment: str, *, place: str = "", age: float = 0.0) -> Journal:
    """A run whose launcher is gone."""
    journal = Journal.default()
    journal.begin(invocation, execution=execution, deployment=deployment, folder="/r", tasks=["t"], hold=False)
    journal.record(invocation, Fact.RUN_STARTED, place=place)
    journal.record(invocation, Fact.INTEND_CREATE_ENDPOINT, "t", "e")
    if age:
        with closing(sqlite3.connect(journal.path)) as db, db:
            db.execute("UPDATE facts SET time = time - ?", (age,))
            db.execute("UPDATE invocations SET created = created - ?", (age,))
    return journal


@pytest.mark.parametrize(
    ("execution", "deployment", "place", "how"),
    [
        ("local", "deepinfra", "deepinfra", "set DEEPINFRA_API_KEY"),
        ("lepton", "vllm", "lepton", "log in with: nv-eval login lepton"),
    ],
)
def test_what_ran_where_nobody_can_look_is_named_and_no_success(
    desk: Desk, execution: str, deployment: str, place: str, how: str
) -> None:
    begun("lost0001", execution, deployment)

    code, out, err = desk.nv_eval("gc")
    found = json.loads(desk.nv_eval("gc", "--json")[1])

    assert (code, found["exit_code"]) == (7, 7)
    assert out.startswith("0 things nobody needs on local")
    assert err.count("lost0001") == 1 and f"{LOST.format(place)}{how}\n" in err
    assert found["not_looked_at"] == [{"invocation": "lost0001", "place": place, "run": "interrupted"}]


def test_what_ended_was_cleaned_or_ran_only_here_is_not_named(desk: Desk) -> None:
    begun("ended001", "local", "deepinfra").record("ended001", Fact.RUN_ENDED, exit_code=0, leftovers=[])
    begun("clean001", "local", "deepinfra").record("clean001", Fact.CLEANED)
    begun("here0001", "local", "vllm")

    code, _, err = desk.nv_eval("gc")

    assert (code, "may still" in err) == (0, False)


def test_a_run_that_ended_with_something_left_is_named(desk: Desk) -> None:
    begun("lost0001", "local", "deepinfra").record("lost0001", Fact.RUN_ENDED, exit_code=5, leftovers=["e"])

    code, _, err = desk.nv_eval("gc")

    assert (code, LOST.format("deepinfra") in err) == (7, True)


def test_who_says_where_to_look_is_not_told_of_other_places(desk: Desk) -> None:
    begun("lost0001", "local", "deepinfra")

    assert desk.nv_eval("gc", "--place", "local")[0] == 0


# --- what the journal learns ------------------------------------------------------------------------------------------

HERE = "the DeepInfra account me at https://api.deepinfra.com"


@dataclass
class Own(Account):
    """An account that says whose it is."""

    place: str = HERE

    async def identify(self) -> None:
        pass


def collected(
    monkeypatch: pytest.MonkeyPatch, own: Own, kinds: tuple[str, ...] = ("local", "deepinfra"), *, ran: str = HERE
) -> tuple[str | None, bool | None]:
    """The last fact of a run whose expired endpoint was removed, and whether anything of it may run."""
    journal = begun("a1b2c3d4", "local", "deepinfra", place=ran, age=3600.0)
    own.things.append(endpoint("forgotten", expires_in=-1.0, expiry_is_ours=True))
    platforms = {"local": FakePlatform(name="local"), "deepinfra": own}
    monkeypatch.setattr("launcher.orchestrator.removal.open_platform", lambda place, _: platforms[place.type])
    places = [{"local": Local(), "deepinfra": DeepInfraAccount()}[kind] for kind in kinds]

    run_virtual(collect(places, Rules(), remove=True, timeout=60.0, journal=journal))

    assert "forgotten" not in [thing.name for thing in own.things]
    return journal.facts("a1b2c3d4")[-1].kind, of(journal, journal.find("a1b2")).tasks[0].alive


def test_a_run_of_which_everything_was_removed_is_known_to_be_gone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert collected(monkeypatch, Own()) == (Fact.CLEANED, False)
    assert Journal.default().lease("a1b2c3d4") is None


def test_it_stays_unknown_while_more_may_appear_and_is_known_to_be_gone_at_a_later_look(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Own(create_grace=7200.0)
    assert collected(monkeypatch, own) == (Fact.INTEND_CREATE_ENDPOINT, None)
    own.create_grace = 30.0

    journal = Journal.default()
    places = [Local(), DeepInfraAccount()]
    run_virtual(collect(places, Rules(), remove=False, timeout=60.0, journal=journal))
    assert journal.last("a1b2c3d4", Fact.CLEANED) is None, "a dry run changes nothing"
    run_virtual(collect(places, Rules(), remove=True, timeout=60.0, journal=journal))

    assert journal.last("a1b2c3d4", Fact.CLEANED) is not None


def test_it_stays_unknown_while_something_is_kept(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Own(things=[endpoint("kept", launcher_alive=True)])

    assert collected(monkeypatch, own)[1] is None


def test_it_stays_unknown_where_a_place_was_not_looked_at(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert collected(monkeypatch, Own(), ("deepinfra",))[1] is None


def test_it_stays_unknown_where_it_ran_in_another_account(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert collected(monkeypatch, Own(), ran=HERE.replace("me", "you"))[1] is None
    (other,) = unlooked(Journal.default(), [Look(kind="local"), Look(kind="deepinfra", place=HERE)])
    assert str(other).startswith(f"a1b2c3d4 ran on deepinfra, but not in {HERE}: it may still have something there")


def test_a_place_that_there_is_not_is_refused(desk: Desk) -> None:
    code, _, err = desk.nv_eval("gc", "--place", "moon")

    assert code == 2
    assert "argument --place: invalid choice: 'moon'" in err
