"""`nv-eval gc`: everything of ours that nobody needs any more, and its removal."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
from typing import TYPE_CHECKING

from launcher.cli import env_file, leftovers
from launcher.cli.text import plain
from launcher.errors import Leftover, PlatformError

if TYPE_CHECKING:
    from launcher.orchestrator.garbage import Collection, Found
    from launcher.orchestrator.removal import Cleared
    from launcher.orchestrator.unfinished import Unlooked

SCHEMA = "nv-eval.gc/1"
HOUR, DAY = 3600.0, 86_400.0
_EPILOG = """\
Without --yes nothing is removed. Garbage is what belongs to an invocation that this machine's journal knows and that
runs no more, what carries its expiry and has expired, and what the journal does not know, carries none and is older
than --older-than. In a workspace that others use too, the last may be somebody's long run: look at owner and age first.
Where to look: --place, or the execution and deployment of overrides or of a config, else everywhere this machine has
credentials for. In JSON, `why` is one of: run_ended, launcher_gone, expired, old (garbage); running, not_expired,
young, age_unknown, storage, storage_unknown, record (kept).
--install shows a timer that runs `nv-eval gc --yes`, with the same options, and writes it after a yes. It never takes
what is only old, unless --older-than is given. See docs/gc.md.
Exit code: 0 done, 5 something is left, 7 a platform could not be asked, or something that has not ended in order ran
where this machine cannot look.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--yes", action="store_true", help="remove it")
    parser.add_argument(
        "--older-than",
        type=_age,
        metavar="T",
        help="age from which things of invocations unknown to this machine are garbage, or never; default: 1d",
    )
    parser.add_argument("--storage", action="store_true", help="also folders of ended invocations of this machine")
    parser.add_argument("--env-file", metavar="FILE", help="first set the variables of a file of NAME=VALUE lines")
    timer = parser.add_mutually_exclusive_group()
    timer.add_argument("--install", action="store_true", help="put a timer in place that does this; shown first")
    timer.add_argument("--uninstall", action="store_true", help="take the timer away")
    parser.add_argument(
        "--every", type=leftovers.span, default=HOUR, metavar="T", help="with --install: how often; default: 1h"
    )
    timer.add_argument(
        "--manifest",
        nargs="?",
        const="default",
        metavar="NAMESPACE",
        help="for Kubernetes: print the role that runs need, and a CronJob that removes what has expired",
    )
    leftovers.add_removal_arguments(parser)


def _age(text: str) -> float:
    """A time, or infinite for `never`."""
    return math.inf if text == "never" else leftovers.span(text)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.install or args.uninstall:
        from launcher.cli import gc_timer

        return gc_timer.install(args) if args.install else gc_timer.uninstall(args)
    if args.manifest:
        return _print_manifests(args.manifest)
    env_file.apply(args.env_file)
    return _collect(args)


def _print_manifests(namespace: str) -> int:
    import yaml

    from launcher.platforms.kubernetes.rbac import manifests

    sys.stdout.write(yaml.safe_dump_all(manifests(namespace), sort_keys=False))
    return 0


def _collect(args: argparse.Namespace) -> int:
    from launcher.orchestrator.garbage import GARBAGE, Rules, collect, hung_of, kept_of, runs_of
    from launcher.orchestrator.unfinished import unlooked
    from launcher.platforms import within_reach

    journal, trouble = leftovers.journal()
    chosen, pricing = leftovers.places(args)
    places, notes = (chosen, []) if chosen is not None else within_reach()
    rules = Rules(
        runs=runs_of(journal),
        kept=kept_of(journal),
        hung=hung_of(journal),
        older_than=DAY if args.older_than is None else args.older_than,
        storage=args.storage,
    )
    wish = collect(places, rules, remove=args.yes, timeout=args.timeout, pricing=pricing, journal=journal)
    result = asyncio.run(wish)
    garbage = [found for found in result.found if found.why in GARBAGE]
    silent = {place.platform for place in result.places if place.unknown}
    dark = unlooked(journal, result.looks, silent) if journal and chosen is None else []
    code = _exit_code(result, dark)
    notes = [*([trouble] if trouble else []), *notes]
    if args.json:
        document = _as_json(result, garbage, dark, dry=not args.yes, code=code, notes=notes)
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        _print(result, garbage, dark, args, notes)
    return code


