"""`nv-eval run`: from a config to scores."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launcher.config import Request
    from launcher.plan.model import Plan
    from launcher.supervise import RunResult

_EPILOG = """\
overrides are in Hydra's grammar: key=value, +key=value, ~key, group=option; for example
  nv-eval run deployment=vllm deployment.model_id=meta-llama/Llama-3.1-8B-Instruct 'evaluation.tasks=[ifeval]'
with -m, a key with several values makes a sweep of all combinations, and so does a section sweep in the config:
  nv-eval run -m deployment=smollm evaluation.limit=10,100 'evaluation.seed=range(1,4)'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_config_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the plan and its checks; create nothing")
    parser.add_argument("-d", "--detach", action="store_true", help="run in the background; see: nv-eval attach")
    parser.add_argument(
        "--detach=cluster",
        dest="detach",
        action="store_const",
        const="cluster",
        help="run by a supervisor in the Kubernetes cluster, so that this machine may leave",
    )
    parser.add_argument(
        "-y", "--yes", action="store_true", help="run although the worst case breaks a limit, which then ends the run"
    )
    parser.add_argument("--json", action="store_true", help="print the plan, or the results, as JSON")
    parser.add_argument("--cfg", choices=("job", "hydra", "all"), help="print the composed config and exit")
    parser.add_argument("--package", help="with --cfg: only this part of the config, for example deployment")
    parser.add_argument("--resolve", action="store_true", help="with --cfg: resolve interpolations")
    parser.add_argument(
        "--info",
        nargs="?",
        const="all",
        choices=("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
        help="print where the config comes from and exit",
    )
    parser.add_argument(
        "-m",
        "--multirun",
        action="store_true",
        help="run a sweep: every combination of overrides with several values, as key=a,b",
    )
    parser.add_argument(
        "--skip-done", action="store_true", help="of a sweep: leave out points whose scores an earlier sweep has"
    )


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that name a config; shared with other commands that take one."""
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="key=value, in Hydra's grammar")
    parser.add_argument("--config-name", "-cn", default="default", help="config to run; default: default")
    parser.add_argument("--config-dir", "-cd", help="folder with configs of your own, searched first")
    parser.add_argument("--config-path", "-cp", help="folder used instead of the packaged configs")
    parser.add_argument(
        "-o", "--override", action="append", default=[], metavar="OVERRIDE", help="the same as a bare override"
    )


def request(args: argparse.Namespace) -> Request:
    """Which config the arguments ask for."""
    from launcher.config import Request

    return Request(
        name=args.config_name,
        overrides=(*args.overrides, *args.override),
        config_dir=args.config_dir,
        config_path=args.config_path,
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.cfg or args.info:
        from launcher.cli.show_config import show

        show(request(args), cfg=args.cfg, info=args.info, package=args.package, resolve=args.resolve)
        return 0
    made = None if args.multirun else _plan(args)
    if made is None:
        from launcher.cli import sweep_run

        return sweep_run.run(args, request(args))
    if args.skip_done:
        from launcher.errors import ConfigError

        raise ConfigError("--skip-done: is for sweeps, and this is one run; see: nv-eval run --help")
    return _dry_run(args, made) if args.dry_run else _run(args, made)


def _plan(args: argparse.Namespace) -> Plan | None:
    """The plan of one run; None if the config has a section that makes a sweep of it."""
    from launcher.api import plan
    from launcher.config import located, typed
    from launcher.config.compose import compose
    from launcher.sweep.section import has_points

    wanted = request(args)
    composition = compose(wanted)
    if has_points(composition):
        return None
    config = typed(composition, wanted)
    with located(wanted):
        return plan(config)


def _dry_run(args: argparse.Namespace, made: Plan) -> int:
    from launcher.api import preflight
    from launcher.plan.render import render
    from launcher.platforms.base import CheckState

    checks = preflight(made)
    if args.json:
        import msgspec

        sys.stdout.write(msgspec.json.encode({"plan": made, "checks": checks}).decode() + "\n")
    else:
        sys.stdout.write(render(made, [(c.state.value, c.name, c.message) for c in checks], verbose=args.verbose))
    return 3 if any(check.state is CheckState.PROBLEM for check in checks) else 0


def _run(args: argparse.Namespace, made: Plan) -> int:
    from launcher.api import run
    from launcher.cli.live import open_view

    if args.detach == "cluster":
        return _hand_over(args, made)
    if args.detach:
        from launcher.api import detach

        print_detached(made.invocation, detach(made, yes=args.yes), as_json=args.json)
        return 0
    with open_view(made, quiet=args.json) as view:
        result = run(made, watcher=view.update, say=view.say, yes=args.yes)
    print_result(result, as_json=args.json)
    return result.exit_code


def _hand_over(args: argparse.Namespace, made: Plan) -> int:
    from launcher.clustered.laptop import detach

    place = detach(made, yes=args.yes, say=lambda text: print(text, file=sys.stderr))
    print_handed_over(made.invocation, place, as_json=args.json)
    return 0


def print_handed_over(invocation: str, place: str, *, as_json: bool) -> None:
    """Print how to reach a run whose supervisor is in the cluster."""
    if as_json:
        import json

        print(json.dumps({"schema": "nv-eval.detached/1", "invocation": invocation, "place": place}))
        return
    print(f"{invocation} runs in {place}; this machine may leave.")
    print(f"Watch it: nv-eval attach {invocation}. End it: nv-eval stop {invocation}.")


def print_result(result: RunResult, *, as_json: bool) -> None:
    """Print how a run ended. If nobody reads, the exit code and the files still tell."""
    with suppress(OSError):
        _print(result, as_json=as_json)


def print_detached(invocation: str, pid: int, *, as_json: bool) -> None:
    """Print how to reach a run in the background."""
    if as_json:
        import json

        print(json.dumps({"schema": "nv-eval.detached/1", "invocation": invocation, "pid": pid}))
        return
    print(f"{invocation} runs in the background (process {pid}).")
    print(f"Watch it: nv-eval attach {invocation}. End it: nv-eval stop {invocation}.")


def _print(result: RunResult, *, as_json: bool) -> None:
    if as_json:
        import msgspec

        sys.stdout.write(msgspec.json.encode(result.record).decode() + "\n")
        sys.stderr.writelines(f"nv-eval: {line}\n" for line in result.not_exported)  # nobody has said it
    else:
        from launcher.cli.scores import print_record

        print_record(result.record, folder=str(result.folder))
    sys.stdout.flush()
