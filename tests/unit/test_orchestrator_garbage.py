"""What `nv-eval gc` takes for garbage: the ended runs of this machine, and of others only what is old."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from launcher.config.execution import Local
from launcher.orchestrator.garbage import GARBAGE, WORDS, Rules, Why, collect, kept_of
from launcher.orchestrator.journal import Fact, Journal, RunState
from launcher.platforms.base import Leftover
from tests.fakes.clock import run_virtual
from tests.fakes.platform import FakePlatform

HOUR, DAY = 3600.0, 86_400.0
RUNS = {
    "running1": RunState.RUNNING,
    "finished": RunState.FINISHED,
    "crashed1": RunState.INTERRUPTED,
    "remote01": RunState.UNKNOWN,
}


def left(invocation: str = "stranger", kind: Any = "endpoint", age: float | None = HOUR, **keys: Any) -> Leftover:
    return Leftover(kind=kind, name="x", invocation=invocation, age=age, **keys)


@pytest.mark.parametrize(
    ("thing", "rules", "why"),
    [
        (left("running1", age=30 * DAY), {}, Why.RUNNING),
        (left("finished", age=1.0), {}, Why.RUN_ENDED),
        (left("crashed1", age=1.0), {}, Why.LAUNCHER_GONE),
        (left("remote01"), {}, Why.YOUNG),
        (left("remote01", age=2 * DAY), {}, Why.OLD),
        (left(), {}, Why.YOUNG),
        (left(age=DAY), {}, Why.OLD),
        (left(age=HOUR), {"older_than": HOUR}, Why.OLD),
        (left(age=None), {}, Why.AGE_UNKNOWN),
        (left(age=None), {"older_than": 0.0}, Why.OLD),
        (left(age=30 * DAY, launcher_alive=True), {"older_than": 0.0}, Why.RUNNING),
        (left("finished", launcher_alive=True), {}, Why.RUNNING),
        (left(age=1.0, launcher_alive=False), {}, Why.LAUNCHER_GONE),
        (left("running1", launcher_alive=False), {}, Why.RUNNING),
        (left("finished", kind="job", is_record=True), {}, Why.RECORD),
        (left("finished", kind="storage"), {}, Why.STORAGE),
        (left("finished", kind="storage"), {"storage": True}, Why.RUN_ENDED),
        (left("running1", kind="storage"), {"storage": True}, Why.RUNNING),
        (left(kind="storage", age=None), {"storage": True, "older_than": 0.0}, Why.STORAGE_UNKNOWN),
        (left("remote01", kind="storage", age=30 * DAY), {"storage": True}, Why.STORAGE_UNKNOWN),
    ],
)
def test_each_thing_gets_its_verdict(thing: Leftover, rules: dict[str, Any], why: Why) -> None:
    assert Rules(runs=RUNS, **rules).judge(thing) is why


def test_every_verdict_has_words_and_garbage_is_only_what_ended_or_is_old() -> None:
    assert set(WORDS) == set(Why)
    assert {Why.RUN_ENDED, Why.LAUNCHER_GONE, Why.EXPIRED, Why.OLD} == GARBAGE


def expiring(invocation: str, seconds: float, **keys: Any) -> Leftover:
    """An endpoint whose name says when gc may end it."""
    return left(invocation, expires_in=seconds, expiry_is_ours=True, **keys)


@pytest.mark.parametrize(
    ("thing", "rules", "why"),
    [
        (expiring("stranger", -1.0, age=1.0), {}, Why.EXPIRED),
        (expiring("stranger", 0.0), {}, Why.EXPIRED),
        (expiring("stranger", 60.0, age=30 * DAY), {"older_than": 0.0}, Why.NOT_EXPIRED),
        (expiring("stranger", 60.0, launcher_alive=False), {}, Why.NOT_EXPIRED),
        (expiring("remote01", 60.0, age=30 * DAY), {}, Why.NOT_EXPIRED),
        (expiring("remote01", -60.0), {}, Why.EXPIRED),
        (expiring("running1", -60.0), {}, Why.RUNNING),
        (expiring("running1", -60.0), {"hung": {"running1"}}, Why.EXPIRED),
        (expiring("running1", 60.0), {"hung": {"running1"}}, Why.RUNNING),
        (left("running1", expires_in=-60.0), {"hung": {"running1"}}, Why.RUNNING),
        (expiring("stranger", -60.0, launcher_alive=True), {}, Why.RUNNING),
        (expiring("crashed1", 60.0), {}, Why.LAUNCHER_GONE),
        (expiring("finished", 60.0), {}, Why.RUN_ENDED),
        (expiring("crashed1", 60.0), {"kept": {"crashed1"}}, Why.NOT_EXPIRED),
        (expiring("crashed1", -60.0), {"kept": {"crashed1"}}, Why.EXPIRED),
        (expiring("running1", 60.0), {"kept": {"running1"}}, Why.RUNNING),
        (expiring("finished", 60.0), {"kept": {"finished"}}, Why.RUN_ENDED),
        (left("stranger", expires_in=-60.0), {}, Why.YOUNG),
        (left("stranger", age=DAY, expires_in=60.0), {}, Why.OLD),
    ],
)
def test_an_expiry_of_ours_decides_unless_the_run_is_known_to_live_or_to_have_ended(
    thing: Leftover, rules: dict[str, Any], why: Why
) -> None:
    assert Rules(runs=RUNS, **rules).judge(thing) is why


def test_what_never_gets_old_is_kept_whatever_its_age() -> None:
    assert Rules(older_than=math.inf).judge(left(age=1000 * DAY)) is Why.YOUNG
    assert Rules(older_than=math.inf).judge(left(age=None)) is Why.AGE_UNKNOWN


def test_the_journal_tells_endpoints_that_are_kept_from_runs(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    for invocation in ("kept0001", "run00001"):
        journal.begin(invocation, execution="local", deployment="m", folder=str(tmp_path), tasks=["t"])
    journal.record("kept0001", Fact.ENDPOINT_KEPT, "t", "endpoint", expires=0)
    journal.record("run00001", Fact.RUN_STARTED)

    assert kept_of(journal) == {"kept0001"}
    assert kept_of(None) == frozenset()


@dataclass
class Metered(FakePlatform):
    """A platform with a meter: what it has costs 3 USD each hour."""

    things: list[Leftover] = field(default_factory=list)

    async def sweep(self, invocation: str = "") -> list[Leftover]:
        return [thing for thing in self.things if thing.invocation.startswith(invocation)]

    async def remove(self, leftover: Leftover) -> None:
        self.things.remove(next(thing for thing in self.things if thing.id == leftover.id))


def test_the_collection_says_what_the_removed_things_have_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = Metered()
    platform.things = [
        expiring("stranger", -1.0, id="a", usd=250.5),
        expiring("stranger", -1.0, id="b", usd=1.25),
        expiring("stranger", 60.0, id="c", usd=7.0),
        expiring("stranger", -1.0, id="d"),
    ]
    monkeypatch.setattr("launcher.orchestrator.removal.open_platform", lambda *_: platform)

    dry = run_virtual(collect([Local()], Rules(), remove=False, timeout=60.0))
    done = run_virtual(collect([Local()], Rules(), remove=True, timeout=60.0))

    assert dry.usd is None
    assert done.usd == 251.75
    assert [left.id for left in platform.things] == ["c"]
