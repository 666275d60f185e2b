"""The part of `nv-eval run` that plans and runs sweeps, and that of `resume` that goes on with them."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from launcher.cli.text import plain_lines
from launcher.errors import ConfigError
from launcher.orchestrator.sweeps import PointStatus
from launcher.plan.words import amount, counted, duration, money

if TYPE_CHECKING:
    from launcher.config import Request
    from launcher.platforms.base import Check
    from launcher.sweep.drive import SweepResult
    from launcher.sweep.model import Study, SweepPlan

SCHEMA = "nv-eval.sweep-plan/1"


def run(args: argparse.Namespace, request: Request) -> int:
    """Run, or only plan, the sweep that a request asks for."""
    from launcher.api import build_sweep

    made = build_sweep(request, skip_done=True if args.skip_done else None)
    if args.dry_run:
        return _dry_run(made, as_json=args.json)
    if args.detach == "cluster":
        raise ConfigError("--detach=cluster: is for one run, and this is a sweep; see: nv-eval run --help")
    if args.detach:
        from launcher.api import detach_sweep

        print_detached(made.id, detach_sweep(made, yes=args.yes), as_json=args.json)
        return 0
    from launcher.api import run_sweep

    with open_view(quiet=args.json) as view:
        view.say(f"Sweep {made.id}: {_counts(made)}. Stop with Ctrl-C.")
        for point in made.points:
            if point.is_skipped:
                view.say(f"Point {point.number} ({point.words}) is left out: {point.note}.")
        result = run_sweep(made, watcher=view.update if view.draws else None, say=view.say, yes=args.yes)
    print_result(result, as_json=args.json)
    return result.exit_code


def resume(sweep: str, overrides: tuple[str, ...], *, detach: bool, as_json: bool) -> tuple[int, bool]:
    """Go on with a sweep: the exit code, and whether a signal ended it."""
    from launcher.orchestrator.reasons import Reason

    if detach:
        from launcher.api import resume_sweep_detached

        print_detached(sweep, resume_sweep_detached(sweep, overrides=overrides), as_json=as_json)
        return 0, False
    from launcher.api import resume_sweep

    with open_view(quiet=as_json) as view:
        result = resume_sweep(sweep, overrides=overrides, watcher=view.update if view.draws else None, say=view.say)
    print_result(result, as_json=as_json)
    return result.exit_code, result.ended_by is Reason.STOPPED


def print_result(result: SweepResult, *, as_json: bool) -> None:
    """Print how a sweep ended. If nobody reads, the exit code and the files still tell."""
    from launcher.cli import sweep_text
    from launcher.orchestrator.sweeps import PointState

    with suppress(OSError):
        if as_json:
            sys.stdout.write(json.dumps({"schema": "nv-eval.sweep/1", **asdict(result.status)}) + "\n")
            if result.problem:
                sys.stderr.write(f"nv-eval: {result.problem}\n")  # nobody has said it
        else:
            sys.stdout.write("".join(f"{line}\n" for line in sweep_text.table(result.status.points)))
            if result.left:
                what = ", ".join(result.left)
                sys.stdout.write(f"May still be running: {what}. Remove it: nv-eval cleanup {result.sweep}\n")
            if any(point.state is not PointState.SKIPPED for point in result.status.points):
                sys.stdout.write(f"Scores: nv-eval results {result.sweep}. ")
            sys.stdout.write(f"{_going_on(result)}\n")
        sys.stdout.flush()


def _going_on(result: SweepResult) -> str:
    if result.exit_code == 0:
        return f"All points have their scores. Written to {result.folder}"
    return f"Go on: nv-eval resume {result.sweep}"


def print_detached(sweep: str, pid: int, *, as_json: bool) -> None:
    """Print how to reach a sweep in the background."""
    if as_json:
        print(json.dumps({"schema": "nv-eval.detached/1", "sweep": sweep, "pid": pid}))
        return
    print(f"Sweep {sweep} runs in the background (process {pid}).")
    print(f"Watch it: nv-eval attach {sweep}. End it: nv-eval stop {sweep}.")


# --- the dry run --------------------------------------------------------------------------------------------------


def _dry_run(made: SweepPlan, *, as_json: bool) -> int:
    from launcher.api import already_done
    from launcher.platforms.base import CheckState

    done, checks = already_done(made), _checks(made)
    if as_json:
        sys.stdout.write(json.dumps(_as_json(made, done, checks)) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in _text(made, done, checks)))
    return 3 if any(check.state is CheckState.PROBLEM for check in checks) else 0


def _checks(made: SweepPlan) -> list[Check]:
    """Preflight of one point of each kind, and the sweep's own limits."""
    from launcher.api import preflight
    from launcher.platforms.base import BUDGET, Check, CheckState
    from launcher.sweep.limits import beyond

    kinds = {point.kind: point.plan for point in reversed(made.examples)}
    found = [check for plan in kinds.values() for check in preflight(plan)]
    found += [Check(BUDGET, CheckState.PROBLEM, problem) for problem in beyond(made)]
    return list(dict.fromkeys(found))


