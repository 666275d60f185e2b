"""Whole runs on Lepton: the command line on one side, the emulator on the other, real servers and jobs behind it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from launcher.emulators.lepton import Config, LeptonEmulator
from tests.e2e.cli import Home, wait_for
from tests.e2e.scenario import BENCHMARK, benchmark, run, serve

pytestmark = pytest.mark.e2e

TOKEN = "nvapi-loopbacktoken0001"
EXECUTION = {
    "type": "lepton",
    "node_group": "h100-pool",
    "resource_shape": "gpu.1xh100",
}


@pytest.fixture
def emulator(request: pytest.FixtureRequest) -> Iterator[LeptonEmulator]:
    with LeptonEmulator(getattr(request, "param", None) or Config()) as running:
        yield running


@pytest.fixture
def lepton_home(home: Home, emulator: LeptonEmulator) -> Home:
    home.extra |= {
        "LEPTON_WORKSPACE_ID": emulator.config.workspace,
        "LEPTON_WORKSPACE_TOKEN": TOKEN,
        "LEPTON_WORKSPACE_URL": emulator.url,
        "CANARY_TOKEN": "canary-5e1f0c77",
    }
    return home


def write_config(home: Home, tasks: list[dict[str, Any]], deployment: dict[str, Any], **sections: Any) -> None:
    program = home.folder / "bench.py"
    program.write_text(BENCHMARK)
    for task in tasks:
        task["command"] = [str(program) if word == "bench.py" else word for word in task["command"]]
    execution = EXECUTION | {"output_dir": "results"} | sections.pop("execution", {})
    config = {
        "execution": execution,
        "deployment": deployment,
        "evaluation": {"harness": "command", "tasks": tasks},
        "pricing": {"usd_per_hour": {"gpu.1xh100": 3600.0, "cpu.small": 0.1}},
    }
    (home.folder / "config.yaml").write_text(yaml.safe_dump(config | sections))


def deployment(*options: str, **keys: Any) -> dict[str, Any]:
    return serve(*options, image="test/server:1", port=8000, **keys)


@pytest.mark.parametrize("emulator", [Config(), Config(new_deployment_api=True, storage_routes=False)], indirect=True)
def test_three_tasks_are_scored_and_nothing_is_left(lepton_home: Home, emulator: LeptonEmulator) -> None:
    tasks = [benchmark("a"), benchmark("b"), benchmark("a", seconds=0.5)]
    envs = {"HF_TOKEN": "${oc.env:CANARY_TOKEN}"}
    write_config(lepton_home, tasks, deployment(envs=envs))

    code, record = run(lepton_home)

    assert code == 0, record
    assert [task["key"] for task in record["tasks"]] == ["a", "b", "a-2"]
    assert all(task["scores"][0]["value"] == 0.5 for task in record["tasks"])
    assert all(0.5 < task["usd"] < 60 for task in record["tasks"]), "a dollar per second"
    assert emulator.state().alive == ()


def test_logging_in_checks_the_token_and_makes_runs_possible(home: Home, emulator: LeptonEmulator) -> None:
    home.extra |= {"LEPTON_CACHE_DIR": str(home.folder / "cache"), "CANARY_TOKEN": "canary-5e1f0c77"}
    write_config(home, [benchmark("a")], deployment())

    refused = home.run("run", "--config-dir", ".", "--config-name", "config")
    wrong = home.run("login", "lepton", "-c", "ws1:nvapi-wrong-00000001", "-u", emulator.url)
    logged_in = home.run("login", "lepton", "-c", f"ws1:{TOKEN}", "-u", emulator.url)
    checked = home.run("run", "--config-dir", ".", "--config-name", "config", "--dry-run")

    assert (refused.returncode, wrong.returncode) == (3, 3)
    assert "nv-eval: Lepton: no workspace; log in with: nv-eval login lepton, or set" in refused.stderr
    assert wrong.stderr.startswith("nv-eval: Lepton: the token is not valid (any more) for workspace ws1")
    assert logged_in.returncode == 0, logged_in.stderr
    file = home.folder / "cache" / "workspace_info.yaml"
    assert logged_in.stdout.endswith(f"kept in {file}\n")
    assert file.stat().st_mode & 0o777 == 0o600
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "Checked: " in checked.stdout
    assert "nvapi-" not in refused.stderr + wrong.stderr + logged_in.stdout + checked.stdout


def test_a_control_plane_that_nobody_answers_for_is_told_by_its_address(lepton_home: Home) -> None:
    write_config(lepton_home, [benchmark("a")], deployment())
    lepton_home.extra["LEPTON_WORKSPACE_URL"] = "http://127.0.0.1:9/api/v2/workspaces/ws1"
    began = time.monotonic()

    done = lepton_home.run("run", "--config-dir", ".", "--config-name", "config")

    assert done.returncode == 7
    assert "Lepton: http://127.0.0.1:9/api/v2/workspaces/ws1 cannot be asked: " in done.stderr
    assert time.monotonic() - began < 25


def test_the_program_stopped_in_the_middle_leaves_nothing(lepton_home: Home, emulator: LeptonEmulator) -> None:
    write_config(lepton_home, [benchmark("a", seconds=60), benchmark("b", seconds=60)], deployment())
    process = lepton_home.start("run", "--config-dir", ".", "--config-name", "config", "--json")
    wait_for(lambda: any(job.state == "Running" for job in emulator.state().jobs), "a job runs")

    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)

    assert process.returncode == 130
    assert emulator.state().alive == ()
