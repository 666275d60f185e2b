"""Exports of a run that is over: nothing that happens to them changes the run, or holds it up for long."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher import supervise
from launcher.errors import PreflightError
from launcher.orchestrator.blocking import Interrupts
from launcher.orchestrator.journal import Journal
from launcher.plan.model import Plan
from launcher.results.exporters import receipts
from launcher.supervise import RunResult, Supervision
from tests.fakes.platform import FakePlatform
from tests.unit.test_exporters import FAILING, install
from tests.unit.test_orchestrator_run import make_plan


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    install(tmp_path / "site", monkeypatch, "acme", FAILING)
    monkeypatch.setenv("ACME_TOKEN", "very-secret-token-1")
    platform = FakePlatform(poll_interval=0.01, create_grace=0.0)
    monkeypatch.setattr(supervise, "open_for", lambda _plan: platform)
    monkeypatch.setattr("tests.fakes.platform._plus", lambda begin, _seconds: begin)
    return make_plan(tmp_path / "results", 1)


def exporting(plan: Plan, **export: Any) -> Plan:
    return replace(plan, config={**plan.config, "export": export})


def run(plan: Plan, said: list[str]) -> RunResult:
    journal = Journal(Path(plan.output_dir).parent / "state" / "journal.db")
    return asyncio.run(Supervision(plan=plan, journal=journal, say=said.append).run(Interrupts()))


def test_a_failing_export_is_said_in_one_line_and_changes_no_exit_code(plan: Plan) -> None:
    said: list[str] = []

    result = run(exporting(plan, leaderboard={}, others={"acme": {}}), said)

    assert result.exit_code == 0
    again = f"nv-eval export {plan.invocation} --to acme"
    (told,) = (line for line in said if "acme" in line)
    assert told.endswith(f"RuntimeError: token *** was refused; repeat it with: {again}")
    assert result.not_exported == (told,)
    assert any("leaderboard: exported to" in line for line in said)
    assert {one.exporter: one.state for one in receipts.load(result.folder).exports} == {
        "acme": "failed",
        "leaderboard": "exported",
    }


def test_a_signal_ends_the_exports_and_not_the_run(plan: Plan, tmp_path: Path) -> None:
    pid, said = tmp_path / "pid", list[str]()

    def interrupt() -> None:
        while not (pid.is_file() and pid.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    result = run(exporting(plan, others={"acme": {"hangs": str(pid)}}), said)
    thread.join()

    assert result.exit_code == 0
    assert said[-1] == f"Not waiting for exports any longer; repeat them with: nv-eval export {plan.invocation}"
    assert not Path(f"/proc/{pid.read_text()}").exists()


def test_an_exporter_that_cannot_work_refuses_the_run_before_it_begins(plan: Plan) -> None:
    with pytest.raises(PreflightError, match=r"export\.others: nothing: no such exporter"):
        run(exporting(plan, others={"nothing": {}}), [])

    assert not Path(plan.output_dir).exists()
