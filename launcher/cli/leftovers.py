"""What carries our mark, in words and as JSON: shared by `nv-eval cleanup` and `nv-eval gc`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from launcher.cli.text import plain
from launcher.errors import LauncherError

if TYPE_CHECKING:
    from launcher.config.places import AnyPlace
    from launcher.config.pricing import Pricing
    from launcher.orchestrator.journal import Journal
    from launcher.orchestrator.removal import Cleared
    from launcher.platforms.base import Leftover

_UNITS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
Row = Sequence[str]


def span(text: str) -> float:
    """A time in seconds from `90`, `30min`, `12h`, `1d`. Raises ArgumentTypeError."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = text[len(number) :].strip() or "s"
    try:
        return _UNITS[unit] * _positive(number)
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write for example 90s, 30min, 12h or 1d") from None


def _positive(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def add_removal_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that say where to look, for how long, and how to print."""
    from launcher.cli.run_command import add_config_arguments
    from launcher.platforms import RENTED, RUNNABLE

    parser.add_argument(
        "--place",
        action="append",
        default=[],
        choices=(*RUNNABLE, *RENTED),
        help="look here; can be given several times; default: see below",
    )
    parser.add_argument(
        "--timeout", type=span, default=300.0, metavar="T", help="time to wait until all is gone; default: 300s"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_config_arguments(parser)


def places(args: argparse.Namespace) -> tuple[list[AnyPlace] | None, Pricing | None]:
    """Where the arguments say to look, None if they do not; and what things there cost."""
    chosen = [_place(name) for name in dict.fromkeys(args.place)]
    words = [*args.overrides, *args.override]
    groups = ("execution", "deployment")
    named = args.config_name != "default" or any(word.lstrip("+~").startswith(groups) for word in words)
    if not named and not words:
        return chosen or None, None
    from launcher.cli.run_command import request
    from launcher.config import load
    from launcher.platforms import places_of

    config = load(request(args))
    if named:
        chosen += [place for place in places_of(config.execution, config.deployment.type) if place not in chosen]
    return chosen or None, config.pricing


def _place(name: str) -> AnyPlace:
    """A place by its name, with its default keys."""
    from launcher.config.execution import EXECUTIONS
    from launcher.platforms import RENTED

    return RENTED[name] if name in RENTED else EXECUTIONS[name]()


def journal() -> tuple[Journal | None, str]:
    """The journal, if there is one. If it cannot be read: the reason; what costs money is removed all the same."""
    from launcher.orchestrator.journal import Journal, state_folder

    if not (state_folder() / "journal.db").exists():
        return None, ""
    try:
        return Journal.default(), ""
    except LauncherError as error:
        return None, str(error)


_OURS = ("launcher_alive", "launcher", "is_record")
"""What is of no use to those who read it."""


def as_json(left: Leftover, platform: str) -> dict[str, Any]:
    """One thing as it stands in the JSON of both commands."""
    shown = asdict(left)
    return {"platform": platform, **{key: shown[key] for key in shown if key not in _OURS}}


def place_as_json(place: Cleared) -> dict[str, Any]:
    """One platform, with what was removed there and what was not."""
    return {
        "platform": place.platform,
        "removed": [as_json(left, place.platform) for left in place.removed],
        "left": [as_json(left, place.platform) for left in place.left],
        "refusals": list(place.refusals),
        "unknown": place.unknown or None,
        "unseen": list(place.unseen),
        "usd": place.usd,
    }


def described(left: Leftover) -> str:
    """One thing in a line."""
    from launcher.plan.words import duration

    facts = [left.said or left.state.value if left.kind in ("endpoint", "job") else ""]
    facts += [f"{duration(left.age)} old" if left.age is not None else "", price(left)]
    facts += [f"{cost(left)} so far" if cost(left) else ""]
    told = ", ".join(fact for fact in facts if fact)
    return plain(f"{left.kind} {left.name}{f' ({told})' if told else ''}")


def price(left: Leftover) -> str:
    """Its price; empty where nothing is known or it costs nothing."""
    return f"{left.usd_per_hour:.2f} USD/h" if left.usd_per_hour else ""


def cost(left: Leftover) -> str:
    """What it has cost so far; empty where nothing has told."""
    from launcher.plan.words import money

    return money(left.usd) if left.usd is not None else ""


def expiry(left: Leftover) -> str:
    """When it ends by itself, or when gc may end it; empty where it does not say."""
    from launcher.plan.words import duration

    if left.expires_in is None:
        return ""
    return f"in {duration(left.expires_in)}" if left.expires_in > 0 else f"{duration(-left.expires_in)} ago"


def table(head: Row, rows: Sequence[Row]) -> str:
    """Rows in columns."""
    lines = [head, *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    widths[-1] = 0
    return "".join("  ".join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines)
