"""An endpoint: replicas that are kept alive, scaled, restarted, and deleted."""

from __future__ import annotations

from enum import StrEnum
from itertools import count

from launcher.emulators.common.clock import After, Gate
from launcher.emulators.common.faults import SlowDelete
from launcher.emulators.common.logbook import LogBook
from launcher.emulators.lepton.container import Asked
from launcher.emulators.lepton.history import History
from launcher.emulators.lepton.replica import Issue, Machine, Reason, Replica, Termination, Workload
from launcher.emulators.lepton.wire import EndpointSpec, Json, read


class Phase(StrEnum):
    """True state of an endpoint."""

    STARTING = "Starting"
    READY = "Ready"
    NOT_READY = "Not Ready"
    UPDATING = "Updating"
    SCALING = "Scaling"
    RESTARTING = "Restarting"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    DELETING = "Deleting"
    ERROR = "Error"


TOLD = (Reason.NO_CAPACITY, Reason.QUEUEING, Reason.CONFIG_ERROR, Reason.SYSTEM_ERROR)
"""Issues that are events too: the new family shows nothing else."""
RESTART_CEILING = 60.0
"""Longest delay in seconds before a crashed container is started again."""


class Endpoint:
    """One endpoint. `document` is its legacy spec as JSON; everything else follows from it and from what happens."""

    def __init__(self, machine: Machine, metadata: Json, document: Json, book: LogBook) -> None:
        self.machine = machine
        self.metadata = metadata
        self.document = document
        self.spec = read(document, EndpointSpec)
        self.book = book
        self.history = History(machine.clock)
        self.replicas: list[Replica] = []
        self.leaving: list[Replica] = []
        self.terminations: dict[str, list[Termination]] = {}
        self.last_traffic = self._not_ready_since = self.created = machine.clock.now()
        self.approved = False
        self._doing = Phase.STARTING
        self._deleting: Gate | None = None
        self._numbers = count()
        self.history.event("Created")
        self._scale()
        self._note()

    @property
    def name(self) -> str:
        """Its name, which is its id too."""
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
    def ready(self) -> list[Replica]:
        """Replicas that get traffic."""
        approved = self.approved or not self.spec.needs_approval
        return [replica for replica in self.replicas if replica.is_open and approved] if not self.is_deleting else []

    @property
    def phase(self) -> Phase:
        """Its true state now."""
        if self.is_deleting:
            return Phase.DELETING
        if self.spec.replicas == 0:
            return Phase.STOPPING if self.leaving else Phase.STOPPED
        if any(replica.in_error for replica in self.replicas):
            return Phase.ERROR
        if len(self.ready) == self.spec.replicas:
            return Phase.READY
        if self._has_failed():
            return Phase.NOT_READY
        return self._doing

    def read(self) -> None:
        """Count a read: states that advance after so many reads do."""
        for gated in (self._deleting, *self.replicas):
            if gated is not None:
                gated.read()

    def step(self) -> None:
        """Look at all processes and time-outs and act on what is found."""
        for replica in [*self.leaving]:
            if replica.step() is not None or not replica.is_running:
                self.leaving.remove(replica)
                self.book.finish(replica.id, self.machine.clock.now())
        for replica in self.replicas:
            self._step(replica)
        self._mind_time_outs()
        self._note()

    def change(self, document: Json) -> None:
        """A new spec: other containers replace the old ones, another number is scaled to."""
        before, self.document, self.spec = self.spec, document, read(document, EndpointSpec)
        if self._contents(before) != self._contents(self.spec):
            self._replace(Phase.UPDATING)
        elif before.replicas != self.spec.replicas:
            self._doing = Phase.STARTING if before.replicas == 0 else Phase.SCALING
        if before.replicas == 0:
            self.last_traffic = self._not_ready_since = self.machine.clock.now()
        self._scale()
        self._note()

    def restart(self) -> None:
        """New replicas for all."""
        self.history.event("Restarted")
        self._replace(Phase.RESTARTING)
        self._note()

    def delete(self) -> None:
        """Begin the end."""
        if self._deleting is None:
            slow = self.machine.faults.pick(SlowDelete, self.name)
            after = slow.after if slow else self.machine.config.timing.endpoint_delete
            self._deleting = Gate(after, self.machine.clock.now())
            self._retire(len(self.replicas))
            self.history.event("Deleting")
            self._note()

    def issues(self) -> dict[str, list[tuple[Issue, float]]]:
        """Why each replica is or is not ready, and since when (seconds since 1970)."""
        return {replica.id: [self._issue(replica)] for replica in self.replicas}

    def _issue(self, replica: Replica) -> tuple[Issue, float]:
        since = replica.issue_since or replica.created
        if replica.is_open and self.spec.needs_approval and not self.approved:
            return Issue(Reason.APPROVAL, "waiting for approval"), since
        if replica.is_open:
            return Issue(Reason.READY, ""), since
        return replica.issue, since

    def _step(self, replica: Replica) -> None:
        was_running, issue = replica.is_running, replica.issue
        ended = replica.step()
        if replica.issue != issue and replica.issue.reason in TOLD:
            self.history.event(f"{replica.issue.reason}: {replica.issue.message}", warning=True)
        if replica.is_running and not was_running:
            self.book.follow(replica.id, replica.log)
            self.history.event("Started")
        if ended is not None:
            self._restart_crashed(replica, ended)
        elif replica.is_running and not replica.is_open:
            self._mind_liveness(replica)

    def _restart_crashed(self, replica: Replica, ended: Termination) -> None:
        self.book.finish(replica.id, self.machine.clock.now())
        self.terminations.setdefault(replica.id, []).append(ended)
        self.history.event("BackOff", warning=True)
        timing = self.machine.config.timing
        delay = min(RESTART_CEILING, timing.restart_delay * 2 ** (len(replica.terminations) - 1))
        replica.arm(After(seconds=delay))
        replica.set_issue(Reason.IN_PROGRESS, f"container ended ({ended.message}), starting it again")

    def _mind_liveness(self, replica: Replica) -> None:
        timing = self.machine.config.timing
        delay = self.spec.liveness_delay if self.spec.liveness_delay is not None else timing.liveness_delay
        if self.machine.clock.now() >= replica.started + delay + timing.liveness_patience:
            self.history.event("Unhealthy", warning=True)
            replica.kill()

    def _mind_time_outs(self) -> None:
        if self.is_deleting or self.spec.replicas == 0:
            return
        now, limits = self.machine.clock.now(), self.spec.scale_down
        if self.phase is Phase.READY:
            self._doing = Phase.NOT_READY
            self._not_ready_since = now
            if limits.no_traffic_timeout and now >= self.last_traffic + limits.no_traffic_timeout:
                self._scale_to_zero("ScaledDownNoTraffic")
        else:
            self.last_traffic = now
            if limits.not_ready_timeout and now >= self._not_ready_since + limits.not_ready_timeout:
                self._scale_to_zero("ScaledDownNotReady")

    def _scale_to_zero(self, event: str) -> None:
        self.history.event(event)
        resources = {**self.document.get("resource_requirement", {}), "min_replicas": 0}
        self.change({**self.document, "resource_requirement": resources})

    def _contents(self, spec: EndpointSpec) -> tuple[object, ...]:
        return spec.runs, spec.envs, spec.mounts, spec.shape, spec.image_pull_secrets, spec.node_groups

    def _replace(self, doing: Phase) -> None:
        self._retire(len(self.replicas))
        self._doing = doing
        self._scale()

    def _scale(self) -> None:
        self._retire(len(self.replicas) - self.spec.replicas)
        while len(self.replicas) < self.spec.replicas:
            self.replicas.append(self._new_replica())

    def _retire(self, number: int) -> None:
        for replica in [self.replicas.pop() for _ in range(number)]:
            replica.stop()
            if replica.is_running:
                self.leaving.append(replica)

    def _new_replica(self) -> Replica:
        id = f"{self.name}-{self.machine.dice.randbytes(4).hex()}-{next(self._numbers)}"
        workload = Workload(self.name, "endpoint", self.name, self.spec.shape, self.spec.node_groups)
        replica = Replica(self.machine, workload, id, lambda: self._asked(id), self.machine.clock.now())
        replica.arm(self.machine.config.timing.endpoint_start)
        return replica

    def _asked(self, replica: str) -> Asked:
        spec, config = self.spec, self.machine.config
        shape = config.shape(spec.shape)
        predefined = {
            "LEPTON_WORKSPACE_ID": config.workspace,
            "LEPTON_DEPLOYMENT_NAME": self.name,
            "LEPTON_REPLICA_ID": replica,
            "LEPTON_RESOURCE_ACCELERATOR_TYPE": shape.accelerator_type if shape else "",
            "LEPTON_RESOURCE_ACCELERATOR_NUM": str(shape.accelerators if shape else 0),
        }
        return Asked(
            container=spec.runs,
            envs=spec.envs or (),
            mounts=spec.mounts or (),
            pull_secrets=spec.image_pull_secrets or (),
            predefined=predefined,
        )

    def _has_failed(self) -> bool:
        fatal = (Reason.CONFIG_ERROR, Reason.SYSTEM_ERROR)
        return any(replica.terminations or replica.issue.reason in fatal for replica in self.replicas)

    def _note(self) -> None:
        self.history.note(self.phase)
