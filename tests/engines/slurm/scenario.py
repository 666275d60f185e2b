"""Runs on a real Slurm cluster, of a benchmark that can be held, on a test server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.cli import ROOT, Home, wait_for
from tests.engines.slurm.cluster import PATH, Cluster, cluster, steps

BENCHMARK = """
import json, os, pathlib, sys, time, urllib.request
items, folder, held = int(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
cache = pathlib.Path(os.environ["NV_EVAL_OUTPUT_DIR"]) / "cache"
cache.mkdir(exist_ok=True)
for item in range(items):
    answer = cache / str(item)
    if not answer.exists():
        body = json.dumps({"model": os.environ["NV_EVAL_MODEL"], "prompt": f"Item {item}", "max_tokens": 2}).encode()
        url = os.environ["NV_EVAL_BASE_URL"] + "/completions"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with open(folder / "asked", "a") as asked:
            asked.write(f"{item}\\n")
        urllib.request.urlopen(request, timeout=30).read()
        while item == held and not (folder / "go").exists():
            time.sleep(0.05)
        answer.write_text("asked")
    print(f"@progress {item + 1}/{items}", flush=True)
scores = {"schema": "nv-eval.scores/1", "scores": [{"metric": "acc", "value": 0.5, "n": items}]}
pathlib.Path(os.environ["NV_EVAL_OUTPUT_DIR"], "results.json").write_text(json.dumps(scores))
"""


@pytest.fixture(scope="module")
def slurm() -> Cluster:
    return cluster()


@pytest.fixture
def home(slurm: Cluster, tmp_path: Path) -> Iterator[Home]:
    folder = tmp_path / "it's a home"
    folder.mkdir()
    yield Home(folder, {"SLURM_CONF": os.environ["SLURM_CONF"], "PATH": PATH})
    slurm.wait(lambda: slurm.queue() == [] and steps() == [], "nothing is left of the run", 60)


def write(home: Home, *, items: int = 3, held: int = -1, tasks: int = 1, **sections: Any) -> None:
    """A config of tasks that ask a few items, on a test server; the item `held` takes until `release` is called."""
    save(home, configured(home, items=items, held=held, tasks=tasks, **sections))


def save(home: Home, config: dict[str, Any]) -> None:
    """Make it the config that `run` runs."""
    (home.folder / "config.yaml").write_text(yaml.safe_dump(config))


def configured(home: Home, *, items: int = 3, held: int = -1, tasks: int = 1, **sections: Any) -> dict[str, Any]:
    """The same as a document, to change it."""
    (home.folder / "bench.py").write_text(BENCHMARK)
    server = [sys.executable, "-m", "tests.servers.openai_server", "--host", "{host}", "--port", "{port}"]
    command = [sys.executable, str(home.folder / "bench.py"), str(items), str(home.folder), str(held)]
    config: dict[str, Any] = {
        "execution": {
            "type": "slurm",
            "output_dir": "results",
            "work_dir": str(home.folder / "shared 100%"),
            "python": sys.executable,
            "memory_gib": 1,
            **sections.pop("execution", {}),
        },
        "deployment": {
            "type": "container",
            "model_id": "fake",
            "command": [*server, "--model", "{model}"],
            "start_timeout": 60,
            "health_timeout": 60,
            **sections.pop("deployment", {}),
        },
        "evaluation": {
            "harness": "command",
            "timeout": 600,
            "envs": {"PYTHONPATH": str(ROOT)},
            "tasks": [{"name": f"t{number}", "command": command} for number in range(tasks)],
        },
        **sections,
    }
    config["deployment"]["envs"] = {
        "PYTHONPATH": str(ROOT),
        **config["deployment"].get("envs", {}),
    }
    return config


ARGUMENTS = ("run", "--config-dir", ".", "--config-name", "config", "--json")


def run(home: Home, *overrides: str) -> tuple[int, dict[str, Any]]:
    done = home.run(*ARGUMENTS, *overrides, timeout=400)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def finish(process: subprocess.Popen[str], seconds: float = 300) -> tuple[int, dict[str, Any]]:
    out, err = process.communicate(timeout=seconds)
    assert "Traceback" not in err, err
    return process.returncode, json.loads(out)


def the_job(slurm: Cluster) -> str:
    """Name of the one batch job, once its node runs it and it has asked something."""
    wait_for(lambda: [name for _, state, name in slurm.queue() if state == "RUNNING"], "a job runs", 90)
    return slurm.queue()[0][2]


def held(home: Home, item: int = 3) -> None:
    """Return once the server was asked for the item that is held."""
    wait_for(lambda: str(item) in asked(home), "it evaluates", 120)


def release(home: Home) -> None:
    """Nothing is held any more."""
    (home.folder / "go").touch()


def asked(home: Home) -> list[str]:
    """Items that the server was asked for, in order."""
    path = home.folder / "asked"
    return path.read_text().split() if path.exists() else []


def batch_log(home: Home) -> str:
    """What the batch script and Slurm said of the one batch job, over all its starts."""
    return "".join(path.read_text() for path in (home.folder / "shared 100%").rglob("batch.log"))


def watched(program: str, folder: Path) -> Path:
    """A folder for PATH in which a program is itself, and notes how each of its calls has ended."""
    folder.mkdir()
    (folder / program).write_text(
        f'#!/bin/sh\n{shutil.which(program)} "$@"\ncode=$?\necho $code >> "{folder}/codes"\nexit $code\n'
    )
    (folder / program).chmod(0o755)
    return folder


def failures(folder: Path) -> int:
    """How many calls of a program that is watched have ended with an error."""
    return sum(code != "0" for code in (folder / "codes").read_text().split())
