"""`nv-eval status`: what is known of an invocation, and how old that knowledge is."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from launcher.orchestrator.journal import Journal
from launcher.orchestrator.status import RunStatus, TaskStatus, of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.add_argument("invocations", nargs="*", metavar="ID", help="id or unique prefix; default: the newest")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    journal = Journal.default()
    wanted = [journal.find(prefix) for prefix in args.invocations] or journal.invocations(limit=1)
    found = [of(journal, invocation) for invocation in wanted]
    if args.json:
        sys.stdout.write(json.dumps({"schema": "nv-eval.status/1", "invocations": [asdict(s) for s in found]}) + "\n")
        return 0
    if not found:
        sys.stdout.write("No invocation yet; start one with: nv-eval run\n")
    for status in found:
        _print(status)
    return 0


def _print(status: RunStatus) -> None:
    code = "" if status.exit_code is None else f", exit code {status.exit_code}"
    print(f"{status.invocation}  {status.state.value}{code}, {status.deployment} on {status.execution}")
    width = max(len(task.task) for task in status.tasks)
    for task in status.tasks:
        print(f"  {task.task:<{width}}  {_line(task)}")
    print(f"  last sign of life {ago(status.age)}; results in {status.folder}")


def _line(task: TaskStatus) -> str:
    words = task.reason.replace("_", " ") if task.reason else task.phase
    count = f" {task.done or 0}/{task.total}" if task.total and not task.reason else ""
    alive = {True: "", False: "", None: "; unknown whether it still runs"}[task.alive]
    detail = f": {task.detail}" if task.detail else ""
    return f"{words}{count}{detail} ({ago(task.age)}){alive}"


def ago(seconds: float | None) -> str:
    """How long ago, for people."""
    if seconds is None:
        return "unknown"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
