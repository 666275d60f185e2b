"""The points of a sweep, from the command line and from a config, and mistakes in them: one line each, nothing made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.cli.main import main
from launcher.config import Request
from launcher.config.grid import as_override
from launcher.errors import ConfigError
from launcher.sweep.build import build
from launcher.sweep.model import SweepPlan


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NV_EVAL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(*overrides: str, section: str = "", folder: Path | None = None) -> SweepPlan:
    """The plan of a sweep on top of the packaged default, whose section `sweep` may be given."""
    if not section:
        return build(Request(overrides=overrides))
    assert folder is not None
    (folder / "mine.yaml").write_text(f"defaults:\n  - default\n  - _self_\nsweep:\n{section}")
    return build(Request(name="mine", config_dir=str(folder), overrides=overrides))


def words(plan: SweepPlan) -> list[str]:
    return [point.words for point in plan.points]


def test_every_combination_is_a_point_in_hydras_order() -> None:
    assert words(planned("evaluation.limit=1,2", "evaluation.seed=range(7,9)")) == [
        "evaluation.limit=1 evaluation.seed=7",
        "evaluation.limit=1 evaluation.seed=8",
        "evaluation.limit=2 evaluation.seed=7",
        "evaluation.limit=2 evaluation.seed=8",
    ]


def test_overrides_with_one_value_are_those_of_all_points() -> None:
    plan = planned("evaluation.limit=1,2", "evaluation.max_retries=1")
    assert {point.plan.tasks[0].settings.max_retries for point in plan.points} == {1}
    assert [point.plan.tasks[0].settings.limit for point in plan.points] == [1, 2]


def test_globs_and_choices_of_groups_are_swept(home: Path) -> None:
    assert words(planned("target=glob(def*)")) == ["target=default"]


def test_a_list_in_brackets_is_one_value() -> None:
    plan = planned("evaluation.tasks=[gsm8k_100],[hellaswag_100,gsm8k_100]")
    assert [len(point.plan.tasks) for point in plan.points] == [1, 2]


def test_a_config_names_grids_points_and_what_is_left_out(home: Path) -> None:
    section = """
  grids:
    seeds: {evaluation.limit: [1, 2], evaluation.seed: "range(7,9)"}
  points:
    - {evaluation.limit: 5}
  exclude:
    - {evaluation.limit: 2, evaluation.seed: 8}
