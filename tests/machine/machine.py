"""The machine: hypothesis draws what happens, the truths are looked at after every step."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from launcher.config.validate import validate
from launcher.errors import LauncherError, LeaseHeld, LeaseLost, NotFound
from launcher.orchestrator.journal import Journal
from launcher.orchestrator.lease import STALE
from launcher.orchestrator.reasons import Reason
from launcher.plan.build import build
from launcher.plan.model import Plan
from launcher.supervise import Supervision, stored_plan, take_up
from tests.fakes.lives import Computer, Life
from tests.fakes.world import LONGEST_EFFECT, LONGEST_LAG, NEVER, SHARED, START_TIMEOUT, Answer, Course, Fate, World
from tests.machine.truths import Truths

INVOCATION = "a1234567"
JUDGE = "judge"
LONG_ENOUGH = 20_000.0
"""Seconds of the world in which a run ends, whatever it has to wait for."""

FATES = st.builds(
    Fate,
    answer=st.sampled_from([*6 * [Answer.HEARD], Answer.LOST, Answer.REFUSED]),
    effect=st.sampled_from([0.05, 0.05, 2.0, LONGEST_EFFECT]),
    lag=st.sampled_from([0.0, 2.0, LONGEST_LAG]),
)
COURSES = st.builds(
    Course,
    boot=st.sampled_from([1.0, 1.0, 20.0, 20.0, NEVER]),
    lasts=st.sampled_from([3.0, 40.0]),
    ends=st.sampled_from(["completed", "completed", "completed", "harness_failed", "silent", "hangs"]),
    dies_after=st.sampled_from([*6 * [NEVER], 0.5, 10.0, 30.0]),
    dies_of=st.sampled_from(["crash", "memory", "preemption", "removal"]),
    deleting_takes=st.sampled_from([0.5, 15.0]),
    refusals=st.sampled_from([0, 0, 3]),
)
FUSES = st.integers(0, 60) | st.integers(0, 600)
"""Requests and journal statements until a launcher is killed."""
WAITS = st.sampled_from([0.0, 0.3, 2.0, 10.0, 60.0])
"""Seconds before a thing happens."""


@st.composite
def plans(draw: st.DrawFn) -> dict[str, object]:
    """Keys of a random plan; `judged`: how many of its tasks use an auxiliary endpoint."""
    judged = draw(st.sampled_from([0, 0, 1, 6]))
    return {
        "tasks": draw(st.integers(1, 6)),
        "sharing": draw(st.sampled_from(["dedicated", "shared"])),
        "start_jobs": draw(st.sampled_from(["as_ready", "all_ready"])),
        "judged": judged,
        "limits": {
            "max_attempts": draw(st.integers(1, 3)),
            "max_parallel_endpoints": draw(st.sampled_from([None, 2 if judged else 1, 2])),
            "max_gpu_hours": draw(st.sampled_from([None, None, 0.02, 0.2])),
            "max_duration": draw(st.sampled_from([None, None, 90.0])),
        },
    }


def make_plan(folder: Path, keys: dict[str, object]) -> Plan:
    judged = int(str(keys["judged"]))
    tasks = [{"name": f"t{i}", "auxiliary": [JUDGE] if i < judged else []} for i in range(int(str(keys["tasks"])))]
    served = {
        "type": "container",
        "model_id": "m",
        "command": "serve {port}",
        "gpus": 1,
        "start_timeout": START_TIMEOUT,
        "health_timeout": 10,
    }
    tree = {
        "execution": {"type": "local", "output_dir": str(folder), "start_jobs": keys["start_jobs"]},
        "deployment": {**served, "sharing": keys["sharing"]},
        "auxiliary": {JUDGE: {"deployment": served}} if judged else {},
        "evaluation": {"harness": "command", "command": ["bench"], "tasks": tasks, "timeout": 120},
        "limits": keys["limits"],
    }
    return build(validate(tree), INVOCATION)


class Machine(RuleBasedStateMachine):
    """See the module."""

    examples = 0
    """How many were run so far in this process."""
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).examples += 1
        self.patches = pytest.MonkeyPatch()
        self.folder = Path(tempfile.mkdtemp(prefix="nv-eval-machine-", dir=_memory()))
        self.life: Life | None = None
        self.frozen: Life | None = None
        self.limits_are_lifted = False

    @initialize(
        keys=plans(),
        courses=st.lists(st.lists(COURSES, min_size=1, max_size=3), min_size=1, max_size=3),
        fates=st.lists(FATES, min_size=1, max_size=5),
        lag=st.sampled_from([0.0, LONGEST_LAG]),
        local=st.sampled_from([False, False, False, True]),
        poll=st.sampled_from([1.0, 5.0]),
        clocks_may_jump=st.booleans(),
        deaths=st.lists(FUSES, max_size=5),
    )
    def begin(
        self,
        keys: dict[str, object],
        courses: list[list[Course]],
        fates: list[Fate],
        lag: float,
        local: bool,
        poll: float,
        clocks_may_jump: bool,
        deaths: list[int],
    ) -> None:
        self.clocks_may_jump = clocks_may_jump
        self.deaths = deaths
        plan = make_plan(self.folder / "out", keys)
        made = (*plan.tasks, *plan.helpers)
        by_task = {task.key: courses[task.index % len(courses)] for task in made}
        by_task[SHARED] = courses[0]
        self.world = World(courses=by_task, fates=fates, lag=lag, ends_with_launcher=local)
        self.computer = Computer(self.world, self.folder, INVOCATION, poll)
        self.computer.patch(self.patches)
        self.reader = Journal(self.computer.journal_path)
        self.truths = Truths(plan, self.world, self.reader)
        self.world.intended = self.truths.intended
        self.life = self.computer.new_life()
        self.truths.limited.add(self.life.number)
        self.life.begin(Supervision(plan=plan, journal=self.life.journal))
        self._go(0.0)

    # --- time and death -----------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.3, 2.0, 10.0, 60.0, 300.0]))
    def time_passes(self, seconds: float) -> None:
        self._pass(seconds)

    @precondition(lambda self: self._is_live())
    @rule(points=FUSES, within=st.sampled_from([1.0, 30.0, 300.0]))
    def dies_at_a_point(self, points: int, within: float) -> None:
        life = self.life
        assert life is not None
        life.fuse = points
        self._go(within)
        life.fuse = None

    @precondition(lambda self: self._is_live())
    @rule(turns=st.integers(0, 60), within=st.sampled_from([1.0, 30.0, 300.0]))
    def dies_at_a_turn(self, turns: int, within: float) -> None:
        life = self.life
        assert life is not None
        life.turns = turns
        self._go(within)
        life.turns = None

    @precondition(lambda self: self.clocks_may_jump)
    @rule(hours=st.sampled_from([-5.0, -0.01, 0.01, 5.0]))
    def wall_clock_jumps(self, hours: float) -> None:
        self.computer.offset += hours * 3600
        self.truths.clocks_are_true = False

    @precondition(lambda self: self.clocks_may_jump)
    @rule(seconds=st.sampled_from([30.0, 7200.0]), counts=st.booleans())
    def machine_sleeps(self, seconds: float, counts: bool) -> None:
        """Loops' clocks stand still meanwhile on Linux; elsewhere they go on (`counts`)."""
        self.world.now += seconds
        self.truths.clocks_are_true = False
        for life in (self.life, self.frozen):
            if life is not None and counts:
                life.loop._elapsed += seconds

    # --- people -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self._is_live())
    @rule(again=st.booleans(), wait=WAITS)
    def signal(self, again: bool, wait: float) -> None:
        self._pass(wait)
        life = self.life
        if life is None:
            return
        for _ in range(2 if again else 1):
            life.signal()
        self._after()

    @precondition(lambda self: not self._is_live() and self.frozen is None and self._is_begun())
    @rule(lifted=st.booleans(), ends=st.sampled_from([False, False, True]), wait=WAITS)
    def resume(self, lifted: bool, ends: bool, wait: float) -> None:
        self.world.now += wait
        self._resume(lifted=lifted, ends=ends, host=self._holder())
        self._go(0.0)

    @precondition(lambda self: self._is_live() and self._shows_life() and not self.computer.disk_is_full)
    @rule()
    def resume_beside_a_live_one(self) -> None:
        other = self.computer.new_life()
        with self.computer.seen_by(other), pytest.raises(LeaseHeld):
            self._take_up(other, lifted=False, ends=False)
        other.discard()

    # --- two supervisors ----------------------------------------------------------------------------------------------

    @precondition(lambda self: self._is_live() and self._is_begun() and self.frozen is None)
    @rule(seconds=st.sampled_from([5.0, 2 * STALE]), wait=WAITS)
    def freezes(self, seconds: float, wait: float) -> None:
        """The launcher's process is stopped, or its machine cut off."""
        self._pass(wait)
        if not self._is_live():
            return
        self.frozen, self.life = self.life, None
        self.frozen_at = self.world.now
        self.world.now += seconds

    @precondition(lambda self: self.frozen is not None and not self._is_live() and not self.computer.disk_is_full)
    @rule(host=st.sampled_from(["here", "elsewhere"]), ends=st.sampled_from([False, False, True]))
    def is_taken_over(self, host: str, ends: bool) -> None:
        self._resume(host=host, ends=ends)
        if self.frozen is not None and self.frozen.dead:
            self.frozen = None
        self._go(0.0)

    @precondition(lambda self: self.frozen is not None)
    @rule(wait=WAITS)
    def thaws(self, wait: float) -> None:
        self._pass(wait)
        assert self.frozen is not None
        frozen, self.frozen = self.frozen, None
        frozen.loop._elapsed += self.world.now - self.frozen_at
        lease = self.reader.lease(INVOCATION)
        if lease is not None and lease.pid == 1000 + frozen.number:
            self.life = frozen
            self._go(0.0)
            return
        frozen.go(120.0)
        assert frozen.ended, "a launcher that has lost its lease does not stand back"
        assert isinstance(frozen.error, LauncherError), frozen.error

    # --- faults -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.computer.disk_is_full)
    @rule(wait=WAITS)
    def disk_fills(self, wait: float) -> None:
        self._pass(wait)
        self.computer.disk_is_full = True

    @precondition(lambda self: self.computer.disk_is_full)
    @rule(wait=WAITS)
    def disk_has_room(self, wait: float) -> None:
        self._pass(wait)
        self.computer.disk_is_full = False

    @precondition(lambda self: not self.world.blind)
    @rule(wait=WAITS)
    def platform_does_not_answer(self, wait: float) -> None:
        self._pass(wait)
        self.world.blind = True

    @precondition(lambda self: self.world.blind)
    @rule(wait=WAITS)
    def platform_answers(self, wait: float) -> None:
        self._pass(wait)
        self.world.blind = False

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _is_live(self) -> bool:
        return self.life is not None and not self.life.dead

    def _is_begun(self) -> bool:
        try:
            self.reader.find(INVOCATION)
        except NotFound:
            return False
        return True

    def _pass(self, seconds: float) -> None:
        if self._is_live():
            self._go(seconds)
        else:
            self.world.now += seconds

    def _holder(self) -> str:
        """The host whose launcher held the lease last: there it can be seen whether that one still lives."""
        lease = self.reader.lease(INVOCATION)
        return lease.host if lease is not None else "here"

    def _shows_life(self) -> bool:
        lease = self.reader.lease(INVOCATION)
        return lease is not None and lease.age <= STALE

    def _go(self, seconds: float) -> None:
        if self.life is not None:
            self.life.go(seconds)
            self._after()

    def _after(self) -> None:
        if self.life is None:
            return
        self.truths.limits_hold(self.life, self.computer.poll_interval)
        if not self.life.ended:
            return
        error = self.life.error
        note(f"launcher {self.life.number} ended: {error or (self.life.result and self.life.result.exit_code)!r}")
        assert error is None or (isinstance(error, LauncherError) and not isinstance(error, LeaseLost)), error
        self.truths.told(self.life)
        self.life = None

    def _resume(self, *, host: str = "here", lifted: bool = False, ends: bool = False) -> None:
        life = self.computer.new_life(host)
        with self.computer.seen_by(life):
            try:
                supervision = self._take_up(life, lifted=lifted, ends=ends)
            except LauncherError as error:
                held = isinstance(error, LeaseHeld) and (self.frozen is not None or host != self._holder())
                assert held or self.computer.disk_is_full, error
                life.discard()
                return
            life.begin(supervision)
        self.truths.resumes += 1
        self.limits_are_lifted = self.limits_are_lifted or lifted  # the plan is kept
        self.truths.limited |= set() if self.limits_are_lifted else {life.number}
        self.life = life

    def _take_up(self, life: Life, *, lifted: bool, ends: bool) -> Supervision:
        found = life.journal.find(INVOCATION)
        plan = stored_plan(life.journal, found)
        if lifted:
            plan = dataclasses.replace(plan, max_gpu_hours=None, max_duration=None)
        return take_up(life.journal, found, plan, ends=ends)

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "truths"):
            type(self).steps += 1
            self.truths.hold()

    # --- the end ------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if hasattr(self, "truths"):
                self._finale()
        finally:
            for life in self.computer.lives if hasattr(self, "computer") else []:
                life.discard()
            if hasattr(self, "reader"):
                self.reader.close()
            self.patches.undo()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _finale(self) -> None:
        """Some more deaths; then all faults end, what lives ends, and after one last resume all is well."""
        self.computer.disk_is_full = self.world.blind = False
        if self.frozen is not None:
            self.frozen.discard()
            self.frozen = None
        self._die_on()
        self.world.healthy = True
        if self._is_live():
            self._to_the_end()
        if not self._is_begun():
            assert not self.world.things
            return
        last = self._last_resume(lifted=False)
        if last.result is not None and last.result.outcome.ended_by is Reason.LIMIT_REACHED:
            last = self._last_resume(lifted=True)
        self.truths.final(last)
        self.world.now += LONGEST_EFFECT + LONGEST_LAG
        self.truths.hold()
        assert not self.world.alive()

    def _die_on(self) -> None:
        """Be killed and resumed, again and again."""
        for fuse in self.deaths:
            if not self._is_live() and self._is_begun():
                self._resume(host=self._holder())
            if self.life is not None:
                self.life.fuse = fuse
            self._go(LONG_ENOUGH)
            self.truths.hold()

    def _last_resume(self, *, lifted: bool) -> Life:
        self._resume(lifted=lifted, host=self._holder())
        last = self.life
        assert last is not None
        self._to_the_end()
        return last

    def _to_the_end(self) -> None:
        life = self.life
        assert life is not None
        self._go(LONG_ENOUGH)
        assert life.ended, "the run does not end"
        self.truths.hold()


def _memory() -> str | None:
    """A folder in memory where there is one: a journal writes often."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
