"""A program that removes everything of one invocation from the engine when its launcher has died.

Containers belong to the engine, so a supervisor cannot hold them. This process watches the launcher as a supervisor
does (its pidfd, and end of file on standard input); a line `done` sends it home. The engine may still be busy with a
request of the dead launcher, so it looks again for a while after nothing was left.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time

from launcher.platforms.local.docker import engine
from launcher.platforms.local.environment import inherited
from launcher.platforms.local.supervisor import open_parent

SETTLE = 5.0
"""Seconds without any container of the invocation after which nothing more is expected."""
PATIENCE = 120.0
"""Seconds after which it gives up on an engine that does not answer."""
PAUSE = 0.1
DONE = "done"


def start(host: str, invocation: str, locks: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    """Start the reaper of an invocation, which keeps the descriptors `locks` open until it ends.

    A launcher that dies before it watches is dead when it looks.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, "--nv-eval-reaper", invocation],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=inherited() | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        pass_fds=locks,
        start_new_session=True,
    )
    _say(process, {"host": host, "invocation": invocation, "parent": os.getpid()})
    return process


def dismiss(process: subprocess.Popen[bytes]) -> None:
    """Send a reaper home whose work was done by others, and wait for it."""
    with contextlib.suppress(BrokenPipeError):
        _say(process, DONE)
    process.communicate()


def _say(process: subprocess.Popen[bytes], message: object) -> None:
    if process.stdin is not None:
        process.stdin.write(json.dumps(message).encode() + b"\n")
        process.stdin.flush()


def reap(host: str, invocation: str) -> None:
    """Remove everything of an invocation until nothing has come back for a while."""
    client = engine.connect(host)
    begun = quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < SETTLE and time.monotonic() - begun < PATIENCE:
        try:
            if engine.remove_all(client, invocation) > 0:
                quiet_since = time.monotonic()
        except engine.ENGINE_ERRORS:
            quiet_since = time.monotonic()  # not known is not gone
        time.sleep(PAUSE)


def main() -> None:
    """Watch, then reap."""
    orders = os.fdopen(0, "rb", buffering=0)
    request = json.loads(orders.readline())
    launcher = open_parent(request["parent"])
    if launcher is not None:
        ready, _, _ = select.select([0, launcher], [], [])
        if 0 in ready and orders.readline().strip() == json.dumps(DONE).encode():
            return
    reap(request["host"], request["invocation"])


if __name__ == "__main__":
    main()
