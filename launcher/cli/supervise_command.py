"""`nv-eval supervise`: what `run --detach` and `resume --detach` start in the background."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.add_argument("invocation", metavar="ID", help="id of an invocation that has been recorded")
    parser.add_argument("--in-cluster", action="store_true", help="in the pod that run --detach=cluster makes")
    parser.add_argument("--yes", action="store_true", help="run although the worst case breaks a limit")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.in_cluster:
        from launcher.clustered import pod

        return pod.run(args.invocation, yes=args.yes)
    from launcher.orchestrator import sweeps

    if sweeps.is_sweep(args.invocation):
        return _sweep(args.invocation)
    from launcher.api import resume, stored_plan
    from launcher.cli.live import Lines
    from launcher.cli.run_command import print_result

    view = Lines(stored_plan(args.invocation))
    view.say(f"Invocation {args.invocation}: supervisor started.")
    result = resume(args.invocation, watcher=view.update, say=view.say, yes=args.yes)
    print_result(result, as_json=False)
    return result.exit_code


def _sweep(sweep: str) -> int:
    from launcher.api import resume_sweep
    from launcher.cli import sweep_run

    with sweep_run.open_view() as view:
        view.say(f"Sweep {sweep}: supervisor started.")
        result = resume_sweep(sweep, say=view.say)
    sweep_run.print_result(result, as_json=False)
    return result.exit_code
