"""The lease of an invocation: exactly one supervisor runs it. Each write of
its holder proves that it still is.

A lease is stale when its holder is gone, or has shown no sign of life for STALE seconds: then another may take it over.
Signs of life are its writes in the journal and, where the disk takes no more, those of launcher.orchestrator.signs.
Standard library only.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from launcher.orchestrator import signs

STALE = 60.0
"""Seconds without a sign of life after which a lease may be taken over."""


@dataclass(frozen=True, kw_only=True)
class Lease:
    """Who runs an invocation. `taken` and `beat` (the last sign of life) in seconds since 1970."""

    invocation: str
    owner: str
    host: str
    pid: int
    pid_start: str
    taken: float
    beat: float

    @property
    def is_here(self) -> bool:
        """Whether its holder is, or was, a process of this machine."""
        return self.host == host_name()

    @property
    def process_lives(self) -> bool:
        """Whether its holder is a live process of this machine; a later process with the same pid does not count."""
        return self.is_here and bool(self.pid_start) and process_start(self.pid) == self.pid_start

    def signal(self, number: int) -> bool:
        """Send a signal to its holder, never to a later process with the same pid; false if that is not alive here."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        except OSError:  # no pidfds here (old kernel, some sandboxes): look, then hope
            return self.process_lives and _kill(self.pid, number)
        try:
            # Looked at after opening: from here on the descriptor means the process that was looked at, or a dead one.
            if not self.process_lives:
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    @property
    def age(self) -> float:
        """Seconds since its last sign of life."""
        return max(0.0, time.time() - self.beat)

    @property
    def hangs(self) -> bool:
        """Whether its holder is a live process of this machine that no longer shows it."""
        return self.process_lives and self.age > STALE

    @property
    def is_stale(self) -> bool:
        """Whether it may be taken over."""
        return (self.is_here and not self.process_lives) or self.age > STALE


def _kill(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def host_name() -> str:
    """This machine's name, as `socket` gives it, which costs a status some milliseconds to load."""
    return os.uname().nodename


def process_start(pid: int) -> str:
    """A mark of one process that a later one with the same pid does not share; empty if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *rest = stat.rpartition(")")[2].split()
    return "" if state == "Z" else f"{rest[18]}{_boot()}"


def _boot() -> str:
    """What tells this boot of the machine from others: start times count from it."""
    try:
        return "@" + Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return ""


def read(db: sqlite3.Connection, invocation: str, folder: Path) -> Lease | None:
    """The lease of an invocation, with its holder's sign of life in `folder`; None if nobody ever held it."""
    row = db.execute(
        "SELECT owner, host, pid, pid_start, taken, beat FROM leases WHERE invocation = ?", (invocation,)
    ).fetchone()
    if row is None:
        return None
    owner, host, pid, start, taken, beat = row
    beat = max(beat, signs.last(folder, invocation, owner))
    return Lease(invocation=invocation, owner=owner, host=host, pid=pid, pid_start=start, taken=taken, beat=beat)


def write(db: sqlite3.Connection, invocation: str) -> Lease:
    """Give the lease to this process, whoever holds it. To be called in a transaction."""
    now = time.time()
    lease = Lease(
        invocation=invocation,
        owner=os.urandom(8).hex(),  # what secrets.token_hex does; `secrets` loads half of hashlib for it
        host=host_name(),
        pid=os.getpid(),
        pid_start=process_start(os.getpid()),
        taken=now,
        beat=now,
    )
    row = (invocation, lease.owner, lease.host, lease.pid, lease.pid_start, lease.taken, lease.beat)
    db.execute("INSERT OR REPLACE INTO leases VALUES (?,?,?,?,?,?,?)", row)
    return lease
