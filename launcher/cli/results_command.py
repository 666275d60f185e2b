"""`nv-eval results`: scores of invocations."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.add_argument("invocations", nargs="*", metavar="ID", help="id, unique prefix or folder; default: the newest")
    parser.add_argument(
        "--format", choices=("table", "csv", "json", "markdown"), default="table", help="form of the output"
    )
    parser.add_argument("--json", action="store_true", help="the same as --format json")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    import msgspec

    from launcher.api import record
    from launcher.results import table

    records = [record(name) for name in args.invocations or _newest()]
    form = "json" if args.json else args.format
    if form == "json":
        sys.stdout.write(msgspec.json.encode(records).decode() + "\n")
    elif form == "csv":
        sys.stdout.write(table.to_csv(records))
    elif form == "markdown":
        sys.stdout.write(table.to_markdown(records))
    else:
        from launcher.cli.scores import print_table

        print_table(records)
    return 0


def _newest() -> list[str]:
    from launcher.errors import NotFound
    from launcher.orchestrator.journal import Journal

    found = Journal.default().invocations(limit=1)
    if not found:
        raise NotFound("no invocation yet; start one with: nv-eval run")
    return [found[0].id]
