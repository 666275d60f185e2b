"""`nv-eval stop`: end invocations and tear them down; what is scored and the evidence are kept."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable

from launcher.cli.report import report
from launcher.errors import LauncherError, Leftover
from launcher.orchestrator.journal import Invocation, Journal, RunState


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.add_argument("invocations", nargs="+", metavar="ID", help="id or unique prefix")
    parser.add_argument("--timeout", type=float, default=180.0, metavar="S", help="seconds to wait; default: 180")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run the command. One that cannot be stopped keeps no other from being stopped; its exit code is the worst."""
    journal = Journal.default()
    deadline = time.monotonic() + args.timeout
    codes, waits, said = [0], dict[str, Callable[[], str]](), dict[str, str]()
    for word in args.invocations:
        try:
            found = journal.find(word)
            waits[found.id] = _ask(journal, found, deadline)
        except LauncherError as error:
            codes.append(report(error, as_json=args.json))
    for invocation, wait in waits.items():
        try:
            said[invocation] = wait()
        except LauncherError as error:
            codes.append(report(error, as_json=args.json))
    _tell(said, as_json=args.json)
    return max(codes)


def _tell(said: dict[str, str], *, as_json: bool) -> None:
    if not said:
        return
    if as_json:
        sys.stdout.write(json.dumps({"schema": "nv-eval.stop/1", "invocations": said}) + "\n")
    else:
        sys.stdout.write("".join(f"{invocation}: {text}\n" for invocation, text in said.items()))


def _ask(journal: Journal, invocation: Invocation, deadline: float) -> Callable[[], str]:
    """Ask its launcher to end; returns what waits until it has, and says how that went."""
    state = journal.state(invocation)
    if state is RunState.FINISHED:
        return lambda: "had ended already"
    lease = journal.lease(invocation.id)
    if state is RunState.RUNNING and lease is not None and not lease.is_here:
        raise Leftover(f"{invocation.id}: runs on {lease.host}; stop it there")
    if lease is None or not lease.signal(signal.SIGTERM):
        return lambda: _end(invocation)
    return lambda: _wait(journal, invocation, deadline)


def _wait(journal: Journal, invocation: Invocation, deadline: float) -> str:
    while journal.state(invocation) is RunState.RUNNING:
        if time.monotonic() > deadline:
            raise Leftover(f"{invocation.id}: still tearing down; see: nv-eval status {invocation.id}")
        time.sleep(0.1)
    # Asked again: a state is two looks, and it may have ended in order between them.
    return "stopped" if journal.ended(invocation.id) is not None else _end(invocation)


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
