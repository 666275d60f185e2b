"""`nv-eval compare`: is a run better than another, or is it chance?"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from launcher.results.compare import Comparison

FLIPS = 10
WIDTH_OF_A_PIPE = 220
NARROWEST = 150
"""Columns below which a terminal wraps lines of the table rather than the table its cells."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.add_argument(
        "baseline", metavar="A", help="what to compare with: id, unique prefix or folder; of a sweep its first point"
    )
    parser.add_argument(
        "candidates", nargs="*", metavar="B", help="what is compared: ids, unique prefixes or folders; also of sweeps"
    )
    parser.add_argument(
        "--task", action="append", default=[], metavar="T", help="only tasks of this name or glob; may be repeated"
    )
    parser.add_argument(
        "--flips",
        nargs="?",
        type=_count,
        const=FLIPS,
        default=0,
        metavar="N",
        help=f"show samples that scored differently, at most N of each row; without N: {FLIPS}",
    )
    parser.add_argument(
        "--force", action="store_true", help="compare common samples although the runs measure different things"
    )
    parser.add_argument("--format", choices=("table", "markdown", "json"), default="table", help="form of the output")
    parser.add_argument("--json", action="store_true", help="the same as --format json")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from launcher.api import compare

    found = compare(args.baseline, *args.candidates, tasks=args.task, force=args.force, flips=args.flips)
    form = "json" if args.json else args.format
    if form == "json":
        import msgspec

        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    elif form == "markdown":
        from launcher.results.compare_text import markdown

        sys.stdout.write(markdown(found))
    else:
        _print(found)
    return 0


def _print(found: Comparison) -> None:
    from launcher.cli.text import plain
    from launcher.results import compare_text as text

    for versus in found.candidates:
        print(plain(f"{text.title(versus.candidate)} against {text.title(found.baseline)}"))
        print_rows(text.HEADS, (text.cells(row) for row in versus.rows), text.LEFT)
        for line in text.remarks(versus):
            print(plain(line))
        for row in versus.rows:
            if row.flips:
                print(plain(f"\n{row.label} {row.metric} {row.filter}"))
                print_rows(text.FLIP_HEADS, (text.flip_cells(flip) for flip in row.flips), text.FLIP_HEADS)
        print()
    print(text.footer(found))


def print_rows(heads: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[str]) -> None:
    """Print a table whose cells may hold text of others."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from launcher.cli.text import plain

    console = Console(highlight=False)
    console.width = max(console.width, NARROWEST) if console.is_terminal else WIDTH_OF_A_PIPE
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head, justify="left" if head in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(plain(cell)) for cell in row))
    console.print(table)
