"""What the program costs, as ratios taken in one run: `python -m benchmarks [NAME …] [--quick] [--json] [--keep]`.

startup     commands against a bare Python, the dry run against Hydra
fleet       N endpoints on the emulated Lepton workspace against the bound: time, billed time, requests, memory
recovery    a launcher that is killed in the middle of a fleet, and how soon another goes on
paper       the orchestrator alone with thousands of tasks, on a virtual clock
throughput  lm-eval through the runner against lm-eval by hand, and `concurrency: auto` against fixed numbers
peers       other programs of this kind, installed on first use: their start-up, and the incumbent's fleets

Without names all of them, which takes an hour and a half; --quick takes small sizes, and a quarter of an hour. Most of
it is waiting, but the machine should be left alone. The change beside a figure is against those that were kept last,
in benchmarks/figures.json. --keep keeps the figures of each part as soon as it is done, those of the parts that are
not named stay, and docs/benchmarks.md is written anew. The exit status is 1 if a target is missed.

A sweep's costs: benchmarks.sweep. How often intervals hold the truth: benchmarks.coverage.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from benchmarks import figures, fleet, page, paper, peers, recovery, startup, throughput
from benchmarks.figures import Figure, Ran

Result = tuple[list[Figure], list[dict[str, Any]]]
BENCHES: dict[str, Callable[[bool], Result]] = {
    "startup": lambda quick: (startup.run(quick=quick), []),
    "fleet": lambda quick: fleet.measure(quick=quick),
    "recovery": lambda quick: (recovery.run(quick=quick), []),
    "paper": lambda quick: paper.run(quick=quick),
    "throughput": lambda quick: throughput.run(quick=quick),
    "peers": lambda quick: peers.run(quick=quick),
}


def main() -> int:
    """Measure and print; the exit status says whether every target was met."""
    before = figures.kept()
    args = _arguments(before)
    ran: list[Ran] = []
    for name in dict.fromkeys(args.names or BENCHES):
        ran.append(_measured(name, before, quick=args.quick, quiet=args.json))
        if args.keep:  # at once: what goes wrong in a later part loses nothing
            figures.KEPT.write_text(json.dumps(figures.document(ran, before), indent=1) + "\n")
    if args.json:
        print(json.dumps(figures.document(ran, before if args.keep else None)))
    if args.keep:
        page.write(figures.kept())
    return 0 if all(figure.meets is not False for one in ran for figure in one.figures) else 1


def _arguments(before: dict[str, Any]) -> argparse.Namespace:
    """What was asked for; ends the program where that cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=durations(before),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repetitions")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the figures in benchmarks/figures.json, and write docs/benchmarks.md from them",
    )
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in BENCHES]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    if args.keep and find_spec("vl_convert") is None:
        parser.error("--keep draws charts; install what draws them: pip install -e '.[report]'")
    return args


def durations(document: dict[str, Any]) -> str:
    """How long each part took when the figures that were kept were taken."""
    taken = document.get("taken", {})
    parts = [
        f"{name} {minutes(taken[name]['seconds'])}{' with --quick' if taken[name]['quick'] else ''}"
        for name in BENCHES
        if name in taken
    ]
    return f"When the kept figures were taken: {', '.join(parts)}." if parts else ""


def minutes(seconds: float) -> str:
    """A duration as people say it."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _measured(name: str, before: dict[str, Any], *, quick: bool, quiet: bool) -> Ran:
    """Run one benchmark, and print its figures with the change against those that were kept."""
    print(f"{name} …", file=sys.stderr, flush=True)
    load, began = figures.load(), time.monotonic()
    made, rows = BENCHES[name](quick)
    loads, seconds = (load, figures.load()), time.monotonic() - began
    if not quiet:
        head = f"{name}, {minutes(seconds)}, load {loads[0]} to {loads[1]}"
        print(f"{head}:\n{figures.table(made, figures.values(before, name, quick=quick))}", flush=True)
    return Ran(bench=name, figures=made, rows=rows, load=loads, seconds=seconds, quick=quick)


if __name__ == "__main__":
    sys.exit(main())
