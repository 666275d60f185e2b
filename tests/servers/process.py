"""The test server as a process of its own, for faults that end or silence a process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.servers.openai_server import Fault

SERVER = Path(__file__).with_name("openai_server.py")


def free_port() -> int:
    """A port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """`with ServerProcess(fault=Fault.HANG, after=3) as server: server.url`. Ends with its whole process group.

    Options are those of the server's command line. Entering waits until it listens, but for faults of starting.
    """

    def __init__(self, fault: Fault = Fault.NONE, *, env: dict[str, str] | None = None, **options: Any) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._listens = fault not in (Fault.NEVER_START, Fault.DIE_LOADING, Fault.SLOW_START)
        self._argv = [sys.executable, str(SERVER), "--port", str(self.port), "--fault", fault.value]
        for name, value in options.items():
            self._argv += [f"--{name.replace('_', '-')}", str(value)]
        self._env = {**os.environ, **(env or {})}

    def __enter__(self) -> ServerProcess:
        self.process = subprocess.Popen(
            self._argv, env=self._env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        assert self.process.stdout is not None
        if self._listens and b"listening" not in (line := self.process.stdout.readline()):
            raise AssertionError(f"the test server did not start: {line!r}")
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.communicate()
