"""What the program costs, as ratios taken in one run: `python -m benchmarks [NAME …] [--quick] [--json] [--keep]`.

startup     commands against a bare Python, the dry run against Hydra
fleet       N endpoints on the emulated Lepton workspace against the bound: time, billed time, requests, memory
recovery    a launcher that is killed in the middle of a fleet, and how soon another goes on
paper       the orchestrator alone with thousands of tasks, on a virtual clock
throughput  lm-eval through the runner against lm-eval by hand, and `concurrency: auto` against fixed numbers

Without names all of them, which takes about half an hour; --quick takes small sizes. The change beside a figure is
against those that were kept last, in benchmarks/figures.json; --keep keeps these. A sweep's costs: benchmarks.sweep.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import figures, fleet, paper, recovery, startup, throughput
from benchmarks.figures import Figure

Result = tuple[list[Figure], list[dict[str, Any]]]
BENCHES: dict[str, Callable[[bool], Result]] = {
    "startup": lambda quick: (startup.run(quick=quick), []),
    "fleet": lambda quick: fleet.measure(quick=quick),
    "recovery": lambda quick: (recovery.run(quick=quick), []),
    "paper": lambda quick: paper.run(quick=quick),
    "throughput": lambda quick: throughput.run(quick=quick),
}


def main() -> int:
    """Measure and print; the exit status says whether every target was met."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="small sizes and few repetitions, to see that it works")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--keep", action="store_true", help="keep the figures in benchmarks/figures.json")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in BENCHES]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    found, series, loads = measure(args.names or list(BENCHES), quick=args.quick, quiet=args.json)
    document = figures.document(found, series, loads)
    if args.json:
        print(json.dumps(document))
    if args.keep:
        figures.KEPT.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(one.meets is not False for one in found) else 1


def measure(names: list[str], *, quick: bool, quiet: bool) -> tuple[list[Figure], dict[str, Any], list[float]]:
    """Figures, series behind them, and loads of the machine."""
    before = figures.values(figures.kept())
    found: list[Figure] = []
    series: dict[str, Any] = {}
    loads = [figures.load()]
    for name in names:
        made, rows = BENCHES[name](quick)
        found, series[name] = [*found, *made], rows
        loads.append(figures.load())
        if not quiet:
            print(f"{name}, load {loads[-2]} to {loads[-1]}:\n{figures.table(made, before)}", flush=True)
    return found, series, loads


if __name__ == "__main__":
    sys.exit(main())
