"""Secrets in what jobs have left whose launcher was killed: the run that goes on and a cleanup take them out."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from launcher.config.execution import Local
from launcher.config.fields import Reference
from launcher.orchestrator.cleanup import Outcome, Wish, cleanup, find
from launcher.orchestrator.journal import Journal
from launcher.plan.model import Plan
from launcher.platforms.local.platform import LocalPlatform
from tests.contract.bench import make_plan
from tests.contract.conftest import process_bench

INVOCATION = "b0b0b0b0b0"
CANARY = "canary-8f3a1b"


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Of a run whose launcher was killed: one task had written its secret, another was scored before."""
    monkeypatch.setenv("SOME_CANARY", CANARY)
    tasks = []
    for number in (1, 2):
        task = process_bench().task(INVOCATION, number)
        run = replace(task.job.run, env={"KEY": Reference(env="SOME_CANARY")})
        tasks.append(replace(task, job=replace(task.job, run=run)))
        (tmp_path / task.key / "output" / "deep").mkdir(parents=True)
        (tmp_path / task.key / "output" / "deep" / "config.txt").write_text(f"key: {CANARY}")
    (tmp_path / tasks[1].key / "scores.json").write_text("[]")
    return make_plan(INVOCATION, tmp_path, *tasks)


def left(plan: Plan, folder: Path) -> list[str]:
    return [(folder / task.key / "output" / "deep" / "config.txt").read_text() for task in plan.tasks]


def test_a_run_that_goes_on_searches_what_the_killed_one_left(plan: Plan, tmp_path: Path) -> None:
    async def go_on() -> None:
        platform = LocalPlatform(Local(gpus=[]))
        platform.attend(lambda _: None, creates=False)
        await platform.open(plan, tmp_path)
        await platform.close()

    asyncio.run(go_on())

    assert left(plan, tmp_path) == ["key: ***", f"key: {CANARY}"], "what was scored was searched when it came home"


def test_a_cleanup_searches_it_too(plan: Plan, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.begin(
        INVOCATION,
        execution="local",
        deployment="d",
        folder=str(tmp_path),
        tasks=[task.key for task in plan.tasks],
        plan=msgspec.json.encode(plan),
        hold=False,
    )

    wish = Wish(places=[Local(gpus=[])], grace=0)
    cleaned = asyncio.run(cleanup(find(journal, INVOCATION), wish, journal))
    journal.close()

    assert cleaned.outcome is Outcome.NOTHING_LEFT
    assert left(plan, tmp_path)[0] == "key: ***"
