"""`nv-eval report`: runs as one file to read and to pass on."""

from __future__ import annotations

import argparse
import sys

FORMS = ("html", "md", "pdf")
LEAST_SIZE = 0.1
"""MB below which a limit of the file's size means nothing."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.add_argument(
        "invocations",
        nargs="*",
        metavar="ID",
        help="id, unique prefix or folder, or a sweep's id; the first run is the baseline; default: the newest",
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="where to write it: .html, .md or .pdf")
    parser.add_argument(
        "--force", action="store_true", help="compare common samples although the runs measure different things"
    )
    parser.add_argument("--format", choices=FORMS, help="form, where the suffix of FILE does not say it")
    parser.add_argument(
        "--max-mb",
        type=_size,
        default=5.0,
        metavar="N",
        help="size of the HTML file: texts of samples fill it up to N MB",
    )
    parser.add_argument(
        "--max-text", type=_count, default=4000, metavar="N", help="characters of a prompt, a target or an answer"
    )


def _size(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not LEAST_SIZE <= size <= 1000:
        raise argparse.ArgumentTypeError(f"expected a number of MB from {LEAST_SIZE} to 1000, got {text!r}")
    return size


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from launcher.api import report

    made = report(
        *(args.invocations or _newest()),
        output=args.output,
        form=args.format,
        max_bytes=int(args.max_mb * 1e6),
        max_text=args.max_text,
        force=args.force,
    )
    for problem in made.problems:
        sys.stderr.write(f"nv-eval: {problem}\n")
    print(f"{made.path}: {_shown(made.size)}")
    return 0


def _shown(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def _newest() -> list[str]:
    from launcher.errors import NotFound
    from launcher.orchestrator.journal import Journal

    found = Journal.default().invocations(limit=1)
    if not found:
        raise NotFound("no invocation yet; start one with: nv-eval run")
    return [found[0].id]
