"""Run a sweep whose points a sweeper chooses: batch by batch, each checked and recorded before any of it is created.

A sweeper is not kept across processes: it is asked again from its beginning, with its seed. What it asks for that an
earlier supervisor has run is known by its identity and answered at once; so it comes to where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from launcher.config import sweepers
from launcher.errors import ConfigError, LauncherError, TasksFailed
from launcher.orchestrator import sweeps
from launcher.orchestrator.blocking import Interrupts
from launcher.orchestrator.reasons import Reason
from launcher.results import read
from launcher.sweep import record
from launcher.sweep.asking import Answer, Asking, TrialFailed
from launcher.sweep.drive import SweepResult, SweepSupervision, in_order
from launcher.sweep.model import PlannedPoint, Standing, Study, standing
from launcher.sweep.study import Wanted, values

_AGAIN = "is not asked for again"


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """One point of a batch. `measured` is where its scores are, or will be."""

    point: PlannedPoint
    measured: str
    of: int
    """The point that runs it."""


@dataclass(kw_only=True, eq=False)
class StudySupervision(SweepSupervision):
    """How a sweep is run that has a study. The rest of an earlier supervisor's points may be in the journal."""

    _asking: Asking = field(init=False)
    _changed: asyncio.Event = field(init=False)
    _earlier: list[PlannedPoint] = field(default_factory=list)
    """Points of an earlier supervisor that the sweeper has not asked for yet."""
    _trials: list[_Trial] | None = None
    """The first batch."""
    _seen: set[str] = field(default_factory=set)
    """Kinds of points whose platforms were asked."""
    _values: dict[int, tuple[str, tuple[float, ...]]] = field(default_factory=dict)
    """Of points that have them, their words and the values of the objectives."""
    _is_choosing: bool = True
    _no_more: bool = False
    _trouble: LauncherError | None = None

    @property
    def study(self) -> Study:
        """What the sweep is about."""
        assert self.plan.study is not None
        return self.plan.study

    async def run(self, interrupts: Interrupts) -> SweepResult:
        """Run to the end, as the supervision of any sweep."""
        self._changed = asyncio.Event()
        self._asking = Asking(self.study.choice, scope=self.plan.id, folder=self.plan.folder)
        self._earlier = list(self.plan.points)
        try:
            return await super().run(interrupts)
        finally:
            self._asking.end()

    def _at_first(self) -> list[PlannedPoint]:
        return []

    async def _prepare(self) -> None:
        """Check the first batch, which comes before anything is created."""
        for note in self.study.notes:
            self.say(note)
        self._trials = await self._next()
        if self._trouble is not None:
            raise self._trouble
        if self._trials is None and self._stop is None:
            raise ConfigError(f"{sweepers.GROUP}={self.study.choice.name}: asks for no point at all")

    def _begin_drive(self) -> None:
        super()._begin_drive()
        self._spawn(self._choose())

    # --- the batches --------------------------------------------------------------------------------------------------

    async def _choose(self) -> None:
        """Give the sweeper what each of its batches gave, until it asks for no more."""
        try:
            await self._answer_all()
        except Exception as error:  # a defect: what runs goes on, and the sweep says so
            self._end_with(LauncherError(f"{type(error).__name__}: {error}"))
        finally:
            self._is_choosing = False
            self._asking.end()
        if self._stop is None and self._trouble is None and not self._no_more:
            self._drop(self._earlier)
        self._tell_best()

    async def _answer_all(self) -> None:
        trials = self._trials
        while trials is not None:
            await self._all_over(trials)
            answers = [self._answer(trial) for trial in trials]
            if self._stop is not None or self._no_more or self._abandoned:
                return
            self._asking.answer(answers)
            trials = await self._next()

    async def _all_over(self, trials: Iterable[_Trial]) -> None:
        names = {trial.point.plan.invocation for trial in trials}
        while not self._abandoned:
            self._changed.clear()
            waiting = {point.plan.invocation for point in self._queue}
            if not names & (waiting | set(self._live)):
                return
            await self._changed.wait()

    def _done(self, task: asyncio.Task[None]) -> None:
        super()._done(task)
        self._changed.set()

    async def _next(self) -> list[_Trial] | None:
        """The next batch, recorded and waiting to begin; None if there is none, for whatever reason."""
        wanted = await asyncio.to_thread(self._asking.next)
        if self._stop is not None or self._abandoned:
            return None
        if wanted is None:
            self._took_leave(self._asking.error)
            return None
        try:
            return await self._take(wanted)
        except LauncherError as error:
            self._end_with(error)
            return None

    async def _take(self, wanted: Sequence[Wanted]) -> list[_Trial] | None:
        """Begin a batch. Raises PreflightError if a point of it cannot run here; nothing of it is created then."""
        last = max((point.number for point in self.plan.points), default=0)
        batch: list[_Trial] = []
        for one in wanted:
            batch.append(self._trial(one, last + 1 + sum(trial.point.number > last for trial in batch), batch))
        new = [trial.point for trial in batch if trial.point.number > last]
        if sum(not point.is_skipped for point in (*self.plan.points, *new)) > self.plan.settings.max_points:
            self.say(f"Limit reached: sweep.max_points ({self.plan.settings.max_points}). What is scored is kept.")
            self._end_all(Reason.LIMIT_REACHED)
            return None
        to_run = self._to_run(batch, last)
        await self._check_new(to_run)
        if new:
            self._drop(self._earlier)
        batches = (*self.study.batches, *(point.number for point in new[:1]))
        self.plan = replace(self.plan, points=(*self.plan.points, *new), study=replace(self.study, batches=batches))
        self._points |= {point.plan.invocation: point for point in (*new, *to_run)}
        record.add(self.plan, self.journal, new)
        self._queue.extend(in_order(self.plan, to_run))
        self._event.set()
        self._show()
        return batch

    def _trial(self, wanted: Wanted, number: int, batch: Sequence[_Trial]) -> _Trial:
        """What a point is that is asked for: one of an earlier supervisor, one that is measured already, a new one."""
        earlier = next((point for point in self._earlier if point.identity == wanted.identity), None)
        if earlier is not None:
            self._earlier.remove(earlier)
        known = [trial.point for trial in batch] + [p for p in self.plan.points if p not in self._earlier]
        twin = next((p for p in known if p.identity == wanted.identity and self._serves_as_twin(p, batch)), None)
        if earlier is not None and not earlier.is_skipped:
            return _Trial(point=earlier, measured=earlier.plan.invocation, of=earlier.number)
        if twin is not None and twin is not earlier:
            point = earlier or self._planned(wanted, number, f"is measured as point {twin.number}")
            return _Trial(point=point, measured=twin.plan.invocation, of=twin.number)
        if earlier is not None or self.plan.settings.skip_done:
            found = sweeps.completed(self.journal, wanted.identity)
            if found is not None:
                point = earlier or self._planned(wanted, number, f"has all its scores in {found}")
                return _Trial(point=point, measured=found, of=point.number)
        point = self._planned(wanted, number)
        return _Trial(point=point, measured=point.plan.invocation, of=point.number)

    def _serves_as_twin(self, point: PlannedPoint, batch: Sequence[_Trial]) -> bool:
        """Whether the scores of a point are there, or will be with its batch."""
        is_of_batch = any(trial.point is point for trial in batch)
        return not point.is_skipped and (is_of_batch or self._codes.get(point.number) == 0)

    def _planned(self, wanted: Wanted, number: int, note: str = "") -> PlannedPoint:
        return PlannedPoint(
            number=number,
            words=wanted.words,
            identity=wanted.identity,
            plan=wanted.plan,
            note=note,
            is_skipped=bool(note),
        )

    def _to_run(self, batch: Sequence[_Trial], last: int) -> list[PlannedPoint]:
        """Points of a batch that have to be run: new ones, and of earlier ones those that no batch followed yet.

        The sweeper has been told that an earlier one failed if it went on to ask for others: it stays failed.
        """
        newest = max(self.study.batches, default=0)
        found: list[PlannedPoint] = []
        for point in (trial.point for trial in batch):
            if point.is_skipped or point.number in self._codes or point in found:
                continue
            if point.number < newest and point.number <= last:
                self._codes[point.number] = TasksFailed.exit_code
                self.say(f"Point {point.number} ({point.words}): stays without scores, as its sweeper was told.")
            else:
                found.append(point)
        return found

    async def _check_new(self, points: Sequence[PlannedPoint]) -> None:
        """Preflight of kinds of points that there were none of yet."""
        new = [point for point in points if point.kind not in self._seen]
        if new:
            await self._check(new)
            self._seen |= {point.kind for point in new}

    def _drop(self, points: Sequence[PlannedPoint]) -> None:
        """Tear down what is left of points that the sweeper, asked again, does not ask for."""
        for point in list(points):
            dropped = replace(point, note=_AGAIN, is_skipped=True)
            self.plan = replace(
                self.plan, points=tuple(dropped if p.number == point.number else p for p in self.plan.points)
            )
            if (begun := self._begun(point)) is not None and self.journal.ended(begun.id) is None:
                self._begin(dropped)
            self.say(f"Point {point.number} ({point.words}): {_AGAIN}.")
            record.keep(self.plan, self.journal, dropped)
        self._earlier = []

    # --- what the sweeper is told -------------------------------------------------------------------------------------

    def _answer(self, trial: _Trial) -> Answer:
        """Values of the objectives of a point, or why it has none."""
        if trial.of in self._codes and self._codes[trial.of] != 0:
            return TrialFailed(f"point {trial.of} has not all its scores")
        try:
            found = read.load(Path(self.journal.find(trial.measured).folder))
            given = values(self.study.objective, trial.point.plan, found)
        except LauncherError as error:
            if self._stop is None:
                self._failed(trial.point, error)
            return TrialFailed(str(error))
        self._values[trial.of] = (trial.point.words, given)
        return given

    def _apply_policy(self, point: PlannedPoint) -> None:
        if point.is_skipped and point.note == _AGAIN:
            return
        super()._apply_policy(point)
        if self.plan.settings.on_failure != "continue" and self._stop is None and not self._no_more:
            self._no_more = True
            self.say(f"{self.study.choice.name} is asked for no further point.")

    # --- the end ------------------------------------------------------------------------------------------------------

    def _took_leave(self, error: BaseException | None) -> None:
        """The sweeper has ended: by itself, since too many points failed, or by a mistake."""
        if error is None:
            return
        name = f"{sweepers.GROUP}={self.study.choice.name}"
        if isinstance(error, LauncherError):
            self._end_with(error)
        elif isinstance(error, TrialFailed) or any(code != 0 for code in self._codes.values()):
            self._no_more = True
            why = str(error) if isinstance(error, TrialFailed) else sweepers.in_a_line(error)
            self.say(f"{name} gives up: {why}.")
        else:
            problem = f"{name}: {sweepers.in_a_line(error)}"
            self._end_with(LauncherError(problem) if self._codes else ConfigError(problem))

    def _end_with(self, error: LauncherError) -> None:
        self._trouble = error
        if self._codes:
            self._problem = str(error)
            self.say(self._problem)

    def _standing(self) -> Standing:
        return standing(self.study, {number: given for number, (_, given) in sorted(self._values.items())})

    def _tell_best(self) -> None:
        """Which point is best, where there is one objective whose direction is known."""
        best = self._standing().best
        if len(self.study.objective) != 1 or not best:
            return
        words, (value,) = self._values[best[0]]
        self.say(f"Best so far: point {best[0]} ({words}): {self.study.objective[0]} {value:g}.")

    # --- endpoints that are lent --------------------------------------------------------------------------------------

    def _wanted(self, kind: str) -> int:
        """Borrowers; between two batches one of each kind, since the next batch may ask for it."""
        count = super()._wanted(kind)
        is_between = not (self._queue or self._beginning or any(True for _ in self._unfinished()))
        return 1 if count == 0 and is_between and self._is_choosing and self._stop is None else count

    def _uses(self, kind: str) -> int:  # noqa: ARG002
        """All that may still be asked for: which kinds that will be, nobody knows."""
        return self.study.most * max(len(point.plan.tasks) for point in self.plan.points)

    def _exit_code(self) -> int:
        code = super()._exit_code()
        return self._trouble.exit_code if self._trouble is not None and code in (0, TasksFailed.exit_code) else code

    def _end_all(self, reason: Reason) -> None:
        super()._end_all(reason)
        self._asking.end()
        self._changed.set()

    def abandon(self) -> None:
        """Stop waiting for confirmations."""
        super().abandon()
        self._asking.end()
        self._changed.set()
