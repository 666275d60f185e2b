"""Drive the tasks of one plan: look at the world, take each task's next step, look again.

Every request that changes the world is preceded by its intent in the journal. Steps of different tasks run side by
side; a task has at most one step under way. Only what the platform shows counts: an endpoint is gone when the platform
says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from launcher.errors import LauncherError, LeaseLost
from launcher.orchestrator import budget
from launcher.orchestrator.admission import Admission, Alone
from launcher.orchestrator.auxiliary import Auxiliaries
from launcher.orchestrator.collecting import collect, put_away
from launcher.orchestrator.decide import ENDED, Action, Claim, Step, World, decide, is_gone, time_out
from launcher.orchestrator.journal import HEARTBEAT, Entry, Fact, Journal
from launcher.orchestrator.probing import EndpointProblem, Probes
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.recover import recover
from launcher.orchestrator.retry import delay
from launcher.orchestrator.scribe import Scribe
from launcher.orchestrator.shared import SharedEndpoints
from launcher.orchestrator.state import RunOutcome, TaskState
from launcher.orchestrator.stillness import depends_on_itself, seen_of
from launcher.orchestrator.strays import Strays
from launcher.plan.addressing import addressed, with_auxiliary
from launcher.plan.attempts import attempt
from launcher.plan.model import Plan, TaskPlan
from launcher.platforms.base import Capacity, Metered, Observation, Platform, Resource, ResourceState, place_of

METER_PATIENCE = 5.0
"""Seconds that the question may take what endpoints of an earlier launcher have cost: nothing is watched meanwhile."""
LIGHT, EASE, POLL_EASE, LONGEST_EASE = 0.002, 8.0, 10.0, 1.0
"""A reaction that takes longer than LIGHT seconds is followed by a rest of EASE times that, LONGEST_EASE at most, and
by the next look after POLL_EASE times that: what each task costs must not grow with their number."""
DELETE_PATIENCE = 120.0
"""Seconds after which something that does not go away is reported as left over."""

Watcher = Callable[[list[TaskState], float], None]
Teller = Callable[[str, str], None]
"""Told of what a person should hear at once: an event's name and a sentence."""


