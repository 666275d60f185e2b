"""GPUs reserved among all launchers on this machine, whoever started them.

Each GPU has a file in one folder that all users share. Whoever holds an exclusive `flock` on it has the GPU; what the
file says is only for people. The kernel lifts the lock when the last process has closed it, however that one ended. The
supervisors of servers (of containers: the reaper) keep it open too, so that a GPU stays taken while the server of a
killed launcher is still dying; servers do not get it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from launcher.platforms.local.launchers import user
from launcher.platforms.local.machine import Gpu

FOLDER_VARIABLE = "NV_EVAL_GPU_LOCKS"
FOLDER = Path("/tmp/nv-eval-gpus")  # noqa: S108 - shared on purpose: TMPDIR may be a user's own
FOR_ALL_USERS = 0o1777
GATE = "gate"
"""The file whose lock makes reserving several GPUs one step, so that two launchers cannot each hold half of them."""
_LONGEST_NOTE = 200


def shared_folder() -> Path:
    """Where the locks are: NV_EVAL_GPU_LOCKS, else a folder in /tmp."""
    return Path(os.environ.get(FOLDER_VARIABLE) or FOLDER)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What came of trying to reserve GPUs. `holders`: who has each that was not free, by its number."""

    taken: tuple[Gpu, ...] = ()
    holders: dict[int, str] = field(default_factory=dict)

    @property
    def who(self) -> str:
        """The holders in one line."""
        return ", ".join(f"GPU {number} by {holder}" for number, holder in self.holders.items())


class GpuLocks:
    """The GPUs that one invocation has reserved. Nothing here waits."""

    def __init__(self, invocation: str, folder: Path | None = None) -> None:
        self._invocation = invocation
        self._folder = folder or shared_folder()
        self._directory: int | None = None
        self._held: dict[str, int] = {}

    def take(self, gpus: Sequence[Gpu], *, least: int, most: int) -> Attempt:
        """Reserve free GPUs, `most` of them if possible, and none if fewer than `least` are free.

        Raises OSError where this user cannot use the folder or a file in it.
        """
        if self._directory is None:
            self._directory = _open_folder(self._folder)
        with _gate(self._directory) as is_open:
            attempt = self._take(self._directory, gpus, most) if is_open else Attempt()
        if len(attempt.taken) < least:
            self._let_go()
            return Attempt(holders=attempt.holders)
        return attempt

    def _take(self, directory: int, gpus: Sequence[Gpu], most: int) -> Attempt:
        taken: list[Gpu] = []
        holders: dict[int, str] = {}
        for gpu in gpus:
            if len(taken) == most:
                break
            descriptor = _open_file(directory, _file_of(gpu))
            if _lock(descriptor):
                self._held[_file_of(gpu)] = descriptor
                _write_note(descriptor, self._invocation)
                taken.append(gpu)
            else:
                holders[gpu.number] = _note(descriptor)
                os.close(descriptor)
        return Attempt(taken=tuple(taken), holders=holders)

    def descriptors(self, gpus: Sequence[Gpu] | None = None) -> tuple[int, ...]:
        """What another process has to keep open so that these GPUs, or all, stay reserved as long as it lives."""
        wanted = self._held if gpus is None else map(_file_of, gpus)
        return tuple(self._held[name] for name in wanted if name in self._held)

    def release(self) -> None:
        """Give this process's share of all locks back."""
        self._let_go()
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None

    def _let_go(self) -> None:
        while self._held:
            os.close(self._held.popitem()[1])


def holders(gpus: Sequence[Gpu], folder: Path | None = None) -> Attempt:
    """Which GPUs others have reserved now; nothing is written. What cannot be read counts as free."""
    found: dict[int, str] = {}
    with (
        contextlib.suppress(OSError),
        _existing(folder or shared_folder()) as directory,
        _opened(directory, GATE) as gate,
    ):
        for gpu in gpus if _lock(gate) else ():
            with contextlib.suppress(FileNotFoundError), _opened(directory, _file_of(gpu)) as descriptor:
                if not _lock(descriptor):
                    found[gpu.number] = _note(descriptor)
    return Attempt(holders=found)


def _file_of(gpu: Gpu) -> str:
    return re.sub(r"[^\w.-]", "_", gpu.uuid or f"gpu-{gpu.number}")


# --- the folder -------------------------------------------------------------------------------------------------------


def _open_folder(folder: Path) -> int:
    """A descriptor of the folder, made for all users. A lock on it keeps systemd-tmpfiles from clearing it by age."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(parents=True)
        folder.chmod(FOR_ALL_USERS)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    _lock(directory, fcntl.LOCK_SH)
    return directory


@contextlib.contextmanager
def _existing(folder: Path) -> Iterator[int]:
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield directory
    finally:
        os.close(directory)


@contextlib.contextmanager
def _gate(directory: int) -> Iterator[bool]:
    """Within, nobody else reserves; false if somebody does just now."""
    descriptor = _open_file(directory, GATE)
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened(directory: int, name: str) -> Iterator[int]:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_file(directory: int, name: str) -> int:
    """A file that every user can lock. Linux refuses O_CREAT on another user's file in such a folder, so it comes last.

    (sysctl fs.protected_regular)
    """
    with contextlib.suppress(FileNotFoundError):
        return os.open(name, os.O_RDWR | os.O_NOFOLLOW, dir_fd=directory)
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL, dir_fd=directory)
    except FileExistsError:
        return os.open(name, os.O_RDWR | os.O_NOFOLLOW, dir_fd=directory)
    os.fchmod(descriptor, 0o666)
    return descriptor


def _lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Whether the lock was free, and is ours now."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EINTR):
            return False
        raise
    return True


# --- what the files say -----------------------------------------------------------------------------------------------


def _write_note(descriptor: int, invocation: str) -> None:
    with contextlib.suppress(OSError):  # a full disk: the lock counts, not the note
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{invocation} {user()}\n".encode(), 0)


def _note(descriptor: int) -> str:
    """Who holds a lock, in words. Any user may have written the file: nothing of it may steer a terminal."""
    words = os.pread(descriptor, _LONGEST_NOTE, 0).decode(errors="replace").split()
    known = [re.sub(r"[^\w.@-]", "?", word) for word in words[:2]]
    return f"invocation {known[0]} of {known[1]}" if len(known) == 2 else "another run"
