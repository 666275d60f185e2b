"""A real Slurm cluster: whole runs, and everything that can go wrong with batch jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.platforms.slurm import queue
from tests.e2e.cli import Home, wait_for
from tests.e2e.scenario import by_key
from tests.e2e.test_runs import journal_facts
from tests.engines.slurm.cluster import PATH, Cluster
from tests.engines.slurm.login import login_node
from tests.engines.slurm.scenario import (
    ARGUMENTS,
    asked,
    batch_log,
    failures,
    finish,
    held,
    home,
    release,
    run,
    slurm,
    the_job,
    watched,
    write,
)

pytestmark = [pytest.mark.e2e, pytest.mark.engine]

__all__ = ["home", "slurm"]


def test_three_tasks_of_the_small_model_to_real_scores(home: Home, slurm: Cluster) -> None:
    config = {
        "defaults": [{"execution": "slurm"}, {"deployment": "smollm"}, {"evaluation": "offline"}, "_self_"],
        "execution": {
            "output_dir": "results",
            "work_dir": str(home.folder / "shared"),
            "python": sys.executable,
            "cpus": 2,
            "memory_gib": 2,
        },
        "evaluation": {"limit": 2, "timeout": 600, "max_gen_tokens": 8},
    }
    (home.folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    done = home.run(*ARGUMENTS, timeout=500)

    assert done.returncode == 0, done.stderr
    tasks = by_key(json.loads(done.stdout))
    assert {key: task["status"] for key, task in tasks.items()} == dict.fromkeys(
        ("hellaswag_100", "truthfulqa_mc1_100", "gsm8k_100"), "scored"
    )
    for key in tasks:
        folder = home.results / json.loads(done.stdout)["invocation"] / key
        assert "ready: sha256:" in (folder / "endpoint.log").read_text()
        assert list((folder / "output").glob("samples_*.jsonl"))


def test_more_gpus_than_exist_are_told_before_anything_is_created(home: Home, slurm: Cluster) -> None:
    write(home, deployment={"gpus": 9})

    done = home.run(*ARGUMENTS)

    assert done.returncode == 3
    assert "at most 8 GPUs, and an endpoint asks for 9" in done.stdout + done.stderr
    assert slurm.queue() == []


def test_a_node_that_dies_takes_nothing_with_it_but_time(home: Home, slurm: Cluster) -> None:
    write(home, items=6, held=3)
    process = home.start(*ARGUMENTS)
    node = slurm.node_of(the_job(slurm))
    held(home)

    slurm.kill_node(node)
    release(home)
    try:
        code, said = finish(process)
    finally:
        slurm.start_node(node)

    assert (code, by_key(said)["t0"]["status"]) == (0, "scored")
    assert by_key(said)["t0"]["scores"][0]["n"] == 6
    assert "start 2" in batch_log(home)
    assert asked(home) == ["0", "1", "2", "3", "3", "4", "5"], "only what was in flight is asked twice"


def test_a_task_longer_than_its_time_limit_goes_on_in_the_next(home: Home, slurm: Cluster) -> None:
    write(home, items=6, held=3, execution={"times": {"limit": 60, "total": 600, "warning": 30}})
    process = home.start(*ARGUMENTS)
    wait_for(lambda: batch_log(home).count("start 2") and asked(home).count("3") == 2, "it goes on", 150)
    release(home)

    code, said = finish(process)

    (task,) = by_key(said).values()
    assert (code, task["status"], task["scores"][0]["n"]) == (0, "scored", 6)
    assert asked(home) == ["0", "1", "2", "3", "3", "4", "5"], "only what was in flight is asked twice"


def test_cancelled_from_outside_is_stopped_and_says_so(home: Home, slurm: Cluster) -> None:
    write(home, items=6, held=3)
    process = home.start(*ARGUMENTS)
    the_job(slurm)
    held(home)

    slurm.run("scancel", slurm.queue()[0][0])
    code, said = finish(process)

    (task,) = by_key(said).values()
    assert (code, task["status"], task["reason"]) == (4, "stopped", "stopped")
    assert "cancelled the batch job (scancel)" in task["detail"]


def test_a_controller_that_dies_loses_nothing_and_is_unknown_meanwhile(home: Home, slurm: Cluster) -> None:
    write(home, items=6, held=3)
    squeue = watched("squeue", home.folder / "bin")
    home.extra["PATH"] = f"{squeue}:{PATH}"
    process = home.start(*ARGUMENTS)
    the_job(slurm)
    held(home)

    slurm.kill_controller()
    before = failures(squeue)
    try:
        wait_for(lambda: failures(squeue) > before, "the launcher has noticed", 120)
        release(home)
    finally:
        slurm.start_controller()
    code, said = finish(process)

    assert (code, by_key(said)["t0"]["status"]) == (0, "scored")
    assert asked(home) == ["0", "1", "2", "3", "4", "5"]


def test_a_launcher_that_dies_is_not_needed_and_resume_brings_the_scores(home: Home, slurm: Cluster) -> None:
    waits = {"options": ["--begin=now+5"], "usd_per_gpu_hour": 3600}
    write(home, items=6, held=3, execution=waits, deployment={"gpus": 1})
    process = home.start(*ARGUMENTS)
    the_job(slurm)
    held(home)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    release(home)

    slurm.wait(lambda: slurm.queue() == [], "the batch job ends by itself", 120)
    done = home.run("resume", home.invocation(), "--json")

    assert done.returncode == 0, done.stderr
    task = by_key(json.loads(done.stdout))["t0"]
    assert task["status"] == "scored"
    assert len(asked(home)) == 6
    (spent,) = (home.folder / "shared 100%").rglob("spent")
    assert task["gpu_seconds"] == task["usd"] == float(spent.read_text()), "what it waited in the queue costs nothing"


def test_a_secret_is_in_no_file_no_argument_and_no_answer_of_scontrol(home: Home, slurm: Cluster) -> None:
    home.extra["CANARY"] = "canary-8f3a1b9c"
    write(home, items=6, held=3, deployment={"envs": {"SECRET_TOKEN": "${oc.env:CANARY}"}})
    process = home.start(*ARGUMENTS)
    name = the_job(slurm)
    held(home)

    number = slurm.queue()[0][0]
    shown = slurm.run("scontrol", "show", "job", number) + slurm.run("scontrol", "write", "batch_script", number, "-")
    files = list((home.folder / "shared 100%").rglob("server.secrets"))
    modes = {oct(path.stat().st_mode & 0o777) for path in files}
    arguments = b"".join(path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())
    release(home)
    code, _ = finish(process)

    assert (code, len(files), modes) == (0, 1, {"0o600"}), name
    assert "canary" not in shown and b"canary" not in arguments
    kept = [path for path in home.folder.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]
    assert kept == []


def test_through_a_login_node_on_one_connection(home: Home, slurm: Cluster, tmp_path: Path) -> None:
    """And without it for a while: unknown is not gone. The launcher itself knows no cluster."""
    with login_node(tmp_path / "login") as login:
        home.extra = {"PATH": f"{login.bin}:/usr/bin:/bin"}
        write(home, items=6, held=3, execution={"hostname": "cluster"})
        process = home.start(*ARGUMENTS)
        the_job(slurm)
        held(home)
        assert login.connections() == 1

        login.stop()
        before = failures(login.bin)
        wait_for(lambda: failures(login.bin) > before, "the launcher has noticed", 120)
        assert len(slurm.queue()) == 1
        release(home)
        login.start()
        code, said = finish(process)

    assert (code, by_key(said)["t0"]["status"]) == (0, "scored")
    assert len(asked(home)) == 6


def test_300_tasks_are_submitted_at_once_and_cost_the_launcher_little(
    home: Home, slurm: Cluster, record_property: Any
) -> None:
    write(home, tasks=300, execution={"options": ["--begin=now+1hour"]})
    begun = time.monotonic()
    process = home.start(*ARGUMENTS)
    wait_for(lambda: len(slurm.queue()) == 300, "all are submitted", 60)
    seconds = time.monotonic() - begun
    status = Path(f"/proc/{process.pid}/status").read_text()
    megabytes = int(status.partition("VmHWM:")[2].split()[0]) / 1024

    process.send_signal(signal.SIGINT)
    code, said = finish(process, 120)

    record_property("slurm", f"300 tasks submitted in {seconds:.1f} s, the launcher has used {megabytes:.0f} MB")
    assert (code, len(said["tasks"])) == (130, 300)
    assert seconds < 30
    assert megabytes < 150


def test_endpoint_and_evaluation_apart_leave_nothing_either(home: Home, slurm: Cluster) -> None:
    apart = {"topology": "separate", "start_jobs": "all_ready", "job": {"partition": "batch", "cpus": 1}}
    write(home, tasks=2, execution=apart)

    code, said = run(home)

    assert (code, {task["status"] for task in by_key(said).values()}) == (0, {"scored"})
    shared = home.folder / "shared 100%" / said["invocation"] / "jobs"
    assert len(list(shared.iterdir())) == 4
    steps = [kind for _, kind, _ in journal_facts(home, said["invocation"])]
    last_ready = max(place for place, kind in enumerate(steps) if kind == "task_ready")
    assert last_ready < steps.index("intend_submit_job"), "no evaluation begins before all endpoints answer"


def test_equal_tasks_are_one_job_array_whose_elements_end_and_go_on_alone(home: Home, slurm: Cluster) -> None:
    write(home, items=6, held=3, tasks=3)
    process = home.start(*ARGUMENTS)
    wait_for(lambda: asked(home).count("3") == 3, "all evaluate", 120)
    elements = sorted(number for number, _, _ in slurm.queue())
    array = elements[0].partition("_")[0]
    assert elements == [f"{array}_{index}" for index in range(3)]

    slurm.run("scancel", elements[1])
    slurm.run("scontrol", "requeue", elements[2])
    wait_for(lambda: "start 2" in batch_log(home), "one goes on", 90)
    release(home)
    code, said = finish(process)

    tasks = by_key(said)
    assert (code, {key: task["status"] for key, task in tasks.items()}) == (
        4,
        {"t0": "scored", "t1": "stopped", "t2": "scored"},
    )
    assert "cancelled the batch job (scancel)" in tasks["t1"]["detail"]
    (resumed,) = (path.parent for path in home.folder.rglob("batch.log") if "start 2" in path.read_text())
    assert resumed.name == f"container-t2-2-{said['invocation']}"


def test_several_servers_behind_one_address_share_the_work(home: Home, slurm: Cluster) -> None:
    write(home, items=12, execution={"instances": 3, "nodes": 1, "cpus": 3})

    code, said = run(home)

    assert (code, by_key(said)["t0"]["status"]) == (0, "scored")
    logs = sorted((home.folder / "shared 100%").rglob("endpoint*.log"))
    assert [path.name for path in logs] == ["endpoint.log", "endpoint1.log", "endpoint2.log"]
    (balancer,) = (home.folder / "shared 100%").rglob("balancer.log")
    assert balancer.read_text().startswith("3 servers answer on 127.0.0.1:")


def test_a_server_that_dies_loading_is_told_with_its_code_and_last_words(home: Home, slurm: Cluster) -> None:
    write(home)
    config = yaml.safe_load((home.folder / "config.yaml").read_text())
    config["deployment"]["command"] += ["--fault", "die_loading"]
    (home.folder / "config.yaml").write_text(yaml.safe_dump(config))

    code, said = run(home)

    (task,) = by_key(said).values()
    assert (code, task["reason"]) == (4, "endpoint_out_of_memory")
    assert "exited with code 3" in task["detail"]
    assert any("CUDA out of memory" in line for line in task["evidence"]["endpoint"])


def test_a_python_that_the_nodes_lack_is_told_before_a_model_is_loaded(home: Home, slurm: Cluster) -> None:
    write(home, execution={"python": "/no/such/python"})

    code, said = run(home)

    (task,) = by_key(said).values()
    assert (code, task["reason"]) == (4, "job_not_submitted")
    assert "its node has no execution.python" in task["detail"]
    assert "has no /no/such/python" in batch_log(home)
    assert not list((home.folder / "shared 100%").rglob("endpoint.log"))
    assert slurm.queue() == []


def test_what_a_lost_launcher_left_is_found_by_its_mark_and_removed(home: Home, slurm: Cluster) -> None:
    write(home, items=6, held=3)
    process = home.start(*ARGUMENTS)
    the_job(slurm)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    invocation, folder = home.invocation(), home.folder / "shared 100%"
    home.extra["NV_EVAL_HOME"] = str(home.folder / "another machine")

    place = ("execution=slurm", f'execution.work_dir="{folder}"')
    done = home.run("cleanup", invocation, *place)

    assert done.returncode == 0, done.stdout + done.stderr
    assert slurm.queue() == []
    assert list(folder.iterdir()) == []


def test_both_forms_of_squeue_say_the_same(slurm: Cluster) -> None:
    options = ["--begin=now+1hour", "--comment=nv-eval:a1b2c3d4:job", "--job-name=eval-x-0-a1b2c3d4", "--wrap=true"]
    number = int(slurm.run("sbatch", "--parsable", "--output=/dev/null", *options))
    try:
        text = subprocess.run(
            queue.TEXT, env={**os.environ, "SLURM_TIME_FORMAT": "%s"}, capture_output=True, text=True, check=True
        ).stdout
        jobs = (queue.parse_text(text), queue.parse_json(slurm.run(*queue.JSON)))
    finally:
        slurm.run("scancel", str(number))

    first, second = (next(job for job in found if job.id == number) for found in jobs)
    assert (first.name, first.states, first.comment, first.submitted) == (
        second.name,
        second.states,
        second.comment,
        second.submitted,
    )
    assert first.invocation == "a1b2c3d4"


def test_a_server_without_memory_enough_is_told_as_such(home: Home, slurm: Cluster) -> None:
    write(home, execution={"memory_gib": 0.1})
    config = yaml.safe_load((home.folder / "config.yaml").read_text())
    config["deployment"]["command"] = [sys.executable, "-c", "x = b'x' * (800 << 20)"]
    (home.folder / "config.yaml").write_text(yaml.safe_dump(config))

    code, said = run(home)

    (task,) = by_key(said).values()
    assert (code, task["reason"]) == (4, "endpoint_out_of_memory"), task


def test_a_job_that_can_never_start_is_not_waited_for(home: Home, slurm: Cluster) -> None:
    number = slurm.run("sbatch", "--parsable", "--begin=now+1hour", "--output=/dev/null", "--wrap=true").strip()
    slurm.run("scancel", number)
    write(home, execution={"options": [f"--dependency=afterok:{number}"]})

    code, said = run(home)

    (task,) = by_key(said).values()
    assert (code, task["status"]) == (4, "failed")
    assert "DependencyNeverSatisfied" in task["detail"]


@pytest.mark.parametrize(
    ("execution", "said"),
    [
        ({"partition": "nowhere"}, "there is no nowhere; there are batch, short, urgent"),
        ({"partition": "short"}, "are above the 1 min of partition short; set execution.times.limit=60"),
        ({"constraint": "no-such-feature"}, "check execution.constraint"),
        ({"work_dir": "/etc/passwd/nv-eval"}, "execution.work_dir: /etc/passwd is not writable"),
    ],
)
def test_what_the_cluster_would_refuse_is_told_before_anything_is_created(
    home: Home, slurm: Cluster, execution: dict[str, Any], said: str
) -> None:
    write(home, execution=execution)

    done = home.run(*ARGUMENTS)

    assert done.returncode == 3
    assert said in done.stdout + done.stderr
