"""The job document and the runner as the one file that travels."""

from __future__ import annotations

import ast
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from launcher.config.evaluation import Settings
from launcher.config.fields import Reference
from launcher.harnesses.spec import HarnessJob
from launcher.orchestrator.reasons import Reason
from launcher.plan.document import bare, job_document, runner_source
from launcher.plan.model import JobPlan, TargetPlan, TaskPlan
from launcher.runner.runner import Ending, Job


def task(api_key: Reference | None = None) -> TaskPlan:
    run = HarnessJob(
        harness="command",
        argv=("{python}", "-c", "print('{url}', '{{url}}', '{other}')", "{output_dir}", "{work_dir}", "{model}"),
        env={"PLAIN": "at {url}", "TOKEN": Reference(env="MY_TOKEN")},
        files={"sub/config.json": '{"model": "{model}"}'},
        results=("*.json",),
        progress="lines",
        api_key_env="OPENAI_API_KEY",
        requires=("json",),
    )
    target = TargetPlan(model="m", endpoint_type="completions", api_key=api_key, health_path=None)
    job = JobPlan(name="job-t", run=run, timeout=60.0)
    return TaskPlan(index=0, key="t", name="t", harness="command", settings=Settings(), target=target, job=job)


def load(tmp_path: Path, **changes: object) -> Job:
    document = job_document("inv", task(Reference(env="MY_KEY")), url="http://h:1/", output_dir="o", work_dir="w")
    path = tmp_path / "job.json"
    path.write_text(json.dumps({**document, **changes}))
    return Job.load(str(path))


def test_the_document_is_json_and_the_runner_reads_it_back(tmp_path: Path) -> None:
    job = load(tmp_path)
    assert (job.invocation, job.task, job.timeout) == ("inv", "t", 60.0)
    assert (job.target.url, job.target.model, job.target.health_path) == ("http://h:1", "m", None)
    assert (job.run.progress, job.run.requires, job.run.results) == ("lines", ["json"], ["*.json"])


def test_references_stay_out_and_their_variables_are_named(tmp_path: Path) -> None:
    run = load(tmp_path).run
    assert run.env == {"PLAIN": "at {url}"}
    assert run.secret_envs == ["TOKEN"]


def test_a_key_is_named_only_where_there_is_one(tmp_path: Path) -> None:
    assert load(tmp_path).target.api_key_env == "NV_EVAL_API_KEY"
    without = job_document("inv", task(), url="http://h:1", output_dir="o", work_dir="w")
    assert without["target"]["api_key_env"] is None


def test_only_the_five_placeholders_are_filled_in(tmp_path: Path) -> None:
    job = load(tmp_path, output_dir="/o p/{model}", work_dir="/w")
    filled = [job.fill(argument) for argument in job.run.argv]
    assert filled == [sys.executable, "-c", "print('http://h:1', '{http://h:1}', '{other}')", "/o p/{model}", "/w", "m"]


def test_the_harness_gets_the_key_under_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NV_EVAL_API_KEY", "sk-canary")
    environment = load(tmp_path).environment()
    assert environment["OPENAI_API_KEY"] == "sk-canary"
    assert environment["PLAIN"] == "at http://h:1"


def test_secrets_are_known_in_every_form_they_may_be_printed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NV_EVAL_API_KEY", 'sk "canary"')
    monkeypatch.setenv("TOKEN", "first line\nsecond line")
    monkeypatch.setenv("OPENAI_API_KEY", "short")
    forms = load(tmp_path).secrets()
    assert forms >= {'sk "canary"', r"sk \"canary\"", "sk%20%22canary%22", "first line", "second line"}
    assert "short" not in forms


def test_keys_of_a_later_version_are_no_error(tmp_path: Path) -> None:
    document = job_document("inv", task(), url="http://h:1", output_dir="o", work_dir="w")
    job = load(tmp_path, run={**document["run"], "novelty": 1}, target={**document["target"], "dead_after": 3})
    assert job.target.dead_after == 3


def test_another_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nv-eval\.job/1"):
        load(tmp_path, schema="nv-eval.job/9")


def test_the_runners_reasons_are_the_launchers() -> None:
    assert {ending.reason for ending in Ending} <= {reason.value for reason in Reason}


def test_each_ending_has_its_own_exit_code_and_only_success_is_zero() -> None:
    codes = {ending: ending.exit_code for ending in Ending}
    assert len(set(codes.values())) == len(codes)
    assert [ending for ending, code in codes.items() if code == 0] == [Ending.COMPLETED]
    assert not {1, 2} & set(codes.values())  # Python's own


def test_the_one_file_imports_the_standard_library_only() -> None:
    nodes = list(ast.walk(ast.parse(runner_source())))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


def test_no_module_of_the_one_file_hides_a_name_of_another() -> None:
    defined: Counter[str] = Counter()
    for node in ast.parse(runner_source()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            defined[node.name] += 1
        elif isinstance(node, ast.Assign):
            defined.update(name.id for name in node.targets if isinstance(name, ast.Name))
    assert [name for name, count in defined.items() if count > 1] == []
    assert {"main", "wait_ready", "Harness"} <= defined.keys()


def without_docstrings(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            code = [one for one in node.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
            node.body = code or node.body[:1]
    return ast.unparse(tree)


COMMENTED = '''"""What it is for."""

# how

class Empty:
    """Nothing else."""


class Full:
    kept: int = 0
    """Of an attribute."""

    # of a function
    def text(self):
        """What it says."""
        return f"""
# no comment

{self.kept}  # none either
"""  # a comment that stays

    def words(self): return "# neither"
'''


@pytest.mark.parametrize("source", [COMMENTED, runner_source()])
def test_what_only_people_read_is_left_out_and_the_program_is_the_same(source: str) -> None:
    short = bare(source)

    assert without_docstrings(short) == without_docstrings(source)
    assert len(short) < 0.85 * len(source)


def test_text_that_looks_like_a_comment_stays() -> None:
    assert (
        bare(COMMENTED)
        == '''class Empty:
    """Nothing else."""
class Full:
    kept: int = 0
    def text(self):
        return f"""
# no comment

{self.kept}  # none either
"""  # a comment that stays
    def words(self): return "# neither"
'''
    )


def test_the_short_form_of_the_runner_is_the_same_program() -> None:
    assert without_docstrings(runner_source(short=True)) == without_docstrings(runner_source())
