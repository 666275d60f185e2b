"""A job: workers that have to succeed, retried, stopped, started again, archived, deleted."""

from __future__ import annotations

import string
from dataclasses import dataclass
from enum import StrEnum

from launcher.emulators.common.clock import After, Gate
from launcher.emulators.common.faults import SlowDelete
from launcher.emulators.common.logbook import LogBook
from launcher.emulators.lepton.container import Asked
from launcher.emulators.lepton.history import History
from launcher.emulators.lepton.replica import Machine, Reason, Replica, Termination, Workload
from launcher.emulators.lepton.wire import JobSpec, Json, read

ID_LETTERS = string.ascii_lowercase + string.digits


class JobState(StrEnum):
    """State of a job."""

    AWAITING = "Awaiting"
    QUEUEING = "Queueing"
    STARTING = "Starting"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    COMPLETED = "Completed"
    FAILED = "Failed"
    DELETING = "Deleting"
    ARCHIVED = "Archived"


FINISHED = (JobState.COMPLETED, JobState.FAILED)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One finished run of a job. Times in seconds since 1970."""

    name: str
    state: JobState
    failed: int
    succeeded: int
    created: float
    completed: float
    replicas: tuple[str, ...]


@dataclass
class Worker:
    """One of the completions a job needs."""

    replica: Replica
    failures: int = 0
    succeeded: bool = False
    failed: bool = False


class Job:
    """One job. `document` is its spec as JSON."""

    def __init__(self, machine: Machine, metadata: Json, document: Json, book: LogBook) -> None:
        self.machine = machine
        self.metadata = metadata
        self.document = document
        self.spec = read(document, JobSpec)
        self.book = book
        self.history = History(machine.clock)
        self.created = machine.clock.now()
        self.completed: float | None = None
        self.runs: list[RunRecord] = []
        self.workers: list[Worker] = []
        self.leaving: list[Replica] = []
        self.past: list[Replica] = []
        self.failures = 0
        self._outcome: JobState | None = None
        self._began = self.created
        self._deleting: Gate | None = None
        self.history.event("Created")
        if not self.spec.stopped:
            self._begin(machine.config.timing.job_start)
        self._note()

    @property
    def id(self) -> str:
        """Its id: the name and a suffix."""
        return str(self.metadata["id"])

    @property
    def name(self) -> str:
        """The name it was created with; others may have the same."""
        return str(self.metadata["name"])

    @property
    def is_deleting(self) -> bool:
        """Whether its end has been asked for."""
        return self._deleting is not None

    @property
    def is_gone(self) -> bool:
        """Whether nothing is left and it may vanish."""
        return self._deleting is not None and not self.leaving and self._deleting.is_open(self.machine.clock.now())

    @property
    def is_archived(self) -> bool:
        """Whether only the archive still shows it."""
        return self.state is JobState.ARCHIVED

    @property
    def state(self) -> JobState:
        """Its state now."""
        if self.is_deleting:
            return JobState.DELETING
        if self._outcome is not None:
            return JobState.ARCHIVED if self._is_past_ttl() else self._outcome
        if self.spec.stopped:
            return JobState.STOPPING if self.leaving else JobState.STOPPED
        return self._state_of_run()

    @property
    def replicas(self) -> list[Replica]:
        """Replicas of all its runs that ever had a process, and the ones to come, newest run last."""
        return [*self.past, *(worker.replica for worker in self.workers)]

    def read(self) -> None:
        """Count a read: states that advance after so many reads do."""
        for gated in (self._deleting, *(worker.replica for worker in self.workers)):
            if gated is not None:
                gated.read()

    def count(self) -> dict[str, int]:
        """Workers that are ready, active, failed, succeeded."""
        running = sum(worker.replica.is_running for worker in self.workers)
        return {
            "ready": running,
            "active": running,
            "failed": sum(worker.failures for worker in self.workers),
            "succeeded": sum(worker.succeeded for worker in self.workers),
        }

    def step(self) -> None:
        """Look at all processes and act on what is found."""
        for replica in [*self.leaving]:
            if replica.step() is not None or not replica.is_running:
                self.leaving.remove(replica)
                self.book.finish(replica.id, self.machine.clock.now())
        if self._outcome is None and not self.is_deleting and not self.spec.stopped:
            for worker in self._active():
                self._step(worker)
            self._judge()
        self._note()

    def change(self, document: Json) -> None:
        """A new spec; `stopped` ends the workers, its absence starts new ones."""
        was_stopped, self.document, self.spec = bool(self.spec.stopped), document, read(document, JobSpec)
        if self.spec.stopped and not was_stopped and self._outcome is None:
            self.history.event("Stopped")
            self._end_run(JobState.STOPPED)
        elif was_stopped and not self.spec.stopped:
            self._outcome = self.completed = None
            self._begin(self.machine.config.timing.job_start)
        self._note()

    def delete(self) -> None:
        """Begin the end."""
        if self._deleting is None:
            slow = self.machine.faults.pick(SlowDelete, self.name)
            after = slow.after if slow else self.machine.config.timing.job_delete
            self._deleting = Gate(after, self.machine.clock.now())
            self._retire()
            self.history.event("Deleting")
            self._note()

    def _state_of_run(self) -> JobState:
        if self._starts_later():
            return JobState.AWAITING
        if any(worker.replica.issue.reason is Reason.QUEUEING for worker in self.workers):
            return JobState.QUEUEING
        if any(worker.replica.is_running or worker.succeeded for worker in self.workers):
            return JobState.RUNNING
        return JobState.RESTARTING if self.failures or any(w.failures for w in self.workers) else JobState.STARTING

    def _starts_later(self) -> bool:
        schedule = self.spec.time_schedule
        return bool(schedule and schedule.start_at and self.machine.clock.now() < schedule.start_at)

    def _is_past_ttl(self) -> bool:
        wanted = self.spec.ttl_seconds_after_finished
        ttl = self.machine.config.timing.default_ttl if wanted is None else wanted
        return self.completed is not None and self.machine.clock.now() >= self.completed + ttl

    def _begin(self, after: After) -> None:
        self._began = self.machine.clock.now()
        self.workers = [self._new_worker(index, after) for index in range(self.spec.replicas)]

    def _active(self) -> list[Worker]:
        """The workers whose turn it is."""
        if self._starts_later():
            return []
        return [worker for worker in self.workers if not worker.succeeded][: self.spec.at_once]

    def _step(self, worker: Worker) -> None:
        replica = worker.replica
        had_begun = replica.has_begun
        ended = replica.step()
        if replica.has_begun and not had_begun:
            self.book.follow(replica.id, replica.log)
            self.history.event("Started")
        if replica.in_error or replica.issue.reason in (Reason.CONFIG_ERROR, Reason.SYSTEM_ERROR):
            worker.failed = True
            self.history.event(f"{replica.issue.reason}: {replica.issue.message}", warning=True)
        elif ended is not None:
            self._take(worker, ended)

    def _take(self, worker: Worker, ended: Termination) -> None:
        self.book.finish(worker.replica.id, self.machine.clock.now())
        if ended.exit_code == 0:
            worker.succeeded = True
            return
        worker.failures += 1
        self.history.event(f"Failed: exit code {ended.exit_code}", warning=True)
        if worker.failures <= (self.spec.max_failure_retry or 0):
            worker.replica.arm(After(seconds=self.machine.config.timing.restart_delay))
        else:
            worker.failed = True

    def _judge(self) -> None:
        if any(worker.failed for worker in self.workers):
            self._fail()
        elif all(worker.succeeded for worker in self.workers):
            self._finish(JobState.COMPLETED)

    def _fail(self) -> None:
        broken = any(worker.failed and not worker.replica.has_begun for worker in self.workers)
        if broken or self.failures >= (self.spec.max_job_failure_retry or 0):
            self._finish(JobState.FAILED)
            return
        self.failures += 1
        self._end_run(JobState.FAILED)
        self._begin(After(seconds=self.machine.config.timing.restart_delay))

    def _finish(self, outcome: JobState) -> None:
        self._outcome = outcome
        self.completed = self.machine.clock.now()
        for worker in self.workers:
            worker.replica.stop()
            if worker.replica.is_running:
                self.leaving.append(worker.replica)
        self.history.event(outcome)

    def _end_run(self, state: JobState) -> None:
        counted = self.count()
        self.runs.append(
            RunRecord(
                name=f"{self.id}-{len(self.runs)}",
                state=state,
                failed=counted["failed"],
                succeeded=counted["succeeded"],
                created=self._began,
                completed=self.machine.clock.now(),
                replicas=tuple(worker.replica.id for worker in self.workers),
            )
        )
        self._retire()

    def _retire(self) -> None:
        for worker in self.workers:
            worker.replica.stop()
            if worker.replica.is_running and worker.replica not in self.leaving:
                self.leaving.append(worker.replica)
            if worker.replica.has_begun:
                self.past.append(worker.replica)
        self.workers = []

    def _new_worker(self, index: int, after: After) -> Worker:
        suffix = "".join(self.machine.dice.choices(ID_LETTERS, k=5))
        id = f"{self.id}-{index}-{suffix}"
        workload = Workload(self.id, "job", self.name, self.spec.shape, self.spec.node_groups)
        replica = Replica(self.machine, workload, id, lambda: self._asked(id, index), self.machine.clock.now())
        replica.arm(after)
        return Worker(replica)

    def _asked(self, replica: str, index: int) -> Asked:
        spec, config = self.spec, self.machine.config
        shape = config.shape(spec.shape)
        predefined = {
            "LEPTON_WORKSPACE_ID": config.workspace,
            "LEPTON_JOB_NAME": self.id,
            "LEPTON_JOB_TOTAL_WORKERS": str(spec.replicas),
            "LEPTON_JOB_WORKER_INDEX": str(index),
            "LEPTON_JOB_SERVICE_PREFIX": self.id,
            "LEPTON_JOB_FAILURE_COUNT": str(self.failures),
            "LEPTON_WORKER_ID": replica,
            "LEPTON_SUBDOMAIN": self.id,
            "LEPTON_RESOURCE_ACCELERATOR_TYPE": shape.accelerator_type if shape else "",
            "LEPTON_RESOURCE_ACCELERATOR_NUM": str(shape.accelerators if shape else 0),
        }
        return Asked(
            container=spec.container,
            envs=spec.envs or (),
            mounts=spec.mounts or (),
            pull_secrets=spec.image_pull_secrets or (),
            predefined=predefined,
        )

    def _note(self) -> None:
        self.history.note(self.state)
