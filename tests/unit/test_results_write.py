"""The files of an invocation that has ended: each is written whatever happens to the others."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.config import Request, load
from launcher.harnesses.spec import Score
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.state import RunOutcome, TaskOutcome
from launcher.plan.build import build
from launcher.plan.model import Plan
from launcher.results import provenance, write
from launcher.supervise import RunResult

EVERY_FILE = {"results.json", "results.parquet", "provenance.json", "scores.csv", "scores.md"}


@pytest.fixture
def plan() -> Plan:
    chosen = ("evaluation.tasks=[gsm8k_100]", "export.formats=[csv,markdown]")
    return build(load(Request(overrides=chosen)), "a1b2c3d4")


def ended(plan: Plan, folder: Path, n: int = 2) -> RunOutcome:
    score = Score(task="gsm8k_100", metric="exact_match", filter="none", value=0.5, n=n)
    task = TaskOutcome(
        key=plan.tasks[0].key, name="gsm8k_100", harness="lm_eval", reason=Reason.COMPLETED, scores=(score,)
    )
    return RunOutcome(invocation=plan.invocation, folder=str(folder), tasks=(task,), seconds=1.0)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def test_every_file_is_written(plan: Plan, tmp_path: Path) -> None:
    written = write.finish(plan, ended(plan, tmp_path), tmp_path)
    assert (written.problems, written.saved, names(tmp_path)) == ((), True, EVERY_FILE)


def test_a_number_that_parquet_cannot_hold_loses_no_other_file(plan: Plan, tmp_path: Path) -> None:
    written = write.finish(plan, ended(plan, tmp_path, n=2**63), tmp_path)
    assert written.saved
    assert len(written.problems) == 1
    assert written.problems[0].startswith(f"{tmp_path / 'results.parquet'}: cannot be written: ")
    assert names(tmp_path) == EVERY_FILE - {"results.parquet"}


@pytest.mark.parametrize("name", sorted(EVERY_FILE))
def test_a_file_that_cannot_be_written_loses_no_other(name: str, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    outcome = ended(plan, tmp_path)
    written = write.finish(plan, outcome, tmp_path)
    assert [line.partition(": ")[0] for line in written.problems] == [str(tmp_path / name)]
    assert names(tmp_path) == EVERY_FILE - {name}
    result = RunResult(
        invocation="a1b2c3d4", folder=tmp_path, record=written.record, outcome=outcome, saved=written.saved
    )
    assert result.exit_code == (8 if name == "results.json" else 0)


def test_a_folder_deleted_meanwhile_is_made_again(plan: Plan, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "a1b2c3d4"
    write.begin(plan, folder)
    shutil.rmtree(folder)
    assert write.finish(plan, ended(plan, folder), folder).problems == ()
    assert names(folder) == EVERY_FILE


def test_provenance_never_fails_a_run(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write.finish(plan, ended(plan, tmp_path), tmp_path)
    record = json.loads((tmp_path / "provenance.json").read_text())["tasks"][plan.tasks[0].key]
    assert "wrote no provenance.json" in record["harness"]["error"]

    strange = replace(plan, tasks=tuple(replace(task, harness="gone") for task in plan.tasks))
    monkeypatch.setattr(provenance, "PACKAGES", (1,))
    written = write.finish(strange, ended(plan, tmp_path), tmp_path)
    assert written.saved
    assert "provenance.json: cannot be written" in written.problems[0]
