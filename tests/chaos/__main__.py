"""The long form: `python -m tests.chaos`. See --help."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.campaign import AT_ONCE, firsts, tell_all
from tests.chaos.scenes import SCENES, with_seed
from tests.chaos.trial import After, Story, Verdict, points

CLOUDS = ["lepton", "deepinfra", "kubernetes", "slurm"]


def main() -> int:
    """Kill a launcher at every point; exit code 1 if anything was left, doubled or lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=main.__doc__)
    parser.add_argument("--clouds", nargs="+", choices=CLOUDS, default=CLOUDS, help="where endpoints are; default: all")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--after", nargs="+", choices=list(After), default=list(After))
    parser.add_argument("--deaths", type=int, default=0, help="how often what follows dies as well")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="points whose label contains this")
    parser.add_argument("--firsts", action="store_true", help="only the first point of each kind")
    parser.add_argument("--at-once", type=int, default=AT_ONCE)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nv-eval-chaos-"))
    print(f"Folders of stories that end badly: {folder}", flush=True)
    bad = 0
    for scene in (SCENES[name] for name in args.scenes if SCENES[name].cloud in args.clouds):
        found = points(folder / f"{scene.name}-undisturbed", scene)
        found = [point for point in (firsts(found) if args.firsts else found) if args.only in point.label]
        for after in map(After, args.after):
            seeds = range(args.seed, args.seed + len(found))
            stories = [
                Story(point=point, after=after, scene=with_seed(scene, seed), deaths=args.deaths, seed=seed)
                for point, seed in zip(found, seeds, strict=True)
            ]
            begun = time.monotonic()
            tally = tell_all(stories, folder / f"{scene.name}-{after}", at_once=args.at_once, heard=_heard)
            print(f"{scene.name}, {after}: {tally}; {time.monotonic() - begun:.0f} s", flush=True)
            if tally.missed:
                print(f"  never reached: {len(tally.missed)} points")
            bad += len(tally.problems)
    return 1 if bad else 0


def _heard(verdict: Verdict) -> None:
    if verdict.problems:
        print(verdict, flush=True)


if __name__ == "__main__":
    sys.exit(main())
