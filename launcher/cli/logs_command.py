"""`nv-eval logs`: output of servers and jobs, from the files of the invocation."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

from launcher.cli import clustered
from launcher.cli.text import plain
from launcher.errors import NotFound, nearest
from launcher.orchestrator import sweeps
from launcher.orchestrator.journal import Invocation, Journal, RunState
from launcher.orchestrator.status import auxiliary_of
from launcher.platforms.progress import LogFilter, readable

Writer = Callable[[Path, str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.add_argument(
        "invocation", nargs="?", metavar="ID", help="id or unique prefix, or a sweep's; default: the newest"
    )
    parser.add_argument("task", nargs="?", metavar="TASK", help="only this task, or auxiliary endpoint")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--endpoint", action="store_true", help="only the servers' output")
    which.add_argument("--job", action="store_true", help="only the jobs' output")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the invocation ends")
    parser.add_argument("--json", action="store_true", help="print each line as a JSON object")
    parser.add_argument("-n", "--lines", type=int, metavar="N", help="only the last N lines of each")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    journal = Journal.default()
    if args.invocation and sweeps.is_sweep(args.invocation):
        return _sweep(journal, args)
    invocation = _invocation(journal, args.invocation)
    clustered.fetch_logs(journal, invocation)
    files = _files(invocation, auxiliary_of(journal.facts(invocation.id)), args)
    write = _as_json if args.json else partial(_write, prefix=len(files) > 1)
    return _show(journal, invocation, files, write, args)


def _sweep(journal: Journal, args: argparse.Namespace) -> int:
    """The same of all points of a sweep that have begun, and of the endpoints that it keeps."""
    sweep = sweeps.find(journal, args.invocation)
    found = [journal.find(one) for one in sweeps.expand(journal, [sweep.id], endpoints=not args.task)]
    files: list[Path] = []
    for one in found:
        helpers = auxiliary_of(journal.facts(one.id))
        if not args.task or args.task in (*one.tasks, *helpers):
            files += _files(one, helpers, args)
    if not files:
        raise NotFound(f"{sweep.id}: no point of it that has begun has such a task")
    write = _as_json if args.json else _write_with_run
    return _show(journal, sweep.run, files, write, args)


def _write_with_run(path: Path, line: str) -> None:
    sys.stdout.write(f"{path.parent.parent.name}/{path.parent.name}/{path.stem} | {plain(line)}\n")


def _show(journal: Journal, invocation: Invocation, files: list[Path], write: Writer, args: argparse.Namespace) -> int:
    for path in files:
        for line in _last(path, args.lines):
            write(path, line)
    if args.follow:
        _follow(journal, invocation, files, write)
    elif not any(path.is_file() for path in files):
        waits = "; that of what has ended comes home with the run" if journal.is_handed_over(invocation.id) else ""
        raise NotFound(f"{invocation.id}: no output yet{waits}")
    return 0


def _invocation(journal: Journal, prefix: str | None) -> Invocation:
    newest = journal.invocations(limit=1)
    if prefix and newest and prefix in newest[0].tasks:
        raise NotFound(f"{prefix} is a task; the id comes first: nv-eval logs {newest[0].id} {prefix}")
    if prefix is not None:
        return journal.find(prefix)
    if not newest:
        raise NotFound("no invocation yet; start one with: nv-eval run")
    return newest[0]


def _files(invocation: Invocation, auxiliary: list[str], args: argparse.Namespace) -> list[Path]:
    known = [*invocation.tasks, *auxiliary]
    if args.task and args.task not in known:
        raise NotFound(f"{args.task}: no such task in {invocation.id}{nearest(args.task, known)}")
    names = ["endpoint.log"] * (not args.job) + ["job.log"] * (not args.endpoint)
    tasks = [args.task] if args.task else known
    made = [(task, name) for task in tasks for name in names if name != "job.log" or task not in auxiliary]
    return [Path(invocation.folder) / task / name for task, name in made]


def _last(path: Path, count: int | None) -> list[str]:
    if not path.is_file():
        return []
    lines = readable(path.read_text(errors="replace").splitlines())
    return lines if count is None else lines[max(0, len(lines) - count) :]


def _write(path: Path, line: str, *, prefix: bool) -> None:
    line = plain(line)
    sys.stdout.write(f"{path.parent.name}/{path.stem} | {line}\n" if prefix else f"{line}\n")


def _as_json(path: Path, line: str) -> None:
    run = path.parent.parent.name
    document = {
        "schema": "nv-eval.log/1",
        "invocation": run,
        "task": path.parent.name,
        "source": path.stem,
        "line": line,
    }
    sys.stdout.write(json.dumps(document) + "\n")


def _follow(journal: Journal, invocation: Invocation, files: list[Path], write: Writer) -> None:
    """Print what is added to the files until the invocation has ended and all has been printed."""
    sizes = {path: path.stat().st_size if path.is_file() else 0 for path in files}
    filters = {path: LogFilter() for path in files}
    running = True
    while running:
        clustered.fetch_logs(journal, invocation)
        running = journal.state(invocation) is RunState.RUNNING
        for path in files:
            if path.is_file():
                with path.open("rb") as file:
                    file.seek(sizes[path])
                    for line in _whole_lines(file):
                        text = filters[path].line(line.decode(errors="replace").rstrip("\n"))
                        if text is not None:
                            write(path, text)
                    sizes[path] = file.tell()
        sys.stdout.flush()
        if running:
            time.sleep(clustered.pause(journal, invocation, 0.2))


def _whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    while True:
        start = file.tell()
        line = file.readline()
        if not line.endswith(b"\n"):
            file.seek(start)
            return
        yield line
