"""`nv-eval stop`: ask the launcher of an invocation to tear it down, and wait until it has."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time

from launcher.errors import Leftover
from launcher.orchestrator.journal import Invocation, Journal, RunState, process_start


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.add_argument("invocations", nargs="+", metavar="ID", help="id or unique prefix")
    parser.add_argument("--timeout", type=float, default=180.0, metavar="S", help="seconds to wait; default: 180")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    journal = Journal.default()
    for invocation in [journal.find(prefix) for prefix in args.invocations]:
        sys.stdout.write(f"{invocation.id}: {_stop(journal, invocation, args.timeout)}\n")
    return 0


def _stop(journal: Journal, invocation: Invocation, timeout: float) -> str:
    state = journal.state(invocation)
    if state is RunState.FINISHED:
        return "had ended already"
    if state is RunState.INTERRUPTED:
        return "its launcher is gone; what ran on this machine ended with it"
    if state is RunState.UNKNOWN:
        raise Leftover(f"{invocation.id}: runs on {invocation.host}; stop it there")
    if process_start(invocation.pid) == invocation.pid_start:
        os.kill(invocation.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while journal.state(invocation) is RunState.RUNNING:
        if time.monotonic() > deadline:
            raise Leftover(
                f"{invocation.id}: still tearing down after {timeout:.0f} s; see: nv-eval status {invocation.id}"
            )
        time.sleep(0.1)
    return "stopped"
