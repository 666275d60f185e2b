"""Results of several tasks that come home at once."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher.orchestrator import collecting
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.state import TaskState
from tests.fakes.platform import FakePlatform
from tests.unit.test_orchestrator_run import make_plan


def test_what_has_no_log_and_no_results_has_a_place_for_its_scores_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(collecting, "load_harness", lambda _: SimpleNamespace(parse=lambda *_: []))
    platform = FakePlatform()
    monkeypatch.setattr(platform, "fetch", lambda *_: asyncio.sleep(0))
    (plan,) = make_plan(tmp_path, 1).tasks
    task = TaskState(plan=plan, reason=Reason.COMPLETED)

    asyncio.run(collecting.collect(platform, task, tmp_path / "results" / plan.key))

    assert (task.reason, task.detail) == (Reason.COMPLETED, "")


def test_results_are_parsed_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two threads that decode a type for the first time at once crash the process (msgspec 0.22)."""
    inside, most = 0, 0
    lock = threading.Lock()

    def parse(*_: object) -> list[object]:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.02)
        with lock:
            inside -= 1
        return []

    monkeypatch.setattr(collecting, "load_harness", lambda _: SimpleNamespace(parse=parse))
    tasks = [TaskState(plan=task, reason=Reason.COMPLETED) for task in make_plan(tmp_path, 4).tasks]

    async def scenario() -> None:
        platform = FakePlatform()
        await asyncio.gather(*(collecting.collect(platform, task, tmp_path / task.plan.key) for task in tasks))

    asyncio.run(scenario())
    assert [task.detail for task in tasks] == [""] * 4
    assert most == 1
