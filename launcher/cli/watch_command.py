"""`nv-eval watch`: every new checkpoint is evaluated once."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.cli import behind, leftovers

if TYPE_CHECKING:
    from launcher.schedule.model import Origin, WatchSpec
    from launcher.schedule.watching import Watch

SCHEMA = "nv-eval.watch/1"
_EPILOG = """\
What is to run for each checkpoint stands behind --, as for nv-eval run, with {checkpoint} (its path, or the commit of a
repository), {name} and {step} (the last number in its name):
  nv-eval watch checkpoints -- run deployment=vllm deployment.model_id={checkpoint} target.api_endpoint.model_id={name}
  nv-eval watch me/my-model --pattern 'step-*' -- run deployment=vllm deployment.model_id=me/my-model \\
    deployment.revision={checkpoint}
The same command goes on where it was killed or stopped. See docs/schedules.md.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    span = leftovers.span
    parser.add_argument("source", nargs="?", metavar="FOLDER|REPO|COMMAND", help="where checkpoints appear")
    parser.add_argument("--folder", help="the same, and it is a folder")
    parser.add_argument("--repo", metavar="OWNER/NAME", help="the same, and it is a repository of the Hugging Face hub")
    parser.add_argument(
        "--command", dest="program", metavar="COMMAND", help="the same: it prints a checkpoint per line"
    )
    parser.add_argument(
        "--each", action="store_true", help="run what stands behind -- for each checkpoint: the default"
    )
    parser.add_argument("--pattern", metavar="GLOB", help="only these names; default: all, of a repository only main")
    parser.add_argument("--commits", action="store_true", help="of a repository: every commit, not only the newest")
    parser.add_argument("--marker", metavar="FILE", help="of a folder: a checkpoint is complete when this is in it")
    parser.add_argument(
        "--settle",
        type=span,
        default=30.0,
        metavar="T",
        help="else: when it has not changed for this time; default: 30s",
    )
    parser.add_argument("--newest-first", action="store_true", help="default: in order, by step and then by time")
    parser.add_argument("--retry", action="store_true", help="go on with those that failed, once")
    parser.add_argument("--once", action="store_true", help="come back when nothing is new")
    parser.add_argument("--until", type=_count, metavar="N", help="come back when N checkpoints are evaluated")
    parser.add_argument("--interval", type=span, default=60.0, metavar="T", help="time between two looks; default: 60s")
    parser.add_argument("--json", action="store_true", help="at the end, print what was evaluated as JSON")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a number of checkpoints, got {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from launcher.orchestrator.journal import Journal
    from launcher.schedule.launching import Real, made
    from launcher.schedule.sources import open_source
    from launcher.schedule.store import Store
    from launcher.schedule.watching import Watch, sample

    spec = watch_spec(args)
    made(sample(spec.run))  # what is wrong with the run is said now, not at the first checkpoint
    watch = Watch(
        spec=spec,
        source=open_source(spec),
        store=Store.default(),
        journal=Journal.default(),
        evaluate=Real(read_env=lambda _: {}, say=_say),
        say=_say,
        once=args.once,
        interval=max(args.interval, 1.0),
        until=args.until,
    )
    code = watch.run()
    if args.json:
        _print_json(watch, code)
    return code


def watch_spec(args: argparse.Namespace) -> WatchSpec:
    """What the arguments ask for. Raises ConfigError."""
    from launcher.schedule.model import Origin, WatchSpec
    from launcher.schedule.watching import refuse_same_for_all

    origin, source = _origin(args)
    spec = behind.run_spec("watch", args.behind)
    refuse_same_for_all(spec)
    if origin is Origin.FOLDER:
        source = str(Path(source).expanduser().absolute())
    return WatchSpec(
        origin=origin,
        source=source,
        run=spec,
        pattern=args.pattern,
        marker=args.marker,
        settle=args.settle,
        every_commit=args.commits,
        newest_first=args.newest_first,
        retry=args.retry,
    )


def _origin(args: argparse.Namespace) -> tuple[Origin, str]:
    from launcher.errors import ConfigError
    from launcher.schedule.model import Origin
    from launcher.schedule.sources import origin_of

    named = {Origin.FOLDER: args.folder, Origin.REPO: args.repo, Origin.COMMAND: args.program}
    chosen = [(origin, source) for origin, source in named.items() if source]
    if len(chosen) + bool(args.source) != 1:
        raise ConfigError(
            "nv-eval watch: name one folder, repository or command; for example: nv-eval watch checkpoints"
        )
    origin, source = chosen[0] if chosen else (origin_of(args.source), args.source)
    if origin is Origin.FOLDER and not Path(source).expanduser().is_dir():
        raise ConfigError(f"--folder {source}: there is no such folder")
    return origin, source


def _print_json(watch: Watch, code: int) -> None:
    rows = [
        {
            "checkpoint": seen.checkpoint.path,
            "name": seen.checkpoint.name,
            "step": seen.checkpoint.step,
            "invocation": seen.invocation or None,
            "outcome": seen.outcome,
            "exit_code": seen.exit_code,
            "detail": seen.detail,
        }
        for seen in watch.store.seen(watch.id)
    ]
    document = {"schema": SCHEMA, "exit_code": code, "watch": watch.id, "checkpoints": rows}
    sys.stdout.write(json.dumps(document) + "\n")


def _say(text: str) -> None:
    sys.stderr.write(f"nv-eval: {text}\n")
    sys.stderr.flush()
