"""Which launcher made a process or a container of this machine, and whether it still runs.

A pid alone proves nothing, as it is used again: the start time of the process makes it unique, the host's name says
where to look.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import socket
from dataclasses import dataclass

from launcher.platforms.local import supervisor


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """A process that runs, or ran, an invocation. `start` is the time of its start in the kernel's ticks."""

    host: str
    pid: int
    start: str

    @classmethod
    def own(cls) -> Launcher:
        """This process."""
        process = supervisor.read_process(os.getpid())
        return cls(host=socket.gethostname(), pid=os.getpid(), start=process.start if process else "")

    @classmethod
    def parse(cls, text: str) -> Launcher | None:
        """The launcher that a mark names; None if it names none."""
        host, _, process = text.partition("/")
        pid, _, start = process.partition("/")
        return cls(host=host, pid=int(pid), start=start) if pid.isdigit() and start.isdigit() else None

    def __str__(self) -> str:
        return f"{self.host}/{self.pid}/{self.start}"

    @property
    def is_alive(self) -> bool | None:
        """Whether it runs; None if that is another machine's to know."""
        if self.host != socket.gethostname():
            return None
        process = supervisor.read_process(self.pid)
        return process is not None and process.start == self.start and process.state not in "ZX"

    def tell_to_end(self) -> None:
        """Ask it once to stop what it runs, as Ctrl-C would; never this process, nor one that may not be asked."""
        if self.pid == os.getpid() or self in _told or not self.is_alive:
            return
        _told.add(self)
        with contextlib.suppress(PermissionError):
            supervisor.Process(self.pid, 0, self.start).signal(signal.SIGTERM)


_told: set[Launcher] = set()
"""A second signal would keep a launcher from waiting for what it removes."""


def user() -> str:
    """The name of this user; the number where the machine has no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
