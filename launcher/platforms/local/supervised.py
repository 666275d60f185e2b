"""The launcher's side of a supervisor: starts one, reads what it tells, asks it to stop."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from launcher.errors import PlatformError
from launcher.platforms.local import cgroups, supervisor
from launcher.platforms.local.launchers import Launcher
from launcher.platforms.local.ports import Reservation
from launcher.platforms.local.unit import Ending

OWNER = "NV_EVAL_OWNER"
"""Variable in the environment of everything a supervisor starts: `INVOCATION/NAME`. It finds what a killed one left."""
LAUNCHED = "NV_EVAL_LAUNCHED"
"""Variable beside it: `KIND/HOST/PID/START`, the kind and the launcher."""

VISIBLE_WITHIN = 10.0
"""Seconds within which a supervisor must show its mark; it takes far less than one."""

Kind = Literal["endpoint", "job", "prepare", "emulated"]
"""Things of the kind `emulated` belong to an emulator: they die with it, and no `sweep` lists them."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What a supervisor's argument list says of it, for `sweep`."""

    invocation: str
    name: str
    kind: Kind
    launcher: Launcher | None = field(default_factory=Launcher.own)
    """None where what was found does not name one."""

    @property
    def owner(self) -> str:
        """The value of OWNER."""
        return f"{self.invocation}/{self.name}"

    @property
    def launched(self) -> str:
        """The value of LAUNCHED."""
        return f"{self.kind}/{self.launcher}"

    def group_words(self) -> tuple[str, ...]:
        """The mark in the name of a control group."""
        return (self.invocation, self.name, self.kind, *str(self.launcher).split("/"))

    def arguments(self) -> list[str]:
        """The mark as arguments."""
        return [supervisor.MARK, self.invocation, self.name, self.kind, str(self.launcher)]


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a supervisor runs. `grace` is the time in seconds between a polite request to end and SIGKILL."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: Path
    log: Path
    grace: float
    secrets: tuple[str, ...] = ()

    @property
    def record(self) -> Path:
        """The file that says how the command ended."""
        return self.log.with_suffix(".exit.json")


class Supervised:
    """One command under its supervisor. `look` reads what the supervisor has told; nothing here waits for it.

    The supervisor, not the command, keeps the descriptors `locks` open until nothing is left of its subtree. Once this
    is made, `supervisors` finds it. Raises PlatformError if the supervisor cannot be started.
    """

    def __init__(
        self, mark: Mark, command: Command, reservation: Reservation | None = None, locks: tuple[int, ...] = ()
    ) -> None:
        self.mark = mark
        self._ending: Ending | None = None
        self._buffer = b""
        self._closed = False
        self._supervisor, self._orders, self._events = _start(mark, reservation, locks)
        self._group = cgroups.make(mark.group_words())
        self._say(_document(mark, command, reservation, locks, self._group))

    @property
    def id(self) -> str:
        """`pid:N` of the supervisor."""
        return f"pid:{self._supervisor.pid}"

    def look(self) -> Ending | None:
        """How the command ended, once nothing of its subtree is left and its log is complete; else None."""
        if self._ending is None:
            self._read()
        if self._ending is None and self._supervisor.poll() is not None:
            self._read()
            if self._ending is None:
                self._clean_up_after_supervisor()
        return self._ending

    @property
    def is_silent(self) -> bool:
        """Whether its log is complete."""
        return self.look() is not None

    @property
    def is_over(self) -> bool:
        """Whether nothing of the whole subtree is left."""
        return self.look() is not None

    def stop(self) -> None:
        """Ask for a polite end: SIGTERM, the grace time, SIGKILL."""
        self._say(b"stop\n")

    def kill(self) -> None:
        """Ask for SIGKILL at once."""
        self._say(b"kill\n")

    def close(self) -> None:
        """Let go of the pipes; a supervisor that still runs ends its subtree at once."""
        if not self._closed:
            self._closed = True
            os.close(self._orders)
            os.close(self._events)

    def _say(self, text: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            while text and not self._closed:
                text = text[os.write(self._orders, text) :]

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while not self._closed and (chunk := os.read(self._events, 65536)):
                self._buffer += chunk
        if self._buffer.endswith(b"\n"):
            self._ending = _ending(json.loads(self._buffer))
            self.close()
            self._supervisor.wait()

    def _clean_up_after_supervisor(self) -> None:
        """The supervisor was killed: its command died with it (PDEATHSIG); end what that had started."""
        for process in owned_by(self.mark.owner):
            process.signal(signal.SIGKILL)
        if next(owned_by(self.mark.owner), None) is None:
            cgroups.remove(self._group)
            self._ending = Ending(exit_code=None, detail="its supervisor was killed")
            self.close()


def _start(
    mark: Mark, reservation: Reservation | None, locks: tuple[int, ...]
) -> tuple[subprocess.Popen[bytes], int, int]:
    """The supervisor, where to write its orders, and where to read its events without blocking."""
    orders_read, orders = os.pipe()
    events, events_write = os.pipe()
    os.set_blocking(events, False)
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, *mark.arguments()],
            stdin=orders_read,
            stdout=events_write,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ},
            pass_fds=locks if reservation is None else (reservation.fd, *locks),
            start_new_session=True,
        )
    except OSError as error:
        os.close(orders)
        os.close(events)
        raise PlatformError(f"cannot start a process for {mark.name}: {error.strerror}") from error
    finally:
        os.close(orders_read)
        os.close(events_write)
    if not _shows_mark(process):
        process.kill()
        process.wait()
        os.close(orders)
        os.close(events)
        raise PlatformError(f"cannot see the process of {mark.name} in /proc, so that it could be lost; nothing runs")
    return process, orders, events


