"""`nv-eval gate`: may a run's model replace another's, by a policy?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launcher.results.gate import Decision


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.add_argument("baseline", metavar="BASELINE", help="what must hold: id, unique prefix or folder")
    parser.add_argument("candidate", metavar="CANDIDATE", help="what is to replace it: id, unique prefix or folder")
    parser.add_argument("--policy", required=True, metavar="FILE", help="YAML file that says which scores must hold")
    parser.add_argument("--junit", metavar="FILE", help="write the checks as JUnit XML")
    parser.add_argument("--markdown", metavar="FILE", help="write a summary in Markdown")
    parser.add_argument(
        "--force", action="store_true", help="decide by common samples although the runs measure different things"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run the command: 0 for GO, 12 for NO-GO, 13 for INCONCLUSIVE."""
    from launcher.api import gate, gate_refusal
    from launcher.errors import ResultsError

    try:
        found = gate(args.baseline, args.candidate, policy=args.policy, force=args.force)
    except ResultsError as error:
        _write(gate_refusal(args.baseline, args.candidate, error), junit=args.junit, markdown=args.markdown)
        raise
    _write(found, junit=args.junit, markdown=args.markdown)
    if args.json:
        import msgspec

        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        _print(found)
    return found.exit_code


def _write(found: Decision, *, junit: str | None, markdown: str | None) -> None:
    """Write what CI reads. Raises LauncherError where it cannot be written: a gate must not pass unseen."""
    from launcher.errors import LauncherError
    from launcher.results import gate_text

    forms = ((junit, gate_text.junit), (markdown, lambda decision: gate_text.markdown(decision).encode()))
    for name, form in forms:
        if name is None:
            continue
        try:
            Path(name).write_bytes(form(found))
        except OSError as error:
            raise LauncherError(
                f"{name}: cannot be written: {error.strerror}; the verdict is {found.verdict}"
            ) from None


def _print(found: Decision) -> None:
    from launcher.cli.compare_command import print_rows
    from launcher.cli.text import plain
    from launcher.results import gate_text
    from launcher.results.compare_text import title

    print_rows(gate_text.HEADS, map(gate_text.cells, found.checks), gate_text.LEFT)
    for line in gate_text.remarks(found):
        print(plain(line))
    print(plain(f"{found.verdict}: {title(found.candidate)} against {title(found.baseline)}"))
