"""What the program costs, as ratios taken in one run: `python -m benchmarks [NAME …] [--quick] [--json] [--keep]`.

startup     commands against a bare Python, the dry run against Hydra
fleet       N endpoints on the emulated Lepton workspace against the bound: time, billed time, requests, memory
recovery    a launcher that is killed in the middle of a fleet, and how soon another goes on
paper       the orchestrator alone with thousands of tasks, on a virtual clock
throughput  lm-eval through the runner against lm-eval by hand, and `concurrency: auto` against fixed numbers
peers       other programs of this kind, installed on first use: their start-up, and the incumbent's fleets

Without names all of them, which takes an hour and a half; --quick takes small sizes. The change beside a figure is
against those that were kept last, in benchmarks/figures.json; --keep keeps these. A sweep's costs: benchmarks.sweep.
How often intervals hold the truth: benchmarks.coverage.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
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
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
    unknown = [name for name in args.names if name not in BENCHES]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    before = figures.kept()
    ran = [_measured(name, before, quick=args.quick, quiet=args.json) for name in args.names or list(BENCHES)]
    document = figures.document(ran, before if args.keep else None)
    if args.json:
        print(json.dumps(document))
    if args.keep:
        figures.KEPT.write_text(json.dumps(document, indent=1) + "\n")
        page.write(document)
    return 0 if all(figure.meets is not False for one in ran for figure in one.figures) else 1


def _measured(name: str, before: dict[str, Any], *, quick: bool, quiet: bool) -> Ran:
    """Run one benchmark, and print its figures with the change against those that were kept."""
    load, began = figures.load(), time.monotonic()
    made, rows = BENCHES[name](quick)
    loads, seconds = (load, figures.load()), time.monotonic() - began
    if not quiet:
        head = f"{name}, {seconds:.0f} s, load {loads[0]} to {loads[1]}"
        print(f"{head}:\n{figures.table(made, figures.values(before))}", flush=True)
    return Ran(bench=name, figures=made, rows=rows, load=loads, seconds=seconds, quick=quick)


if __name__ == "__main__":
    sys.exit(main())