def _shows_mark(process: subprocess.Popen[bytes]) -> bool:
    """Wait until a sweep can find the supervisor: the kernel shows its arguments a moment after exec has begun."""
    deadline = time.monotonic() + VISIBLE_WITHIN
    while mark_of(process.pid) is None:
        if process.poll() is not None:
            return True  # it has ended already: there is nothing to find, and `look` tells
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0005)
    return True


def _document(
    mark: Mark, command: Command, reservation: Reservation | None, locks: tuple[int, ...], group: Path | None
) -> bytes:
    document = {
        "argv": command.argv,
        "env": {**command.env, OWNER: mark.owner, LAUNCHED: mark.launched},
        "cwd": str(command.cwd),
        "log": str(command.log),
        "record": str(command.record),
        "grace": command.grace,
        "parent": os.getpid(),
        "hold_fd": None if reservation is None else reservation.fd,
        "lock_fds": locks,
        "cgroup": None if group is None else str(group),
        "secrets": command.secrets,
    }
    return json.dumps(document).encode() + b"\n"


def _ending(record: dict[str, Any]) -> Ending:
    code: int | None = record["exit_code"]
    by_itself = record["why"] == "exited"
    return Ending(exit_code=code, detail=record["error"] or _say_how(code, by_itself=by_itself))


def _say_how(code: int | None, *, by_itself: bool) -> str:
    if code is None:
        return "never started"
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = "; was the machine out of memory?" if name == "SIGKILL" and by_itself else ""
    return f"killed by {name}{hint}"


def owned_by(owner: str) -> Iterator[supervisor.Process]:
    """Living processes of this user that one supervisor's command started."""
    return (process for mark, process in marked() if mark.owner == owner)


def marked() -> Iterator[tuple[Mark, supervisor.Process]]:
    """Living processes whose environment, or control group, says which supervisor's command started them.

    As far as it can be read. A pid that is used again meanwhile gets no signal: the start time is read first.
    """
    for pid in _pids():
        process = supervisor.read_process(pid)
        mark = None if process is None or process.state in "ZX" else _mark_in_group(pid) or _mark_in_environment(pid)
        if process is not None and mark is not None:
            yield mark, process


def _mark_in_group(pid: int) -> Mark | None:
    match cgroups.words_of(pid):
        case [invocation, name, kind, *launcher] if kind in get_args(Kind):
            launched_by = Launcher.parse("/".join(launcher))
            return Mark(invocation=invocation, name=name, kind=cast(Kind, kind), launcher=launched_by)
    return None


def _mark_in_environment(pid: int) -> Mark | None:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    variables = dict(entry.partition("=")[::2] for entry in environment.decode(errors="replace").split("\0"))
    invocation, _, name = variables.get(OWNER, "").partition("/")
    kind, _, launcher = variables.get(LAUNCHED, "").partition("/")
    if not name or kind not in get_args(Kind):
        return None
    return Mark(invocation=invocation, name=name, kind=cast(Kind, kind), launcher=Launcher.parse(launcher))


def supervisors() -> Iterator[tuple[Mark, int]]:
    """Every supervisor on this machine that can be seen, of any invocation, with its pid."""
    for pid in _pids():
        if (mark := mark_of(pid)) is not None:
            yield mark, pid


def age(pid: int) -> float | None:
    """Seconds since a process started; None if there is none."""
    process = supervisor.read_process(pid)
    if process is None:
        return None
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return max(0.0, uptime - int(process.start) / os.sysconf("SC_CLK_TCK"))


def mark_of(pid: int) -> Mark | None:
    """The mark of a supervisor; None if no supervisor has this pid."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    match arguments[3:]:
        case [
            program,
            supervisor.MARK,
            invocation,
            name,
            ("endpoint" | "job" | "prepare" | "emulated") as kind,
            *rest,
        ] if Path(program).name == Path(supervisor.__file__).name:
            launcher = Launcher.parse(rest[0]) if rest else None
            return Mark(invocation=invocation, name=name, kind=kind, launcher=launcher)
    return None


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
