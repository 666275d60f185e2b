"""`nv-eval attach`: watch an invocation that another process runs, until it ends."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from launcher.cli import clustered
from launcher.cli.status_command import SCHEMA, SWEEPS, describe
from launcher.cli.text import plain
from launcher.errors import Leftover, NotFound
from launcher.orchestrator import sweeps
from launcher.orchestrator.journal import Invocation, Journal, RunState
from launcher.orchestrator.status import RunStatus, of

INTERVAL = 0.5
"""Seconds between two looks at the journal."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.add_argument(
        "invocation", nargs="?", metavar="ID", help="id or unique prefix, or a sweep's; default: the newest"
    )
    parser.add_argument("--json", action="store_true", help="print each change as JSON, and the results at the end")


def run(args: argparse.Namespace) -> int:
    """Run the command. Its exit code is the run's."""
    journal = Journal.default()
    if args.invocation and sweeps.is_sweep(args.invocation):
        return _sweep(journal, sweeps.find(journal, args.invocation), as_json=args.json)
    found = _find(journal, args.invocation)
    try:
        status = _watch(journal, found, as_json=args.json)
    except KeyboardInterrupt:
        sys.stderr.write(f"Not watching any more; it goes on. End it with: nv-eval stop {found.id}\n")
        return 130
    return _conclude(status, as_json=args.json)


def _sweep(journal: Journal, sweep: sweeps.Sweep, *, as_json: bool) -> int:
    """Watch a sweep: a line, or a document, whenever one of its points has changed."""
    said: dict[int, str] = {}
    try:
        while True:
            status = sweeps.status(journal, sweep)
            rows = {point.number: f"{point.state.value} {point.scored}/{point.tasks}" for point in status.points}
            if as_json and rows != said:
                print(json.dumps({"schema": SWEEPS, "sweeps": [asdict(status)]}), flush=True)
            for point in status.points if not as_json else ():
                if said.get(point.number) != rows[point.number]:
                    print(plain(f"point {point.number}: {rows[point.number]} ({point.words})"), flush=True)
            said = rows
            if status.state is not RunState.RUNNING:
                break
            time.sleep(INTERVAL)
    except KeyboardInterrupt:
        sys.stderr.write(f"Not watching any more; it goes on. End it with: nv-eval stop {sweep.id}\n")
        return 130
    if status.state is not RunState.FINISHED:
        sys.stdout.write(f"{sweep.id}: its supervisor is gone; go on with: nv-eval resume {sweep.id}\n")
        return Leftover.exit_code
    return status.exit_code or 0


def _find(journal: Journal, prefix: str | None) -> Invocation:
    if prefix is not None:
        return journal.find(prefix)
    newest = journal.invocations(limit=1)
    if not newest:
        raise NotFound("no invocation yet; start one with: nv-eval run --detach")
    return newest[0]


def _watch(journal: Journal, invocation: Invocation, *, as_json: bool) -> RunStatus:
    """Show it until it does not run any more."""
    with _view(as_json=as_json) as view:
        while True:
            clustered.refresh(journal, [invocation])
            status = of(journal, invocation)
            view.show(status)
            if status.state is not RunState.RUNNING:
                return status
            time.sleep(clustered.pause(journal, invocation, INTERVAL))


def _conclude(status: RunStatus, *, as_json: bool) -> int:
    """Print how it ended."""
    path = Path(status.folder) / "results.json"
    if as_json:
        if path.is_file():
            sys.stdout.write(json.dumps(json.loads(path.read_bytes())) + "\n")
        return status.exit_code if status.exit_code is not None else Leftover.exit_code
    if status.state is not RunState.FINISHED:
        how = "remove it: nv-eval stop" if status.keeps_endpoint else "go on with: nv-eval resume"
        sys.stdout.write(f"{status.invocation}: its launcher is gone; {how} {status.invocation}\n")
        return Leftover.exit_code
    if path.is_file():
        from launcher.cli.scores import print_record
        from launcher.results import read

        print_record(read.load(path.parent), folder=status.folder)
    return status.exit_code or 0


class View(Protocol):
    """Something that shows a status."""

    def show(self, status: RunStatus) -> None:
        """Called after each look."""
        ...


class Lines:
    """A line whenever the line of a task changes but for its age."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def show(self, status: RunStatus) -> None:
        """Write what has changed."""
        for task in status.tasks:
            text = f"{task.reason or task.phase} {task.detail}"
            if self._said.get(task.task) != text:
                self._said[task.task] = text
                print(f"{task.task}: {describe(task)}", flush=True)


class Json:
    """A JSON document of the whole status whenever a task has changed."""

    def __init__(self) -> None:
        self._said: list[tuple[object, ...]] = []

    def show(self, status: RunStatus) -> None:
        """Write it."""
        now: list[tuple[object, ...]] = [(t.task, t.phase, t.reason, t.done, t.attempt) for t in status.tasks]
        if now != self._said:
            self._said = now
            print(json.dumps({"schema": SCHEMA, "invocations": [asdict(status)]}), flush=True)


@contextmanager
def _view(*, as_json: bool) -> Iterator[View]:
    if as_json:
        yield Json()
        return
    if not sys.stdout.isatty():
        yield Lines()
        return
    from rich.live import Live

    from launcher.cli.status_command import lines

    class Screen:
        def show(self, status: RunStatus) -> None:
            live.update("\n".join(lines(status)))

    with Live(refresh_per_second=4) as live:
        yield Screen()
