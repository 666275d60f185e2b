"""Sweeps as a person runs them: real lm-eval on the small model, on Lepton's emulator; a supervisor that is killed."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest

pytest.importorskip("cyllama", reason="cyllama is not installed: pip install 'nv-eval-launcher[smollm]'")

from launcher.emulators.lepton import Config, LeptonEmulator
from launcher.emulators.lepton.images import rehearsal
from launcher.errors import LauncherError
from launcher.servers.smollm import weights
from tests.e2e.cli import Home, kill, wait_for

pytestmark = pytest.mark.e2e

CONFIG = """
defaults: [lepton_account, _self_]
sweep:
  grids:
    models:
      target.api_endpoint.model_id: [one, two, three]
      evaluation.seed: [1, 2]
  max_parallel_tasks: {slots}
  reuse_endpoints: {reuse}
"""
ACCOUNT = """
defaults:
  - /execution: lepton
  - /deployment: vllm
  - _self_
execution: {output_dir: results, node_group: h100-pool, resource_shape: gpu.1xh100}
deployment: {model_id: any/model, start_timeout: 300, health_timeout: 120}
evaluation:
  limit: 1
  tokenizer_backend: remote
  max_gen_tokens: 8
  tasks: [hellaswag_100, truthfulqa_mc1_100, gsm8k_100]
"""
LIMIT = 500
"""Seconds for a whole sweep, on a machine that is busy."""


@pytest.fixture
def emulator(home: Home) -> Any:
    try:
        found = weights.find().path
    except LauncherError as error:
        pytest.skip(f"the model weights cannot be had: {error}")
    models = home.folder / "state" / "cache" / "models"
    models.parent.mkdir(parents=True)
    models.symlink_to(found.parent)
    with LeptonEmulator(rehearsal(Config())) as running:
        home.extra |= {
            "LEPTON_WORKSPACE_ID": running.config.workspace,
            "LEPTON_WORKSPACE_TOKEN": running.config.tokens[0].value,
            "LEPTON_WORKSPACE_URL": running.url,
        }
        yield running


def write(home: Home, *, slots: int, reuse: bool) -> list[str]:
    """The config of the sweep; returns the arguments that name it."""
    (home.folder / "lepton_account.yaml").write_text(ACCOUNT)
    (home.folder / "sweep.yaml").write_text(CONFIG.format(slots=slots, reuse=str(reuse).lower()))
    return ["--config-dir", ".", "--config-name", "sweep"]


def sweep_of(home: Home) -> str:
    """Id of the one sweep, once it is in the journal."""

    def found() -> str:
        path = home.folder / "state" / "journal.db"
        if not path.is_file():
            return ""
        with sqlite3.connect(path) as db:
            try:
                rows = db.execute("SELECT id FROM sweeps").fetchall()
            except sqlite3.OperationalError:
                return ""
        return str(rows[0][0]) if rows else ""

    return str(wait_for(found, "a sweep in the journal", 60))


def scored(home: Home) -> int:
    """Tasks whose scores are home."""
    return len(list(home.results.glob("*/*/scores.json")))


def test_a_sweep_whose_supervisor_is_killed_twice_has_every_point_once_and_leaves_nothing(
    home: Home, emulator: LeptonEmulator
) -> None:
    named = write(home, slots=3, reuse=False)
    process = home.start("run", *named)
    sweep = sweep_of(home)
    for number, enough in enumerate((3, 8), 1):
        wait_for(lambda enough=enough: scored(home) >= enough, "some scores", LIMIT)
        assert process.poll() is None, process.communicate()
        kill(process)
        process.communicate()
        status = json.loads(home.run("status", sweep, "--json").stdout)["sweeps"][0]
        assert status["state"] == "interrupted", f"kill {number}"
        process = home.start("resume", sweep)
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, out + err
    status = json.loads(home.run("status", sweep, "--json").stdout)["sweeps"][0]
    assert [(p["state"], p["scored"], p["tasks"]) for p in status["points"]] == [("scored", 3, 3)] * 6
    assert emulator.state().alive == ()
    records = json.loads(home.run("results", sweep, "--json").stdout)
    values = {
        (record["model"]["served_name"], task["key"], task["settings"].get("seed")): task["scores"]
        for record in records
        for task in record["tasks"]
    }
    assert len(values) == 18 and all(values.values()), "every point exactly once, all with real scores"
    assert len({r["invocation"] for r in records}) == 6
    one, two = ({k[1:]: v for k, v in values.items() if k[0] == name} for name in ("one", "two"))
    assert one == two, "the same weights give the same scores"
    assert "has all its scores" in home.run("resume", sweep).stderr


def seeds(numbers: str, *more: str) -> list[str]:
    """Arguments of a sweep over seeds, one task at a time."""
    named = ["--config-dir", ".", "--config-name", "lepton_account", f"evaluation.seed={numbers}"]
    return ["run", "-m", *named, "evaluation.tasks=[hellaswag_100]", "sweep.max_parallel_tasks=1", *more]


def test_endpoints_that_serve_several_tasks_are_fewer_and_outlive_no_crash(
    home: Home, emulator: LeptonEmulator
) -> None:
    write(home, slots=1, reuse=False)
    made = {}
    for reuse in ("false", "true"):
        before = set(billed(emulator))
        done = home.run(*seeds("0,1", f"sweep.reuse_endpoints={reuse}"), timeout=LIMIT)
        assert done.returncode == 0, done.stdout + done.stderr
        made[reuse] = len(set(billed(emulator)) - before)
    assert made == {"false": 2, "true": 1}
    assert emulator.state().alive == ()

    process, before = home.start(*seeds("3,4", "sweep.reuse_endpoints=true")), scored(home)
    wait_for(lambda: scored(home) > before, "the first score", LIMIT)
    kill(process)
    process.communicate()
    (sweep, *_) = home.run("ls", "sweeps").stdout.splitlines()[1].split()
    assert "sweep, interrupted" in home.run("status", sweep).stdout
    resumed = home.run("resume", sweep, timeout=LIMIT)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert emulator.state().alive == (), "the endpoint of the supervisor that was killed is gone, too"


def billed(emulator: LeptonEmulator) -> list[str]:
    """Names of the endpoints on the bill."""
    return [line.name for line in emulator.meter().lines if line.kind == "endpoint" and line.replica_minutes > 0]
