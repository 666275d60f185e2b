"""Batch jobs of one invocation: from what squeue and the jobs' own records say to endpoints and evaluations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from launcher.plan.attempts import attempt
from launcher.plan.model import Plan, TaskPlan
from launcher.platforms.base import Resource, ResourceState, RunnerEnd
from launcher.platforms.progress import ProgressReader
from launcher.platforms.slurm import words
from launcher.platforms.slurm.queue import QueuedJob

RECORD_LAG = 30.0
"""Seconds that the shared file system may take to show the record of a job that has ended by itself."""
_STOPPED = "stopped"
"""The runner's word when it is told to end: why, only the batch job knows."""


@dataclass(frozen=True)
class Parts:
    """What a batch job holds: the names of an endpoint and of an evaluation."""

    endpoint: str | None = None
    evaluation: str | None = None
    auxiliary: str = ""
    """Name by which tasks know the endpoint, if it is auxiliary to them."""

    @property
    def names(self) -> Iterator[str]:
        """Both, where there are both."""
        yield from (name for name in (self.endpoint, self.evaluation) if name is not None)


def parts_of(plan: Plan, name: str) -> Parts | None:
    """What the batch job of a name holds, in any attempt of any task; None for a name that is not the plan's."""
    further = re.search(rf"r(\d+)-{re.escape(plan.invocation)}$", name)
    for planned in (*plan.tasks, *plan.helpers):
        task = attempt(planned, int(further[1]) if further else 1, plan.invocation)
        if task.endpoint is not None and task.endpoint.name == name:
            return Parts(name, task.job.name if task.endpoint.evaluates else None, auxiliary=auxiliary_of(plan, task))
        if task.job.name == name:
            return Parts(None, name)
    return None


def auxiliary_of(plan: Plan, task: TaskPlan) -> str:
    """Name of the auxiliary endpoint that a task stands for; empty for a benchmark."""
    return task.key if any(task.key == one.key for one in plan.helpers) else ""


def batch_name(task: TaskPlan, name: str) -> str:
    """Name of the batch job that holds an endpoint or an evaluation of a task."""
    together = task.endpoint is not None and task.endpoint.evaluates
    return task.endpoint.name if together and task.endpoint is not None and name == task.job.name else name