def _counts(made: SweepPlan) -> str:
    places = ", ".join(sorted({point.plan.execution for point in made.examples}))
    if made.study is not None:
        tasks = max(len(point.plan.tasks) for point in made.probes)
        trials = counted(made.study.most, "point")
        return f"at most {trials} of {counted(tasks, 'task')} on {places}, chosen by {made.study.choice.name}"
    tasks = sum(len(point.plan.tasks) for point in made.open)
    skipped = len(made.points) - len(made.open)
    left_out = f" ({skipped} of them left out)" if skipped else ""
    return f"{counted(len(made.points), 'point')}{left_out}, {counted(tasks, 'task')} on {places}"


def _text(made: SweepPlan, done: dict[int, str], checks: list[Check]) -> Iterator[str]:
    yield f"Plan of sweep {made.id}: {_counts(made)}"
    for point in made.points:
        found = done.get(point.number)
        note = f" ({point.note})" if point.note else f" (its scores are in {found})" if found else ""
        yield f"  {point.number:>4}. {point.words}{note}"
    if made.study is not None:
        yield from _study(made.study)
    yield ""
    yield f"Endpoints: {_endpoints(made)}"
    yield f"GPUs: {f'at most {made.gpus_at_once} at once' if made.gpus_at_once else 'none'}."
    yield f"Limits: {', '.join(_limits(made))}; after a failure: {made.settings.on_failure}."
    if done and not made.settings.skip_done:
        yield f"Already done: {counted(len(done), 'point')}; --skip-done leaves them out."
    worst = made.worst_case()
    price = money(worst.usd) if worst.usd is not None else "no price set"
    yield f"Expected time, as far as tasks say: {duration(made.expected_seconds())}."
    yield (
        f"Worst case, if every time-out runs to its end: {duration(worst.hours * 3600)}, "
        f"{amount(worst.gpu_hours)} GPU-hours, {price}."
    )
    for check in checks:
        if check.state.value in ("problem", "skipped"):
            word = {"problem": "Problem", "skipped": f"Not checked: {check.name}"}[check.state.value]
            yield f"{word}: {check.message or check.name}"
    yield "Dry run: nothing was created, nothing was written."


def _study(study: Study) -> Iterator[str]:
    yield "Points are chosen as results come, so that none can be shown."
    for text in study.space:
        yield f"  {text}"
    known = itertools.zip_longest(study.objective, study.directions[: len(study.objective)])
    yield f"Objective: {', '.join(f'{way} {name}' if way else name for name, way in known)}."
    yield from study.notes


