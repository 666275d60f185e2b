"""Everything of this user on a cluster that carries our mark, of any invocation, and its removal."""

from __future__ import annotations

import re

from launcher.config.execution import Slurm
from launcher.errors import PlatformError
from launcher.platforms.base import Leftover, ResourceState
from launcher.platforms.slurm import queue, scripts
from launcher.platforms.slurm.queue import QueuedJob
from launcher.platforms.slurm.shell import Shell

_FOLDER = re.compile(r"[a-z][a-z0-9]*")
"""Names that an invocation's folder can have."""


async def sweep(shell: Shell, execution: Slurm, invocation: str) -> list[Leftover]:
    """What invocations whose id begins with `invocation` have there. Raises PlatformError.

    A folder shows once no job uses it: whoever removed it earlier would take it away from under them.
    """
    home = (await shell.ask(scripts.HOME)).text
    said = (await shell.ask(scripts.JOBS, *queue.TEXT)).text
    clock, _, listed = said.partition("\n")
    now = float(clock)
    alive = [job for job in queue.parse_text(listed) if job.invocation and job.is_active]
    alive = list({job.name: job for job in alive}.values())  # elements of an array have one name: they go together
    used = {job.invocation for job in alive}
    folders = (await shell.ask(scripts.FOLDERS, work_dir(execution, home))).text
    found = [_job(job, now) for job in alive]
    found += [left for line in folders.splitlines() if (left := _folder(line, now)) and left.invocation not in used]
    return [left for left in found if left.invocation.startswith(invocation)]


async def remove(shell: Shell, execution: Slurm, leftover: Leftover) -> None:
    """Ask for its removal; one that does not exist any more is no error. Raises PlatformError."""
    if not _FOLDER.fullmatch(leftover.invocation):
        raise PlatformError(f"{leftover.invocation}: is no invocation")
    home = (await shell.ask(scripts.HOME)).text
    folder = work_dir(execution, home)
    if leftover.kind == "storage":
        await shell.ask(scripts.REMOVE_FOLDER, folder, leftover.invocation, timeout=600.0)
    else:
        await shell.ask(scripts.CANCEL, f"{folder}/{leftover.invocation}", payload=f"{leftover.name}\n".encode())


def work_dir(execution: Slurm, home: str) -> str:
    """The folder of all invocations on the cluster."""
    folder = execution.work_dir.rstrip("/")
    return f"{home}{folder[1:]}" if folder == "~" or folder.startswith("~/") else folder


def _job(job: QueuedJob, now: float) -> Leftover:
    pending = job.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")
    return Leftover(
        kind="job" if job.comment.endswith(":job") else "endpoint",
        name=job.name,
        invocation=job.invocation,
        id=str(job.id),
        state=ResourceState.PENDING if pending else ResourceState.RUNNING,
        said=job.state.lower(),
        age=max(0.0, now - job.submitted) if job.submitted else None,
        expires_in=max(0.0, job.ends - now) if job.ends and not pending else None,
    )


def _folder(line: str, now: float) -> Leftover | None:
    changed, _, name = line.partition(" ")
    if not _FOLDER.fullmatch(name) or not changed.isdigit():
        return None
    return Leftover(
        kind="storage", name=name, invocation=name, id=name, said="folder", age=max(0.0, now - float(changed))
    )
