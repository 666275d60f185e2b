"""One deployment: its states, and the instances that it has."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from launcher.emulators.common.clock import After, Gate
from launcher.emulators.common.faults import SlowDelete
from launcher.emulators.common.logbook import LogBook
from launcher.emulators.deepinfra.errors import ApiError
from launcher.emulators.deepinfra.faults import Fails, NoCapacity, Stops, StuckDownload
from launcher.emulators.deepinfra.instance import Instance, Launch, Machine
from launcher.emulators.deepinfra.statistics import Statistics
from launcher.emulators.deepinfra.wire import Json, LlmIn, Scale
from launcher.errors import PlatformError

TASK = "text-generation"
FOREVER = 2**63
"""Nanoseconds that no clock reaches."""


class Status(StrEnum):
    """`status` of a deployment."""

    INITIALIZING = "initializing"
    DOWNLOADING = "downloading"
    DEPLOYING = "deploying"
    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"
    DELETED = "deleted"


ACTIVE = {Status.INITIALIZING, Status.DOWNLOADING, Status.DEPLOYING, Status.RUNNING}
"""Statuses in which instances exist or are wanted."""


@dataclass(frozen=True, kw_only=True)
class Plight:
    """The faults that hit one deployment; they are chosen when it is created."""

    no_capacity: NoCapacity | None
    stuck_download: StuckDownload | None
    fails: Fails | None
    stops: Stops | None


def plight(machine: Machine, name: str) -> Plight:
    """The faults of a new deployment."""
    pick = machine.faults.pick
    return Plight(
        no_capacity=pick(NoCapacity, name),
        stuck_download=pick(StuckDownload, name),
        fails=pick(Fails, name),
        stops=pick(Stops, name),
    )


@dataclass(eq=False)
class Deployment:
    """One deployment. `step` advances it. `missing` says why its weights cannot be had, if they cannot."""

    machine: Machine
    id: str
    name: str
    asked: LlmIn
    version: str
    usd_per_hour: float
    """Of one instance."""
    missing: Callable[[], str]
    status: Status = Status.INITIALIZING
    fail_reason: str = ""
    instances: list[Instance] = field(default_factory=list)
    states: list[tuple[float, Status]] = field(default_factory=list)
    statistics: Statistics = field(default_factory=Statistics)
    book: LogBook = field(default_factory=LogBook)
    in_flight: int = 0
    _ending: list[Instance] = field(default_factory=list)
    _made: int = 0
    _updated: float = 0.0
    _restart_at: float = 0.0
    _deletion: Gate | None = None

    def __post_init__(self) -> None:
        self.scale = self.asked.settings or Scale()
        self.wanted = self.scale.min_instances
        self._plight = plight(self.machine, self.short_name)
        self._enter(Status.INITIALIZING)

    @property
    def short_name(self) -> str:
        """The name without its owner."""
        return self.name.partition("/")[2]

    @property
    def gpus(self) -> int:
        """GPUs of the instances that are placed."""
        return len(self.instances) * self.asked.num_gpus

    @property
    def open_instances(self) -> list[Instance]:
        """Instances that answer requests."""
        return [instance for instance in self.instances if instance.is_open]

    def read(self) -> None:
        """Count a read."""
        for gate in (self._gate, self._deletion):
            if gate is not None:
                gate.read()

    def step(self) -> None:
        """Let time pass."""
        self.book.collect(self.machine.clock.now())
        self._ending = [instance for instance in self._ending if self._is_alive(instance)]
        if self._deletion is not None and self._deletion.is_open(self.machine.clock.now()):
            self._leave(Status.DELETED)
            self._deletion = None
        if self.status in ACTIVE:
            self._advance()

    def ask_delete(self) -> None:
        """DELETE. Raises ApiError 404 once it is deleted."""
        if self._deletion is not None:
            return
        slow = self.machine.faults.pick(SlowDelete, self.short_name)
        self._deletion = Gate(slow.after if slow else After(), self.machine.clock.now())
        if slow is None:
            self.step()

    def stop(self) -> None:
        """Give all instances back, keep id and name. Raises ApiError 400 where there is nothing to stop."""
        if self.status not in ACTIVE:
            raise ApiError(400, f"a deployment that is {self.status} cannot be stopped")
        self._leave(Status.STOPPED)

    def start(self) -> None:
        """Begin again. Raises ApiError 400 unless it is stopped."""
        if self.status is not Status.STOPPED:
            raise ApiError(400, f"a deployment that is {self.status} cannot be started")
        self._enter(Status.INITIALIZING)

    def rescale(self, scale: Scale) -> None:
        """Change the bounds of its instances. Raises ApiError 400 for impossible ones, or where it has ended."""
        if not scale.is_sound:
            raise ApiError(400, f"min_instances {scale.min_instances} does not fit max_instances {scale.max_instances}")
        if self.status in (Status.FAILED, Status.DELETED):
            raise ApiError(400, f"a deployment that is {self.status} cannot be scaled")
        self.scale, self.wanted = scale, scale.min_instances
        self._updated = self.machine.clock.now()

    def wake(self) -> None:
        """A request came and nothing runs: one instance is wanted from now on, if the bounds allow."""
        self.wanted = max(self.wanted, min(1, self.scale.max_instances))

    def processes(self) -> Iterator[Instance]:
        """All instances that may have a process."""
        yield from self.instances
        yield from self._ending

    def document(self) -> Json:
        """What the API shows of it; never a token."""
        running = len(self.open_instances)
        pending = max(0, self.wanted - running) if self.status in ACTIVE else 0
        return {
            "type": "llm",
            "deploy_id": self.id,
            "model_name": self.name,
            "version": self.version,
            "task": TASK,
            "status": self.status,
            "fail_reason": self.fail_reason,
            "created_at": iso(self.states[0][0]),
            "updated_at": iso(self._updated),
            "instances": {"running": running, "pending": pending},
            "config": self._config(),
            "settings": {"min_instances": self.scale.min_instances, "max_instances": self.scale.max_instances},
        }

    def _config(self) -> Json:
        weights = self.asked.hf
        shown = None if weights is None else {"repo": weights.repo, "revision": weights.revision, "token": None}
        fixed = {"gpu": self.asked.gpu, "num_gpus": self.asked.num_gpus, "max_batch_size": self.asked.max_batch_size}
        return {**fixed, "weights": shown}

    def _advance(self) -> None:
        fails = self._plight.fails
        if fails is not None and fails.at == self.status and self._age() >= fails.seconds:
            self._fail(fails.reason)
            return
        match self.status:
            case Status.INITIALIZING:
                self._initialize()
            case Status.DOWNLOADING:
                self._download()
            case Status.DEPLOYING:
                self._deploy()
            case Status.RUNNING:
                self._run()

    def _initialize(self) -> None:
        fault = self._plight.no_capacity
        if self._is_held(fault.seconds if fault else 0.0):
            return
        self._place()
        if self.instances or not self.wanted:
            self._enter(Status.DOWNLOADING)

    def _download(self) -> None:
        fault = self._plight.stuck_download
        if self._is_held(fault.seconds if fault else 0.0):
            return
        if reason := self.missing():
            self._fail(reason)
        else:
            self._enter(Status.DEPLOYING)

    def _deploy(self) -> None:
        self._place()
        for instance in self._started():
            if (ending := instance.look()) is not None:
                self._fail(f"Initialization failed: the server {ending.detail}{self._last_words(instance)}")
                return
        if not self._is_held(0.0) and (self.open_instances or not self.wanted):
            self._enter(Status.RUNNING)

    def _run(self) -> None:
        stops = self._plight.stops
        if stops is not None and self._age() >= stops.seconds:
            self._leave(Status.STOPPED)
            return
        for instance in self._started():
            if instance.look() is not None:
                self._drop(instance)
                self._restart_at = self.machine.clock.now() + self.machine.config.timing.restart_delay
        for instance in self.instances[max(self.wanted, 0) :]:
            self._drop(instance)
        if self.machine.clock.now() >= self._restart_at:
            self._place()

    def _place(self) -> None:
        """Give GPUs to instances that are wanted, as far as there is room."""
        while len(self.instances) < self.wanted and self.machine.has_room(self.asked.gpu, self.asked.num_gpus):
            self._made += 1
            id_ = f"{self.id}-{self._made}"
            self.instances.append(Instance(self.machine, self._launch(), id_, self.usd_per_hour))

    def _started(self) -> list[Instance]:
        """All instances, with a process each; one that this machine cannot start now is tried again."""
        for instance in self.instances:
            if not instance.has_started:
                with contextlib.suppress(PlatformError, OSError):
                    instance.start()
                    self.book.follow(instance.id, instance.log)
        return list(self.instances)

    def _launch(self) -> Launch:
        weights = self.asked.hf
        return Launch(
            deploy_id=self.id,
            model=self.name,
            weights=weights.repo if weights else self.asked.base_model or "",
            image=self.asked.container_image or "",
            args=tuple(self.asked.extra_args or ()),
            token=weights.token if weights else None,
        )

    def _drop(self, instance: Instance) -> None:
        self.instances.remove(instance)
        instance.stop()
        self._ending.append(instance)

    def _is_alive(self, instance: Instance) -> bool:
        if not instance.has_started or instance.look() is not None:
            self.book.finish(instance.id, self.machine.clock.now())
            return False
        return True

    def _fail(self, reason: str) -> None:
        self.fail_reason = reason
        self._leave(Status.FAILED)

    def _leave(self, status: Status) -> None:
        for instance in list(self.instances):
            self._drop(instance)
        self._enter(status)

    def _enter(self, status: Status) -> None:
        now = self.machine.clock.now()
        self.status, self._updated = status, now
        self.states.append((now, status))
        timing = self.machine.config.timing
        waits = {
            Status.INITIALIZING: timing.initializing,
            Status.DOWNLOADING: After() if self.asked.base_model else timing.downloading,
            Status.DEPLOYING: timing.deploying,
        }
        self._gate = Gate(waits.get(status, After()), now)

    def _is_held(self, seconds: float) -> bool:
        """Whether the status may not change yet: its gate is closed, or a fault lasts."""
        return not self._gate.is_open(self.machine.clock.now()) or self._age() < seconds

    def _age(self) -> float:
        """Seconds since it got its status."""
        return self.machine.clock.now() - self.states[-1][0]

    def _last_words(self, instance: Instance) -> str:
        self.book.finish(instance.id, self.machine.clock.now())
        lines = list(self.book.window(0, FOREVER, self.machine.clock.now(), instance.id, ""))
        return f"; its last line: {lines[-1].text}" if lines else ""


def iso(seconds: float) -> str:
    """Time as the API has it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()
