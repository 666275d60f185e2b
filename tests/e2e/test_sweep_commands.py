"""A sweep's id in every command: real servers and programs on this machine."""

from __future__ import annotations

import json

import pytest

from tests.e2e.cli import Home, wait_for
from tests.e2e.scenario import benchmark, serve, write_config

pytestmark = pytest.mark.e2e
NAMED = ["--config-dir", ".", "--config-name", "config"]


def test_a_sweeps_id_stands_for_its_points(home: Home) -> None:
    write_config(home, [benchmark("one")], serve())
    done = home.run("run", "-m", *NAMED, "evaluation.seed=1,2")
    assert done.returncode == 0, done.stdout + done.stderr
    sweep = home.run("ls", "sweeps").stdout.splitlines()[1].split()[0]
    status = home.run("status", sweep).stdout
    assert f"{sweep}  sweep, finished, exit code 0, 2 of 2 points done" in status
    records = json.loads(home.run("results", sweep, "--json").stdout)
    assert [record["complete"] for record in records] == [True, True]
    assert "evaluation.seed=2" in home.run("results", sweep).stdout
    assert records[0]["invocation"] in home.run("logs", sweep).stdout
    assert home.run("attach", sweep).returncode == 0
    assert "has all its scores" in home.run("resume", sweep).stderr
    assert "had ended already" in home.run("stop", sweep).stdout
    assert home.run("cleanup", sweep).returncode == 0
    reported = home.run("report", sweep, "-o", "sweep.md")
    assert reported.returncode == 0, reported.stderr
    assert all(record["invocation"] in (home.folder / "sweep.md").read_text() for record in records)
    again = home.run("run", "-m", *NAMED, "evaluation.seed=2,3", "--dry-run").stdout
    assert "Already done: 1 point; --skip-done leaves them out." in again
    skipped = home.run("run", "-m", *NAMED, "evaluation.seed=2,3", "--skip-done", "--json")
    assert [p["state"] for p in json.loads(skipped.stdout)["points"]] == ["skipped", "scored"], skipped.stderr


def test_a_sweep_in_the_background_is_ended_as_a_whole_and_gone_on_with(home: Home) -> None:
    write_config(home, [benchmark("one", seconds=60)], serve())
    begun = home.run("run", "-m", *NAMED, "evaluation.seed=1,2", "--detach", "--json")
    assert begun.returncode == 0, begun.stderr
    sweep = json.loads(begun.stdout)["sweep"]
    point = wait_for(home.invocation, "a point that has begun")
    refused = home.run("stop", point)
    assert refused.returncode == 3 and f"is run by sweep {sweep}; end all of it: nv-eval stop {sweep}" in refused.stderr
    assert "stopped" in home.run("stop", sweep).stdout
    points = json.loads(home.run("status", sweep, "--json").stdout)["sweeps"][0]["points"]
    assert {p["state"] for p in points} <= {"stopped", "waiting"}
