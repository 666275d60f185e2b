"""Two checkpoints in a folder, real runs, and a watch that is killed in the first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.cli import Home, kill, wait_for

pytestmark = pytest.mark.e2e

RUN = (
    *("--", "run", "evaluation.tasks=[hellaswag_100]", "evaluation.limit=2", "execution.output_dir=results"),
    "target.api_endpoint.model_id={name}",
)


def save(folder: Path, step: int) -> None:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"w")


def test_each_of_two_checkpoints_has_scores_once_although_the_watch_is_killed(home: Home) -> None:
    for step in (20, 100):
        save(home.folder / "checkpoints", step)
    command = ("watch", "checkpoints", "--each", "--once", "--settle", "0", "--json", *RUN)
    process = home.start(*command)
    wait_for(lambda: list(home.results.glob("*/hellaswag_100/job.log")), "the first is evaluated", timeout=60)
    kill(process)
    process.communicate()

    done, again = home.run(*command), home.run(*command)

    assert (done.returncode, again.returncode) == (0, 0), done.stderr
    assert json.loads(done.stdout)["checkpoints"] == json.loads(again.stdout)["checkpoints"]
    rows = json.loads(done.stdout)["checkpoints"]
    assert [(row["name"], row["step"], row["outcome"]) for row in rows] == [
        ("checkpoint-20", 20, "scored"),
        ("checkpoint-100", 100, "scored"),
    ]
    assert sorted(path.name for path in home.results.iterdir()) == sorted(row["invocation"] for row in rows)
    models = [home.record((home.results / row["invocation"] / "results.json").read_text())["model"] for row in rows]
    assert [model["served_name"] for model in models] == ["checkpoint-20", "checkpoint-100"]
