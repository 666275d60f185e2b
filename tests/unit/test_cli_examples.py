"""Every config in examples/ can be planned as it stands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from launcher import load_config, plan
from launcher.cli.main import main
from launcher.config.execution import Lepton
from launcher.emulators.lepton.config import Config as EmulatorConfig
from launcher.emulators.lepton.config import NodeGroup
from launcher.errors import ConfigError
from launcher.plan.build import build

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))
GUIDE_TASKS = ["hellaswag", "arc_challenge", "winogrande"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NV_EVAL_HOME", str(tmp_path))
    for name in ("HF_TOKEN", "NGC_API_KEY", "LEPTON_ENDPOINT_TOKEN"):
        monkeypatch.setenv(name, f"canary-{name}")
    monkeypatch.setenv("LEPTON_ENDPOINT_URL", "https://my-endpoint.example/v1/completions")


@pytest.mark.parametrize("name", NAMES)
def test_an_example_can_be_planned_and_holds_no_secret(name: str) -> None:
    made = plan(load_config(name, config_dir=str(EXAMPLES)))

    assert made.tasks
    assert b"canary" not in msgspec.json.encode(made)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("slurm")])
def test_the_slurm_examples_put_endpoint_and_evaluation_in_one_batch_job(name: str) -> None:
    made = plan(load_config(name, config_dir=str(EXAMPLES)))

    assert [task.job.request for task in made.tasks] == [None] * 3
    assert all(task.endpoint and "kind=together" in task.endpoint.request["script"] for task in made.tasks)  # type: ignore[index]


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("lepton")])
def test_the_lepton_examples_dry_run_with_the_guides_three_tasks(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--config-dir", str(EXAMPLES), "--config-name", name, "--dry-run", "--json"]) == 0

    made = json.loads(capsys.readouterr().out)["plan"]

    assert made["execution"] == "lepton"
    assert [task["name"] for task in made["tasks"]] == GUIDE_TASKS
    assert [task["target"]["needs_loglikelihood"] for task in made["tasks"]] == [True] * 3
    assert all((task["endpoint"] is None) == (made["deployment"] == "none") for task in made["tasks"])


def test_the_vllm_example_is_the_configuration_of_the_guide() -> None:
    guide = load_config("guide", config_dir=str(Path(__file__).parent / "data" / "lepton"))

    assert guide == load_config("lepton_vllm_llama_3_1_8b_instruct", config_dir=str(EXAMPLES))
    assert guide.deployment.model_id == "meta-llama/Llama-3.1-8B-Instruct"  # type: ignore[union-attr]
    assert guide.target.api_endpoint.model_id == "meta/llama-3.1-8b-instruct"
    assert guide.execution.output_dir == "./cloud_results"
    assert [task.name for task in guide.evaluation.tasks] == GUIDE_TASKS


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("lepton")])
def test_a_rehearsal_changes_an_examples_tasks_and_place_alone(name: str) -> None:
    example = load_config(name, config_dir=str(EXAMPLES))
    rehearsal = load_config(name, config_dir=str(EXAMPLES), overrides=["+rehearsal=smollm"])

    assert rehearsal.deployment == example.deployment
    assert rehearsal.target == example.target
    assert [task.name for task in rehearsal.evaluation.tasks] == ["hellaswag_100", "truthfulqa_mc1_100", "gsm8k_100"]
    assert isinstance(rehearsal.execution, Lepton)
    assert rehearsal.execution.node_group == NodeGroup().name
    assert rehearsal.execution.resource_shape in [shape.id for shape in EmulatorConfig().shapes]


def test_the_endpoint_of_the_none_example_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEPTON_ENDPOINT_URL")

    with pytest.raises(ConfigError, match="environment variable LEPTON_ENDPOINT_URL is not set"):
        load_config("lepton_none_llama_3_1_8b_instruct", config_dir=str(EXAMPLES))


def test_the_default_config_and_its_example_are_the_same_run() -> None:
    example = load_config("local_smollm", config_dir=str(EXAMPLES))

    assert build(example, "a1b2c3d4").tasks == build(load_config(), "a1b2c3d4").tasks
    assert replace(example, evaluation=load_config().evaluation) == load_config()


def test_the_own_program_is_found_from_where_nv_eval_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", str(EXAMPLES.parent))

    made = plan(load_config("own_program", config_dir=str(EXAMPLES)))

    program = Path(made.tasks[0].job.run.argv[1])
    assert program.is_file()
    compile(program.read_text(), str(program), "exec")
