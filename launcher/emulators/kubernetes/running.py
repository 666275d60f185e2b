"""One pod on its node: a process of this machine, started, probed, watched, restarted."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from launcher.emulators.common.clock import Clock
from launcher.emulators.common.faults import FaultBook
from launcher.emulators.common.logbook import LogBook
from launcher.emulators.common.simulated import Script, SimulatedUnit
from launcher.emulators.kubernetes import accounts
from launcher.emulators.kubernetes.accounts import Accounts
from launcher.emulators.kubernetes.config import Config
from launcher.emulators.kubernetes.faults import Crash, Evict, PullError
from launcher.emulators.kubernetes.kinds import SECRETS
from launcher.emulators.kubernetes.selectors import Json
from launcher.emulators.kubernetes.store import Store, stamp
from launcher.emulators.lepton.container import Command, listen, with_folders
from launcher.errors import PlatformError
from launcher.platforms.local import ports, supervised
from launcher.platforms.local.supervised import Mark, Supervised
from launcher.platforms.local.unit import Ending

Simulation = Callable[[Command], Script]
"""Decides by a container's command and environment what it does."""
PROBE_TIME = 2.0
MOST_DELAY = 300.0
OUT_OF_MEMORY = 137


class CannotStart(Exception):
    """The container cannot be made as it is specified: a CreateContainerConfigError."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What pods need of the emulator."""

    config: Config
    clock: Clock
    faults: FaultBook
    store: Store
    root: Path
    owner: str
    """Marks the processes of this emulator."""
    simulation: Callable[[str], Simulation | None]
    spawn: Callable[[Callable[[], object]], None]
    """Starts a coroutine function beside everything."""
    accounts: Accounts


@dataclass(frozen=True, kw_only=True)
class Ended:
    """One end of the container. Times in seconds since 1970."""

    started: float
    finished: float
    code: int
    reason: str
    message: str = ""

    def state(self) -> Json:
        """As a container's state."""
        found = {
            "exitCode": self.code,
            "reason": self.reason,
            "startedAt": stamp(self.started),
            "finishedAt": stamp(self.finished),
        }
        return {"terminated": {**found, "message": self.message} if self.message else found}