def _endpoints(made: SweepPlan) -> str:
    if made.study is not None:
        return _endpoints_of_study(made, made.study)
    uses = made.uses()
    total = sum(uses.values())
    if not total:
        return "none is created; the points use ones that exist."
    kinds = f"{counted(len(uses), 'kind')} of deployment"
    if made.reuses:
        return (
            f"at most {made.endpoints} at once of {kinds}, each serves one task after another; {total} without reuse."
        )
    could = "; sweep.reuse_endpoints=true would let equal ones serve several tasks" if total > len(uses) else ""
    return f"{total} are created, {kinds}{could}."


def _endpoints_of_study(made: SweepPlan, study: Study) -> str:
    each = max(len(point.plan.endpoints) for point in made.probes)
    if not each:
        return "none is created; the points use ones that exist."
    if made.reuses:
        return f"at most {made.at_once} at once, each serves one task after another; {study.most * each} without reuse."
    return f"at most {study.most * each} are created, {each} for each point."


def _limits(made: SweepPlan) -> list[str]:
    settings = made.settings
    limits = {
        "tasks at once": settings.max_parallel_tasks,
        "endpoints at once": settings.max_parallel_endpoints,
        "GPUs at once": settings.max_gpus,
        "duration": duration(settings.max_duration) if settings.max_duration else None,
        "cost": money(settings.max_cost_usd) if settings.max_cost_usd else None,
        "GPU-hours": settings.max_gpu_hours,
    }
    return [f"{name} {value}" for name, value in limits.items() if value is not None]


def _as_json(made: SweepPlan, done: dict[int, str], checks: list[Check]) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "sweep": made.id,
        "points": [
            {
                "number": point.number,
                "sets": point.words,
                "identity": point.identity,
                "tasks": [task.key for task in point.plan.tasks],
                "endpoints": len(point.plan.endpoints),
                "is_skipped": point.is_skipped,
                "note": point.note or None,
                "done_by": done.get(point.number),
            }
            for point in made.points
        ],
        "study": _study_as_json(made.study),
        "endpoints": made.endpoints,
        "endpoint_uses": dict(made.uses()),
        "reuse_endpoints": made.reuses,
        "gpus_at_once": made.gpus_at_once,
        "expected_seconds": made.expected_seconds(),
        "worst_case": asdict(made.worst_case()),
        "settings": asdict(made.settings),
        "checks": [{"name": c.name, "state": c.state.value, "message": c.message} for c in checks],
    }


def _study_as_json(study: Study | None) -> dict[str, object] | None:
    if study is None:
        return None
    return {
        "sweeper": study.choice.name,
        "settings": study.choice.settings,
        "searches": study.space,
        "objective": study.objective,
        "directions": study.directions,
        "most_points": study.most,
        "points_at_a_time": study.at_once,
        "notes": study.notes,
    }


# --- the live view ------------------------------------------------------------------------------------------------


class View:
    """Shows what a sweep says, a line each; on a terminal also how its points are."""

    def __init__(self, write: Callable[[str], None], draw: Callable[[str], None] | None = None) -> None:
        self.say = write
        self._draw = draw

    @property
    def draws(self) -> bool:
        """Whether it shows the points."""
        return self._draw is not None

    def update(self, points: list[PointStatus]) -> None:
        """Show how the points are."""
        from launcher.cli import sweep_text

        if self._draw is not None:
            self._draw("\n".join(sweep_text.table(points)))


@contextmanager
def open_view(*, quiet: bool = False) -> Iterator[View]:
    """The view that suits where the output goes: standard error."""
    if quiet:
        yield View(lambda _: None)
    elif not sys.stderr.isatty():
        yield View(_line)
    else:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(stderr=True, highlight=False)
        with Live(console=console, refresh_per_second=4, vertical_overflow="ellipsis") as live:
            yield View(
                lambda text: console.print(plain_lines(text), markup=False), lambda text: live.update(Text(text))
            )


def _line(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {plain_lines(text)}\n")
        sys.stderr.flush()
