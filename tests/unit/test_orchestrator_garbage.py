"""What `nv-eval gc` takes for garbage: the ended runs of this machine, and of others only what is old."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.orchestrator.garbage import GARBAGE, WORDS, Rules, Why
from launcher.orchestrator.journal import RunState
from launcher.platforms.base import Leftover

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
    assert {Why.RUN_ENDED, Why.LAUNCHER_GONE, Why.OLD} == GARBAGE
