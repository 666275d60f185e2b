"""`nv-eval doctor`: what this machine can run, and how to mend what it cannot."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from launcher.cli.leftovers import span
from launcher.cli.text import plain

if TYPE_CHECKING:
    from launcher.orchestrator.doctor import Finding

SCHEMA = "nv-eval.doctor/1"
_EPILOG = """\
Changes nothing. Exit code: 0 if at least one execution can run here, else 3. In JSON, `examination` is one of: python,
packages, extras, processes, containers, gpus, lepton, deepinfra, kubernetes, slurm, disk, journal; `state` is ok,
problem, or skipped for what is not there.
"""
_SIGNS = {"ok": "ok      ", "problem": "PROBLEM ", "skipped": "-       "}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--timeout", type=span, default=10.0, metavar="T", help="time for each examination; default: 10s"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from launcher.errors import PreflightError
    from launcher.orchestrator.doctor import examinations, examine, runnable

    findings = examine(examinations(), args.timeout)
    can_run = runnable(findings)
    code = 0 if can_run else PreflightError.exit_code
    if args.json:
        sys.stdout.write(json.dumps(_as_json(findings, can_run, code)) + "\n")
    else:
        _print(findings, can_run)
    return code


def _as_json(findings: list[Finding], can_run: list[str], code: int) -> dict[str, object]:
    checks = [
        {
            "examination": finding.examination.name,
            "check": check.name,
            "state": check.state.value,
            "message": check.message,
            "seconds": round(finding.seconds, 3),
        }
        for finding in findings
        for check in finding.checks
    ]
    return {"schema": SCHEMA, "exit_code": code, "can_run": can_run, "checks": checks}


def _print(findings: list[Finding], can_run: list[str]) -> None:
    checks = [check for finding in findings for check in finding.checks]
    width = max(len(check.name) for check in checks)
    for check in checks:
        sys.stdout.write(f"{_SIGNS[check.state.value]}{check.name:<{width}}  {plain(check.message)}\n")
    told = "; ".join(can_run) if can_run else "nothing; mend the problems above"
    sys.stdout.write(f"\nThis machine can run: {told}\n")