"""
    plan = planned(section=section, folder=home)
    assert words(plan) == [
        "evaluation.limit=1 evaluation.seed=7",
        "evaluation.limit=1 evaluation.seed=8",
        "evaluation.limit=2 evaluation.seed=7",
        "evaluation.limit=5",
    ]


def test_the_command_line_multiplies_the_points_of_the_config(home: Path) -> None:
    plan = planned("evaluation.seed=1,2", section="  points: [{evaluation.limit: 5}]\n", folder=home)
    assert words(plan) == ["evaluation.limit=5 evaluation.seed=1", "evaluation.limit=5 evaluation.seed=2"]


@pytest.mark.parametrize("value", ["plain", "a b", "it's", "1", "null", "a,b", r"back\'s", "", "x:y", "ünï"])
def test_text_of_a_config_arrives_as_it_is(home: Path, value: str) -> None:
    section = f"  points: [{{evaluation.system_prompt: {json.dumps(value)}}}]\n"
    if value == "":
        assert as_override(value) == "''"
        return
    plan = planned("evaluation.apply_chat_template=true", section=section, folder=home)
    assert {point.plan.config["evaluation"]["system_prompt"] for point in plan.points} == {value}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["evaluation.limit=1,"], "command line: evaluation.limit: a choice is empty in '1,'"),
        (["evaluation.limit=choice()"], "command line: evaluation.limit: a choice is empty in 'choice()'"),
        (["evaluation.limit=range(5,1)"], "command line: evaluation.limit: range(5,1) gives no value at all"),
        (["evaluation.limit=range(1,5,0)"], "command line: evaluation.limit: range(1,5,0) has a step of 0"),
        (["evaluation.limit=interval(1,5)"], "command line: evaluation.limit: an interval has no end of values"),
        (["deployment=glob(zz*)"], "command line: deployment: glob(zz*) gives no value at all"),
        (["evaluation.limit=1,2", "hydra/sweeper=optunna"], "command line: hydra/sweeper=optunna: no such"),
        (["evaluation.limit=1,2", "evaluation.lmit=3"], "sweep: point 1 (evaluation.limit=1): command line:"),
        (["evaluation.limit=1,1"], "sweep: points 1 and 2 are the same: evaluation.limit=1"),
        (["evaluation.limit=1", "evaluation.concurrency=1,2"], "sweep: points 1 (evaluation.concurrency=1) and 2"),
        (
            ["evaluation.limit=range(1,1000001)"],
            "sweep: 1,000,000 points are more than sweep.max_points allows (1,000)",
        ),
        (["evaluation.limit=range(1,1001)", "evaluation.seed=range(0,1000)"], "sweep: 1,000,000 points are more"),
        (
            ["evaluation.limit=range(1,1000000000000)"],
            "command line: evaluation.limit: range(1,1000000000000) has more",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_mistake_in_a_grid_is_one_line_before_anything_is_created(
    home: Path, overrides: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "-m", *overrides]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"nv-eval: {said}") and error.count("\n") == 1
    assert list(home.iterdir()) in ([], [home / "home"]) and not list(home.glob("results*"))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("  grids: {a: {evaluation.limit: []}}\n", "sweep.grids.a: evaluation.limit: the list of values is empty"),
        ("  grids: {a: {}}\n", "sweep.grids.a: is empty"),
        ("  points: [{}]\n", "sweep.points[0]: is empty"),
        ("  points: [{evaluation.limit: 1}]\n  exclude: [{evaluation.limit: 1}]\n", "sweep.exclude: leaves none of 1"),
        ("  grid: {evaluation.limit: [1]}\n", "sweep.grid: unknown key; did you mean grids?"),
        ("  points: [{evaluation.limit: 1}]\n  on_failure: never\n", "sweep.on_failure: got 'never'; valid"),
        ("  points: [{evaluation.limit: 1}, {evaluation.foo: 1}]\n", "sweep: point 2 (evaluation.foo=1): command line"),
    ],
)
def test_a_mistake_in_the_section_says_where(home: Path, section: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(section=section, folder=home)
    assert said in str(caught.value) and len(caught.value.problems) == 1


def test_run_of_a_config_with_points_plans_a_sweep_without_being_asked(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "mine.yaml").write_text("defaults: [default, _self_]\nsweep: {points: [{evaluation.limit: 1}]}\n")
    assert main(["run", "--config-dir", ".", "--config-name", "mine", "--dry-run"]) in (0, 3)
    assert "Plan of sweep s" in capsys.readouterr().out


def test_several_values_without_m_are_refused_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "evaluation.limit=1,2"]) == 2
    assert "several values make a sweep; add -m to run it" in capsys.readouterr().err


def test_the_dry_run_counts_points_endpoints_and_the_worst_case(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "-m", "--dry-run", "--json", "evaluation.limit=1,2", "sweep.reuse_endpoints=true"]
    assert main([*arguments, "sweep.max_parallel_tasks=2"]) in (0, 3)
    plan = json.loads(capsys.readouterr().out)
    assert len(plan["points"]) == 2 and plan["endpoints"] == 2
    assert sum(plan["endpoint_uses"].values()) == 6 and len(plan["endpoint_uses"]) == 1
    assert plan["worst_case"]["hours"] > 0


def test_a_sweep_has_a_worst_case_that_its_own_limits_are_held_against(capsys: pytest.CaptureFixture[str]) -> None:
    tight = ["execution.usd_per_gpu_hour=1000", "deployment=vllm", "deployment.model_id=m", "sweep.max_cost_usd=1"]
    assert main(["run", "-m", "evaluation.limit=1,2", "evaluation.tasks=[gsm8k]", *tight]) == 3
    assert "sweep.max_cost_usd: the worst case is" in capsys.readouterr().err


def test_points_are_left_out_of_a_sweep_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--skip-done", "--dry-run"]) == 2
    assert capsys.readouterr().err.startswith("nv-eval: --skip-done: is for sweeps, and this is one run")


@pytest.mark.parametrize(("name", "points", "kinds"), [("sweep_smollm", 4, 1), ("sweep_lepton_vllm", 4, 2)])
def test_the_examples_are_sweeps(monkeypatch: pytest.MonkeyPatch, name: str, points: int, kinds: int) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    plan = build(Request(name=name, config_dir=str(Path(__file__).resolve().parents[2] / "examples")))
    assert (len(plan.points), len(plan.uses())) == (points, kinds)
