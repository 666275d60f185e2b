"""Whole runs on this machine, with real processes: every fault, every signal, and what is left afterwards."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest
import yaml

from tests.e2e.cli import Home, assert_nothing_left, kill, processes_of, wait_for
from tests.e2e.scenario import BENCHMARK, benchmark, by_key, run, serve, write_config

pytestmark = pytest.mark.e2e


def test_three_tasks_get_three_endpoints_and_three_scores(home: Home):
    write_config(home, [benchmark("a"), benchmark("b"), benchmark("a", seconds=0.5)], serve("--workers"))
    code, record = run(home)
    assert code == 0 and record["complete"]
    assert [task["key"] for task in record["tasks"]] == ["a", "b", "a-2"]
    folder = home.results / record["invocation"]
    assert {path.name for path in folder.iterdir()} >= {"config.yaml", "plan.json", "results.json", "results.parquet"}
    assert len({endpoint_port(folder / key) for key in ("a", "b", "a-2")}) == 3
    assert home.run("results", record["invocation"][:4], "--format", "csv").stdout.count("acc") == 3


def endpoint_port(folder: Path) -> int:
    found = re.search(r"http://127.0.0.1:(\d+)", (folder / "work" / "job.json").read_text())
    assert found
    return int(found.group(1))


FAULTS = [
    ("never_start", [], "endpoint_start_timeout", ""),
    ("die_loading", [], "endpoint_out_of_memory", "code 3"),
    ("healthy_too_early", [], "endpoint_not_serving", ""),
    ("die_mid_run", ["--after", "4"], "endpoint_died", ""),
    ("wrong_model", [], "model_not_found", "other"),
    ("unauthorized", [], "endpoint_refused", "401"),
]


@pytest.mark.parametrize(("fault", "options", "reason", "detail"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_broken_server_ends_its_task_with_its_reason_and_evidence(
    home: Home, fault: str, options: list[str], reason: str, detail: str
):
    write_config(home, [benchmark("a", seconds=5)], serve("--fault", fault, *options, "--workers"))
    code, record = run(home)
    task = by_key(record)["a"]
    assert code == 4 and task["reason"] == reason, task
    assert detail in task["detail"] + str(task["evidence"])
    if fault == "die_loading":
        assert any("rror" in line for line in task["evidence"]["endpoint"])


@pytest.mark.parametrize(("fault", "reason"), [("no_echo", "unsupported"), ("off_by_one", "wrong")])
def test_log_likelihood_tasks_are_refused_before_they_give_chance_scores(home: Home, fault: str, reason: str):
    task = benchmark("a", params={"needs_loglikelihood": True})
    write_config(home, [task], serve("--fault", fault))
    _, record = run(home)
    assert by_key(record)["a"]["reason"] == f"loglikelihood_{reason}"
    assert by_key(record)["a"]["scores"] == []


def test_failing_benchmarks_end_as_their_own_reasons_and_siblings_score(home: Home):
    kinds = {"fails": "harness_failed", "silent": "results_missing", "broken": "results_invalid"}
    tasks = [benchmark(kind, kind) for kind in kinds]
    tasks += [benchmark("hangs", "hangs", timeout=2), benchmark("works")]
    write_config(home, tasks, serve())
    code, record = run(home)
    found = {key: task["reason"] for key, task in by_key(record).items()}
    assert found == {**kinds, "hangs": "harness_timeout", "works": "completed"}
    assert code == 4 and "no such split" in by_key(record)["fails"]["detail"]


def test_all_ready_starts_jobs_when_the_last_endpoint_answers(home: Home):
    write_config(home, [benchmark("a"), benchmark("b")], serve(), execution={"start_jobs": "all_ready"})
    code, record = run(home)
    assert code == 0, record
    facts = journal_facts(home, record["invocation"])
    ready = max(at for at, kind, _ in facts if kind == "task_ready")
    assert min(at for at, kind, _ in facts if kind == "intend_submit_job") >= ready


def test_all_ready_notices_a_server_that_dies_at_once(home: Home):
    deployment = serve("--fault", "die_loading", start_timeout=30)
    write_config(home, [benchmark("a"), benchmark("b")], deployment, execution={"start_jobs": "all_ready"})
    _, record = run(home)
    assert {task["reason"] for task in record["tasks"]} == {"endpoint_out_of_memory"}
    assert record["seconds"] < 15


def test_a_pipe_that_closes_does_not_end_the_run(home: Home):
    write_config(home, [benchmark("a", seconds=1)], serve())
    process = home.start("run", "--config-dir", ".", "--config-name", "config")
    process.stdout.close()
    process.stderr.close()
    process.wait(timeout=60)
    record = json.loads((home.results / home.invocation() / "results.json").read_text())
    assert record["complete"]


def test_a_second_ctrl_c_does_not_wait_for_a_stubborn_server(home: Home):
    deployment = serve()
    deployment["command"] = ["sh", "-c", 'trap "" TERM; "$@" & while true; do wait; done', "sh", *deployment["command"]]
    write_config(home, [benchmark("a", seconds=60)], deployment, execution={"stop_grace": 60})
    process = home.start("run", "--config-dir", ".", "--config-name", "config")
    invocation = home.invocation()
    wait_for(lambda: any(k == "task_evaluating" for _, k, _ in journal_facts(home, invocation)), "evaluating")
    kill(process, signal.SIGINT)
    wait_for(lambda: any(k == "intend_delete_endpoint" for _, k, _ in journal_facts(home, invocation)), "deleting")
    kill(process, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130 and "Not waiting" in err and "May still" not in out


def journal_facts(home: Home, invocation: str) -> list[tuple[float, str, str]]:
    from launcher.orchestrator.journal import Journal

    journal = Journal(home.folder / "state" / "journal.db")
    facts = [(fact.time, fact.kind.value, fact.task or "") for fact in journal.facts(invocation)]
    journal.close()
    return facts


def test_four_tasks_on_two_gpus_never_exceed_them_and_lose_little_time(home: Home):
    durations = {"a": 3.0, "b": 4.0, "c": 5.0, "d": 6.0}
    tasks = [benchmark(key, seconds=seconds, expected_duration=seconds) for key, seconds in durations.items()]
    write_config(home, tasks, serve(gpus=1), execution={"gpus": [0, 1]})
    code, record = run(home)
    assert code == 0
    spans = [
        (at, 1 if kind == "endpoint_created" else -1)
        for at, kind, _ in journal_facts(home, record["invocation"])
        if kind in ("endpoint_created", "task_gone")
    ]
    alive = [sum(change for when, change in spans if when <= at) for at, _ in spans]
    assert max(alive) == 2
    assert len({task["key"] for task in record["tasks"]}) == 4
    # each task's own length, its endpoint's start and stop included, is what the two slots have to hold
    lengths = {task["key"]: task["gpu_seconds"] for task in record["tasks"]}
    optimum = max(lengths["d"] + lengths["a"], lengths["c"] + lengths["b"])
    assert record["seconds"] <= 1.1 * optimum


PHASES = ["intend_create_endpoint", "endpoint_created", "job_submitted", "task_evaluating", "task_collected"]


@pytest.mark.parametrize("phase", PHASES)
def test_kill_9_of_the_launcher_leaves_no_process(home: Home, phase: str):
    write_config(home, [benchmark("a", seconds=1), benchmark("b", seconds=30)], serve("--workers"))
    process = home.start("run", "--config-dir", ".", "--config-name", "config")
    invocation = home.invocation()
    wait_for(lambda: any(kind == phase for _, kind, _ in journal_facts(home, invocation)), phase)
    kill(process)
    process.communicate()
    assert_nothing_left(str(home.folder), within=2)
    shown = json.loads(home.run("status", invocation, "--json").stdout)["invocations"][0]
    assert shown["state"] == "interrupted"
    assert all(task["alive"] is False and task["phase"] == "ended" for task in shown["tasks"])
    assert shown["tasks"][1]["reason"] == "launcher_died"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_tears_down_and_tells(home: Home, number: int):
    write_config(home, [benchmark("a", seconds=30)], serve("--workers"))
    process = home.start("run", "--config-dir", ".", "--config-name", "config")
    invocation = home.invocation()
    wait_for(lambda: any(k == "task_evaluating" for _, k, _ in journal_facts(home, invocation)), "evaluating")
    kill(process, number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130 and "stopped" in out
    assert processes_of(str(home.folder)) == []


def test_stop_from_another_shell(home: Home):
    write_config(home, [benchmark("a", seconds=30)], serve())
    process = home.start("run", "--config-dir", ".", "--config-name", "config")
    invocation = home.invocation()
    wait_for(lambda: any(k == "task_evaluating" for _, k, _ in journal_facts(home, invocation)), "evaluating")
    shown = json.loads(home.run("status", "--json").stdout)["invocations"][0]
    assert shown["state"] == "running" and shown["tasks"][0]["alive"] is True
    assert home.run("stop", invocation[:5]).returncode == 0
    process.communicate(timeout=10)
    assert process.returncode == 130


def test_two_launchers_at_once_do_not_disturb_each_other(home: Home):
    write_config(home, [benchmark("a", seconds=2), benchmark("b", seconds=2)], serve())
    arguments = ("run", "--config-dir", ".", "--config-name", "config", "--json")
    first, second = home.start(*arguments), home.start(*arguments)
    records = [json.loads(process.communicate(timeout=60)[0]) for process in (first, second)]
    assert all(record["complete"] for record in records)
    assert records[0]["invocation"] != records[1]["invocation"]


CANARY = "canary-5up3r-s3cr3t-value"


def test_a_secret_is_written_nowhere(home: Home):
    home.extra = {"MY_KEY": CANARY, "UNUSED_API_KEY": CANARY, "HF_TOKEN": CANARY}
    (home.folder / ".netrc").write_text(f"machine 127.0.0.1 login me password {CANARY}\n")
    (home.folder / ".netrc").chmod(0o600)
    deployment = serve("--api-key-env", "SERVER_KEY", envs={"SERVER_KEY": "${oc.env:MY_KEY}"})
    deployment["command"] = ["sh", "-c", 'env; echo "key $SERVER_KEY"; exec "$@"', "sh", *deployment["command"]]
    tasks = [benchmark("a", seconds=2, envs={"OTHER": "${oc.env:HF_TOKEN}"})]
    tasks[0]["command"] = ["sh", "-c", 'env; "$@"; env > "$NV_EVAL_OUTPUT_DIR/env.txt"', "sh", *tasks[0]["command"]]
    (home.folder / "bench.py").write_text(BENCHMARK)
    tasks[0]["command"][5] = str(home.folder / "bench.py")
    config = {
        "execution": {"type": "local", "output_dir": "results"},
        "deployment": deployment,
        "target": {"api_endpoint": {"api_key_name": "MY_KEY"}},
        "evaluation": {"harness": "command", "tasks": tasks},
    }
    (home.folder / "config.yaml").write_text(yaml.safe_dump(config))
    process = home.start("run", "--config-dir", ".", "--config-name", "config")
    arguments: set[str] = set()
    while process.poll() is None:
        arguments |= set(all_arguments(str(home.folder)))
        time.sleep(0.05)
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert len(arguments) >= 3  # launcher, server, job were seen
    assert not any(CANARY in text for text in arguments)
    assert CANARY not in out + err
    for path in home.folder.rglob("*"):
        if path.is_file() and path.name != ".netrc":
            assert CANARY.encode() not in path.read_bytes(), path
    assert "SERVER_KEY=***" in (home.results / home.invocation() / "a" / "endpoint.log").read_text()


def all_arguments(mark: str) -> list[str]:
    """Argument lists of the processes of a test."""
    return processes_of(mark)


def test_bad_plans_are_refused_before_anything_exists(home: Home):
    write_config(home, [benchmark("a")], serve(envs={"KEY_FILE": "${oc.env:NOT_SET_ANYWHERE}"}))
    done = home.run("run", "--config-dir", ".", "--config-name", "config")
    assert done.returncode == 3 and "NOT_SET_ANYWHERE" in done.stderr
    assert not home.results.exists()