@dataclass(eq=False)
class RunningPod:
    """A pod that is bound to a node. `step` advances it; `status` is what the API shows."""

    machine: Machine
    pod: Json
    """As it was when it was bound."""
    bound: float
    restarts: int = 0
    waiting: tuple[str, str] = ("ContainerCreating", "")
    started: float = 0.0
    port: int | None = None
    is_ready: bool = False
    past_startup: bool = False
    evicted: str = ""
    stopping_at: float | None = None
    ends: list[Ended] = field(default_factory=list)
    book: LogBook = field(default_factory=LogBook)
    previous: LogBook | None = None
    _starts_at: float = 0.0
    _unit: Supervised | SimulatedUnit | None = None
    _crash: Crash | None = None
    _evict: Evict | None = None
    _is_asked: bool = False

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.pod["metadata"]["name"])

    @property
    def fault_name(self) -> str:
        """What faults call it."""
        return str((self.pod["metadata"].get("labels") or {}).get("nv-eval/name", self.name))

    @property
    def container(self) -> Json:
        """Its one container."""
        found: Json = self.pod["spec"]["containers"][0]
        return found

    @property
    def is_alive(self) -> bool:
        """Whether a process of it may be running."""
        return self._unit is not None

    @property
    def application(self) -> object:
        """What answers its requests where it is simulated."""
        return self._unit.script.application if isinstance(self._unit, SimulatedUnit) else None

    @property
    def phase(self) -> str:
        """Pending, Running, Succeeded, Failed."""
        if self.evicted:
            return "Failed"
        if self.ends and self.pod["spec"].get("restartPolicy") == "Never":
            return "Failed" if self.ends[-1].code else "Succeeded"
        return "Running" if self._unit is not None or self.ends else "Pending"

    @property
    def is_over(self) -> bool:
        """Whether it will not run again."""
        return self.phase in ("Succeeded", "Failed")

    # --- life ---------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Advance as far as possible."""
        now = self.machine.clock.now()
        self.book.collect(now)
        if self._unit is not None:
            self._watch(now)
        elif not self.is_over and self.stopping_at is None and now >= self._starts_at:
            self._try_to_start(now)

    def stop(self, grace: float) -> None:
        """Ask for the end, with so many seconds for a polite one."""
        if self.stopping_at is None:
            self.stopping_at = self.machine.clock.now()
            self.is_ready = False
            if self._unit is not None:
                self._unit.stop() if grace else self._unit.kill()

    def kill(self) -> None:
        """Ask for the end at once."""
        if self._unit is not None:
            self._unit.kill()

    def close(self) -> None:
        """Let go of its process; it ends at once."""
        if self._unit is not None:
            self._unit.close()

    def watch(self) -> None:
        """Notice its end; starts nothing."""
        if self._unit is not None and self._unit.look() is not None:
            self._unit = None

    def _try_to_start(self, now: float) -> None:
        pull = self.machine.faults.pick(PullError, self.fault_name) if self.waiting[0] != "ImagePullBackOff" else None
        image = self.container["image"]
        if pull is not None:
            self.waiting = ("ImagePullBackOff", f'Back-off pulling image "{image}": {pull.message}')
            self._starts_at = float("inf")
            return
        try:
            self._start(now)
        except CannotStart as error:
            self.waiting = ("CreateContainerConfigError", str(error))
            self._starts_at = now + 1.0
        except (PlatformError, OSError) as error:
            self.waiting = ("CreateContainerError", str(error))
            self._starts_at = now + 1.0

    def _start(self, now: float) -> None:
        folder = self.machine.root / "pods" / self.pod["metadata"]["uid"]
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"{self.restarts}.log"
        env = self._environment()
        simulation = self.machine.simulation(self.container["image"])
        self._crash = self.machine.faults.pick(Crash, self.fault_name)
        self._evict = self.machine.faults.pick(Evict, self.fault_name)
        self.previous, self.book = self.book if self.restarts else None, LogBook()
        if simulation is not None and self._crash is None:
            argv = (*self.container.get("command", ()), *self.container.get("args", ()))
            script = simulation(Command(argv=argv, env=env, port=None))
            self._unit = SimulatedUnit(script, self.machine.clock, log)
        else:
            self._unit = self._execute(env, folder, log)
        self.book.follow(self.name, log)
        self.started, self.past_startup = now, False

    def _execute(self, env: dict[str, str], folder: Path, log: Path) -> Supervised:
        container, config = self.container, self.machine.config
        image = config.image(container["image"])
        folders = self._folders()
        if self._has_account():
            folders[accounts.FOLDER] = folder / "account"
            env |= self.machine.accounts.give(self.pod, folders[accounts.FOLDER])
        argv = tuple(
            with_folders(word, folders) for word in (*container.get("command", ()), *container.get("args", ()))
        )
        env = {name: with_folders(value, folders) for name, value in env.items()}
        asked = next((port["containerPort"] for port in container.get("ports", ())), None)
        with contextlib.ExitStack() as stack:
            hold = stack.enter_context(ports.reserve()) if asked else None
            argv, env, self.port = listen(argv, env, asked, hold.port if hold else None, image)
            for name, value in image.env.items():
                env.setdefault(name, value.replace("{port}", str(self.port)).replace("{home}", str(folder)))
            if self._crash is not None:
                argv = ("/bin/sh", "-c", 'echo "$1"; exit "$2"', "sh", self._crash.message, str(self._crash.exit_code))
            if not argv:
                raise CannotStart(f"image {container['image']}: no command, and the image table has none for it")
            env["PATH"] = os.pathsep.join([*image.path, env.get("PATH", os.defpath)])
            grace = float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))
            command = supervised.Command(
                argv=argv, env={**env, "HOME": str(folder), "TMPDIR": str(folder)}, cwd=folder, log=log, grace=grace
            )
            mark = Mark(invocation=self.machine.owner, name=self.name, kind="emulated")
            return Supervised(mark, command, hold if hold and hold.port == self.port else None)

    def _watch(self, now: float) -> None:
        assert self._unit is not None
        ending = self._unit.look()
        if ending is not None:
            self._take_end(ending, now)
            return
        if self._evict is not None and now >= self.started + self._evict.seconds and not self.evicted:
            self.evicted = self._evict.message
            self.stop(0)
        if not self.is_ready and self.stopping_at is None:
            self._look_whether_ready(now)

    def _take_end(self, ending: Ending, now: float) -> None:
        self._unit, self.is_ready = None, False
        self.book.finish(self.name, now)
        code = 127 if ending.exit_code is None else ending.exit_code
        code = code if code >= 0 else 128 - code
        crash = self._crash
        reason = crash.reason if crash is not None else "Completed" if code == 0 else "Error"
        self.ends.append(Ended(started=self.started, finished=now, code=code, reason=reason))
        if not self.is_over and self.stopping_at is None:
            delay = min(self.machine.config.timing.restart_delay * 2.0**self.restarts, MOST_DELAY)
            self.restarts += 1
            self._starts_at = now + delay
            self.waiting = (
                "CrashLoopBackOff",
                f"back-off {delay:g}s restarting failed container={self.container['name']}",
            )

    # --- probes -------------------------------------------------------------------------------------------------------

    def _look_whether_ready(self, now: float) -> None:
        probe = self.container.get("readinessProbe") or self.container.get("startupProbe")
        if isinstance(self._unit, SimulatedUnit):
            self.is_ready = self._unit.is_open
        elif probe is None or self.port is None:
            self.is_ready = True
        elif not self._is_asked:
            self._is_asked = True
            self.machine.spawn(lambda: self._ask(probe))
        startup = self.container.get("startupProbe") or {}
        longest = startup.get("failureThreshold", 3) * startup.get("periodSeconds", 10)
        if startup and not self.is_ready and not self.past_startup and now > self.started + longest:
            assert self._unit is not None
            self._unit.stop()  # a kubelet restarts what never started
        self.past_startup = self.past_startup or self.is_ready

    async def _ask(self, probe: Json) -> None:
        """One question, more often than a kubelet asks it."""
        try:
            async with asyncio.timeout(PROBE_TIME):
                answered = await _answers(self.port or 0, (probe.get("httpGet") or {}).get("path"))
        except (TimeoutError, OSError):
            answered = False
        self._is_asked = False
        self.is_ready = answered and self._unit is not None and self.stopping_at is None

    # --- what it is made of -------------------------------------------------------------------------------------------

    def _environment(self) -> dict[str, str]:
        found = {name: os.environ[name] for name in self.machine.config.inherit if name in os.environ}
        found["HOSTNAME"] = self.name
        for variable in self.container.get("env", ()):
            source = (variable.get("valueFrom") or {}).get("secretKeyRef")
            found[variable["name"]] = variable.get("value", "") if source is None else self._secret(source)
        return found

    def _has_account(self) -> bool:
        return bool(self.pod["spec"].get("automountServiceAccountToken", True))

    def _secret(self, source: Mapping[str, str]) -> str:
        from base64 import b64decode

        namespace = self.pod["metadata"]["namespace"]
        secret = self.machine.store.find(SECRETS, namespace, source["name"])
        if secret is None:
            raise CannotStart(f'secret "{source["name"]}" not found')
        data = secret.get("data") or {}
        if source["key"] not in data:
            raise CannotStart(f"couldn't find key {source['key']} in Secret {namespace}/{source['name']}")
        return b64decode(data[source["key"]]).decode()

    def _folders(self) -> dict[str, Path]:
        spec, found = self.pod["spec"], {}
        claims = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in spec.get("volumes", ()) if _is_claim(v)}
        for mount in self.container.get("volumeMounts", ()):
            if mount["name"] in claims:
                folder = self.machine.root / "volumes" / claims[mount["name"]] / mount.get("subPath", "")
                folder.mkdir(parents=True, exist_ok=True)
                found[mount["mountPath"].rstrip("/")] = folder
        return found

    # --- what the API shows -------------------------------------------------------------------------------------------

    def status(self) -> Json:
        """The status of the pod."""
        now_ready = "True" if self.is_ready and self.phase == "Running" else "False"
        since = stamp(self.started or self.bound)
        conditions = [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(self.bound)},
            {"type": "Initialized", "status": "True", "lastTransitionTime": stamp(self.bound)},
            {"type": "ContainersReady", "status": now_ready, "lastTransitionTime": since},
            {"type": "Ready", "status": now_ready, "lastTransitionTime": since},
        ]
        found: Json = {
            "phase": self.phase,
            "conditions": conditions,
            "hostIP": "127.0.0.1",
            "podIP": "127.0.0.1",
            "podIPs": [{"ip": "127.0.0.1"}],
            "startTime": stamp(self.bound),
            "qosClass": "BestEffort",
            "containerStatuses": [self._container_status()],
        }
        if self.evicted:
            gone = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
            conditions.append({**gone, "message": self.evicted, "lastTransitionTime": since})
            found |= {"reason": "Evicted", "message": self.evicted}
        return found

    def _container_status(self) -> Json:
        if self._unit is not None:
            state: Json = {"running": {"startedAt": stamp(self.started)}}
        elif self.ends and self.is_over:
            state = self.ends[-1].state()
        else:
            state = {"waiting": {"reason": self.waiting[0]} | ({"message": self.waiting[1]} if self.waiting[1] else {})}
        earlier = self.ends[-1].state() if self.ends and not self.is_over else {}
        return {
            "name": self.container["name"],
            "image": self.container["image"],
            "imageID": "",
            "ready": self.is_ready,
            "started": self._unit is not None,
            "restartCount": self.restarts,
            "state": state,
            "lastState": earlier,
        }


async def _answers(port: int, path: str | None) -> bool:
    reader, writer = await asyncio.open_connection(ports.HOST, port)
    try:
        if path is None:
            return True
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {ports.HOST}\r\n\r\n".encode())
        words = (await reader.readline()).split()
        return len(words) > 1 and words[1][:1] in (b"2", b"3")
    finally:
        writer.close()


def _is_claim(volume: Json) -> bool:
    return "persistentVolumeClaim" in volume
