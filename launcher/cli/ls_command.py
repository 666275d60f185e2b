"""`nv-eval ls`: invocations, benchmarks, and the options of the config groups."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

WHAT = ("runs", "sweeps", "tasks", "deployments", "executions", "exporters")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.add_argument("what", nargs="?", choices=WHAT, default="runs", help="what to list; default: runs")
    parser.add_argument("pattern", nargs="?", help="tasks: only names with this text, or matching this glob")
    parser.add_argument("--include-path", metavar="FOLDER", help="tasks: also those defined in this folder")
    parser.add_argument("-n", "--limit", type=int, metavar="N", help="at most N rows")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    listers = {
        "runs": _runs,
        "sweeps": _sweeps,
        "tasks": _tasks,
        "deployments": _deployments,
        "executions": _executions,
        "exporters": _exporters,
    }
    rows = listers[args.what](args)
    if args.limit is not None:
        rows = rows[: args.limit]
    if args.json:
        sys.stdout.write(json.dumps({"schema": f"nv-eval.ls-{args.what}/1", args.what: rows}) + "\n")
    else:
        sys.stdout.write(_columns(rows) if rows else f"No {args.what}.\n")
    return 0


def _runs(args: argparse.Namespace) -> list[dict[str, object]]:
    from launcher.orchestrator.journal import Journal, RunState
    from launcher.orchestrator.status import is_clean

    journal = Journal.default()
    costs = journal.costs()
    rows: list[dict[str, object]] = []
    for found in journal.invocations(limit=args.limit):
        ended, state = journal.ended(found.id), journal.state(found)
        left = ended.data.get("leftovers", []) if ended else []
        unknown = state in (RunState.INTERRUPTED, RunState.UNKNOWN) and journal.may_outlive_launcher(found)
        may_run = (unknown or left) and not is_clean(journal, found.id)
        rows.append(
            {
                "id": found.id,
                "begun": time.strftime("%Y-%m-%d %H:%M", time.localtime(found.created)),
                "state": state.value,
                "exit": ended.data.get("exit_code") if ended else None,
                "usd": costs.get(found.id),
                "alive": "?" if may_run else ("yes" if state is RunState.RUNNING else "no"),
                "execution": found.execution,
                "deployment": found.deployment,
                "tasks": ",".join(found.tasks),
            }
        )
    return rows


def _sweeps(_args: argparse.Namespace) -> list[dict[str, object]]:
    from launcher.orchestrator import sweeps
    from launcher.orchestrator.journal import Journal

    journal = Journal.default()
    found = [sweeps.status(journal, sweep) for sweep in sweeps.every(journal)]
    return [
        {
            "id": status.sweep,
            "begun": time.strftime("%Y-%m-%d %H:%M", time.localtime(status.created)),
            "state": status.state.value,
            "exit": status.exit_code,
            "done": f"{status.count(sweeps.PointState.SCORED, sweeps.PointState.SKIPPED)}/{len(status.points)}",
            "usd": status.usd,
        }
        for status in found
    ]


def _tasks(args: argparse.Namespace) -> list[dict[str, object]]:
    from launcher.harnesses.lm_eval import search

    return [
        {
            "task": entry.name,
            "kind": entry.kind,
            "output": ",".join(entry.output_types),
            "loglikelihood": entry.needs_loglikelihood,
            "groups": ",".join(entry.groups),
        }
        for entry in search(args.pattern, args.include_path)
    ]


def _deployments(_args: argparse.Namespace) -> list[dict[str, object]]:
    from launcher.cli.keys import summary
    from launcher.config.deployment import DEPLOYMENTS

    return [{"deployment": name, "what": summary(cls)} for name, cls in DEPLOYMENTS.items()]


def _executions(_args: argparse.Namespace) -> list[dict[str, object]]:
    from launcher.cli.keys import summary
    from launcher.config.execution import EXECUTIONS
    from launcher.platforms import RUNNABLE

    return [
        {"execution": name, "what": summary(cls), "runs": "yes" if name in RUNNABLE else "dry run only"}
        for name, cls in EXECUTIONS.items()
    ]


def _exporters(_args: argparse.Namespace) -> list[dict[str, object]]:
    from launcher.results.exporters.registry import known

    return [
        {
            "exporter": found.name,
            "package": found.package,
            "ready": not found.missing and not found.problem,
            "what": found.problem or found.summary + (_needs(found.extra, found.missing) if found.missing else ""),
        }
        for found in known()
    ]


def _needs(extra: str, missing: Sequence[str]) -> str:
    return f"; pip install 'nv-eval-launcher[{extra}]'" if extra else f"; needs {', '.join(missing)}"


def _columns(rows: list[dict[str, object]]) -> str:
    table = [list(rows[0]), *[[_cell(value) for value in row.values()] for row in rows]]
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    widths[-1] = 0
    return "".join("  ".join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True)).rstrip() + "\n" for line in table)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
