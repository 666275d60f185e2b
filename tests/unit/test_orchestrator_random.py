"""Random lives of a run: boots, deaths, lost answers, blind spells, refused deletes, stops, on a virtual clock."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.errors import PlatformError
from launcher.orchestrator.journal import Fact, Journal
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.run import Run
from launcher.orchestrator.state import RunOutcome
from launcher.platforms.base import Capacity, Observation, Resource
from tests.fakes.clock import run_virtual
from tests.fakes.platform import FakePlatform, Script
from tests.unit.test_orchestrator_run import make_plan

GOOD = Script().results
SCRIPTS = st.builds(
    Script,
    boot=st.sampled_from([0.1, 1.0, 20.0]),
    lasts=st.sampled_from([0.05, 3.0, 30.0, 200.0]),
    endpoint_dies_after=st.sampled_from([None, None, None, 0.3, 10.0]),
    reason=st.sampled_from(["completed", "completed", "harness_failed", "a_word_of_a_later_version"]),
    create_fails=st.sampled_from([False, False, False, True]),
    created_but_unheard=st.sampled_from([False, False, False, True]),
    submit_fails=st.sampled_from([False, False, False, True]),
    delete_refusals=st.sampled_from([0, 0, 2, 10]),
    deleting_takes=st.sampled_from([0.1, 3.0, 30.0]),
    silent_end=st.sampled_from([False, False, False, True]),
    results=st.sampled_from([GOOD, GOOD, "{bad", '{"schema": "x"}']),
)


class Wild(FakePlatform):
    """Answers late, answers lost, answers stale, and times without any."""

    def __init__(self, chance: random.Random, scripts: dict[str, Script], capacity: Capacity) -> None:
        super().__init__(scripts, capacity)
        self.chance = chance
        self.blind = [(start, start + chance.random() * 40) for start in (chance.random() * 60 for _ in range(2))]

    async def _maybe_wait(self, odds: float, longest: float) -> None:
        if self.chance.random() < odds:
            await asyncio.sleep(self.chance.random() * longest)

    async def create_endpoint(self, task, spec) -> Resource:
        await self._maybe_wait(0.3, 5)
        return await super().create_endpoint(task, spec)

    async def submit_job(self, task, spec, url) -> Resource:
        await self._maybe_wait(0.2, 5)
        made = await super().submit_job(task, spec, url)
        if self.chance.random() < 0.1:
            raise PlatformError("the answer was lost")
        return made

    async def observe(self) -> Observation:
        await self._maybe_wait(0.1, 2)
        now = asyncio.get_running_loop().time()
        if any(start <= now < end for start, end in self.blind):
            raise PlatformError("no answer")
        seen = await super().observe()
        await self._maybe_wait(0.2, 2)
        return seen


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scripts=st.lists(SCRIPTS, min_size=1, max_size=6),
    gpus=st.sampled_from([None, 1, 2]),
    stop_at=st.one_of(st.none(), st.floats(0, 60)),
    seed=st.integers(0, 2**32),
)
def test_every_life_ends_told_and_leaves_nothing_untold(
    tmp_path_factory, scripts: list[Script], gpus: int | None, stop_at: float | None, seed: int
):
    folder: Path = tmp_path_factory.mktemp("life")
    platform = Wild(random.Random(seed), {f"t{i}": s for i, s in enumerate(scripts)}, Capacity(gpus=gpus))
    journal = Journal(folder / "journal.db")
    run = Run(make_plan(folder, len(scripts)), platform, journal)

    async def scenario() -> RunOutcome:
        if stop_at is not None:
            asyncio.get_running_loop().call_later(stop_at, run.stop)
        return await asyncio.wait_for(run.run(), 20_000)

    outcome = run_virtual(scenario())
    assert platform.left is not None and set(platform.left) <= set(outcome.leftovers)
    assert platform.most_alive <= (gpus or len(scripts))
    facts = journal.facts("a1234567")
    journal.close()
    for task in run.tasks:
        kinds = [fact.kind for fact in facts if fact.task == task.plan.key]
        assert kinds.count(Fact.TASK_ENDED) == 1
        assert kinds.count(Fact.TASK_GONE) + kinds.count(Fact.LEFTOVER) == 1
        if Fact.ENDPOINT_CREATED in kinds:
            assert kinds.index(Fact.INTEND_CREATE_ENDPOINT) < kinds.index(Fact.ENDPOINT_CREATED)
        assert (task.reason is Reason.COMPLETED) == bool(task.scores)
        if stop_at is None and not outcome.leftovers:
            assert task.admitted
