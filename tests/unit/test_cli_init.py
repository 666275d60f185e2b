"""`nv-eval init`: what it writes can be loaded and planned, for every execution and deployment."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest
import yaml

from launcher import load_config, plan
from launcher.cli import init_command
from launcher.cli.keys import config_keys
from launcher.cli.main import main
from launcher.config.deployment import ONLY_ON_LEPTON
from launcher.config.schema import DEPLOYMENTS, EXECUTIONS
from launcher.plan.model import TaskPlan

ELSEWHERE = {
    *((execution, "smollm") for execution in ("lepton", "kubernetes")),
    *product(("local", "kubernetes", "slurm"), ONLY_ON_LEPTON),
}
COMBINATIONS = [pair for pair in product(EXECUTIONS, DEPLOYMENTS) if pair not in ELSEWHERE]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("execution", "deployment"), COMBINATIONS)
def test_a_starter_config_plans_as_what_it_was_made_for(execution: str, deployment: str) -> None:
    assert main(["init", "--execution", execution, "--deployment", deployment]) == 0

    made = plan(load_config(f"{execution}_{deployment}", config_dir="."))

    assert (made.execution, made.deployment) == (execution, deployment)
    assert [task.name for task in made.tasks] == list(init_command.STARTS[deployment].tasks)
    limit = 10 if deployment == "smollm" else None
    assert all(task.settings.limit == limit for task in made.tasks), "only the demo's tasks are cut short"


@pytest.mark.parametrize(("execution", "deployment"), COMBINATIONS)
def test_keys_in_comments_are_real_and_show_their_default(execution: str, deployment: str) -> None:
    main(["init", "--execution", execution, "--deployment", deployment])
    path = Path(f"{execution}_{deployment}.yaml")
    before = plan(load_config(path.stem, config_dir="."))

    head, _, body = path.read_text().partition("\ndefaults:\n")
    assert all(line.startswith("#") or not line for line in head.splitlines())
    uncommented = re.sub(r"^( *)# ( *\w+:(?: .*)?)$", r"\1\2", body, flags=re.MULTILINE)
    path.write_text(f"defaults:\n{uncommented}")

    assert _set_keys(uncommented) > _set_keys(body)
    after = plan(load_config(path.stem, config_dir="."))
    assert [_what_runs(task) for task in after.tasks] == [_what_runs(task) for task in before.tasks]


def _what_runs(task: TaskPlan) -> tuple[object, ...]:
    """A task without the names that hold the invocation's id."""
    server = task.endpoint.server if task.endpoint else None
    return task.settings, task.target, task.job.run, task.job.timeout, task.job.image, server


def _set_keys(text: str) -> int:
    tree = yaml.safe_load(f"defaults:\n{text}")
    return sum(len(section) for section in tree.values() if isinstance(section, dict))


def test_every_key_of_the_deployment_and_the_execution_is_shown() -> None:
    main(["init", "--execution", "local", "--deployment", "vllm"])

    text = Path("local_vllm.yaml").read_text()

    keys = [key for key in config_keys("local", "vllm").values() if key.path.startswith(("execution.", "deployment."))]
    missing = [key.path for key in keys if key.name != "type" and f" {key.name}: " not in text]
    assert not missing
    assert "# seconds: time a server has to end by itself before it is killed" in text
    assert "(process, docker)" in text


def test_every_deployment_has_a_start_and_its_task_settings_exist() -> None:
    assert set(init_command.STARTS) == set(DEPLOYMENTS)
    assert set(init_command.TASK_SETTINGS) <= {key.split(".")[1] for key in config_keys() if "evaluation." in key}


def test_what_a_harness_sets_is_shown_as_its_value() -> None:
    main(["init", "--deployment", "vllm"])

    text = Path("local_vllm.yaml").read_text()

    assert re.search(r"# seed: 1234  +# ", text)
    assert re.search(r"# concurrency: 4  +# ", text)
    assert re.search(r"# timeout: 14400.0  +# seconds: ", text)
    assert "  # generation:\n  #   temperature: null" in text


def test_the_default_is_the_small_model_here_and_vllm_elsewhere() -> None:
    main(["init"])
    main(["init", "--execution", "lepton"])

    assert sorted(path.name for path in Path().iterdir()) == ["lepton_vllm.yaml", "local_smollm.yaml"]


def test_it_prints_the_command_that_runs_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my configs").mkdir()
    main(["init", "--deployment", "none", "--output", "my configs/mine.yaml"])

    out = capsys.readouterr().out

    assert "Set these first: target.api_endpoint.url, target.api_endpoint.model_id." in out
    assert "Run it: nv-eval run --config-dir 'my configs' --config-name mine\n" in out


def test_an_existing_file_is_kept_unless_forced(capsys: pytest.CaptureFixture[str]) -> None:
    Path("local_smollm.yaml").write_text("mine")

    assert main(["init"]) == 2
    assert capsys.readouterr().err == (
        "nv-eval: local_smollm.yaml: exists; add --force to replace it, or --output FILE\n"
    )
    assert Path("local_smollm.yaml").read_text() == "mine"

    assert main(["init", "--force"]) == 0
    assert "defaults:" in Path("local_smollm.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--deployment", "vlm"], "--deployment vlm: no such deployment; did you mean vllm?"),
        (["--execution", "locl"], "--execution locl: no such execution; did you mean local?"),
        (
            ["--execution", "lepton", "--deployment", "smollm"],
            "--deployment smollm: runs only on this machine; leave --execution lepton out",
        ),
        (["--deployment", "lepton_photon"], "--deployment lepton_photon: runs only on Lepton; add --execution lepton"),
        (["--output", "x.yml"], "--output x.yml: a config's name ends in .yaml"),
        (["--output", "none/x.yaml"], "--output none/x.yaml: cannot be written: No such file or directory"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", *arguments]) == 2

    assert capsys.readouterr().err == f"nv-eval: {message}\n"
    assert list(Path().iterdir()) == []
