"""A sweep whose points a plugin of Hydra chooses, found as one that is installed; its supervisor is killed."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from tests.e2e.cli import ROOT, Home, wait_for
from tests.e2e.scenario import benchmark, serve, write_config

pytestmark = pytest.mark.e2e
LIMIT = 240
STUDY = [
    "hydra/sweeper=climbing",
    "hydra.sweeper.n_trials=4",
    "hydra.sweeper.seed=3",
    "evaluation.seed=range(0,1000)",
    "sweep.objective=one/acc",
]


def test_a_study_in_the_background_whose_supervisor_is_killed_goes_on_where_it_was(home: Home) -> None:
    home.extra["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "plugins")])
    write_config(home, [benchmark("one", seconds=2)], serve(), limits={"max_attempts": 3})
    begun = home.run("run", "-m", "--config-dir", ".", "--config-name", "config", *STUDY, "--detach", "--json")
    assert begun.returncode == 0, begun.stdout + begun.stderr
    sweep, pid = (json.loads(begun.stdout)[key] for key in ("sweep", "pid"))

    def points() -> list[dict[str, Any]]:
        (status,) = json.loads(home.run("status", sweep, "--json").stdout)["sweeps"]
        return list(status["points"])

    wait_for(lambda: len(points()) == 4, "the second batch", LIMIT)
    os.kill(pid, signal.SIGKILL)
    before = points()
    assert [p["state"] for p in before[:2]] == ["scored", "scored"]
    resumed = home.run("resume", sweep, timeout=LIMIT)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    after = points()
    assert {p["state"] for p in after} <= {"scored", "skipped"}, "a point that is asked for twice is measured once"
    assert [(p["invocation"], p["words"]) for p in after] == [(p["invocation"], p["words"]) for p in before]
    assert "Point 1: has all its scores" in resumed.stderr
    assert json.loads((home.results / sweep / "climbing.json").read_text())[0] == 0.5
    records = json.loads(home.run("results", sweep, "--json").stdout)
    assert len(records) == len({p["words"] for p in after}) and all(record["complete"] for record in records)
