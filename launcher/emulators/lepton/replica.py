"""One replica of an endpoint or one worker of a job: a process with a log, started and watched."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from starlette.types import ASGIApp

from launcher.emulators.common.clock import After, Clock, Gate
from launcher.emulators.common.faults import FaultBook
from launcher.emulators.common.simulated import SimulatedUnit
from launcher.emulators.lepton.config import Config
from launcher.emulators.lepton.container import Asked, CannotStart, Command, Translator
from launcher.emulators.lepton.faults import BadConfig, Crash, ErrorState, NoCapacity, SlowStart
from launcher.emulators.lepton.ledger import Charge, Ledger
from launcher.emulators.lepton.simulated import Simulation
from launcher.errors import PlatformError
from launcher.platforms.local import ports, supervised
from launcher.platforms.local.ports import Reservation
from launcher.platforms.local.supervised import Mark, Supervised
from launcher.platforms.local.unit import Ending

TRY_AGAIN = 1.0
"""Seconds until a start that this machine could not do is tried again."""


class Reason(StrEnum):
    """Reasons of readiness issues."""

    READY = "Ready"
    IN_PROGRESS = "InProgress"
    DELETING = "Deleting"
    NO_CAPACITY = "NoCapacity"
    QUEUEING = "Queueing"
    CONFIG_ERROR = "ConfigError"
    SYSTEM_ERROR = "SystemError"
    APPROVAL = "RequireReadinessApproval"


@dataclass(frozen=True)
class Issue:
    """Why a replica is not ready (or that it is)."""

    reason: Reason
    message: str


@dataclass(frozen=True, kw_only=True)
class Termination:
    """One end of a replica's process. Times in seconds since 1970; `exit_code` as a container has it: 0 to 255."""

    started: float
    finished: float
    exit_code: int
    message: str


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What replicas need of the emulator."""

    config: Config
    clock: Clock
    faults: FaultBook
    translator: Translator
    ledger: Ledger
    root: Path
    owner: str
    """Marks the processes of this emulator."""
    dice: random.Random
    """Chooses id suffixes."""
    simulation: Callable[[str, str], Simulation | None]
    """How containers of an image and of a kind, `endpoint` or `job`, are simulated, if they are."""
    room: Callable[[str, list[str]], str | None]
    """The node group, of these, that can take one more replica of this shape; None: none can."""


@dataclass(frozen=True)
class Workload:
    """What a replica is a replica of. `fault_name` is what faults call it."""

    name: str
    kind: str
    fault_name: str
    shape: str
    node_groups: list[str]


@dataclass(eq=False)
class Replica:
    """One replica. `step` advances it; a process that ended stays ended until `arm` is called again."""

    machine: Machine
    workload: Workload
    id: str
    asked: Callable[[], Asked]
    """What its container is, asked for at each start."""
    created: float
    issue: Issue = Issue(Reason.IN_PROGRESS, "waiting for a node")
    issue_since: float = 0.0
    port: int | None = None
    started: float = 0.0
    is_open: bool = False
    """Whether its port accepts connections; without a port: whether it runs."""
    in_error: bool = False
    terminations: list[Termination] = field(default_factory=list)
    _process: Supervised | SimulatedUnit | None = None
    _charge: Charge | None = None
    _gate: Gate | None = None
    _stuck: NoCapacity | BadConfig | None = None
    _crash: Crash | None = None
    _armed_at: float = 0.0

    @property
    def folder(self) -> Path:
        """HOME of its process, and its log."""
        return self.machine.root / "replicas" / self.id

    @property
    def log(self) -> Path:
        """Everything its processes print."""
        return self.folder / "output.log"

    @property
    def application(self) -> ASGIApp | None:
        """What answers its requests where it is simulated."""
        return self._process.script.application if isinstance(self._process, SimulatedUnit) else None

    @property
    def is_running(self) -> bool:
        """Whether a process of it may be alive."""
        return self._process is not None

    @property
    def is_waiting(self) -> bool:
        """Whether it is going to start."""
        return self._gate is not None

    @property
    def has_begun(self) -> bool:
        """Whether it ever had a process."""
        return self.started > 0

    def arm(self, after: After) -> None:
        """Plan a start. This is the occasion that start faults count."""
        now = self.machine.clock.now()
        pick, name = self.machine.faults.pick, self.workload.fault_name
        slow = pick(SlowStart, name)
        self._gate = Gate(slow.after if slow else after, now)
        self._armed_at = now
        self._stuck = pick(NoCapacity, name) or pick(BadConfig, name)
        self._crash = pick(Crash, name)
        self.in_error = pick(ErrorState, name) is not None

    def read(self) -> None:
        """Count a read of the resource."""
        if self._gate is not None:
            self._gate.read()

    def step(self) -> Termination | None:
        """Advance as far as possible. Returns how the process ended, once, when it has."""
        if self._process is not None:
            return self.watch()
        if self._gate is not None:
            self._place(self._gate)
        return None

    def stop(self) -> None:
        """Ask the process to end, or forget the planned start."""
        self._gate = None
        if self._process is not None:
            self._process.stop()
            self.is_open = False

    def kill(self) -> None:
        """Ask for the end of the process at once."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """Let go of the process; it ends at once."""
        if self._process is not None:
            self._process.close()

    def set_issue(self, reason: Reason, message: str) -> None:
        """Say why it is not ready."""
        if self.issue != Issue(reason, message):
            self.issue = Issue(reason, message)
            self.issue_since = self.machine.clock.now()

    def _place(self, gate: Gate) -> None:
        now = self.machine.clock.now()
        stuck = self._stuck
        if isinstance(stuck, BadConfig):
            self.set_issue(Reason(stuck.reason), stuck.message)
        elif isinstance(stuck, NoCapacity) and now < self._armed_at + stuck.seconds:
            self._wait_for_node(queueing=stuck.queueing)
        elif self.in_error:
            self.set_issue(Reason.SYSTEM_ERROR, "internal error")
        elif gate.is_open(now):
            self._start_if_possible()

    def _start_if_possible(self) -> None:
        group = self.machine.room(self.workload.shape, self.workload.node_groups)
        if group is None:
            self._wait_for_node(queueing=False)
            return
        try:
            self._start(group)
        except CannotStart as error:
            self.set_issue(Reason.CONFIG_ERROR, str(error))
        except (PlatformError, OSError) as error:  # of this machine: it must not end the emulator
            self._gate = Gate(After(seconds=TRY_AGAIN), self.machine.clock.now())
            self.set_issue(Reason.SYSTEM_ERROR, str(error))
        else:
            self._gate = None

    def _wait_for_node(self, *, queueing: bool) -> None:
        if queueing:
            self.set_issue(Reason.QUEUEING, "waiting for quota")
        else:
            self.set_issue(Reason.NO_CAPACITY, f"no node has room for {self.workload.shape}")

    def _start(self, group: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        asked = self.asked()
        simulation = self.machine.simulation(asked.container.image or "", self.workload.kind)
        if simulation is not None and self._crash is None:
            command = self.machine.translator.simulated(asked, self.folder)
            self._process = SimulatedUnit(simulation(command), self.machine.clock, self.log)
        else:
            self._process = self._execute(asked)
        self.started = self.machine.clock.now()
        self._charge = self.machine.ledger.begin(self.workload.name, self.workload.kind, self.workload.shape, group)
        self.set_issue(Reason.IN_PROGRESS, "container is starting")

    def _execute(self, asked: Asked) -> Supervised:
        with contextlib.ExitStack() as stack:
            hold = stack.enter_context(ports.reserve()) if asked.port else None
            command = self.machine.translator.command(asked, self.folder, hold.port if hold else None)
            self.port = command.port
            return self._supervise(command, hold if hold and hold.port == command.port else None)

    def _supervise(self, command: Command, hold: Reservation | None) -> Supervised:
        argv = command.argv
        if self._crash is not None:
            argv = ("/bin/sh", "-c", 'echo "$1"; exit "$2"', "sh", self._crash.message, str(self._crash.exit_code))
        return Supervised(
            Mark(invocation=self.machine.owner, name=self.id, kind="emulated"),
            supervised.Command(
                argv=argv,
                env=command.env,
                cwd=self.folder,
                log=self.log,
                grace=self.machine.config.timing.stop_grace,
            ),
            hold,
        )

    def _answers(self) -> bool:
        if isinstance(self._process, SimulatedUnit):
            return self._process.is_open
        return self._process is not None and (self.port is None or _accepts(self.port))

    def watch(self) -> Termination | None:
        """Look at the process. Returns how it ended, once, when it has; starts nothing."""
        ending = self._process.look() if self._process is not None else None
        if ending is None:
            self.is_open = self.is_open or self._answers()
            return None
        self._process = None
        self.is_open = False
        if self._charge is not None:
            self._charge.end()
        termination = Termination(
            started=self.started,
            finished=self.machine.clock.now(),
            exit_code=_container_exit_code(ending),
            message=ending.detail,
        )
        self.terminations.append(termination)
        return termination


def _container_exit_code(ending: Ending) -> int:
    if ending.exit_code is None:
        return 127
    return ending.exit_code if ending.exit_code >= 0 else 128 - ending.exit_code


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection((ports.HOST, port), timeout=0.2):
            return True
    except OSError:
        return False
