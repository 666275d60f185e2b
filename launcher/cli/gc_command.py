"""`nv-eval gc`: everything of ours that nobody needs any more, and its removal."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import TYPE_CHECKING

from launcher.cli import leftovers
from launcher.errors import Leftover, PlatformError

if TYPE_CHECKING:
    from launcher.orchestrator.garbage import Collection, Found

SCHEMA = "nv-eval.gc/1"
DAY = 86_400.0
_EPILOG = """\
Without --yes nothing is removed. Garbage is what belongs to an invocation that this machine's journal knows and that
runs no more, and what the journal does not know and is older than --older-than. In a workspace that others use too,
the second may be somebody's long run: look at owner and age first. In JSON, `why` is one of: run_ended, launcher_gone,
old (garbage); running, young, age_unknown, storage, storage_unknown, record (kept).
Exit code: 0 done, 5 something is left, 7 a platform could not be asked.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--yes", action="store_true", help="remove it")
    parser.add_argument(
        "--older-than",
        type=leftovers.span,
        default=DAY,
        metavar="T",
        help="age from which things of invocations unknown to this machine are garbage; default: 1d",
    )
    parser.add_argument("--storage", action="store_true", help="also folders of ended invocations of this machine")
    leftovers.add_removal_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from launcher.orchestrator.garbage import GARBAGE, Rules, collect, runs_of
    from launcher.platforms import within_reach

    journal, trouble = leftovers.journal()
    chosen, pricing = leftovers.places(args)
    places, notes = (chosen, []) if chosen is not None else within_reach()
    rules = Rules(runs=runs_of(journal), older_than=args.older_than, storage=args.storage)
    result = asyncio.run(collect(places, rules, remove=args.yes, timeout=args.timeout, pricing=pricing))
    garbage = [found for found in result.found if found.why in GARBAGE]
    code = _exit_code(result)
    notes = [*([trouble] if trouble else []), *notes]
    if args.json:
        sys.stdout.write(json.dumps(_as_json(result, garbage, dry=not args.yes, code=code, notes=notes)) + "\n")
    else:
        _print(result, garbage, args, notes)
    return code


def _exit_code(result: Collection) -> int:
    if any(place.left and not place.unknown for place in result.places):
        return Leftover.exit_code
    return PlatformError.exit_code if any(place.unknown for place in result.places) else 0


def _as_json(result: Collection, garbage: list[Found], *, dry: bool, code: int, notes: list[str]) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "exit_code": code,
        "dry_run": dry,
        "garbage": [_found_as_json(found) for found in garbage],
        "kept": [_found_as_json(found) for found in result.found if found not in garbage],
        "places": [leftovers.place_as_json(place) for place in result.places],
        "notes": notes,
    }


def _found_as_json(found: Found) -> dict[str, object]:
    return {**leftovers.as_json(found.left, found.platform), "why": found.why.value}


def _print(result: Collection, garbage: list[Found], args: argparse.Namespace, notes: list[str]) -> None:
    from launcher.plan.words import counted

    kept = [found for found in result.found if found not in garbage]
    shown = [*garbage, *(kept if args.verbose else ())]
    if shown:
        sys.stdout.write(leftovers.table(_HEAD, [_row(found) for found in shown]))
    known = [found.left.usd_per_hour for found in garbage if found.left.usd_per_hour]
    cost = f", {sum(known):.2f} USD per hour" if known else ""
    rest = f"; {counted(len(kept), 'thing')} of ours kept{'' if args.verbose else ' (-v shows them)'}" if kept else ""
    sys.stdout.write(f"{counted(len(garbage), 'thing')} nobody needs{cost}{rest}\n")
    if garbage and not args.yes:
        sys.stdout.write("Nothing was removed; to remove it, repeat the command with --yes\n")
    for place in result.places:
        if args.yes and place.removed:
            sys.stdout.write(f"Removed {counted(len(place.removed), 'thing')} from {place.platform}\n")
        if place.unknown:
            sys.stderr.write(f"nv-eval: what is on {place.platform} is unknown: {place.unknown}\n")
        sys.stderr.writelines(f"nv-eval: still there: {leftovers.described(left)}\n" for left in place.left)
        sys.stderr.writelines(f"nv-eval: {line}\n" for line in (*place.refusals, *place.unseen))
    sys.stderr.writelines(f"nv-eval: {note}\n" for note in notes)


_HEAD = ("platform", "kind", "name", "invocation", "state", "age", "price", "owner", "why")


def _row(found: Found) -> list[str]:
    from launcher.orchestrator.garbage import WORDS
    from launcher.plan.words import duration

    left = found.left
    age = duration(left.age) if left.age is not None else ""
    state = left.said or left.state.value if left.kind in ("endpoint", "job") else ""
    price = leftovers.price(left)
    return [found.platform, left.kind, left.name, left.invocation, state, age, price, left.owner, WORDS[found.why]]
