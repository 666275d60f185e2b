"""A real Slurm cluster: servers over several nodes, jobs that are preempted, containers by Pyxis."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cli import ROOT, Home, assert_nothing_left, wait_for
from tests.e2e.scenario import by_key
from tests.engines.slurm import stand_ins
from tests.engines.slurm.cluster import Cluster
from tests.engines.slurm.scenario import (
    ARGUMENTS,
    asked,
    batch_log,
    configured,
    finish,
    held,
    home,
    release,
    run,
    save,
    slurm,
    the_job,
    write,
)

pytestmark = [pytest.mark.e2e, pytest.mark.engine]

__all__ = ["home", "slurm"]


def over_two_nodes(home: Home, type_: str) -> tuple[str, dict[str, Any], Path]:
    """How a run of a server ends that needs sixteen GPUs, and the folder of what its programs got."""
    programs = stand_ins.install(home.folder / "programs")
    execution = {"gpus_per_node": 8, "prologue": [f'export PATH="{programs}:$PATH"'], "memory_gib": 1}
    config = configured(home, execution=execution)
    config["deployment"] = {
        "type": type_,
        "model_id": "acme/large",
        "served_model_name": "large",
        "tensor_parallel_size": 8,
        "pipeline_parallel_size": 2,
        "envs": {"PYTHONPATH": f"{programs}:{ROOT}"},
        "start_timeout": 60,
        "health_timeout": 60,
    }
    save(home, config)
    _, said = run(home)
    (task,) = by_key(said).values()
    return task["status"], task, programs


def test_vllm_over_two_nodes_is_a_ray_cluster_with_the_server_on_its_head(home: Home, slurm: Cluster) -> None:
    status, task, programs = over_two_nodes(home, "vllm")

    assert status == "scored", task
    said = stand_ins.said(programs)
    head, worker, server = said
    port = next(word for word in head["words"] if word.startswith("--port=")).partition("=")[2]
    assert head["words"][:3] == ["start", "--head", "--node-ip-address=127.0.0.1"]
    assert worker["words"][:2] == ["start", f"--address=127.0.0.1:{port}"] and "--block" in worker["words"]
    assert server["words"][:2] == ["serve", "acme/large"]
    assert server["words"][-2:] == ["--distributed-executor-backend", "ray"]
    assert [line["SLURM_PROCID"] for line in (head, worker, server)] == ["0", "1", "0"]
    assert head["SLURMD_NODENAME"] == server["SLURMD_NODENAME"] != worker["SLURMD_NODENAME"]
    assert all(len(line["CUDA_VISIBLE_DEVICES"].split(",")) == 8 for line in (worker, server))
    assert_nothing_left(str(programs))


def test_sglang_over_two_nodes_is_told_its_ranks_and_where_the_first_is(home: Home, slurm: Cluster) -> None:
    status, task, programs = over_two_nodes(home, "sglang")

    assert status == "scored", task
    said = stand_ins.said(programs)
    ranks = {line["words"][line["words"].index("--node-rank") + 1]: line for line in said}
    addresses = {line["words"][line["words"].index("--dist-init-addr") + 1] for line in said}
    assert sorted(ranks) == ["0", "1"] and len(addresses) == 1
    assert ranks["0"]["SLURMD_NODENAME"] != ranks["1"]["SLURMD_NODENAME"]
    assert all(line["words"][line["words"].index("--nnodes") + 1] == "2" for line in said)
    assert addresses != {f"127.0.0.1:{ranks['0']['words'][ranks['0']['words'].index('--port') + 1]}"}
    assert_nothing_left(str(programs))


def test_a_preempted_task_goes_on_when_its_place_is_free_again(home: Home, slurm: Cluster) -> None:
    write(home, items=6, held=3, execution={"exclusive": True, "options": ["--nodelist=n4"]})
    process = home.start(*ARGUMENTS)
    the_job(slurm)
    held(home)

    urgent = ["--partition=urgent", "--nodelist=n4", "--exclusive", "--job-name=urgent", "--wrap=sleep 1"]
    slurm.run("sbatch", "--output=/dev/null", *urgent)
    wait_for(lambda: "start 2" in batch_log(home), "it goes on", 120)
    release(home)
    code, said = finish(process)

    (task,) = by_key(said).values()
    assert (code, task["status"], task["scores"][0]["n"]) == (0, "scored", 6)
    assert asked(home) == ["0", "1", "2", "3", "3", "4", "5"], "only what was in flight is asked twice"
    assert "DUE TO PREEMPTION" in batch_log(home)


def test_server_and_evaluation_run_in_containers_by_pyxis(home: Home, slurm: Cluster) -> None:
    """The plugin of the cluster is a small one with Pyxis' options; an image is a folder with a root file system."""
    image = home.folder / "image"
    (image / "opt").mkdir(parents=True)
    (image / "opt" / "here").write_text("inside")
    here = [path for path in ("/usr", "/lib", "/lib64", "/bin", "/root", "/tmp") if Path(path).exists()]
    mounts = [f"{path}:{path}:ro" for path in here if path != "/tmp"] + ["/tmp:/tmp", f"{ROOT}:{ROOT}:ro"]
    mounts += [f"{Path(sys.base_prefix)}:{Path(sys.base_prefix)}:ro", f"{Path(sys.prefix)}:{Path(sys.prefix)}:ro"]
    container = {"runtime": "pyxis", "mounts": mounts, "job_image": str(image)}
    config = configured(home, execution={"container": container})
    inside = ["sh", "-c", 'cat /opt/here && exec "$@"', "sh"]
    config["deployment"] |= {"image": str(image), "command": [*inside, *config["deployment"]["command"]]}
    (task,) = config["evaluation"]["tasks"]
    task["command"] = [*inside, *task["command"]]
    save(home, config)

    code, said = run(home)

    (ended,) = by_key(said).values()
    assert (code, ended["status"]) == (0, "scored"), ended
    logs = [path.read_text() for name in ("endpoint.log", "job.log") for path in home.folder.rglob(f"jobs/*/{name}")]
    assert len(logs) == 2 and all("inside" in log for log in logs)
    assert not Path("/opt/here").exists()
