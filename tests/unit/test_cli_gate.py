"""`nv-eval gate` as CI calls it."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from junitparser import JUnitXml

from launcher import errors
from launcher.results import gate, policy
from tests.unit.conftest import Desk
from tests.unit.past_runs import PastTask, write_run

TASK = PastTask("t", {"acc": [1] * 60 + [0] * 40})
PAGE = Path(__file__).resolve().parents[2] / "docs" / "compare.md"


@pytest.fixture
def runs(desk: Desk) -> Desk:
    write_run(desk.cwd, "aaaa", TASK)
    for name, wrong in (("same", 0), ("odd", 4), ("worse", 30)):
        write_run(desk.cwd, name, replace(TASK, values={"acc": [0] * wrong + [1] * (60 - wrong) + [0] * 40}))
    desk.write("policy.yaml", "default:\n  max_drop: 0.01\n")
    return desk


@pytest.mark.parametrize(("candidate", "code", "verdict"), [("same", 0, "GO"), ("worse", 12, "NO-GO")])
def test_the_exit_code_is_the_verdict(runs: Desk, candidate: str, code: int, verdict: str) -> None:
    found, out, err = runs.nv_eval("gate", "aaaa", candidate, "--policy", "policy.yaml")

    assert (found, err) == (code, "")
    assert out.splitlines()[-1].startswith(f"{verdict}: {candidate}")


def test_what_is_not_sure_has_a_code_of_its_own_and_files_for_ci(runs: Desk) -> None:
    files = ("--junit", "gate.xml", "--markdown", "gate.md")

    code, out, _ = runs.nv_eval("gate", "aaaa", "odd", "--policy", "policy.yaml", *files, "--json")

    found = json.loads(out)
    assert code == found["exit_code"] == errors.Inconclusive.exit_code == 13
    assert found["schema"] == "nv-eval.gate/1" and found["verdict"] == "INCONCLUSIVE"
    assert "<error" in (runs.cwd / "gate.xml").read_text()
    assert (runs.cwd / "gate.md").read_text().startswith("## INCONCLUSIVE: odd")


def test_runs_that_cannot_be_compared_are_told_to_ci_as_undecided(runs: Desk) -> None:
    write_run(runs.cwd, "other", replace(TASK, prompt="Another question {id}?"))
    files = ("--junit", "gate.xml", "--markdown", "gate.md")

    code, _, err = runs.nv_eval("gate", "aaaa", "other", "--policy", "policy.yaml", *files)

    assert code == errors.NotComparable.exit_code == 8 and "do not measure the same" in err
    (suite,) = JUnitXml.fromstring((runs.cwd / "gate.xml").read_bytes())
    (case,) = suite
    assert case.result[0].type == "INCONCLUSIVE" and "prompts (100 of 100 differ" in case.result[0].message
    text = (runs.cwd / "gate.md").read_text()
    assert text.startswith("## INCONCLUSIVE: other") and "prompts (100 of 100 differ" in text


def test_broken_results_are_told_to_ci_as_undecided(runs: Desk) -> None:
    (runs.cwd / "worse" / "results.json").write_text("{")

    code, _, _ = runs.nv_eval("gate", "aaaa", "worse", "--policy", "policy.yaml", "--markdown", "gate.md")

    assert code == 8
    assert (runs.cwd / "gate.md").read_text().startswith("## INCONCLUSIVE: worse, not complete against aaaa")


def test_a_summary_that_cannot_be_written_does_not_pass(runs: Desk) -> None:
    code, _, err = runs.nv_eval("gate", "aaaa", "same", "--policy", "policy.yaml", "--junit", "no/such/folder.xml")

    assert code == 1 and "cannot be written" in err and "the verdict is GO" in err


def test_codes_of_verdicts_are_nobody_elses() -> None:
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.LauncherError)
    ]
    for code in (12, 13):
        assert sum(kind.exit_code == code for kind in kinds) == 1


def test_every_key_of_policy_and_decision_is_documented() -> None:
    text = PAGE.read_text()
    kinds = (policy.Policy, policy.Rule, gate.Decision, gate.Check)

    assert {field.name for kind in kinds for field in fields(kind) if f"`{field.name}`" not in text} == set()


def test_the_documented_policy_is_valid(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert example is not None
    (tmp_path / "policy.yaml").write_text(example.group(1))

    found = policy.load(tmp_path / "policy.yaml")

    assert found.require and found.rules and found.default
