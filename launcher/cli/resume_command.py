"""`nv-eval resume`: go on with invocations that were interrupted or stopped, or that failed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from launcher.cli import clustered
from launcher.cli.report import report

if TYPE_CHECKING:
    from launcher.orchestrator.journal import Journal
    from launcher.plan.model import Plan

_EPILOG = """\
Tasks that have scores are kept; the others go on, and no request that was answered is sent again. Overrides may change
time-outs, limits, concurrency and where results go; what would change the scores is refused:
  nv-eval resume a1b2c3d4 limits.max_cost_usd=40 evaluation.timeout=7200
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "overrides", nargs="*", metavar="ID|OVERRIDE", help="ids or unique prefixes, also of sweeps, and key=value"
    )
    parser.add_argument("--config-name", "-cn", help="compare with this config instead of the invocation's own")
    parser.add_argument("--config-dir", "-cd", help="folder with configs of your own, searched first")
    parser.add_argument("-d", "--detach", action="store_true", help="go on in the background")
    parser.add_argument(
        "-y",
        "--yes",
        action="store_true",
        help="go on although the worst case breaks a limit that the overrides change",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(args: argparse.Namespace) -> int:
    """Run the command. One that fails keeps no other from being resumed, one that a signal ended does.

    The exit code is the worst.
    """
    from launcher.errors import ConfigError

    ids = [word for word in args.overrides if "=" not in word and not word.startswith(("+", "~"))]
    overrides = tuple(word for word in args.overrides if word not in ids)
    if not ids:
        raise ConfigError("nv-eval resume: names no invocation; see: nv-eval ls runs")
    worst = 0
    for number, prefix in enumerate(ids, 1):
        ended = _try(args, prefix, overrides)
        worst = max(worst, ended.code)
        if ended.by_signal and number < len(ids):
            sys.stderr.write(f"nv-eval: stopped; not resumed: {', '.join(ids[number:])}\n")
            break
    return worst


class Ended(NamedTuple):
    """How resuming one invocation went."""

    code: int
    by_signal: bool = False


def _try(args: argparse.Namespace, prefix: str, overrides: tuple[str, ...]) -> Ended:
    from launcher.errors import LauncherError

    try:
        return _resume(args, prefix, overrides)
    except LauncherError as error:
        return Ended(report(error, as_json=args.json))


def _resume(args: argparse.Namespace, prefix: str, overrides: tuple[str, ...]) -> Ended:
    from launcher.orchestrator import sweeps
    from launcher.orchestrator.endpoints import refuse_resume
    from launcher.orchestrator.journal import Fact, Journal

    if sweeps.is_sweep(prefix):
        return _sweep(args, prefix, overrides)
    journal = Journal.default()
    found = journal.find(prefix)
    _refuse_point(journal, found.id)
    refuse_resume(journal, found)
    was_handed_over = journal.last(found.id, Fact.HANDED_OVER) is not None
    if was_handed_over:
        clustered.refresh(journal, [found])
    ended = journal.ended(found.id)
    if ended is not None and ended.data.get("exit_code") == 0:
        sys.stdout.write(f"{found.id}: has all its scores; see: nv-eval results {found.id}\n")
        return Ended(0)
    change = _change(args, overrides)
    if was_handed_over:
        return Ended(_in_cluster(found.id, change, yes=args.yes, as_json=args.json))
    if args.detach:
        return Ended(_detach(found.id, change, yes=args.yes, as_json=args.json))
    return _foreground(found.id, change, yes=args.yes, as_json=args.json)


def _sweep(args: argparse.Namespace, prefix: str, overrides: tuple[str, ...]) -> Ended:
    from launcher.cli import sweep_run
    from launcher.errors import ConfigError

    if args.config_name is not None:
        raise ConfigError(
            "nv-eval resume: a sweep has a config for each point; give overrides instead of --config-name"
        )
    code, by_signal = sweep_run.resume(prefix, overrides, detach=args.detach, as_json=args.json)
    return Ended(code, by_signal=by_signal)


def _refuse_point(journal: Journal, invocation: str) -> None:
    """A point that its sweep may go on with is not run by two."""
    from launcher.errors import PreflightError
    from launcher.orchestrator import sweeps

    sweep = sweeps.sweep_of(journal, invocation)
    if sweep is not None and sweeps.find(journal, sweep).data["settings"]["reuse_endpoints"]:
        raise PreflightError(
            f"{invocation}: is a point of sweep {sweep}, which lends it endpoints; go on: nv-eval resume {sweep}"
        )


def _foreground(invocation: str, change: Callable[[Plan], Plan], *, yes: bool, as_json: bool) -> Ended:
    from launcher.api import resume, stored_plan
    from launcher.cli.live import open_view
    from launcher.cli.run_command import print_result
    from launcher.orchestrator.reasons import Reason

    plan = change(stored_plan(invocation))
    with open_view(plan, quiet=as_json) as view:
        result = resume(invocation, change=lambda _: plan, watcher=view.update, say=view.say, yes=yes)
    print_result(result, as_json=as_json)
    return Ended(result.exit_code, by_signal=result.outcome.ended_by is Reason.STOPPED)


def _detach(invocation: str, change: Callable[[Plan], Plan], *, yes: bool, as_json: bool) -> int:
    from launcher.api import resume_detached
    from launcher.cli.run_command import print_detached

    print_detached(invocation, resume_detached(invocation, change=change, yes=yes), as_json=as_json)
    return 0


def _in_cluster(invocation: str, change: Callable[[Plan], Plan], *, yes: bool, as_json: bool) -> int:
    from launcher.cli.run_command import print_handed_over
    from launcher.clustered.laptop import resume

    place = resume(invocation, change=change, yes=yes, say=lambda text: print(text, file=sys.stderr))
    print_handed_over(invocation, place, as_json=as_json)
    return 0


def _change(args: argparse.Namespace, overrides: tuple[str, ...]) -> Callable[[Plan], Plan]:
    """What makes the plan to go on with of the one that was begun."""

    def change(plan: Plan) -> Plan:
        if not overrides and args.config_name is None:
            return plan
        from launcher.api import changed

        return changed(plan, overrides, config_name=args.config_name, config_dir=args.config_dir)

    return change