class Run:
    """One live invocation. Time is the event loop's, so that a test can run it on a virtual clock."""

    def __init__(
        self,
        plan: Plan,
        platform: Platform,
        journal: Journal,
        *,
        watcher: Watcher | None = None,
        tell: Teller = lambda _event, _text: None,
        facts: Sequence[Entry] | None = None,
        admission: Admission | None = None,
    ) -> None:
        """Prepare a run, a new one or, with the `facts` of an invocation that has begun, the rest of that one.

        `admission` says which tasks may start where the run is not alone. `watcher` is called after each look at the
        world, with all tasks and the loop's time.
        """
        self.plan = plan
        self.folder = Path(plan.output_dir) / plan.invocation
        self._hold([TaskState(plan=task) for task in (*plan.tasks, *plan.helpers)])
        self._platform = platform
        self._journal = journal
        self._scribe = Scribe(journal, plan, self._lose, lambda text: tell("journal", text))
        self._watcher = watcher
        self._tell = tell
        self._facts = facts
        self._wake = asyncio.Event()
        self._stopped = asyncio.Event()
        self._given_up = asyncio.Event()
        self._steps: set[asyncio.Task[None]] = set()
        self._stop: Reason | None = None
        self._abandoned = False
        self._lost: LeaseLost | None = None
        self._warned: set[str] = set()
        self._has_looked = False
        self._strays = Strays(platform, DELETE_PATIENCE, self._may_remove)
        self._probes = Probes(plan.invocation, platform)
        self.capacity = Capacity()
        self._admission = admission or Alone()
        self._looking: asyncio.Future[Observation] | None = None
        self._last_seen = Observation()
        self._why_blind = ""
        self._started = 0.0
        self._effort = 0.0
        """Processor seconds that the last reaction took."""
        self._all_ended = False

    def _hold(self, tasks: list[TaskState]) -> None:
        """Take these for the state of the run: its benchmarks, then the endpoints that are auxiliary to them."""
        self.tasks = tasks
        self._going = tasks
        """Those that are not over, and some that are since the last look."""
        self._shared = SharedEndpoints(self.plan, [task for task in tasks if not task.is_auxiliary])
        self._auxiliary = Auxiliaries(tasks, self.plan.max_attempts)

    def stop(self, reason: Reason = Reason.STOPPED) -> None:
        """Ask for the end: evidence is kept, everything is torn down. Safe to call in any state, from the loop."""
        if self._stop is None:
            self._stop = reason
            self._scribe.quietly(Fact.STOP_ASKED, None, reason=reason.value)
            self._scribe.settle()
        self._probes.stop_all()
        self._stopped.set()
        self._look_no_further()

    def abandon(self) -> None:
        """Stop waiting for confirmations; what may be left is in the outcome."""
        self._abandoned = True
        self._given_up.set()
        self._look_no_further()

    def wake(self) -> None:
        """Look again at once."""
        self._wake.set()

    def _look_no_further(self) -> None:
        """A look may wait long for a platform that does not answer; the person does not."""
        if self._looking is not None:
            self._looking.cancel()
        self._wake.set()

    async def run(self) -> RunOutcome:
        """Run to the end and tear down.

        Raises:
            LauncherError: the journal cannot be written, or the platform cannot be prepared; nothing was created.
            LeaseLost: another process has become the supervisor; what exists is that one's to end.
        """
        self._begin()
        self._recover()
        try:
            if await self._open():
                await self._note_what_was_spent()
                await self._loop()
        except LauncherError as error:
            self._scribe.quietly(Fact.RUN_ENDED, None, exit_code=error.exit_code, error=str(error))
            self._scribe.settle()
            raise
        except Exception:  # a defect: nobody confirms what goes, but nothing is left without being asked to go
            await self._ask_all_to_go()
            raise
        finally:
            await self._close()
        self._stand_back()
        outcome = self._finish()
        self._stand_back()  # its last words may be the first that are refused
        return outcome

    def _stand_back(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _begin(self) -> None:
        self._started = _now()
        if self._facts is None:
            self._journal.begin(
                self.plan.invocation,
                execution=self.plan.execution,
                deployment=self.plan.deployment,
                folder=str(self.folder),
                tasks=[task.key for task in self.plan.tasks],
                plan=msgspec.json.encode(self.plan),
            )
        self._journal.record(self.plan.invocation, Fact.RUN_STARTED, **self._self())

    def _self(self) -> dict[str, Any]:
        """What a later launcher has to know of this one."""
        said = {"pid": os.getpid(), "resumed": bool(self._facts), "place": place_of(self._platform)}
        return {**said, "auxiliary": helpers} if (helpers := [one.key for one in self.plan.helpers]) else said

    async def _open(self) -> bool:
        """Prepare the platform; false if the run was stopped meanwhile. It may take long: weights come, GPUs are busy.

        Where an earlier launcher may have left something, only a second signal keeps from preparing what removes it.
        """
        something_left = bool(self._facts) and not self._platform.close_ends_all
        opening = asyncio.ensure_future(self._platform.open(self.plan, self.folder))
        stopping = asyncio.ensure_future((self._given_up if something_left else self._stopped).wait())
        while not opening.done() and not stopping.done():
            await asyncio.wait({opening, stopping}, timeout=HEARTBEAT, return_when=asyncio.FIRST_COMPLETED)
            self._check_limits()
            self._beat()
        stopping.cancel()
        if opening.done():
            self.capacity = opening.result()
            return True
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        return False

    def _recover(self) -> None:
        """Take up what an earlier launcher left, if this run continues another."""
        if not self._facts:
            return
        platform = self._platform
        self._hold(recover(self.plan, self._facts, self.folder, now=_now(), grace=platform.create_grace))
        if platform.close_ends_all:
            self._shared.end_all()
        for task in self.tasks:
            had_something = task.admitted or task.endpoint_wanted
            if platform.close_ends_all and had_something and task.reason is None:
                self._end(task, Reason.LAUNCHER_DIED, "")
            elif platform.close_ends_jobs and task.reason is None:
                task.forget_job()  # it ended with its launcher; the endpoint, which lives, gets it again
            elif task.reason is not None and task.ended_at is None:  # the journal does not say so yet
                self._end(task, task.reason, task.detail)

    async def _note_what_was_spent(self) -> None:
        """What endpoints of an earlier launcher have cost: one that is gone is in no observation."""
        made = {task.plan.endpoint.name: task for task in self.tasks if task.endpoint_id and task.plan.endpoint}
        if not made or not isinstance(self._platform, Metered):
            return
        ids = {name: task.endpoint_id for name, task in made.items()}
        shapes = {name: task.plan.endpoint.shape or "" for name, task in made.items() if task.plan.endpoint}
        with contextlib.suppress(Exception):  # costs keep nothing from going on, least of all a teardown
            async with asyncio.timeout(METER_PATIENCE):
                for name, usd in (await self._platform.spent(ids, shapes)).items():
                    made[name].note_cost(usd)

    async def _loop(self) -> None:
        while not (all(task.done for task in self._going) and not self._strays) and not self._abandoned:
            self._wake.clear()
            await self._tick()
            self._beat()
            if self._effort > LIGHT:  # a look at thousands of tasks serves all that happened meanwhile
                await asyncio.sleep(min(EASE * self._effort, LONGEST_EASE))
            if not self._wake.is_set():
                await self._wait()

    async def _wait(self) -> None:
        """Until a step has ended or it is time to look again."""
        try:
            async with asyncio.timeout(max(self._platform.poll_interval, POLL_EASE * self._effort)):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _tick(self) -> None:
        """One look at the world and one step for each task that is not in the middle of one."""
        began = time.thread_time()
        self._going = [task for task in self._going if not (task.done and task.is_over)]
        settled = [task for task in self._going if not task.busy]
        spent = time.thread_time() - began
        seen = await self._look()
        began = time.thread_time()
        self._react(settled, seen)
        self._effort = spent + time.thread_time() - began

    def _react(self, settled: list[TaskState], seen: Observation | None) -> None:
        """Act on the difference between what is seen and what is wanted."""
        self._check_limits()
        sees_all = seen is not None and not seen.endpoints_unknown
        if not sees_all and self._facts and not self._has_looked and self._stop is None:
            return  # what an earlier launcher left is not known yet
        self._has_looked = self._has_looked or sees_all
        if self._stop is None and sees_all and (self._admission.minds_others or _any_waits(settled)):
            self._admit()
        now = _now()
        moving = self._moving(settled, seen, now)
        for task in moving:
            if seen is not None:
                self._note(task, seen, now)
            elif self._why_blind:
                task.waiting_for = f"the platform cannot be asked: {self._why_blind}"
        if seen is not None and sees_all:
            self._strays.look(seen, self.tasks, self._spawn)
        barrier = self.plan.start_jobs == "all_ready" and not self._barrier_open()
        for task in moving:
            step = decide(task, self._world(task, seen, now, barrier))
            if step is not None:
                self._start(task, step)
            elif seen is not None and sees_all:
                self._leave(task, seen)

    def _moving(self, settled: list[TaskState], seen: Observation | None, now: float) -> list[TaskState]:
        """Those of which something has changed, or whose time has come."""
        if seen is None or seen.endpoints_unknown or self._stop is not None:
            return settled
        return [task for task in settled if task.still is None or not task.still.holds(seen, now)]

    def _leave(self, task: TaskState, seen: Observation) -> None:
        """Pass over a task that was told to wait until something of it changes, unless others may change its step."""
        alone = self.plan.start_jobs != "all_ready" and not self.plan.helpers and depends_on_itself(task.plan)
        if alone and task.reason is None and not task.recovered and self._stop is None:
            task.still = seen_of(task.plan, seen, time_out(task))

    async def _look(self) -> Observation | None:
        """The world; None if the platform cannot be asked: unknown is not gone."""
        self._looking = asyncio.ensure_future(self._platform.observe())
        await asyncio.wait({self._looking})
        if self._looking.cancelled():
            return None
        try:
            seen = self._looking.result()
        except Exception as error:  # whatever keeps us from seeing must not keep us from tearing down
            self._why_blind = str(error) or type(error).__name__
            return None
        self._why_blind = ""
        self._last_seen = self._last_seen if seen.endpoints_unknown else seen
        return seen

    def _admit(self) -> None:
        for task in self._admission.admit(self, _now()):
            task.admitted = True
            if task.endpoint_created:  # kept from the attempt before
                task.started_at = _now()
        if all(task.done or not task.admitted for task in self.tasks) and self._admission.is_stuck(self, _now()):
            for task in self.tasks:
                waits = (task.not_before or 0.0) > _now() or not self._auxiliary.may_come(task, _now())
                if not task.admitted and task.reason is None and not waits and not task.is_auxiliary:
                    self._end(task, Reason.ENDPOINT_NOT_CREATED, "what it needs is held by something that will not go")

    def _check_limits(self) -> None:
        """Warn where a bound is near, end the run where one is reached."""
        now = _now()
        for bound in budget.bounds(self.plan, self.tasks, now=now, elapsed=now - self._started):
            if bound.share >= 1.0 and self._stop is None:
                self._tell("budget", f"Limit reached: {bound}. What is scored is kept, the rest is torn down.")
                self.stop(Reason.LIMIT_REACHED)
            elif bound.share >= budget.WARN_AT and bound.key not in self._warned:
                self._warned.add(bound.key)
                self._scribe.quietly(Fact.BUDGET_WARNING, None, bound.key, used=bound.used, most=bound.most)
                self._tell("budget", f"Near a limit: {bound}.")

    def _note(self, task: TaskState, seen: Observation, now: float) -> None:
        """Keep what the world shows of a task's address and progress; adopt what an earlier launcher made for it."""
        endpoint = task.plan.endpoint
        made = seen.endpoints.get(endpoint.name) if endpoint else None
        job = seen.jobs.get(task.plan.job.name)
        if task.recovered and not task.done:
            self._adopt(task, made, job)
        if made is not None:
            task.url, task.model = made.url or task.url, made.model or task.model
            task.note_cost(made.usd)
            task.note_ran(made.ran)
            queues = task.plan.job.queue_timeout > 0  # elsewhere what waits may cost already
            task.note_queue(now, waits=queues and made.state is ResourceState.PENDING)
        certain = task.collected and now >= task.unheard_until
        if certain and task.job_submitted and is_gone(job):
            task.job_wanted = False
        if certain and task.endpoint_created and endpoint and is_gone(made) and not seen.endpoints_unknown:
            task.endpoint_wanted = False
        task.waiting_for = _waiting_for(task, made, job) or seen.endpoints_unknown
        if job is None or job.progress is None:
            return
        task.progress = job.progress
        if job.progress.phase == "evaluating" and task.evaluating_at is None:
            task.evaluating_at = now
            self._shared.served(task)
            self._scribe.quietly(Fact.TASK_EVALUATING, task)

    def _adopt(self, task: TaskState, endpoint: Resource | None, job: Resource | None) -> None:
        """What exists under a task's names is the task's, whatever the journal knows of it."""
        if endpoint is not None and not is_gone(endpoint) and not task.endpoint_created:
            self._scribe.quietly(Fact.INTEND_CREATE_ENDPOINT, task, endpoint.name)
            self._scribe.quietly(Fact.ENDPOINT_CREATED, task, endpoint.name, id=endpoint.id, adopted=True)
            task.admitted = task.endpoint_wanted = task.endpoint_created = True
            self._shared.use(task, _now(), is_made=True)
        if job is not None and not is_gone(job) and not task.job_submitted:
            self._scribe.quietly(Fact.INTEND_SUBMIT_JOB, task, job.name)
            self._scribe.quietly(Fact.JOB_SUBMITTED, task, job.name, id=job.id, adopted=True)
            task.admitted = task.job_wanted = task.job_submitted = True
        if task.admitted and task.started_at is None:
            task.started_at = _now()
        if task.heard and (endpoint or not task.endpoint_wanted) and (job or not task.job_wanted):
            task.unheard_until = 0.0

    def _world(self, task: TaskState, seen: Observation | None, now: float, barrier: bool) -> World:
        endpoint, job = task.plan.endpoint, task.plan.job.name
        is_needed = not task.is_auxiliary or self._auxiliary.is_needed(task, self._tries_again)
        if seen is None:
            return World(
                now=now,
                stop=self._stop,
                blind=True,
                why_blind=self._why_blind,
                claim=self._claim(task),
                is_needed=is_needed,
            )
        unknown, made = bool(seen.endpoints_unknown), task.endpoint_created
        return World(
            now=now,
            endpoint=None if endpoint is None or unknown else _found(task, seen.endpoints, endpoint.name, made, now),
            endpoints_unknown=unknown,
            job=_found(task, seen.jobs, job, task.job_submitted, now),
            stop=self._stop,
            grace=self._platform.create_grace,
            claim=self._claim(task),
            has_served=task.ready if task.is_auxiliary else self._shared.has_served(task),
            auxiliary=self._auxiliary.failed(task, seen) if task.plan.auxiliary else None,
            follows_auxiliary=self._auxiliary.precede(task),
            awaits_auxiliary=bool(task.plan.auxiliary) and self._auxiliary.awaited(task),
            is_needed=is_needed,
            barrier=barrier,
            probe_first=self.plan.start_jobs == "all_ready",
        )

    def _claim(self, task: TaskState) -> Claim:
        """Who needs the endpoint of a task that has ended; one that cannot let go of its job keeps it not for ever."""
        if not task.collected:
            return Claim.NOBODY
        return self._shared.claim(task, tries_again=self._keeps_endpoint(task))

    def _keeps_endpoint(self, task: TaskState) -> bool:
        """Whether the next attempt of a task that has ended can use the shared endpoint of this one."""
        stuck = task.deleting_at is not None and _now() - task.deleting_at > DELETE_PATIENCE / 2
        return self._tries_again(task) and self._is_healthy(task) and not stuck

    def _endpoint_may_go(self, task: TaskState) -> bool:
        """Whether nobody needs the endpoint of a task that has ended, even where others hold it still."""
        claim = self._claim(task)
        return claim is Claim.NOBODY or (claim is Claim.HELD and self._shared.is_over(task, self._keeps_endpoint))

    def _delay(self, task: TaskState) -> float | None:
        """Seconds until the next attempt of a task that has ended; None: it gets none.

        An auxiliary endpoint gets one only for those who need it; they get none if it gets none.
        """
        if self._stop is not None or self._auxiliary.is_over(task):
            return None
        if task.is_auxiliary and task.reason is not None:
            if not self._auxiliary.is_needed(task, self._tries_again):
                return None
            return 0.0 if task.reason is Reason.RELEASED else delay(task, self.plan.max_attempts)
        return delay(task, self.plan.max_attempts)

    def _tries_again(self, task: TaskState) -> bool:
        return self._delay(task) is not None

    def _is_healthy(self, task: TaskState) -> bool:
        """Whether a further attempt can use the shared endpoint of this one."""
        clock = self._shared.clock(task)
        found = self._last_seen.endpoints.get(clock.name) if clock is not None else None
        usable = clock is not None and clock.is_made and not clock.leaving
        return usable and found is not None and found.state not in ENDED and not found.fatal

    def _barrier_open(self) -> bool:
        """Whether every endpoint that may exist now answers or has failed."""
        return all(task.ready or task.reason is not None or task.done for task in self.tasks if task.admitted)

    # --- steps ------------------------------------------------------------------------------------------------------

    def _start(self, task: TaskState, step: Step) -> None:
        if step.action is Action.LET_GO:  # at once: the next task to be looked at may be the last to hold it
            task.endpoint_wanted, task.let_go = False, True
            self._wake.set()
            return
        task.busy = True
        self._spawn(self._take(task, step))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        running = asyncio.create_task(work)
        self._steps.add(running)
        running.add_done_callback(self._steps.discard)

    async def _take(self, task: TaskState, step: Step) -> None:
        """Take one step; whatever goes wrong becomes the task's reason, never its siblings' problem."""
        actions: dict[Action, Callable[[TaskState], Awaitable[None]]] = {
            Action.CREATE_ENDPOINT: self._create,
            Action.PROBE: self._start_probe,
            Action.SUBMIT_JOB: self._submit,
            Action.COLLECT: self._collect,
            Action.REMOVE: self._remove,
            Action.TRY_AGAIN: self._try_again,
            Action.FINISH: self._finish_task,
        }
        try:
            if step.action is Action.END:
                self._end(task, step.reason or Reason.LAUNCHER_ERROR, step.detail)
            else:
                await actions[step.action](task)
        except LeaseLost as error:
            self._lose(error)
        except LauncherError as error:
            self._failed(task, step.action, str(error))
        except Exception as error:  # a defect must not leave an endpoint running: record it, then tear down
            self._failed(task, step.action, f"{type(error).__name__}: {error}", Reason.LAUNCHER_ERROR)
        finally:
            task.busy = False
            self._wake.set()

    def _failed(self, task: TaskState, action: Action, detail: str, reason: Reason | None = None) -> None:
        known = {
            Action.CREATE_ENDPOINT: Reason.ENDPOINT_NOT_CREATED,
            Action.PROBE: Reason.JOB_NOT_SUBMITTED,
            Action.SUBMIT_JOB: Reason.JOB_NOT_SUBMITTED,
        }
        if task.reason is None:
            self._end(task, reason or known.get(action, Reason.LAUNCHER_ERROR), detail)

    async def _create(self, task: TaskState) -> None:
        """Create the task's endpoint; of those that share one the first does, the others find it made."""
        spec = task.plan.endpoint
        assert spec is not None
        async with self._shared.turn(task):
            self._shared.refuse(task)
            await self._scribe.record(Fact.INTEND_CREATE_ENDPOINT, task, spec.name)
            task.endpoint_wanted = True
            task.started_at = _now() if task.started_at is None else task.started_at
            self._shared.use(task, _now())
            made = None
            if not self._shared.is_made(task):
                with self._shared.making(task):
                    made = await self._platform.create_endpoint(task.plan, spec)
                task.url, task.model = made.url, made.model
            task.endpoint_created = True
            await self._scribe.record(Fact.ENDPOINT_CREATED, task, spec.name, **({"id": made.id} if made else {}))

    async def _start_probe(self, task: TaskState) -> None:
        """Probe beside the task's steps: a server that dies meanwhile must be noticed at once."""
        task.probing = True
        self._spawn(self._probe(task))

    async def _probe(self, task: TaskState) -> None:
        """Probe to the end; whatever goes wrong ends the task, or its endpoint would wait for its time-out.

        A probe may be slow to notice that its attempt is over: it says nothing of the next one.
        """
        attempt, problem = task.attempt, None
        try:
            await self._probes.answers(task)
        except Exception as error:
            problem = error
        if task.attempt == attempt:
            self._probed(task, problem)
        self._wake.set()

    def _probed(self, task: TaskState, problem: Exception | None) -> None:
        if problem is None:
            task.ready = True
            self._scribe.quietly(Fact.TASK_READY, task)
        elif isinstance(problem, EndpointProblem):
            if self._stop is None and task.reason is None:
                self._end(task, Reason(problem.reason), problem.detail)
        elif isinstance(problem, LauncherError):
            self._failed(task, Action.PROBE, str(problem))
        else:
            self._failed(task, Action.PROBE, f"{type(problem).__name__}: {problem}", Reason.LAUNCHER_ERROR)

    async def _submit(self, task: TaskState) -> None:
        if task.started_at is None:
            task.started_at = _now()
        await self._scribe.record(Fact.INTEND_SUBMIT_JOB, task, task.plan.job.name)
        task.job_wanted = True
        plan = with_auxiliary(addressed(task.plan, task.model), self._auxiliary.addresses(task))
        made = await self._platform.submit_job(plan, plan.job, plan.target.url or task.url or "")
        task.job_submitted = True
        await self._scribe.record(Fact.JOB_SUBMITTED, task, task.plan.job.name, id=made.id)

    def _end(self, task: TaskState, reason: Reason, detail: str) -> None:
        task.reason, task.detail = reason, detail
        task.ended_at = _now()
        self._probes.stop(task.plan.key)
        self._scribe.quietly(Fact.TASK_ENDED, task, reason=reason.value, detail=detail)

    async def _collect(self, task: TaskState) -> None:
        """Bring home what there is: scores of a completed job, evidence of any other end."""
        await collect(self._platform, task, self.folder / task.plan.key, self._auxiliary.of(task))
        detail = {"detail": task.detail} if task.reason is not Reason.COMPLETED else {}
        self._scribe.quietly(Fact.TASK_COLLECTED, task, reason=str(task.reason), scores=len(task.scores), **detail)

    async def _remove(self, task: TaskState) -> None:
        """Ask for the end of job and endpoint; neither waits for the other."""
        first = task.deleting_at is None
        if task.job_wanted:
            await self._ask_to_go(task, Fact.INTEND_CANCEL_JOB, task.plan.job.name, self._platform.cancel_job, first)
        if task.endpoint_wanted and task.plan.endpoint and self._endpoint_may_go(task):
            name, first = task.plan.endpoint.name, self._shared.leaves(task) or first
            await self._ask_to_go(task, Fact.INTEND_DELETE_ENDPOINT, name, self._platform.delete_endpoint, first)
        await self._confirm_gone(task)

    async def _ask_to_go(
        self, task: TaskState, intent: Fact, name: str, ask: Callable[[str], Awaitable[None]], first: bool
    ) -> None:
        if first:
            self._scribe.noted(intent, task, name)
        if self._lost is not None:
            return  # what exists under this name is another's now
        try:
            await ask(name)
        except Exception as error:  # not removed as far as we know: it is asked again
            task.detail = task.detail or str(error)

    async def _ask_all_to_go(self) -> None:
        """Ask for the end of all that there may be. The journal does not call the run ended: `resume` confirms it."""
        for task in self.tasks if self._lost is None else ():
            with contextlib.suppress(Exception):
                if task.job_wanted:
                    await self._platform.cancel_job(task.plan.job.name)
            with contextlib.suppress(Exception):
                if task.endpoint_wanted and task.plan.endpoint:
                    await self._platform.delete_endpoint(task.plan.endpoint.name)

    async def _confirm_gone(self, task: TaskState) -> None:
        """Wait a little before asking again, and give up telling the truth when it takes too long."""
        now = _now()
        task.deleting_at = now if task.deleting_at is None else task.deleting_at
        if now - task.deleting_at > DELETE_PATIENCE:
            task.done = True
            self._scribe.quietly(Fact.LEFTOVER, task)
        await asyncio.sleep(self._platform.poll_interval)

    async def _finish_task(self, task: TaskState) -> None:
        """All of an attempt is gone: the task is over, or its next attempt is queued."""
        task.gone_at = _now() if task.gone_at is None else task.gone_at
        said = self._shared.end(task, task.gone_at)
        task.endpoint_wanted = task.job_wanted = False
        if task.reason is Reason.COMPLETED:
            task.detail = ""  # a removal that was refused at first has come true
        self._scribe.quietly(Fact.TASK_GONE, task, **said)
        wait = self._delay(task)
        if wait is None:
            with self._strays.other_names(task):
                task.done = True
            return
        generation = self._shared.following(task, is_healthy=self._is_healthy(task))
        self._next_attempt(task, wait, generation)
        if generation is not None:
            self._shared.follow(generation)
            self._strays.forget_names()

    async def _try_again(self, task: TaskState) -> None:
        """The attempt is over, and the next one runs on the same endpoint, unless that was stopped meanwhile."""
        wait = self._delay(task)
        if wait is not None:
            self._next_attempt(task, wait, self._shared.generation(task), keeps_endpoint=True)

    def _next_attempt(
        self, task: TaskState, wait: float, generation: int | None, *, keeps_endpoint: bool = False
    ) -> None:
        ended, number = task.ended_attempt(), task.attempt + 1
        seconds = ended.endpoint_seconds
        said: dict[str, Any] = {
            "reason": ended.reason.value,
            "detail": ended.detail,
            "delay": wait,
            "endpoint_seconds": seconds,
            "usd": ended.usd,
            "generation": generation,
        }
        kept = task.plan.endpoint.name if keeps_endpoint and task.plan.endpoint else ""
        self._scribe.at_once(Fact.TASK_RETRY, task, kept, attempt=number, **said)
        put_away(self.folder / task.plan.key, ended.number)
        plan = attempt(self._planned(task), number, self.plan.invocation, generation=generation)
        with self._strays.other_names(task):
            task.begin_attempt(number, plan, _now() + wait, keeps_endpoint=keeps_endpoint)
        self._tell("retry", f"{task.plan.key}: attempt {number} after {ended.reason.value.replace('_', ' ')}")

    def _planned(self, task: TaskState) -> TaskPlan:
        return next(one for one in (*self.plan.tasks, *self.plan.helpers) if one.key == task.plan.key)

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _close(self) -> None:
        """Let go of the platform. On this machine that ends whatever is still alive of this invocation."""
        self._look_no_further()
        self._probes.stop_all()
        for step in self._steps:
            step.cancel()
        await asyncio.gather(*self._steps, return_exceptions=True)
        self._scribe.settle()
        try:
            await self._let_go()
        except Exception as error:  # the outcome must be told whatever the platform says at the end
            self._scribe.quietly(Fact.LEFTOVER, None, detail=str(error))
        else:
            self._all_ended = self._platform.close_ends_all
        self._scribe.settle()

    async def _let_go(self) -> None:
        """Close the platform; where that ends nothing, a person who stops waiting ends the wait for it, too."""
        closing = asyncio.ensure_future(self._platform.close(at_once=self._abandoned))
        while not closing.done():
            self._wake.clear()
            waking = asyncio.ensure_future(self._wake.wait())
            await asyncio.wait({closing, waking}, return_when=asyncio.FIRST_COMPLETED)
            waking.cancel()
            if self._abandoned and not self._platform.close_ends_all:
                closing.cancel()
                await asyncio.wait({closing})
                await self._platform.close(at_once=True)
                return
        await closing

    def _finish(self) -> RunOutcome:
        now = _now()
        for task in self.tasks:
            if task.reason is None:
                self._scribe.quietly(Fact.TASK_ENDED, task, reason=(self._stop or Reason.STOPPED).value)
        price, ended = self.plan.usd_per_gpu_hour, self._all_ended
        outcomes = [(t.is_auxiliary, t.outcome(now, self._stop, price, all_ended=ended)) for t in self.tasks]
        outcome = RunOutcome(
            invocation=self.plan.invocation,
            folder=str(self.folder),
            tasks=tuple(one for is_auxiliary, one in outcomes if not is_auxiliary),
            auxiliary=tuple(one for is_auxiliary, one in outcomes if is_auxiliary),
            seconds=now - self._started,
            ended_by=self._stop,
            strays=() if self._all_ended else tuple(self._strays.left),
        )
        self._scribe.settle()
        self._show(now)
        self._scribe.beat(self.tasks, now, force=True)
        return outcome

    def conclude(self, outcome: RunOutcome) -> None:
        """Tell the journal that the run has ended, once its results are written."""
        self._scribe.quietly(Fact.RUN_ENDED, None, exit_code=outcome.exit_code, leftovers=outcome.leftovers)
        self._scribe.settle()
        self._journal.give_up_lease(self.plan.invocation)

    # --- who is told ------------------------------------------------------------------------------------------------

    def _may_remove(self, name: str) -> bool:
        """Whether this is still the one supervisor, which the journal says when it takes the intent."""
        self._scribe.quietly(Fact.INTEND_REMOVE_STRAY, None, name)
        self._scribe.settle()
        return self._lost is None

    def _lose(self, error: LeaseLost) -> None:
        """Stand back: another process runs this invocation, and all that exists is that one's."""
        self._lost = self._lost or error
        self.abandon()

    def _show(self, now: float) -> None:
        if self._watcher is None:
            return
        try:
            self._watcher(self.tasks, now)
        except Exception:  # a closed terminal or pipe must not end a run
            self._watcher = None

    def _beat(self) -> None:
        now = _now()
        self._show(now)
        self._scribe.beat(self.tasks, now)


def _any_waits(tasks: list[TaskState]) -> bool:
    """Whether there is one whose turn may come."""
    return not all(task.admitted for task in tasks)


def _waiting_for(task: TaskState, endpoint: Resource | None, job: Resource | None) -> str:
    """Why a task does not get on, as its platform says it."""
    if task.job_submitted:
        return job.detail if job is not None and job.state is ResourceState.PENDING else ""
    return endpoint.detail if endpoint is not None else ""


def _now() -> float:
    return asyncio.get_running_loop().time()


def _found(task: TaskState, things: dict[str, Resource], name: str, known: bool, now: float) -> Resource | None:
    """What the world shows under a name. What an earlier launcher made and nobody shows any more is gone."""
    found = things.get(name)
    if found is None and task.recovered and known and now >= task.unheard_until:
        return Resource(name=name, state=ResourceState.GONE, detail="it was gone when the run was resumed")
    return found
