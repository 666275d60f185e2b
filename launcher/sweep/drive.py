"""Run the points of a sweep side by side under common limits, in one process: new points, and the rest of old ones.

The supervisor holds the lease of the sweep; each point's run holds its own, keeps its own journal and tears down what
is its own. So a supervisor that is killed leaves nothing but invocations as any other that was killed, and resuming the
sweep is resuming those.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from launcher.config.schema import Notify
from launcher.errors import LauncherError, LeaseLost, PreflightError
from launcher.notify import Notifier
from launcher.orchestrator import sweeps
from launcher.orchestrator.blocking import Interrupts
from launcher.orchestrator.budget import WARN_AT, Bound
from launcher.orchestrator.common import Common, Shares
from launcher.orchestrator.journal import HEARTBEAT, Fact, Journal
from launcher.orchestrator.lending import Borrowed, Kept, Pool, serves
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.run import Run
from launcher.orchestrator.signals import handled, reaction
from launcher.orchestrator.state import RunOutcome, TaskState
from launcher.orchestrator.sweeps import PointState, PointStatus, SweepStatus
from launcher.plan.identity import serving
from launcher.plan.model import EndpointPlan, Plan
from launcher.platforms import open_for, open_platform
from launcher.platforms.base import BUDGET, QUOTA, CheckState, Platform
from launcher.platforms.pair import Pair
from launcher.platforms.sharing import Shared
from launcher.supervise import RunResult, Say, Supervision, stored_plan, take_up
from launcher.sweep import record
from launcher.sweep.keeping import plan_to_keep
from launcher.sweep.model import PlannedPoint, Standing, SweepPlan, names

Watcher = Callable[[list[PointStatus]], None]
Opener = Callable[[Plan], Platform]


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """A sweep that has ended: its id, how each point is, and the exit code of the command line."""

    sweep: str
    folder: str
    exit_code: int
    status: SweepStatus
    ended_by: Reason | None = None
    left: tuple[str, ...] = ()
    """Names of endpoints and jobs that may still be running."""
    problem: str = ""
    """What ended it, if that was a mistake."""


@dataclass(kw_only=True, eq=False)
class _Live:
    """One run of this process: that of a point, or of what keeps an endpoint."""

    interrupts: Interrupts
    run: Run | None = None

    @property
    def has_begun(self) -> bool:
        """Whether anything of it was asked for."""
        return self.run is not None and any(task.admitted for task in self.run.tasks)

    def stop(self, reason: Reason) -> None:
        """Ask for its end, whatever it is doing."""
        if self.run is not None:
            self.run.stop(reason)
        else:
            self.interrupts.react()

    def abandon(self) -> None:
        """Stop waiting for it."""
        if self.run is not None:
            self.run.abandon()
        else:
            self.interrupts.react()


@dataclass(kw_only=True, eq=False)
class _Used:
    """What ended runs have used."""

    usd: float = 0.0
    gpu_seconds: float = 0.0

    def add(self, outcome: RunOutcome) -> None:
        made = (*outcome.tasks, *outcome.auxiliary)
        self.usd += sum(one.usd or 0.0 for one in made)
        self.gpu_seconds += sum(one.gpu_seconds for one in made)


@dataclass(kw_only=True, eq=False)
class SweepSupervision:
    """How one sweep is run. Its points and its lease must be in the journal (`launcher.sweep.record`)."""

    plan: SweepPlan
    journal: Journal
    watcher: Watcher | None = None
    say: Say = lambda _: None
    yes: bool = False
    ends: bool = False
    """Only tear down what its invocations left."""
    done: frozenset[int] = frozenset()
    """Numbers of points that have all their scores."""
    opener: Opener | None = None
    """Opens the platform of a plan, and that of the jobs of one whose endpoints are borrowed."""
    shared: Shared = field(default_factory=Shared)
    """What the platforms of all points have in common: a control plane is asked once for all of them."""
    _live: dict[str, _Live] = field(default_factory=dict)
    _work: set[asyncio.Task[None]] = field(default_factory=set)
    _left: list[str] = field(default_factory=list)
    _codes: dict[int, int] = field(default_factory=dict)
    _ended: dict[int, PointStatus] = field(default_factory=dict)
    _used: _Used = field(default_factory=_Used)
    _warned: set[str] = field(default_factory=set)
    _stop: Reason | None = None
    _abandoned: bool = False
    _problem: str = ""
    _beaten: float = float("-inf")

    # --- the whole --------------------------------------------------------------------------------------------------

    async def run(self, interrupts: Interrupts) -> SweepResult:
        """Run to the end.

        Raises PreflightError if no point can run here as it is, LeaseLost if another has taken the sweep over.
        """
        try:
            return await self._supervise(interrupts)
        finally:
            await self.shared.end()

    async def _supervise(self, interrupts: Interrupts) -> SweepResult:
        self._event = asyncio.Event()
        self._points = {point.plan.invocation: point for point in self.plan.points}
        self._kinds: dict[str, str] = {}
        self._began = asyncio.get_running_loop().time()
        self._codes = dict.fromkeys(self.done, 0)
        self._queue = deque(self._at_first())
        settings = self.plan.settings
        self._shares = Shares(
            tasks=settings.max_parallel_tasks, endpoints=settings.max_parallel_endpoints, gpus=settings.max_gpus
        )
        self._pool = self._make_pool() if self.plan.reuses else None
        self._common = Common(self._shares, self._pool)
        if self._pool is not None:
            self._pool.changed = self._common.wake
        if not self.ends:
            await self._prepare_or_end()
        notifier = Notifier(self._notify(), self.plan.id)
        self._note_earlier()
        self.journal.record(self.plan.id, Fact.RUN_STARTED, pid=os.getpid())
        record.write(self.plan, self.journal)
        react = reaction(self, self.say)
        interrupts.react = react
        is_main = threading.current_thread() is threading.main_thread()
        with handled(self, self.say) if is_main else contextlib.nullcontext():
            try:
                self._begin_drive()
                await self._drive()
            finally:
                await self._wind_up()
        return self._finished(notifier)

    def _at_first(self) -> list[PlannedPoint]:
        """Points that wait from the beginning, in the order in which they begin."""
        return [point for point in in_order(self.plan, self.plan.open) if self._is_open(point)]

    async def _prepare_or_end(self) -> None:
        """Prepare; a sweep that is refused before anything of it has begun has ended with that."""
        try:
            await self._prepare()
        except LauncherError as error:
            if self.journal.last(self.plan.id, Fact.RUN_STARTED) is None:
                self.journal.record(self.plan.id, Fact.RUN_ENDED, exit_code=error.exit_code, error=str(error))
            raise

    async def _prepare(self) -> None:
        """What comes before anything is created. Raises PreflightError."""
        await self._check(self._queue)

    def _begin_drive(self) -> None:
        """What is under way from the beginning."""
        self._end_old_keepers()

    def _is_open(self, point: PlannedPoint) -> bool:
        """Whether there is something to do for a point."""
        if point.number in self.done:
            return False
        begun = self._begun(point)
        return not self.ends or (begun is not None and self.journal.ended(begun.id) is None)

    def _notify(self) -> Notify:
        first = next(iter(self.plan.points), None)
        return Notify() if first is None or self.ends else first.plan.notify_config()

    async def _check(self, points: Iterable[PlannedPoint]) -> None:
        """Preflight of one point of each kind: what cannot run is said before anything of them is created."""
        seen: dict[str, PlannedPoint] = {}
        for point in points:
            seen.setdefault(point.kind, point)
        problems: list[str] = []
        for point in seen.values():
            platform = self._open(point.plan)
            try:
                checks = await platform.preflight(point.plan)
                asks = any(c.name == QUOTA for c in checks)
                together = await self._quota(platform, point, points) if asks else []
            finally:
                await platform.close()
            problems += together + [
                f"point {point.number} ({point.words}): {check.message}"
                for check in checks
                if check.state is CheckState.PROBLEM and check.name not in (BUDGET, QUOTA)
            ]
        if problems:
            raise PreflightError(list(dict.fromkeys(problems)))

    async def _quota(self, platform: Platform, point: PlannedPoint, points: Iterable[PlannedPoint]) -> list[str]:
        """Whether all endpoints of a kind that may be alive at once fit into what is left, unless some are alive."""
        if any(map(self._begun, self.plan.points)):
            return []
        alike = [task for other in points if other.kind == point.kind for task in other.plan.tasks]
        tasks = tuple(alike[: self.plan.at_once])
        most = self.plan.settings.max_gpus
        checks = await platform.preflight(replace(point.plan, tasks=tasks, max_parallel_endpoints=None, max_gpus=most))
        found = [check.message for check in checks if check.state is CheckState.PROBLEM and check.name == QUOTA]
        return [text.replace("limits.max_parallel", "sweep.max_parallel") for text in found]

    def _note_earlier(self) -> None:
        """What invocations of this sweep used under an earlier supervisor counts for its limits."""
        status = sweeps.status(self.journal, sweeps.find(self.journal, self.plan.id))
        self._used.usd += status.usd or 0.0
        self._used.gpu_seconds += sum(point.gpu_seconds for point in status.points)

    async def _drive(self) -> None:
        """Begin points while there is room, until all have ended."""
        while self._queue or self._work:
            self._begin_points()
            if self._pool is not None:
                self._pool.trim()
            self._event.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._event.wait()
            self._check_limits()
            self._beat()
            if self._abandoned:
                return

    def _begin_points(self) -> None:
        while self._queue and (self.ends or self._has_room()):
            self._begin(self._queue.popleft())

    def _has_room(self) -> bool:
        """Whether tasks of points that have begun leave a place free, or soon will: one more task waits for it."""
        beginning = sum(len(p.plan.tasks) for p in self._beginning.values())
        return self._common.open_tasks() + beginning <= self.plan.settings.max_parallel_tasks

    @property
    def _beginning(self) -> dict[str, PlannedPoint]:
        return {id_: self._points[id_] for id_, live in self._live.items() if live.run is None and id_ in self._points}

    async def _wind_up(self) -> None:
        """Whatever happened: nothing of this process is left without being asked to end."""
        if self._pool is not None:
            self._pool.end_all()
        if self._work and self._stop is None and not self._abandoned:
            self.stop()
        if self._work:
            await asyncio.wait(self._work)

    def _finished(self, notifier: Notifier) -> SweepResult:
        code = self._exit_code()
        with contextlib.suppress(LauncherError):
            self.journal.record(self.plan.id, Fact.RUN_ENDED, exit_code=code, leftovers=self._left)
        self.journal.give_up_lease(self.plan.id)
        status = sweeps.status(self.journal, sweeps.find(self.journal, self.plan.id))
        record.write(self.plan, self.journal, self._standing())
        scored = status.count(PointState.SCORED, PointState.SKIPPED)
        notifier.tell(
            "finished" if code == 0 else "failed", f"{scored} of {len(status.points)} points have all their scores."
        )
        if self._left:
            notifier.tell("leftover", f"May still be running: {', '.join(self._left)}.")
        problem = notifier.wait()
        if problem is not None:
            self.say(problem)
        return SweepResult(
            sweep=self.plan.id,
            folder=self.plan.folder,
            exit_code=code,
            status=status,
            ended_by=self._stop,
            left=tuple(self._left),
            problem=self._problem,
        )

    def _standing(self) -> Standing | None:
        """What the points have given, where that is what the sweep is about."""
        return None

    def _exit_code(self) -> int:
        """That of the run of a single invocation, of all of them."""
        codes = set(self._codes.values())
        if self._left or 5 in codes or self._abandoned:
            return 5
        if 130 in codes if self.ends else self._stop is Reason.STOPPED:
            return 130
        if self._stop is Reason.LIMIT_REACHED:
            return 9
        is_whole = all(self._codes.get(point.number) == 0 for point in self.plan.open)
        return 0 if is_whole else 4

    # --- one point --------------------------------------------------------------------------------------------------

    def _begin(self, point: PlannedPoint) -> None:
        live = self._live[point.plan.invocation] = _Live(interrupts=Interrupts())
        self._spawn(self._point(point, live))

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        self._event.set()

    async def _point(self, point: PlannedPoint, live: _Live) -> None:
        """Run one point; whatever goes wrong with it is its own end, not that of the others."""
        try:
            result = await self._run(self._supervision(point, live), live)
        except asyncio.CancelledError:  # stopped before anything of it was created
            self._codes[point.number] = 130
        except LeaseLost as error:
            self._failed(point, error)
        except LauncherError as error:
            self._failed(point, error)
        except Exception as error:  # a defect: the other points go on, and this one says so
            self._failed(point, LauncherError(f"{type(error).__name__}: {error}"))
        else:
            self._took(point, result)
        finally:
            self._let_go(point, live)

    async def _run(self, supervision: Supervision, live: _Live) -> RunResult:
        try:
            return await live.interrupts.attended(supervision.run(live.interrupts))
        finally:
            self.journal.give_up_lease(supervision.plan.invocation)

    def _let_go(self, point: PlannedPoint, live: _Live) -> None:
        state = sweeps.state_of(self._codes.get(point.number))
        status = self._point_status(point, asyncio.get_running_loop().time())
        self._ended[point.number] = replace(status, state=state, exit_code=self._codes.get(point.number))
        del self._live[point.plan.invocation]
        if live.run is not None:
            self._common.leave(live.run)
        if self._pool is not None and live.run is not None:
            for task in live.run.tasks:
                if (lent := task.plan.endpoint) is not None:
                    self._pool.give_back(lent.name, serves=serves(live.run.tasks, lent.name))
            for name in names(point.plan):
                self._pool.give_back(name)
        self._show()

    def _supervision(self, point: PlannedPoint, live: _Live) -> Supervision:
        """That of a new invocation, or of the rest of one that has begun."""

        def began(run: Run) -> None:
            live.run = run
            self._common.join(run)
            if self._stop is not None:
                run.stop(self._stop)

        def say(text: str) -> None:
            if not text.startswith(("Stopping:", "Not waiting")):  # which the sweep says once
                self.say(f"{point.number}. {text}")

        keys: dict[str, Any] = {
            "yes": True,
            "admission": self._common,
            "is_alone": False,
            "began": began,
            "say": say,
            "watcher": lambda _tasks, _now: None,
        }
        found = self._begun(point)
        if found is None:
            supervision = Supervision(plan=point.plan, journal=self.journal)
        else:
            supervision = take_up(self.journal, found, point.plan, ends=self._only_ends(point))
        if self._pool is not None and point.plan.endpoints and not self._only_ends(point):
            lent = Borrowed(self._pool, lambda name: serves(live.run.tasks if live.run else (), name))
            keys["platform"] = Pair(lent, self._open_jobs(point.plan))
        elif self._pool is not None and point.plan.endpoints:
            keys["platform"] = Pair(Borrowed(_nothing()), self._open_jobs(point.plan))
        else:
            keys["platform"] = self._open(point.plan)
        return replace(supervision, **keys)

    def _only_ends(self, point: PlannedPoint) -> bool:
        """Whether a point is only torn down."""
        return self.ends or point.is_skipped

    def _open(self, plan: Plan) -> Platform:
        return open_for(plan, self.shared) if self.opener is None else self.opener(plan)

    def _open_jobs(self, plan: Plan) -> Platform:
        if self.opener is not None:
            return self.opener(plan)
        return open_platform(plan.execution_config(), plan.pricing(), self.shared)

    def _begun(self, point: PlannedPoint) -> Any:
        return next(iter(sweeps.begun(self.journal, [point.plan.invocation])), None)

    def _took(self, point: PlannedPoint, result: RunResult) -> None:
        self._codes[point.number] = result.exit_code
        self._left += result.outcome.leftovers
        if self._pool is None:
            self._used.add(result.outcome)
        scored = sum(task.status == "scored" for task in result.record.tasks)
        self.say(f"Point {point.number} ({point.words}): {scored} of {len(result.record.tasks)} tasks scored.")
        if result.exit_code != 0:
            self._apply_policy(point)

    def _failed(self, point: PlannedPoint, error: LauncherError) -> None:
        self._codes[point.number] = error.exit_code
        text = str(error).replace("\n", "; ")
        self.say(f"Point {point.number} ({point.words}): {text}")
        with contextlib.suppress(LauncherError):
            record.note(self.plan, self.journal, point, text)
        self._apply_policy(point)

    def _apply_policy(self, point: PlannedPoint) -> None:
        """What a point without all its scores means for the others."""
        policy = self.plan.settings.on_failure
        if policy == "continue" or self._stop is not None or self.ends:
            return
        others = [live for id_, live in self._live.items() if id_ in self._points and id_ != point.plan.invocation]
        if policy == "stop_new":
            others = [live for live in others if not live.has_begun]
        if self._queue or others:
            what = "the others are ended" if policy == "abort" else "no further point begins"
            self.say(f"Point {point.number} has not all its scores: {what} (sweep.on_failure: {policy}).")
        self._queue.clear()
        for live in others:
            live.stop(Reason.STOPPED)

    # --- endpoints that are lent ------------------------------------------------------------------------------------

    def _make_pool(self) -> Pool:
        return Pool(
            shares=self._shares,
            serving=self._kind,
            make=lambda kind: plan_to_keep(self._plan_with(kind), scope=self.plan.id, uses=self._uses(kind)),
            wanted=self._wanted,
            keep=self._keep,
        )

    def _plan_with(self, kind: str) -> Plan:
        """The plan of a point that uses an endpoint of a kind."""
        points = [p for p in self.plan.open if any(self._kind(endpoint) == kind for endpoint in p.plan.endpoints)]
        return points[-1].plan

    def _uses(self, kind: str) -> int:
        """Tasks that an endpoint may have to serve before it ends by itself."""
        return self._wanted(kind)

    def _kind(self, endpoint: EndpointPlan) -> str:
        """What an endpoint of a point serves, that of a further attempt as well."""
        known = self._kinds.get(endpoint.name)
        if known is None:
            plan = self._points[endpoint.name.rpartition("-")[2]].plan
            known = self._kinds[endpoint.name] = serving(plan, endpoint)
        return known

    def _wanted(self, kind: str) -> int:
        """Borrowers of a kind that are not done with it."""
        if self._stop is not None:
            return 0
        waiting = (point.plan for point in (*self._queue, *self._beginning.values()))
        count = sum(self._kind(endpoint) == kind for plan in waiting for endpoint in plan.endpoints)
        return count + sum(self._kind(endpoint) == kind for endpoint in self._unfinished())

    def _unfinished(self) -> Iterator[EndpointPlan]:
        """Endpoints that tasks of points that have begun use, or will."""
        for id_, live in self._live.items():
            if live.run is not None and id_ in self._points:
                tasks = (task for task in live.run.tasks if not (task.done or task.deleting_at is not None))
                yield from {t.plan.endpoint.name: t.plan.endpoint for t in tasks if t.plan.endpoint}.values()

    def _keep(self, kept: Kept) -> None:
        """Begin to keep an endpoint, as an invocation of its own."""
        live = self._live[kept.plan.invocation] = _Live(interrupts=Interrupts())
        kept.end = lambda: live.stop(Reason.STOPPED)
        self._spawn(self._keeper(kept, live))

    async def _keeper(self, kept: Kept, live: _Live) -> None:
        why = ""
        try:
            sweeps.host(self.journal, self.plan.id, kept.plan.invocation, kept.serving)
            platform = self.keeper_opener(kept.plan, self.journal)

            def began(run: Run) -> None:
                live.run = run
                (kept.task,) = run.tasks
                kept.tail = platform.tail
                if kept.is_leaving or self._stop is not None:
                    run.stop()

            supervision = Supervision(
                plan=kept.plan,
                journal=self.journal,
                platform=platform,
                is_alone=False,
                began=began,
                watcher=lambda tasks, _now: self._follow(kept, tasks),
                yes=True,
            )
            result = await self._run(supervision, live)
            self._left += result.outcome.leftovers
            self._used.add(result.outcome)
            why = result.outcome.tasks[0].detail or str(result.outcome.tasks[0].reason)
        except asyncio.CancelledError:
            why = "stopped"
        except Exception as error:  # whoever borrows it is told
            why = str(error) or type(error).__name__
        finally:
            del self._live[kept.plan.invocation]
            if self._pool is not None:
                self._pool.over(kept, why)

    def _follow(self, kept: Kept, tasks: list[TaskState]) -> None:
        (kept.task,) = tasks

    def keeper_opener(self, plan: Plan, journal: Journal) -> Platform:
        """The platform that keeps an endpoint."""
        from launcher.orchestrator.keeper import keeper

        return keeper(plan, journal, self.shared)

    def _end_old_keepers(self) -> None:
        """Endpoints of a supervisor that is gone: who borrowed them does not know them any more."""
        for invocation in sweeps.begun(self.journal, sweeps.hosts(self.journal, self.plan.id)):
            if self.journal.ended(invocation.id) is None:
                live = self._live[invocation.id] = _Live(interrupts=Interrupts())
                self._spawn(self._end_keeper(invocation, live))

    async def _end_keeper(self, invocation: Any, live: _Live) -> None:
        try:
            plan = stored_plan(self.journal, invocation)
            supervision = take_up(self.journal, invocation, plan, ends=True)
            supervision = replace(
                supervision, platform=self.keeper_opener(plan, self.journal), is_alone=False, watcher=None
            )
            result = await self._run(supervision, live)
            self._left += result.outcome.leftovers
        except (LauncherError, asyncio.CancelledError) as error:
            self._left.append(invocation.id)
            self.say(f"{invocation.id}: {error}")
        finally:
            del self._live[invocation.id]

    # --- limits, and who is told ------------------------------------------------------------------------------------

    def _check_limits(self) -> None:
        for bound in self._bounds():
            if bound.share >= 1.0 and self._stop is None:
                self.say(f"Limit reached: {bound}. What is scored is kept, the rest is torn down.")
                self._end_all(Reason.LIMIT_REACHED)
            elif bound.share >= WARN_AT and bound.key not in self._warned:
                self._warned.add(bound.key)
                self.say(f"Near a limit: {bound}.")

    def _bounds(self) -> list[Bound]:
        settings, now = self.plan.settings, asyncio.get_running_loop().time()
        runs = [
            live.run for id_, live in self._live.items() if live.run and (not self._pool or id_ not in self._points)
        ]
        tasks = [(task, run.plan.usd_per_gpu_hour) for run in runs for task in run.tasks]
        found: list[Bound] = []
        if settings.max_cost_usd is not None:
            usd = self._used.usd + sum(task.usd(now, price) or 0.0 for task, price in tasks)
            found.append(Bound(key="sweep.max_cost_usd", used=usd, most=settings.max_cost_usd, unit="USD"))
        if settings.max_gpu_hours is not None:
            hours = (self._used.gpu_seconds + sum(task.gpu_seconds(now) for task, _ in tasks)) / 3600
            found.append(Bound(key="sweep.max_gpu_hours", used=hours, most=settings.max_gpu_hours, unit="GPU hours"))
        if settings.max_duration is not None:
            most = settings.max_duration / 60
            found.append(Bound(key="sweep.max_duration", used=(now - self._began) / 60, most=most, unit="min"))
        return found

    def stop(self) -> None:
        """Ask for the end of all points: what is scored is kept, everything is torn down."""
        self._end_all(Reason.STOPPED)

    def _end_all(self, reason: Reason) -> None:
        if self._stop is not None:
            return
        self._stop = reason
        self._queue.clear()
        with contextlib.suppress(LauncherError):
            self.journal.record(self.plan.id, Fact.STOP_ASKED, reason=reason.value)
        for id_, live in list(self._live.items()):
            if id_ in self._points:
                live.stop(reason)
        self._event.set()

    def abandon(self) -> None:
        """Stop waiting for confirmations."""
        self._abandoned = True
        for live in list(self._live.values()):
            live.abandon()
        self._event.set()

    def _beat(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._beaten < HEARTBEAT:
            return
        self._beaten = now
        self.journal.keep_lease(self.plan.id)
        lease = self.journal.lease(self.plan.id)
        if lease is not None and lease.pid != os.getpid():
            self.say("Another nv-eval has taken this sweep over; this one stands back.")
            self.abandon()
        self._show()

    def _show(self) -> None:
        if self.watcher is None:
            return
        try:
            self.watcher(self._status())
        except Exception:  # a closed terminal or pipe must not end a sweep
            self.watcher = None

    def _status(self) -> list[PointStatus]:
        """How all points are, from what this process knows: the journal is not read for a view."""
        now = asyncio.get_running_loop().time()
        return [self._ended.get(point.number) or self._point_status(point, now) for point in self.plan.points]

    def _point_status(self, point: PlannedPoint, now: float) -> PointStatus:
        live = self._live.get(point.plan.invocation)
        tasks = live.run.tasks if live is not None and live.run is not None else []
        costs = [usd for task in tasks if (usd := task.usd(now, point.plan.usd_per_gpu_hour)) is not None]
        state = PointState.WAITING if live is None else PointState.RUNNING
        if point.is_skipped or point.number in self.done:
            state = PointState.SKIPPED
        return PointStatus(
            number=point.number,
            words=point.words,
            invocation=point.plan.invocation,
            state=state,
            note=point.note,
            scored=sum(task.collected and task.reason is Reason.COMPLETED for task in tasks),
            tasks=len(point.plan.tasks),
            usd=sum(costs) if costs else None,
            gpu_seconds=sum(task.gpu_seconds(now) for task in tasks),
        )


def in_order(plan: SweepPlan, points: Sequence[PlannedPoint]) -> list[PlannedPoint]:
    """The longest task first; with endpoints that are lent, points that use the same ones together."""
    if not plan.reuses:
        return sorted(points, key=lambda point: (-point.longest, -point.work, point.number))
    kind = {p.number: min((serving(p.plan, e) for e in p.plan.endpoints), default="") for p in points}
    longest: dict[str, float] = {}
    for point in points:
        longest[kind[point.number]] = max(longest.get(kind[point.number], 0.0), point.longest)
    return sorted(points, key=lambda p: (-longest[kind[p.number]], kind[p.number], -p.longest, -p.work, p.number))


def _nothing() -> Pool:
    """A pool that lends nothing, for runs that are only torn down."""

    def refuse(_: str) -> Plan:
        raise LauncherError("nothing is lent while a sweep is torn down")

    return Pool(shares=Shares(endpoints=0), serving=lambda _: "", make=refuse, wanted=lambda _: 0, keep=lambda _: None)
