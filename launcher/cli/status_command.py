"""`nv-eval status`: what is known of an invocation, and how old that knowledge is."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict

from launcher.cli import clustered
from launcher.errors import NotFound
from launcher.orchestrator.journal import Invocation, Journal, RunState
from launcher.orchestrator.status import RunStatus, TaskStatus, of

SCHEMA = "nv-eval.status/1"
SWEEPS = "nv-eval.sweep-status/1"
CLEAR = "\x1b[H\x1b[2J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.add_argument(
        "invocations", nargs="*", metavar="ID", help="id or unique prefix, or a sweep's; default: the newest"
    )
    parser.add_argument("-w", "--watch", action="store_true", help="show it again and again until it has ended")
    parser.add_argument(
        "--interval", type=float, default=1.0, metavar="S", help="seconds between two looks; default: 1"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with --watch a line for each look")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    journal = Journal.default()
    named = _sweeps_of(args.invocations)
    if named:
        return _sweeps(journal, args, named)
    wanted = [journal.find(prefix) for prefix in args.invocations] or journal.invocations(limit=1)
    while True:
        clustered.refresh(journal, wanted)
        found = [of(journal, invocation) for invocation in wanted]
        _show(found, _others(journal, found), args)
        if not args.watch or not any(status.state is RunState.RUNNING for status in found):
            return 0
        time.sleep(max(0.1, args.interval))
        wanted = _again(journal, wanted)


def _sweeps_of(words: list[str]) -> list[str]:
    """Those of some words that mean sweeps, whose rooms load for them alone."""
    if not words:
        return []
    from launcher.orchestrator import sweeps

    return [word for word in words if sweeps.is_sweep(word)]


def _sweeps(journal: Journal, args: argparse.Namespace, named: list[str]) -> int:
    """The same of sweeps."""
    from launcher.cli import sweep_text
    from launcher.orchestrator import sweeps

    if len(named) < len(args.invocations):
        raise NotFound(f"{', '.join(named)}: sweeps and runs are shown by a command each")
    while True:
        found = [sweeps.status(journal, sweeps.find(journal, word)) for word in named]
        if args.json:
            sys.stdout.write(json.dumps({"schema": SWEEPS, "sweeps": [asdict(status) for status in found]}) + "\n")
        else:
            clear = CLEAR if args.watch and sys.stdout.isatty() else ""
            shown = (line for status in found for line in sweep_text.lines(status, ago(status.age)))
            sys.stdout.write(clear + "".join(f"{line}\n" for line in shown))
        sys.stdout.flush()
        if not args.watch or not any(status.state is RunState.RUNNING for status in found):
            return 0
        time.sleep(max(0.1, args.interval))


def _again(journal: Journal, wanted: list[Invocation]) -> list[Invocation]:
    """As they are now: resuming may move their folders."""
    return [journal.find(invocation.id) for invocation in wanted]


def _others(journal: Journal, found: list[RunStatus]) -> list[str]:
    """Ids of those that are not shown and run, or may have left something that does; newest first."""
    shown = {status.invocation for status in found}
    others = (one for one in journal.unended() if one.id not in shown)
    return [one.id for one in others if any(task.alive is not False for task in of(journal, one).tasks)]


def _show(found: list[RunStatus], others: list[str], args: argparse.Namespace) -> None:
    """`others`: ids of what is not shown, for one line at the end where nothing was asked for by its id."""
    if args.json:
        document = {"schema": SCHEMA, "invocations": [asdict(status) for status in found], "also_running": others}
        sys.stdout.write(json.dumps(document) + "\n")
    elif not found:
        sys.stdout.write("No invocation yet; start one with: nv-eval run\n")
    else:
        clear = CLEAR if args.watch and sys.stdout.isatty() else ""
        sys.stdout.write(clear + "".join(f"{line}\n" for status in found for line in lines(status)))
        if others and not args.invocations:
            sys.stdout.write(f"Also running, or unknown: {', '.join(others)}; see: nv-eval ls\n")
    sys.stdout.flush()


def lines(status: RunStatus) -> Iterator[str]:
    """A status in lines for people."""
    code = "" if status.exit_code is None else f", exit code {status.exit_code}"
    cost = "" if not status.usd else f", {status.usd:.2f} USD"
    yield f"{status.invocation}  {status.state.value}{code}, {status.deployment} on {status.execution}{cost}"
    names = [f"{task.task} (auxiliary)" if task.is_auxiliary else task.task for task in status.tasks]
    width = max(map(len, names))
    for name, task in zip(names, status.tasks, strict=True):
        yield f"  {name:<{width}}  {describe(task)} ({ago(task.age)})"
    yield f"  last sign of life {ago(status.age)}; results in {status.folder}"
    yield from _advice(status)


def describe(task: TaskStatus) -> str:
    """Where a task is, or how it ended, in words."""
    words = _ended(task.reason) if task.reason else task.phase
    count = f" {task.done or 0}/{task.total}" if task.total and not task.reason else ""
    attempt = f", attempt {task.attempt}" if task.attempt > 1 else ""
    alive = {True: "", False: "", None: "; unknown whether it still runs"}[task.alive]
    detail = f": {task.detail}" if task.detail else ""
    return f"{words}{count}{attempt}{detail}{alive}"


def _ended(reason: str) -> str:
    """How a task ended, in the words of the live view and of the scores."""
    return "scored" if reason == "completed" else reason.replace("_", " ")


def _advice(status: RunStatus) -> Iterator[str]:
    """What can be done about an invocation that nobody runs any more."""
    if status.state in (RunState.INTERRUPTED, RunState.UNKNOWN):
        resume = "" if status.keeps_endpoint else f"go on: nv-eval resume {status.invocation}; "
        yield f"  {resume}end and remove it: nv-eval stop {status.invocation}"
    elif status.state is RunState.FINISHED and any(task.alive is not False for task in status.tasks):
        yield f"  remove what is left: nv-eval cleanup {status.invocation}"


def ago(seconds: float | None) -> str:
    """How long ago, for people."""
    if seconds is None:
        return "unknown"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
