"""`nv-eval stop`: end invocations and tear them down; what is scored and the evidence are kept."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time

from launcher.errors import Leftover
from launcher.orchestrator.journal import Invocation, Journal, RunState


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.add_argument("invocations", nargs="+", metavar="ID", help="id or unique prefix")
    parser.add_argument("--timeout", type=float, default=180.0, metavar="S", help="seconds to wait; default: 180")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    journal = Journal.default()
    said = {found.id: _stop(journal, found, args.timeout) for found in map(journal.find, args.invocations)}
    if args.json:
        sys.stdout.write(json.dumps({"schema": "nv-eval.stop/1", "invocations": said}) + "\n")
    else:
        sys.stdout.write("".join(f"{invocation}: {text}\n" for invocation, text in said.items()))
    return 0


def _stop(journal: Journal, invocation: Invocation, timeout: float) -> str:
    state = journal.state(invocation)
    if state is RunState.FINISHED:
        return "had ended already"
    lease = journal.lease(invocation.id)
    if state is RunState.RUNNING and lease is not None and not lease.is_here:
        raise Leftover(f"{invocation.id}: runs on {lease.host}; stop it there")
    if lease is None or not lease.signal(signal.SIGTERM):
        return _end(invocation)
    _wait(journal, invocation, timeout)
    return "stopped"


def _wait(journal: Journal, invocation: Invocation, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while journal.state(invocation) is RunState.RUNNING:
        if time.monotonic() > deadline:
            raise Leftover(
                f"{invocation.id}: still tearing down after {timeout:.0f} s; see: nv-eval status {invocation.id}"
            )
        time.sleep(0.1)


def _end(invocation: Invocation) -> str:
    """Tear down what a launcher left that is gone."""
    from launcher.api import end

    outcome = end(invocation.id, say=lambda text: print(text, file=sys.stderr)).outcome
    if outcome.leftovers:
        raise Leftover(
            f"{invocation.id}: may still be running: {', '.join(outcome.leftovers)}; "
            f"try again: nv-eval cleanup {invocation.id}"
        )
    return "its launcher was gone; nothing of it is left"
