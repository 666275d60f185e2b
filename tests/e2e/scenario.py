"""Configs of whole runs: a server with faults, benchmarks that work or fail, and what a run printed."""

from __future__ import annotations

import sys
from typing import Any

import yaml

from tests.e2e.cli import Home

BENCHMARK = """
import json, os, sys, time, urllib.request
kind, seconds = sys.argv[1], float(sys.argv[2])
if kind == "fails": raise SystemExit("no such split")
if kind == "silent": raise SystemExit(0)
if kind == "hangs": time.sleep(600)
deadline = time.monotonic() + seconds
count = 0
while count == 0 or time.monotonic() < deadline:
    body = json.dumps({"model": os.environ["NV_EVAL_MODEL"], "prompt": "Item", "max_tokens": 2}).encode()
    headers = {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
    request = urllib.request.Request(os.environ["NV_EVAL_BASE_URL"] + "/completions", body, headers)
    urllib.request.urlopen(request, timeout=30).read()
    count += 1
    print("@progress %d/%d" % (count, 1000), flush=True)
    time.sleep(0.05)
value = "?" if kind == "broken" else 0.5
scores = {"schema": "nv-eval.scores/1", "scores": [{"metric": "acc", "value": value, "n": count}]}
open(os.environ["NV_EVAL_OUTPUT_DIR"] + "/results.json", "w").write(json.dumps(scores))
"""


def benchmark(name: str, kind: str = "works", seconds: float = 0.2, **settings: Any) -> dict[str, Any]:
    return {"name": name, "command": [sys.executable, "bench.py", kind, str(seconds)], **settings}


def serve(*options: str, **keys: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.servers.openai_server", "--port", "{port}", "--model", "{model}", *options]
    return {
        "type": "container",
        "model_id": "fake",
        "command": command,
        "start_timeout": 8,
        "health_timeout": 4,
        **keys,
    }


def write_config(home: Home, tasks: list[dict[str, Any]], deployment: dict[str, Any], **sections: Any) -> None:
    for task in tasks:
        if task["command"][1] == "bench.py":
            task["command"][1] = str(home.folder / "bench.py")
    (home.folder / "bench.py").write_text(BENCHMARK)
    execution = {"type": "local", "output_dir": "results", "stop_grace": 2, **sections.pop("execution", {})}
    evaluation = {"harness": "command", "tasks": tasks, **sections.pop("evaluation", {})}
    config = {"execution": execution, "deployment": deployment, "evaluation": evaluation, **sections}
    (home.folder / "config.yaml").write_text(yaml.safe_dump(config))


def run(home: Home, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = home.run("run", "--config-dir", ".", "--config-name", "config", "--json", *arguments)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, home.record(done.stdout)


def by_key(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {task["key"]: task for task in record["tasks"]}
