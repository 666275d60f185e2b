"""Everything on this machine that carries our mark, whichever runtime made it, and its removal.

Processes are those of the user who asks. A server or job whose supervisor lives is one entry; without its supervisor
(which takes a SIGKILL of both it and its launcher) each process that still carries the mark is an entry of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from launcher.config.execution import Local
from launcher.errors import MissingExtra, PlatformError
from launcher.platforms.base import Leftover, ResourceState
from launcher.platforms.local import supervisor
from launcher.platforms.local.launchers import Launcher, user
from launcher.platforms.local.supervised import Mark, age, mark_of, marked, supervisors

_PROCESS = "pid"
_INIT = 1


async def sweep(execution: Local, invocation: str) -> list[Leftover]:
    """Processes always; containers, networks and volumes where an engine answers.

    Raises PlatformError if the engine cannot be asked although the execution runs containers, or stops in the middle.
    """
    found = await asyncio.to_thread(lambda: list(processes()))
    if execution.runtime == "docker" and not _docker_is_installed():
        raise MissingExtra("the docker client", "docker")
    if execution.runtime == "docker" or (_may_have_engine(execution) and await _why_no_engine(execution) is None):
        from launcher.platforms.local.docker import engine

        found += await asyncio.to_thread(engine.sweep, engine.address(execution.docker.host))
    return [left for left in found if left.invocation.startswith(invocation)]


async def unseen(execution: Local) -> list[str]:
    """The engine that should be there and does not answer. No socket at all means no engine, so nothing to see."""
    why = await _why_no_engine(execution) if _may_have_engine(execution) else None
    return [f"containers: {why}; start it, or set DOCKER_HOST"] if why else []


def _may_have_engine(execution: Local) -> bool:
    """Whether an engine should be there: somebody named one, or there is a socket that this user may use."""
    if not _docker_is_installed():
        return False
    from launcher.platforms.local.docker import engine

    return engine.is_expected(execution.docker.host)


async def _why_no_engine(execution: Local) -> str | None:
    from launcher.platforms.local.docker import engine

    try:
        (await asyncio.to_thread(engine.connect, engine.address(execution.docker.host))).close()
    except PlatformError as error:
        return str(error)
    return None


def _docker_is_installed() -> bool:
    return importlib.util.find_spec("docker") is not None


async def remove(execution: Local, leftover: Leftover) -> None:
    """Ask for the end of one process tree, or remove one thing of the engine. Raises PlatformError.

    A launcher that lives is told to stop first: it would take what goes for a failure, and make it again.
    """
    launcher = Launcher.parse(leftover.launcher)
    if launcher is not None:
        launcher.tell_to_end()
    kind, _, rest = leftover.id.partition(":")
    if kind == _PROCESS:
        _end(rest)
        return
    from launcher.platforms.local.docker import engine

    await asyncio.to_thread(engine.remove_left, engine.address(execution.docker.host), leftover)


# --- processes --------------------------------------------------------------------------------------------------------


def processes() -> Iterator[Leftover]:
    """Servers and jobs of this user, of every invocation; an emulator's die with it and do not count."""
    suspects = [(mark, process) for mark, process in marked() if _is_ours(process.pid)]
    found = list(supervisors())
    guarding = {pid: mark.owner for mark, pid in found}
    guarded = set(guarding.values())
    for mark, pid in found:
        process = supervisor.read_process(pid)
        is_it = process is not None and mark_of(pid) == mark  # the pid may have been used again since it was listed
        if process is not None and guarding.get(process.parent) == mark.owner:
            continue  # the copy of a supervisor that is about to become its server or job
        if process is not None and is_it and _is_ours(pid) and mark.kind != "emulated":
            yield _leftover(mark, process, "running", _launcher_of(mark, process))
    for mark, process in suspects:
        now = supervisor.read_process(process.pid)
        is_there = now is not None and now.start == process.start and now.state not in "ZX"
        if is_there and mark.owner not in guarded and mark.kind != "emulated":
            alive = mark.launcher.is_alive if mark.launcher else None
            yield _leftover(mark, process, "without its supervisor", alive)


def _launcher_of(mark: Mark, process: supervisor.Process) -> bool | None:
    """A supervisor without the launcher's mark (of an earlier version) ends with it: with a parent, that one lives."""
    if mark.launcher is not None:
        return mark.launcher.is_alive
    return True if process.parent != _INIT else None


def _leftover(mark: Mark, process: supervisor.Process, said: str, launcher_alive: bool | None) -> Leftover:
    return Leftover(
        kind="endpoint" if mark.kind == "endpoint" else "job",
        name=mark.name,
        invocation=mark.invocation,
        id=f"{_PROCESS}:{process.pid}:{process.start}",
        state=ResourceState.RUNNING,
        said=said,
        age=age(process.pid),
        usd_per_hour=0.0,
        owner=user(),
        launcher_alive=launcher_alive,
        launcher=str(mark.launcher or ""),
    )


def _is_ours(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}").stat().st_uid == os.geteuid()
    except OSError:
        return False


def _end(process: str) -> None:
    """A supervisor is asked politely and ends its whole tree; what has none is killed. A reused pid is never hit."""
    pid, _, start = process.partition(":")
    number = signal.SIGKILL if mark_of(int(pid)) is None else signal.SIGTERM
    with contextlib.suppress(ProcessLookupError):
        supervisor.Process(int(pid), 0, start).signal(number)
