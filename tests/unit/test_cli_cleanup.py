"""`nv-eval cleanup` and `nv-eval gc`: what they take for arguments, where they look, and what they refuse."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import msgspec
import pytest

from launcher.cli.leftovers import described, span, table
from launcher.config.execution import Lepton, Local
from launcher.errors import NotFound
from launcher.orchestrator import cleanup
from launcher.orchestrator.cleanup import EXIT_CODES, Outcome, Wish
from launcher.orchestrator.journal import Invocation, RunState
from launcher.platforms.base import Leftover, ResourceState
from tests.unit.conftest import Desk


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORKSPACE_ID", "WORKSPACE_TOKEN", "WORKSPACE_URL", "WORKSPACE_ORIGIN_URL", "CACHE_DIR"):
        monkeypatch.delenv(f"LEPTON_{name}", raising=False)
    monkeypatch.delenv("DOCKER_HOST", raising=False)


class Known:
    """A journal as far as cleanup asks it."""

    def __init__(self, *ids: str, state: RunState = RunState.INTERRUPTED, plan: dict[str, Any] | None = None) -> None:
        self._ids, self._state, self._plan = ids, state, plan

    def invocations(self) -> list[Invocation]:
        keys: dict[str, Any] = {"execution": "lepton", "deployment": "d", "folder": "/nowhere", "host": "h"}
        return [Invocation(id=id_, created=time.time() - 100, tasks=("t",), **keys) for id_ in self._ids]

    def state(self, _: Invocation) -> RunState:
        return self._state

    def live(self, _: str) -> None:
        return None

    def facts(self, _: str) -> list[Any]:
        return []

    def plan(self, _: str) -> bytes:
        if self._plan is None:
            raise NotFound("no plan")
        return msgspec.json.encode(self._plan)


def find(journal: Known | None, word: str) -> cleanup.Target:
    return cleanup.find(journal, word)  # type: ignore[arg-type]


# --- arguments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("90s", 90), ("1.5 h", 5400), ("30min", 1800), ("30m", 1800), ("2d", 172_800)],
)
def test_times_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert span(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "-1", "3x", "inf", "nan", "1h30"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no time"):
        span(text)


def test_without_an_id_nothing_is_done(desk: Desk) -> None:
    assert desk.nv_eval("cleanup", "execution=lepton") == (
        2,
        "",
        "nv-eval: nv-eval cleanup: which invocation? see: nv-eval ls runs\n",
    )


def test_a_wrong_override_is_one_line_and_nothing_is_asked(desk: Desk) -> None:
    code, out, err = desk.nv_eval("cleanup", "abcdef01", "execution=leptn")

    assert (code, out) == (2, "")
    assert err.startswith("nv-eval: command line: execution=leptn: no such option of execution; did you mean lepton?")


@pytest.mark.parametrize("command", [["gc"], ["cleanup", "abcdef01"]], ids=["gc", "cleanup"])
def test_a_platform_without_credentials_is_one_line_where_it_is_named(desk: Desk, command: list[str]) -> None:
    code, _, err = desk.nv_eval(*command, "execution=lepton")

    assert code in (3, 7)
    assert err.startswith("nv-eval: Lepton: no workspace; log in with: nv-eval login lepton")
    assert err.count("\n") == 1


# --- an empty machine ---------------------------------------------------------------------------------------------


def test_nothing_left_is_said_with_where_nobody_looked_and_leaves_no_journal(desk: Desk) -> None:
    code, out, err = desk.nv_eval("cleanup", "abcdef01", "abcdef02")
    files = desk.files()

    assert code == 0
    assert out == "abcdef01: nothing left on local\nabcdef02: nothing left on local\n"
    assert err.startswith("nv-eval: lepton was not looked at: no workspace; log in with")
    assert all("journal" not in name for name in files)


def test_json_of_cleanup_has_all_keys(desk: Desk) -> None:
    code, out, _ = desk.nv_eval("cleanup", "abcdef01", "--json")

    found = json.loads(out)
    assert (found["schema"], found["exit_code"], code) == ("nv-eval.cleanup/1", 0, 0)
    (one,) = found["invocations"]
    assert one["outcome"] == "nothing_left"
    assert one["places"] == [
        {"platform": "local", "removed": [], "left": [], "refusals": [], "unknown": None, "unseen": [], "usd": None}
    ]


@pytest.mark.parametrize("word", ["a", "abc"])
def test_a_short_prefix_of_an_unknown_id_is_refused(desk: Desk, word: str) -> None:
    code, out, err = desk.nv_eval("cleanup", word)

    assert (code, out) == (6, "")
    assert err == f"nv-eval: {word}: not in this machine's journal; give at least 4 characters of the id\n"


# --- which invocation ---------------------------------------------------------------------------------------------


def test_a_prefix_finds_the_one_invocation_it_fits() -> None:
    target = find(Known("a1b2c3d4", "a1ffffff"), "a1b")

    assert (target.word, target.state) == ("a1b2c3d4", RunState.INTERRUPTED)
    assert target.last_sign is not None and 100 <= target.last_sign < 200


def test_a_prefix_of_several_is_refused_and_a_whole_id_is_not() -> None:
    journal = Known("a1b2", "a1b2c3d4")

    with pytest.raises(NotFound, match="a1b: fits several invocations: a1b2, a1b2c3d4"):
        find(journal, "a1b")
    assert find(journal, "a1b2").word == "a1b2"


@pytest.mark.parametrize(("word", "says"), [("", "an id is empty"), ("\udcff\udcfe123", "no such invocation")])
def test_what_cannot_be_an_id_means_none(word: str, says: str) -> None:
    for journal in (None, Known("a1b2c3d4")):
        with pytest.raises(NotFound, match=says):
            find(journal, word)


@pytest.mark.parametrize("journal", [None, Known("ffffffff")])
def test_what_the_journal_does_not_know_is_looked_for_all_the_same(journal: Known | None) -> None:
    target = find(journal, "a1b2c3d4")

    assert (target.word, target.known, target.places) == ("a1b2c3d4", None, ())


def test_the_plan_in_the_journal_says_where_to_look() -> None:
    plan = {"execution": "lepton", "config": {"execution": {"type": "lepton", "node_group": "pool"}}}

    assert find(Known("a1b2c3d4", plan=plan), "a1b2").places == [Lepton(node_group="pool")]
    assert find(Known("a1b2c3d4"), "a1b2").places == []


def test_a_plan_that_cannot_be_read_is_as_good_as_none() -> None:
    assert find(Known("a1b2c3d4", plan={"execution": "nowhere", "config": {}}), "a1b2").places == []


async def _outcome(journal: Known, *, force: bool) -> Outcome:
    wish = Wish(places=[Local()], force=force, grace=0.0)
    return (await cleanup.cleanup(find(journal, "a1b2c3d4"), wish)).outcome


@pytest.mark.anyio
async def test_a_live_launcher_is_respected_unless_forced() -> None:
    journal = Known("a1b2c3d4", state=RunState.RUNNING)

    assert await _outcome(journal, force=False) is Outcome.RUNNING
    assert await _outcome(journal, force=True) is Outcome.NOTHING_LEFT


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_every_outcome_that_is_not_well_has_its_exit_code() -> None:
    assert set(Outcome) - set(EXIT_CODES) == {Outcome.REMOVED, Outcome.NOTHING_LEFT}
    assert list(EXIT_CODES.values()) == [5, 7, 10, 6]


# --- words --------------------------------------------------------------------------------------------------------


def test_things_are_described_in_a_line() -> None:
    endpoint = Leftover(
        kind="endpoint",
        name="e",
        invocation="i",
        state=ResourceState.RUNNING,
        said="ready",
        age=7200.0,
        usd_per_hour=3.0,
    )

    assert described(endpoint) == "endpoint e (ready, 2 h old, 3.00 USD/h)"
    assert described(Leftover(kind="storage", name="/s/i", invocation="i", usd_per_hour=0.0)) == "storage /s/i"


def test_names_of_others_cannot_talk_to_the_terminal() -> None:
    evil = "x\x1b[2Jy"

    assert described(Leftover(kind="storage", name=evil, invocation="i")) == "storage xy"
    assert "\x1b" not in table(("a", "b"), [(evil, "1")])


# --- gc -----------------------------------------------------------------------------------------------------------


def test_gc_on_lepton_alone_needs_its_credentials_and_is_dry_by_default(desk: Desk) -> None:
    code, out, _ = desk.nv_eval("gc", "--json")

    found = json.loads(out)
    assert (code, found["schema"], found["dry_run"]) == (0, "nv-eval.gc/1", True)
    assert found["notes"][0].startswith("lepton was not looked at: no workspace")
    assert all(place["removed"] == [] for place in found["places"])
