"""`nv-eval stop`: end invocations and tear them down; what is scored and the evidence are kept."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

from launcher.cli.report import report
from launcher.errors import Interrupted, LauncherError, Leftover, PreflightError
from launcher.orchestrator import sweeps
from launcher.orchestrator.journal import HEARTBEAT, Fact, Invocation, Journal, RunState

WAKE_TIME = 3 * HEARTBEAT
"""Seconds in which a launcher that only slept, as its machine did, shows that it lives."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.add_argument("invocations", nargs="+", metavar="ID", help="id or unique prefix, or a sweep's")
    parser.add_argument("--timeout", type=float, default=180.0, metavar="S", help="seconds to wait; default: 180")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    journal = Journal.default()

    def find(word: str) -> Invocation:
        if sweeps.is_sweep(word):
            return sweeps.find(journal, word).run
        found = journal.find(word)
        _refuse_point(journal, found)
        return found

    return stop(journal, args.invocations, find, timeout=args.timeout, as_json=args.json)


def _refuse_point(journal: Journal, invocation: Invocation) -> None:
    """A point that a sweep runs has no launcher of its own: to signal it would end the whole sweep."""
    sweep = sweeps.sweep_of(journal, invocation.id)
    if sweep is not None and journal.state(sweeps.find(journal, sweep).run) is RunState.RUNNING:
        raise PreflightError(f"{invocation.id}: is run by sweep {sweep}; end all of it: nv-eval stop {sweep}")


def stop(
    journal: Journal, words: list[str], find: Callable[[str], Invocation], *, timeout: float, as_json: bool
) -> int:
    """End what `find` makes of each word; returns the exit code. `timeout` in seconds.

    One that cannot be stopped keeps no other from being stopped; the exit code is the worst.
    """
    deadline = time.monotonic() + timeout
    codes, waits, said = [0], dict[str, Callable[[], str]](), dict[str, str]()
    for word in words:
        try:
            found = find(word)
            waits[found.id] = _ask(journal, found, deadline)
        except LauncherError as error:
            codes.append(report(error, as_json=as_json))
    for invocation, wait in waits.items():
        try:
            said[invocation] = wait()
        except LauncherError as error:
            codes.append(report(error, as_json=as_json))
    _tell(said, as_json=as_json)
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
    if journal.is_handed_over(invocation.id):
        return lambda: _in_cluster(journal, invocation, deadline)
    state = journal.state(invocation)
    if state is RunState.FINISHED:
        return lambda: _concluded(journal, invocation, "had ended already")
    lease = journal.lease(invocation.id)
    if state is RunState.RUNNING and lease is not None and not lease.is_here:
        raise Leftover(f"{invocation.id}: runs on {lease.host}; stop it there")
    if lease is None or not journal.ask_to_stop(lease):
        return lambda: _end(invocation)
    return lambda: _wait(journal, invocation, deadline)


def _in_cluster(journal: Journal, invocation: Invocation, deadline: float) -> str:
    """End one whose supervisor is in the cluster."""
    from launcher.clustered import laptop

    if laptop.stop(journal, invocation, deadline):
        return _concluded(journal, invocation, "stopped")
    if journal.last(invocation.id, Fact.RUN_STARTED) is not None:
        said = _end(invocation, "its supervisor was gone")
        laptop.remove(journal, invocation)
        return said
    laptop.remove(journal, invocation)
    journal.record(invocation.id, Fact.RUN_ENDED, exit_code=Interrupted.exit_code, error="stopped before it began")
    return "removed before it began"


def _wait(journal: Journal, invocation: Invocation, deadline: float) -> str:
    began = time.monotonic()
    while journal.state(invocation) is RunState.RUNNING:
        if journal.hangs(invocation) and time.monotonic() - began > WAKE_TIME:
            # Its lease is stale: whoever takes that over ends the process.
            return _end(invocation, "its launcher hung and was ended")
        if time.monotonic() > deadline:
            raise Leftover(f"{invocation.id}: {_why_not(journal, invocation)}")
        time.sleep(0.1)
    # Asked again: a state is two looks, and it may have ended in order between them.
    return _concluded(journal, invocation, "stopped") if journal.ended(invocation.id) is not None else _end(invocation)


def _why_not(journal: Journal, invocation: Invocation) -> str:
    """What keeps an invocation from having ended, and what to do."""
    lease = journal.lease(invocation.id)
    if lease is None or lease.age < WAKE_TIME:
        return f"still tearing down; see: nv-eval status {invocation.id}"
    return (
        f"its launcher, process {lease.pid}, hangs: no sign of life for {lease.age:.0f} s; "
        f"remove what it has made: nv-eval cleanup --force {invocation.id}"
    )


def _concluded(journal: Journal, invocation: Invocation, said: str) -> str:
    """Says so, or raises Leftover, of one whose launcher has told how it ended."""
    last = journal.last(invocation.id, Fact.RUN_ENDED, Fact.CLEANED)
    _refuse_left(invocation, last.data.get("leftovers", []) if last is not None else [])
    return said


def _refuse_left(invocation: Invocation, left: list[str]) -> None:
    if left:
        raise Leftover(
            f"{invocation.id}: may still be running: {', '.join(left)}; try again: nv-eval cleanup {invocation.id}"
        )


def _end(invocation: Invocation, why: str = "its launcher was gone") -> str:
    """Tear down what a launcher left that is gone, or that hangs and goes now."""
    if sweeps.is_sweep(invocation.id):
        from launcher.api import end_sweep

        left = list(end_sweep(invocation.id, say=lambda text: print(text, file=sys.stderr)).left)
        _refuse_left(invocation, left)
        return f"{why}; nothing of it is left"
    from launcher.api import end

    outcome = end(invocation.id, say=lambda text: print(text, file=sys.stderr)).outcome
    _refuse_left(invocation, outcome.leftovers)
    return f"{why}; nothing of it is left"
