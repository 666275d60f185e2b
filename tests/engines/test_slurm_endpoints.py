"""A real Slurm cluster: endpoints that are no task's own, each a batch job of its own."""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cli import ROOT, Home
from tests.e2e.scenario import by_key
from tests.engines.slurm.cluster import Cluster
from tests.engines.slurm.scenario import configured, home, run, save, slurm

pytestmark = [pytest.mark.e2e, pytest.mark.engine]

__all__ = ["home", "slurm"]

JUDGED = Path(__file__).parents[2] / "examples" / "programs" / "judged_answers.py"


def guarded(model: str, *options: str) -> dict[str, Any]:
    """A server for which the batch job makes a key."""
    server = [sys.executable, "-m", "tests.servers.openai_server", "--host", "{host}", "--port", "{port}"]
    return {
        "type": "vllm",
        "model_id": model,
        "command": [*server, "--model", "{model}", "--api-key-env", "VLLM_API_KEY", *options],
        "envs": {"PYTHONPATH": str(ROOT)},
        "start_timeout": 60,
        "health_timeout": 60,
    }


def write_judged(home: Home, judge: dict[str, Any], **execution: Any) -> None:
    """Two benchmarks that ask a judge, which has a server of its own."""
    config = configured(home, tasks=2, execution=execution, auxiliary={"judge": {"deployment": judge}})
    for task in config["evaluation"]["tasks"]:
        task |= {"command": [sys.executable, str(JUDGED)], "limit": 2}
    save(home, config)


@pytest.mark.parametrize(("topology", "jobs"), [("together", 3), ("separate", 5)])
def test_a_judge_is_a_batch_job_that_goes_with_the_last_task(
    home: Home, slurm: Cluster, topology: str, jobs: int
) -> None:
    write_judged(home, guarded("wise"), topology=topology)

    code, said = run(home)

    assert (code, [task["status"] for task in said["tasks"]]) == (0, ["scored"] * 2), said
    assert said["auxiliary"][0]["reason"] == "released"
    assert said["auxiliary"][0]["gpu_seconds"] > 0
    folder = home.folder / "shared 100%" / said["invocation"]
    first = {path.parent.name: int(path.read_text().split()[1].partition("_")[0]) for path in folder.glob("jobs/*/id")}
    assert len(first) == jobs
    begins_first = min(first, key=lambda name: first[name]).startswith("vllm-judge-")
    assert begins_first or topology == "separate", "tasks that wait for it hold no nodes"
    keys = {path.read_text() for path in folder.rglob("key")}
    assert keys == set(), "a key goes with its server"


def test_a_judge_that_does_not_start_ends_the_tasks_that_use_it(home: Home, slurm: Cluster) -> None:
    write_judged(home, guarded("wise", "--fault", "die_loading"))

    code, said = run(home)

    assert code == 4
    for task in by_key(said).values():
        assert task["reason"] == "auxiliary_failed"
        assert task["detail"].startswith("judge: endpoint ") and "exited with code 3" in task["detail"]


def test_an_endpoint_for_oneself_is_up_with_a_key_and_comes_down(home: Home, slurm: Cluster) -> None:
    save(home, {**configured(home), "deployment": guarded("mine")})

    up = home.run("endpoints", "up", "--config-dir", ".", "--config-name", "config", "--ttl", "10min", "--json")
    assert up.returncode == 0, up.stderr
    (endpoint,) = json.loads(up.stdout)["endpoints"]
    try:
        key = home.run("endpoints", "key", endpoint["id"]).stdout.strip()
        assert models(endpoint["base_url"], key) == ["mine"]
        assert len(slurm.queue()) == 1
    finally:
        down = home.run("endpoints", "down", endpoint["id"])

    assert down.returncode == 0, down.stderr
    kept = [path for path in home.folder.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
    assert len(key) >= 16 and kept == []


def models(base_url: str, key: str) -> list[str]:
    """What a server lists for whoever has its key."""
    request = urllib.request.Request(f"{base_url}/models", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return [model["id"] for model in json.load(answer)["data"]]
