"""Hand an invocation over to a supervisor in the background: done only when that one has taken the lease.

Standard library only.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

from launcher.errors import LauncherError
from launcher.orchestrator.journal import Fact, Journal

PATIENCE = 60.0
"""Seconds that the supervisor may take until it holds the lease."""
POLL = 0.05
LOG = "launcher.log"
_ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from launcher.cli.main import main; sys.exit(main())"


def start(journal: Journal, invocation: str, folder: Path, command: list[str]) -> int:
    """Start `nv-eval COMMAND` as the supervisor of an invocation, in a session of its own; returns its pid.

    Its output goes to `launcher.log` in `folder`. Raises LauncherError, after ending it, if it does not take over;
    the error has the exit code that the supervisor ended with.
    """
    log = folder / LOG
    with log.open("ab") as output:
        begun = output.tell()
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait(journal, invocation, child, log, begun)
    except BaseException:
        _end(child)
        raise
    return child.pid


def _wait(journal: Journal, invocation: str, child: subprocess.Popen[bytes], log: Path, begun: int) -> None:
    """Until the child, which can write a fact only with the lease in hand, has begun the run and written its log."""
    deadline = time.monotonic() + PATIENCE
    while True:
        last = journal.last(invocation, Fact.RUN_STARTED)
        if last is not None and last.data.get("pid") == child.pid and log.stat().st_size > begun:
            return
        if child.poll() is not None:
            raise _failure(child.returncode, log.read_bytes()[begun:].decode(errors="replace"))
        if time.monotonic() > deadline:
            raise LauncherError(f"the supervisor did not take over within {PATIENCE:.0f} s; nothing was left running")
        time.sleep(POLL)


def _failure(code: int, said: str) -> LauncherError:
    lines = [line.removeprefix("nv-eval: ") for line in said.strip().splitlines()]
    error = LauncherError("\n".join(lines) or "the supervisor ended before it took over")
    error.exit_code = code if code > 0 else LauncherError.exit_code
    return error


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a supervisor that did not take over: politely, so that it tears down what it may have begun."""
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    try:
        child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