@dataclass
class BatchJob:
    """One batch job as last seen. Times are seconds of the loop's clock."""

    name: str
    parts: Parts
    id: int = 0
    """That of its array, if it is an element of one."""
    label: str = ""
    """How Slurm's commands call it."""
    queued: QueuedJob | None = None
    record: dict[str, str] = field(default_factory=dict)
    """What it wrote at its end."""
    files: dict[str, list[str]] = field(default_factory=dict)
    leaving: bool = False
    """Its end was asked for."""
    over_since: float | None = None
    """When squeue first did not show it as active."""
    accounted: str | None = None
    """What sacct says of one that squeue has forgotten; None: not asked."""

    def take(self, queued: QueuedJob | None, files: dict[str, list[str]], now: float) -> None:
        """Note what a look has shown."""
        if queued is not None and queued.id >= self.id:
            self.id, self.label = queued.id, queued.label
        elif queued is None and "id" in files:
            self.label = files["id"][0].split(" ")[-1]
            self.id = int(self.label.partition("_")[0])
        self.queued, self.files = queued, files
        record = dict(line.split("=", 1) for line in files.get("ended", ()) if "=" in line)
        self.record = record if record.get("job") == self.label else {}
        if self.is_active:
            self.over_since = None
        elif self.over_since is None:
            self.over_since = now

    @property
    def is_active(self) -> bool:
        """Whether Slurm still has something of it."""
        return self.queued is not None and self.queued.is_active

    @property
    def is_gone(self) -> bool:
        """Whether its end was asked for and has come."""
        return self.leaving and not self.is_active

    @property
    def is_forgotten(self) -> bool:
        """Whether it ended without a record, and squeue shows it no more."""
        return not self.is_active and self.queued is None and not self.record and self.accounted is None

    def is_over(self) -> bool:
        """Whether its logs grow no more."""
        return not self.is_active

    def resources(self, now: float) -> Iterator[tuple[str, Resource]]:
        """`endpoint` or `job` with what there is to say."""
        if self.is_gone:
            gone = ResourceState.GONE
            yield from self._both(gone, gone)
        elif self.record:
            yield from self._by_record()
        elif self.queued is not None and self.queued.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT"):
            detail, fatal = words.waiting(self.queued.state, self.queued.reason)
            pending = ResourceState.PENDING
            yield from self._both(pending, pending, detail=detail, fatal=fatal)
        elif self.is_active:
            yield from self._running()
        else:
            yield from self._without_record(now)

    def _both(
        self,
        endpoint: ResourceState,
        evaluation: ResourceState,
        *,
        detail: str = "",
        fatal: bool = False,
        server_code: int | None = None,
        client_code: int | None = None,
        preempted: bool = False,
        end: RunnerEnd | None = None,
    ) -> Iterator[tuple[str, Resource]]:
        if self.parts.endpoint is not None:
            yield (
                "endpoint",
                Resource(
                    name=self.parts.endpoint,
                    state=endpoint,
                    id=self.label,
                    url=self.url,
                    exit_code=server_code,
                    detail=detail,
                    fatal=fatal,
                    preempted=preempted,
                    ran=self.ran,
                ),
            )
        if self.parts.evaluation is not None:
            yield (
                "job",
                Resource(
                    name=self.parts.evaluation,
                    state=evaluation,
                    id=self.label,
                    exit_code=client_code,
                    detail=detail,
                    preempted=preempted,
                    progress=self._reader().progress,
                    end=end,
                ),
            )

    @property
    def ran(self) -> float:
        """Seconds for which it has had its nodes, in all its starts."""
        known = self.files.get("spent")
        return float(known[0]) if known and known[0].isdigit() else 0.0

    @property
    def asked(self) -> ProgressReader:
        """What was found out of an endpoint that its batch job itself asks whether it answers."""
        return self._reader()

    @property
    def url(self) -> str | None:
        """The endpoint's address; inside a batch job that evaluates it, one that means something only there."""
        known = self.files.get("address")
        if known:
            return known[0]
        return INSIDE if self.parts.endpoint is not None and self.parts.evaluation is not None else None

    def _reader(self) -> ProgressReader:
        reader = ProgressReader()
        lines = [line for line in self.files.get("events", ()) if _is_kept(line)]
        reader.feed("".join(f"{line}\n" for line in lines))
        return reader

    def _running(self) -> Iterator[tuple[str, Resource]]:
        running = ResourceState.RUNNING
        code = self.files.get("server.exit")
        if code and self.parts.endpoint is not None:
            yield from self._server_ended(int(code[0]))
        else:
            yield from self._both(running, running)

    def _server_ended(self, code: int) -> Iterator[tuple[str, Resource]]:
        failed = ResourceState.FAILED
        out_of_memory = self.queued is not None and "OUT_OF_MEMORY" in self.queued.states
        why = f"exited with code {code}{'; Slurm says: out of memory' if out_of_memory else ''}"
        reader = self._reader()
        yield from self._both(failed, failed, detail=why, server_code=code, end=reader.end)

    def _by_record(self) -> Iterator[tuple[str, Resource]]:
        why, failed, running = self.record.get("why", ""), ResourceState.FAILED, ResourceState.RUNNING
        if why == "server":
            yield from self._server_ended(int(self.record.get("server") or 1))
            return
        if why == "no_port":
            yield from self._both(failed, failed, detail=f"no port is free on {self.record.get('node', 'its node')}")
            return
        if why == "done":
            code, end = int(self.record.get("client") or 0), self._reader().end
            state = ResourceState.SUCCEEDED if code == 0 else failed
            detail = "" if end is not None else f"the evaluation ended with code {code} and without a word"
            yield from self._both(running, state, detail=detail, client_code=code, end=end)
            return
        if why == "unready":
            yield from self._both(running, failed)  # what was asked of it says why
            return
        end = _END.get(why, _END["cancelled"])
        yield from self._both(self._left_alone, failed, detail=f"Slurm job {self.label}: {end.detail}", end=end)

    def _without_record(self, now: float) -> Iterator[tuple[str, Resource]]:
        state = self.queued.state if self.queued is not None else self.accounted or ""
        running, failed = ResourceState.RUNNING, ResourceState.FAILED
        if state in ("", "COMPLETED", "FAILED") and self._over_for(now) < RECORD_LAG and not self._is_empty:
            yield from self._both(running, running)
            return
        detail = words.ended(self.label, state) if state else f"Slurm job {self.label} is gone and left no record"
        if state == "OUT_OF_MEMORY":
            yield from self._both(failed, failed, detail=f"out of memory: {detail}")
        elif state in ("TIMEOUT", "DEADLINE"):
            yield from self._both(self._left_alone, failed, detail=detail, end=_END["timeout"])
        elif state == "CANCELLED":
            yield from self._both(self._left_alone, failed, detail=detail, end=_END["cancelled"])
        else:
            yield from self._both(self._left_alone, failed, detail=detail, preempted=state == "PREEMPTED")

    @property
    def _left_alone(self) -> ResourceState:
        """An endpoint whose batch job has ended: where it evaluates, too, nothing shows that the server did first."""
        return ResourceState.FAILED if self.parts.evaluation is None else ResourceState.RUNNING

    def _over_for(self, now: float) -> float:
        return 0.0 if self.over_since is None else now - self.over_since

    @property
    def _is_empty(self) -> bool:
        """Whether it never began, as far as its folder tells."""
        return self.queued is not None and self.queued.reason == "JobLaunchFailure"


INSIDE = "http://endpoint.invalid"
"""Address of an endpoint in the batch job that evaluates it, until it has one: the batch script fills it in."""
_END = {
    "no_python": RunnerEnd(
        reason="job_not_submitted",
        detail="its node has no execution.python; name one that all nodes have, or load it in execution.prologue",
    ),
    "cancelled": RunnerEnd(reason=_STOPPED, detail="somebody cancelled the batch job (scancel)"),
    "timeout": RunnerEnd(
        reason="harness_timeout",
        detail="the batch job ended at its time limit and could not be continued; raise execution.times.limit",
    ),
    "spent": RunnerEnd(
        reason="harness_timeout",
        detail="all batch jobs of the task together have used up its time; raise execution.times.total",
    ),
}


def _is_kept(line: str) -> bool:
    """Whether an event says something by itself: that the runner was told to stop is told by the batch job."""
    return '"event": "end"' not in line or f'"reason": "{_STOPPED}"' not in line
