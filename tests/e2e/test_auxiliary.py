"""A judge beside the evaluated model, with real processes: on this machine and on the emulated Lepton."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launcher.emulators.lepton import LeptonEmulator
from tests.e2e.cli import Home, assert_nothing_left, kill, wait_for
from tests.e2e.scenario import by_key, run, serve, write_config
from tests.e2e.test_lepton_runs import deployment, emulator, lepton_home
from tests.e2e.test_lepton_runs import write_config as write_lepton_config
from tests.e2e.test_runs import journal_facts
from tests.servers.openai_server import Fault, OpenAIServer, Options

pytestmark = pytest.mark.e2e

__all__ = ["emulator", "lepton_home"]
ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "examples" / "programs" / "judged_answers.py"


def judged(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "command": ["{python}", str(PROGRAM)], "limit": 2, **settings}


def judge(*options: str, **keys: Any) -> dict[str, Any]:
    return {"deployment": serve(*options, model_id="wise", **keys)}


def test_the_example_runs_two_real_models_and_leaves_nothing(home: Home):
    home.extra["PWD"] = str(ROOT)
    done = home.run("run", "--config-dir", str(ROOT / "examples"), "--config-name", "judged", "--json")
    assert done.returncode == 0, done.stderr
    record = home.record(done.stdout)
    (one,) = record["auxiliary"]
    assert (one["name"], one["reason"], one["tasks"]) == ("judge", "released", ["judged_answers"])
    folder = next(path.parent for path in home.folder.rglob("results.json") if path.parent.name == record["invocation"])
    said = json.loads((folder / "judged_answers" / "output" / "said.json").read_text())
    assert len(said) == 5 and all(answer["answer"] and answer["verdict"] for answer in said)
    provenance = json.loads((folder / "provenance.json").read_text())["tasks"]["judged_answers"]
    told = provenance["auxiliary"]["judge"]
    assert one["model"]["revision"] == told["server"]["data"][0]["revision"] == record["model"]["revision"]
    assert told["model"]["served_name"] == "judge" and told["server"]["data"][0]["id"] == "judge"
    assert told["server"]["data"][0]["revision"] == provenance["server"]["data"][0]["revision"]
    assert (folder / "judge" / "endpoint.log").stat().st_size > 0
    assert "judge" in home.run("logs", record["invocation"], "judge", "--lines", "5").stdout
    status = home.run("status", record["invocation"]).stdout
    assert "judge (auxiliary)" in status and "released" in status
    assert_nothing_left(record["invocation"])


def test_a_judge_that_does_not_start_ends_the_tasks_that_use_it_with_its_last_lines(home: Home):
    tasks = [judged("a"), judged("b", auxiliary=[], command=["{python}", "-c", "raise SystemExit('alone')"])]
    write_config(home, tasks, serve(), auxiliary={"judge": judge("--fault", "die_loading")})
    code, record = run(home)
    found = by_key(record)
    assert code == 4 and found["a"]["reason"] == "auxiliary_failed"
    assert found["a"]["detail"].startswith("judge: endpoint ") and found["a"]["evidence"]["auxiliary"]
    assert found["b"]["reason"] == "harness_failed" and "alone" in found["b"]["detail"]
    assert_nothing_left(record["invocation"])


def test_a_hosted_judge_gets_its_key_which_is_written_nowhere_and_one_that_refuses_it_is_told(home: Home):
    home.extra["JUDGE_KEY"] = "canary-judge-77aa01"
    with OpenAIServer(Options(fault=Fault.UNAUTHORIZED)) as refusing, OpenAIServer(Options()) as answering:
        for server, key_name, expected in ((answering, "JUDGE_KEY", "completed"), (refusing, None, "auxiliary_failed")):
            address = {"url": f"{server.url}/v1", "model_id": "fake", "api_key_name": key_name}
            hosted = {"deployment": {"type": "none"}, "target": {"api_endpoint": address}}
            write_config(home, [judged("a")], serve(), auxiliary={"judge": hosted})
            _, record = run(home)
            task = by_key(record)["a"]
            assert task["reason"] == expected, task
            assert record["auxiliary"][0]["reason"] == "" and record["auxiliary"][0]["usd"] is None
    assert task["detail"].startswith("judge: endpoint refused: /v1/models: HTTP 401")
    written = [path for path in home.folder.rglob("*") if path.is_file() and b"canary-judge" in path.read_bytes()]
    assert written == []


def test_a_killed_launcher_leaves_no_judge_and_a_resume_scores(home: Home):
    slow = [
        "{python}",
        "-c",
        f"import time, runpy; time.sleep(2); runpy.run_path({str(PROGRAM)!r}, run_name='__main__')",
    ]
    write_config(home, [judged("a", command=slow)], serve(), auxiliary={"judge": judge()})
    process = home.start("run", "--config-dir", ".", "--config-name", "config")
    invocation = home.invocation()
    wait_for(lambda: ("task_evaluating", "a") in {f[1:] for f in journal_facts(home, invocation)}, "it evaluates")
    kill(process)
    process.communicate(timeout=20)
    assert_nothing_left(invocation)
    done = home.run("resume", invocation, "--json")
    assert done.returncode == 0, done.stderr
    assert home.record(done.stdout)["auxiliary"][0]["reason"] == "released"
    assert_nothing_left(invocation)


def test_on_lepton_the_judge_is_an_endpoint_with_a_shape_of_its_own(lepton_home: Home, emulator: LeptonEmulator):
    helper = {"deployment": deployment(model_id="wise"), "resource_shape": "gpu.8xh100"}
    write_lepton_config(lepton_home, [judged("a"), judged("b")], deployment(), auxiliary={"judge": helper})
    code, record = run(lepton_home)
    assert code == 0, record
    assert all(task["scores"][0]["n"] == 2 for task in record["tasks"])
    (one,) = record["auxiliary"]
    assert one["reason"] == "released" and one["gpu_seconds"] > 0
    assert emulator.state().alive == ()
