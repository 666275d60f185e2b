"""Scripts on the cluster: on this machine, or over one multiplexed OpenSSH connection.

A script goes to the standard input of a shell there, its arguments quoted into it, and what follows is the script's
own input. So nothing passes through the person's login shell, and no value stands in an argument list.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from launcher.errors import PlatformError

AT_ONCE = 8
"""Scripts at the same time: sshd takes ten sessions on one connection."""
CONNECT_TIMEOUT = 15
KEPT_ALIVE = 60
"""Seconds that a connection outlives its last use, should the launcher be killed."""
BUSY_TIME = 15.0
"""Seconds that a controller may not answer."""
PAUSE = 1.0
SSH_FAILED = 255
"""OpenSSH's own exit code for whatever is wrong with the connection."""
PASSED_ON = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "SLURM_CONF", "MODULE*",
    "LMOD_*", "BASH_FUNC_*", "LD_LIBRARY_PATH", "MANPATH",
)  # fmt: skip
"""What Slurm's commands get of this process's environment, which sbatch hands on to jobs: no secrets."""
SSH_PASSED_ON = (*PASSED_ON, "SSH_*", "KRB5*", "XDG_*")


class ConnectionLost(PlatformError):
    """The cluster cannot be reached: what was asked for may have happened or not."""


@dataclass(frozen=True)
class Answer:
    """What a script printed, and its exit code."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """What it printed, as text."""
        return self.out.decode(errors="replace")


class Shell:
    """Runs scripts of /bin/sh on the cluster. `host`: None for this machine."""

    def __init__(self, host: str | None, environment: Mapping[str, str] | None = None) -> None:
        self.host = host
        self._environment = os.environ if environment is None else environment
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._connecting = asyncio.Lock()
        self._options: list[str] | None = None
        self._sockets: str | None = None

    async def run(self, script: str, *arguments: str, payload: bytes = b"", timeout: float = 60.0) -> Answer:
        """Run a script to its end. `timeout` in seconds.

        Raises ConnectionLost if it cannot be reached, or does not answer in time.
        """
        text = f"set -- {shlex.join(arguments)}\n{script}".encode(errors="surrogateescape")
        remote = f"""/bin/sh -c 'eval "$(head -c {len(text)})"'"""
        async with self._slots:
            argv = shlex.split(remote) if self.host is None else [*await self._ssh(), self.host, remote]
            answer = await self._communicate(argv, text + payload, timeout)
        if self.host is not None and answer.code == SSH_FAILED:
            raise ConnectionLost(f"{self.host}: {_last_line(answer.err) or 'the connection was lost'}")
        return answer

    async def ask(self, script: str, *arguments: str, payload: bytes = b"", timeout: float = 60.0) -> Answer:
        """The same for a script that has to succeed, and that may run again: a controller that is busy is waited for.

        Raises PlatformError with what it said.
        """
        clock = asyncio.get_running_loop()
        deadline = clock.time() + BUSY_TIME
        while True:
            answer = await self.run(script, *arguments, payload=payload, timeout=timeout)
            if answer.code == 0:
                return answer
            if not is_passing(answer.err) or clock.time() > deadline:
                raise PlatformError(f"Slurm: {_last_line(answer.err) or f'exit code {answer.code}'}")
            await asyncio.sleep(PAUSE)

    async def _communicate(self, argv: list[str], payload: bytes, timeout: float) -> Answer:
        kept = PASSED_ON if self.host is None else SSH_PASSED_ON
        env = {n: v for n, v in self._environment.items() if any(fnmatchcase(n, pattern) for pattern in kept)}
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=pipe, stdout=pipe, stderr=pipe, env=env, start_new_session=True
            )
        except OSError as error:
            raise ConnectionLost(f"{argv[0]}: cannot be started: {error.strerror}") from error
        try:
            async with asyncio.timeout(timeout):
                out, err = await process.communicate(payload)
        except TimeoutError:
            raise ConnectionLost(f"{self.host or 'Slurm'}: no answer within {timeout:.0f} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return Answer(process.returncode or 0, out, err.decode(errors="replace"))

    # --- OpenSSH ------------------------------------------------------------------------------------------------------

    async def _ssh(self) -> list[str]:
        """The client with its options. The first call opens the one connection that all others use."""
        async with self._connecting:
            if self._options is None:
                self._options = await self._connect()
        return ["ssh", *self._options, "-T", "--"]

    async def _connect(self) -> list[str]:
        if shutil.which("ssh", path=self._environment.get("PATH")) is None:
            raise PlatformError("ssh is not installed; execution.hostname needs OpenSSH's client")
        options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_TIMEOUT}", "-o", "ServerAliveInterval=15"]
        if await self._has_own_socket():
            return options  # the person's connection, which may have asked for a password or a token
        self._sockets = self._sockets or tempfile.mkdtemp(prefix="nv-eval-ssh-")
        return [
            *options, "-o", "ControlMaster=auto", "-o", f"ControlPath={self._sockets}/%C",
            "-o", f"ControlPersist={KEPT_ALIVE}",
        ]  # fmt: skip

    async def _has_own_socket(self) -> bool:
        """Whether ~/.ssh/config has a multiplexed connection for this host already."""
        answer = await self._communicate(["ssh", "-G", str(self.host)], b"", 10.0)
        words = dict(line.split(" ", 1) for line in answer.text.splitlines() if " " in line)
        return words.get("controlpath", "none") != "none"

    async def close(self) -> None:
        """Close the connection, if it is ours."""
        if self._sockets is None or self._options is None:
            return
        with contextlib.suppress(PlatformError):
            await self._communicate(["ssh", *self._options, "-O", "exit", str(self.host)], b"", 10.0)
        await asyncio.to_thread(shutil.rmtree, Path(self._sockets), ignore_errors=True)
        self._sockets = self._options = None


def is_passing(said: str) -> bool:
    """Whether a command of Slurm's failed for a reason that passes: a controller that is restarting or busy."""
    return any(
        word in said for word in ("Unable to contact", "Socket timed out", "temporarily unable", "Connection refused")
    )


def _last_line(text: str) -> str:
    """What a command said last; its name in front is left out."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
