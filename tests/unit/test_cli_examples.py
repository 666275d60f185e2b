"""Every config in examples/ can be planned as it stands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from launcher import load_config, plan
from launcher.cli.main import main
from launcher.plan.build import build

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))
GUIDE_TASKS = ["hellaswag", "arc_challenge", "winogrande"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NV_EVAL_HOME", str(tmp_path))
    for name in ("HF_TOKEN", "NGC_API_KEY", "LEPTON_ENDPOINT_TOKEN"):
        monkeypatch.setenv(name, f"canary-{name}")


@pytest.mark.parametrize("name", NAMES)
def test_an_example_can_be_planned_and_holds_no_secret(name: str) -> None:
    made = plan(load_config(name, config_dir=str(EXAMPLES)))

    assert made.tasks
    assert b"canary" not in msgspec.json.encode(made)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("lepton")])
def test_the_lepton_examples_dry_run_with_the_guides_three_tasks(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--config-dir", str(EXAMPLES), "--config-name", name, "--dry-run", "--json"]) == 0

    made = json.loads(capsys.readouterr().out)["plan"]

    assert made["execution"] == "lepton"
    assert [task["name"] for task in made["tasks"]] == GUIDE_TASKS
    assert [task["target"]["needs_loglikelihood"] for task in made["tasks"]] == [True] * 3
    assert all((task["endpoint"] is None) == (made["deployment"] == "none") for task in made["tasks"])


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
