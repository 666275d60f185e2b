"""Tasks that share one server, with real processes on this machine."""

from __future__ import annotations

import pytest

from tests.e2e.cli import Home, assert_nothing_left, kill, processes_of, wait_for
from tests.e2e.scenario import benchmark, by_key, run, serve, write_config
from tests.e2e.test_runs import endpoint_port, journal_facts

pytestmark = pytest.mark.e2e


def servers(invocation: str) -> int:
    """Server processes of an invocation, without their supervisors."""
    mine = (line for line in processes_of(invocation) if "tests.servers.openai_server" in line)
    return sum("launcher" not in line for line in mine)


def evaluating(home: Home, invocation: str) -> set[str]:
    return {task for _, kind, task in journal_facts(home, invocation) if kind == "task_evaluating"}


def test_two_tasks_share_one_server_process_and_both_score(home: Home):
    write_config(home, [benchmark("a", seconds=3), benchmark("b", seconds=3)], serve(sharing="shared"))
    process = home.start("run", "--config-dir", ".", "--config-name", "config", "--json")
    invocation = home.invocation()
    wait_for(lambda: evaluating(home, invocation) == {"a", "b"}, "both evaluating")
    assert servers(invocation) == 1
    out, _ = process.communicate(timeout=60)
    record = home.record(out)
    assert process.returncode == 0 and record["complete"]
    assert [task["scores"][0]["value"] for task in record["tasks"]] == [0.5, 0.5]
    folder = home.results / invocation
    assert endpoint_port(folder / "a") == endpoint_port(folder / "b")
    assert all((folder / key / "endpoint.log").samefile(*folder.glob("*-shared-*.log")) for key in ("a", "b"))
    assert_nothing_left(invocation)


def test_its_death_ends_the_tasks_that_use_it_with_evidence_and_a_fault_of_one_task_only_that_one(home: Home):
    tasks = [benchmark("a", seconds=60), benchmark("b", seconds=60), benchmark("fails", "fails")]
    write_config(home, tasks, serve("--fault", "die_mid_run", "--after", "40", sharing="shared"))
    code, record = run(home, "limits.max_attempts=1")
    found = by_key(record)
    assert code == 4 and found["fails"]["reason"] == "harness_failed"
    for key in ("a", "b"):
        assert found[key]["reason"] == "endpoint_died" and found[key]["evidence"]["endpoint"]
    assert_nothing_left(record["invocation"])


def test_a_killed_launcher_leaves_no_shared_server_and_a_resume_scores(home: Home):
    write_config(home, [benchmark("a", seconds=2), benchmark("b", seconds=2)], serve(sharing="shared"))
    process = home.start("run", "--config-dir", ".", "--config-name", "config")
    invocation = home.invocation()
    wait_for(lambda: evaluating(home, invocation) == {"a", "b"}, "both evaluating")
    kill(process)
    process.communicate(timeout=20)
    assert_nothing_left(invocation)
    done = home.run("resume", invocation, "--json")
    record = home.record(done.stdout)
    assert done.returncode == 0 and record["complete"], done.stderr
    names = {task["key"]: [past["reason"] for past in task["attempts"]] for task in record["tasks"]}
    assert names == {"a": ["launcher_died"], "b": ["launcher_died"]}
    assert_nothing_left(invocation)
