"""`nv-eval cleanup`: remove endpoints, jobs and storage of invocations, and wait until they are gone."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import TYPE_CHECKING

from launcher.cli import clustered, leftovers

if TYPE_CHECKING:
    from launcher.orchestrator.cleanup import Cleaned, Target, Wish
    from launcher.orchestrator.removal import Cleared

SCHEMA = "nv-eval.cleanup/1"
_EPILOG = """\
Where to look: --place, or the execution of overrides or of a config; else where the invocation's plan in this
machine's journal says, else everywhere this machine has credentials for. So it works from any machine:
  nv-eval cleanup a1b2c3d4 execution=lepton
Results on this machine are never removed. Exit code: 0 all is gone, 5 something is left, 7 a platform could not be
asked, 10 the launcher is alive, 6 the prefix fits several. In JSON, `outcome` is one of: removed, nothing_left, left,
unknown, running, ambiguous.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("invocations", nargs="+", metavar="ID", help="id or unique prefix, or a sweep's")
    parser.add_argument("--keep-storage", action="store_true", help="keep what it wrote to the platform's storage")
    parser.add_argument("--force", action="store_true", help="also if its launcher is alive")
    parser.add_argument(
        "--grace",
        type=leftovers.span,
        metavar="T",
        help="time after the last creation in which more may still appear; default: the platform's",
    )
    leftovers.add_removal_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    words = [*args.invocations, *args.overrides]
    args.overrides = [word for word in words if _is_override(word)]
    ids = [word for word in words if not _is_override(word)]
    ids = _expanded(ids)
    if not ids:
        from launcher.errors import ConfigError

        raise ConfigError("nv-eval cleanup: which invocation? see: nv-eval ls runs")
    from launcher.orchestrator.cleanup import EXIT_CODES, Wish

    places, pricing = leftovers.places(args)
    wish = Wish(
        places=places,
        pricing=pricing,
        keep_storage=args.keep_storage,
        force=args.force,
        timeout=args.timeout,
        grace=args.grace,
        say=_quiet if args.json else _say,
    )
    cleaned, trouble = _clean(ids, wish)
    outcomes = {one.outcome for one in cleaned}
    code = next((code for outcome, code in EXIT_CODES.items() if outcome in outcomes), 0)
    if args.json:
        found = [_as_json(one) for one in cleaned]
        document = {"schema": SCHEMA, "exit_code": code, "journal_problem": trouble or None, "invocations": found}
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        _print(cleaned, trouble)
    return code


def _expanded(ids: list[str]) -> list[str]:
    """With the invocations of sweeps in the place of these."""
    from launcher.orchestrator import sweeps
    from launcher.orchestrator.journal import Journal

    return sweeps.expand(Journal.default(), ids, endpoints=True) if any(map(sweeps.is_sweep, ids)) else ids


def _say(text: str) -> None:
    sys.stderr.write(f"nv-eval: {text}\n")
    sys.stderr.flush()


def _quiet(_: str) -> None:
    pass


def _is_override(word: str) -> bool:
    return "=" in word or word.startswith(("~", "+"))


def _clean(ids: list[str], wish: Wish) -> tuple[list[Cleaned], str]:
    """What became of each, and why the journal could not be used, if so."""
    from launcher.errors import NotFound
    from launcher.orchestrator.cleanup import Cleaned, Outcome, cleanup, find

    journal, trouble = leftovers.journal()
    targets: list[Target] = []
    refused: list[Cleaned] = []
    for word in dict.fromkeys(ids):
        try:
            if journal is not None and word:
                clustered.refresh_named(journal, [word])
            targets.append(find(journal, word))
        except NotFound as error:
            refused.append(Cleaned(invocation=word, outcome=Outcome.AMBIGUOUS, message=str(error)))

    async def all_of_them() -> list[Cleaned]:
        return await asyncio.gather(*(cleanup(target, wish, journal) for target in targets))

    return [*refused, *asyncio.run(all_of_them())], trouble


def _as_json(one: Cleaned) -> dict[str, object]:
    return {
        "invocation": one.invocation,
        "outcome": one.outcome.value,
        "message": one.message or None,
        "places": [leftovers.place_as_json(place) for place in one.places],
        "notes": list(one.notes),
    }


def _print(cleaned: list[Cleaned], trouble: str) -> None:
    if trouble:
        sys.stderr.write(f"nv-eval: {trouble}\n")
    for one in cleaned:
        if one.message:
            sys.stderr.write(f"nv-eval: {one.message}\n")
            continue
        for place in one.places:
            _print_place(one.invocation, place)
        if one.outcome.value == "nothing_left":
            sys.stdout.write(f"{one.invocation}: nothing left on {', '.join(place.platform for place in one.places)}\n")
        sys.stderr.writelines(f"nv-eval: {note}\n" for note in one.notes)


def _print_place(invocation: str, place: Cleared) -> None:
    for left in place.removed:
        sys.stdout.write(f"{invocation}: removed from {place.platform}: {leftovers.described(left)}\n")
    if place.unknown:
        sys.stderr.write(f"nv-eval: {invocation}: what is on {place.platform} is unknown: {place.unknown}\n")
    for left in place.left:
        word = "was there when last seen" if place.unknown else "is still there"
        sys.stderr.write(f"nv-eval: {invocation}: {word}: {leftovers.described(left)}\n")
    sys.stderr.writelines(f"nv-eval: {invocation}: {line}\n" for line in (*place.refusals, *place.unseen))