def _exit_code(result: Collection, dark: list[Unlooked]) -> int:
    if any(place.left and not place.unknown for place in result.places):
        return Leftover.exit_code
    return PlatformError.exit_code if dark or any(place.unknown for place in result.places) else 0


def _as_json(
    result: Collection, garbage: list[Found], dark: list[Unlooked], *, dry: bool, code: int, notes: list[str]
) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "exit_code": code,
        "dry_run": dry,
        "garbage": [_found_as_json(found) for found in garbage],
        "kept": [_found_as_json(found) for found in result.found if found not in garbage],
        "places": [leftovers.place_as_json(place) for place in result.places],
        "removed_usd": result.usd,
        "not_looked_at": [{"invocation": one.invocation, "place": one.place, "run": one.state.value} for one in dark],
        "notes": notes,
    }


def _found_as_json(found: Found) -> dict[str, object]:
    return {**leftovers.as_json(found.left, found.platform), "why": found.why.value}


def _print(
    result: Collection, garbage: list[Found], dark: list[Unlooked], args: argparse.Namespace, notes: list[str]
) -> None:
    from launcher.plan.words import counted, money

    kept = [found for found in result.found if found not in garbage]
    shown = [*garbage, *(kept if args.verbose else ())]
    if shown:
        sys.stdout.write(_table(shown))
    known = [found.left.usd_per_hour for found in garbage if found.left.usd_per_hour]
    cost = f", {sum(known):.2f} USD per hour" if known else ""
    rest = f"; {counted(len(kept), 'thing')} of ours kept{'' if args.verbose else ' (-v shows them)'}" if kept else ""
    where = f" on {', '.join(place.platform for place in result.places)}" if dark else ""
    sys.stdout.write(f"{counted(len(garbage), 'thing')} nobody needs{where}{cost}{rest}\n")
    if garbage and not args.yes:
        sys.stdout.write("Nothing was removed; to remove it, repeat the command with --yes\n")
    for place in result.places:
        _print_removed(place)
        if place.unknown:
            sys.stderr.write(f"nv-eval: what is on {place.platform} is unknown: {place.unknown}\n")
        sys.stderr.writelines(f"nv-eval: still there: {leftovers.described(left)}\n" for left in place.left)
        sys.stderr.writelines(f"nv-eval: {line}\n" for line in (*place.refusals, *place.unseen))
    if result.usd is not None:
        sys.stdout.write(f"What was removed has cost {money(result.usd)}\n")
    sys.stderr.writelines(f"nv-eval: {line}\n" for line in (*notes, *dark))


def _print_removed(place: Cleared) -> None:
    """How much has gone, and what each thing has cost whose platform has a meter."""
    from launcher.plan.words import counted

    if place.removed:
        sys.stdout.write(f"Removed {counted(len(place.removed), 'thing')} from {place.platform}\n")
    metered = [left for left in place.removed if left.usd is not None]
    sys.stdout.writelines(f"  {left.kind} {plain(left.name)}: {leftovers.cost(left)}\n" for left in metered)


_HEAD = ("platform", "kind", "name", "invocation", "state", "age", "price", "cost", "expires", "owner", "why")


def _table(shown: list[Found]) -> str:
    """Without the columns in which nothing has anything."""
    rows = [_row(found) for found in shown]
    filled = [number for number in range(len(_HEAD)) if any(row[number] for row in rows)]
    return leftovers.table([_HEAD[n] for n in filled], [[row[n] for n in filled] for row in rows])


def _row(found: Found) -> list[str]:
    from launcher.orchestrator.garbage import WORDS
    from launcher.plan.words import duration

    left = found.left
    age = duration(left.age) if left.age is not None else ""
    state = left.said or left.state.value if left.kind in ("endpoint", "job") else ""
    money = (leftovers.price(left), leftovers.cost(left), leftovers.expiry(left))
    return [found.platform, left.kind, left.name, left.invocation, state, age, *money, left.owner, WORDS[found.why]]
