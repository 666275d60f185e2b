"""Arguments that choose invocations: ids, or filters over all of them."""

from __future__ import annotations

import argparse
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING

from launcher.cli import leftovers

if TYPE_CHECKING:
    from launcher.results.select import Filters

_DAY = re.compile(r"\d{4}-\d\d-\d\d.*")


def add_selection_arguments(parser: argparse.ArgumentParser, *, default: str = "the newest") -> None:
    """Define IDs and the filters. `default` says what is meant without any."""
    parser.add_argument(
        "invocations", nargs="*", metavar="ID", help=f"id, unique prefix or folder, or a sweep's id; default: {default}"
    )
    parser.add_argument(
        "--since",
        type=moment,
        metavar="T",
        help="all invocations begun since then: 2026-01-31, 2026-01-31T18:00, or 7d, 12h ago",
    )
    parser.add_argument("--model", action="append", default=[], metavar="M", help="only of this model, a name or glob")
    parser.add_argument("--task", action="append", default=[], metavar="T", help="only this task, a name or glob")


def filters(args: argparse.Namespace) -> Filters:
    """The filters of the arguments above."""
    from launcher.results.select import Filters

    return Filters(args.since, tuple(args.model), tuple(args.task))


def moment(text: str) -> float:
    """Seconds since 1970 from a date, a date with time (local unless it says otherwise), or a time ago."""
    if not _DAY.fullmatch(text):
        return time.time() - leftovers.span(text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date; write 2026-01-31 or 2026-01-31T18:00") from None
