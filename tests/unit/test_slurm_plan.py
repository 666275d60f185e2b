"""Batch jobs as the plan has them: options of sbatch, scripts that bash can read, what is refused."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from launcher.config.validate import validate
from launcher.errors import ConfigError
from launcher.plan.attempts import attempt
from launcher.plan.build import build
from launcher.plan.model import Plan, TaskPlan
from launcher.plan.render import render
from launcher.plan.slurm import wrappers

ID = "a1b2c3d4"


def made(execution: dict[str, Any] | None = None, deployment: dict[str, Any] | None = None, **sections: Any) -> Plan:
    config = {
        "execution": {"type": "slurm", **(execution or {})},
        "deployment": {"type": "vllm", "model_id": "acme/model", **(deployment or {})},
        "evaluation": {"tasks": [{"name": "gsm8k"}], "timeout": 3600},
        **sections,
    }
    return build(validate(config), ID)


def batch(task: TaskPlan) -> tuple[list[str], str]:
    request = (task.endpoint.request if task.endpoint else None) or task.job.request
    assert request is not None
    return list(request["sbatch"]), request["script"]


def test_one_batch_job_holds_endpoint_and_evaluation() -> None:
    (task,) = made({"partition": "gpu", "account": "eval", "gpu_type": "h100"}, {"tensor_parallel_size": 4}).tasks

    options, script = batch(task)

    name = f"vllm-gsm8k-0-{ID}"
    folder = f"~/nv-eval/{ID}/jobs/{name}"
    assert options[:4] == [
        f"--job-name={name}",
        f"--comment=nv-eval:{ID}:together",
        f"--chdir={folder}",
        f"--output={folder}/batch.log",
    ]
    assert {"--account=eval", "--partition=gpu", "--gres=gpu:h100:4", "--nodes=1", "--requeue"} <= set(options)
    assert "kind=together\n" in script
    assert task.job.request is None


@pytest.mark.parametrize(
    ("execution", "deployment"),
    [
        ({}, {}),
        ({"topology": "separate"}, {}),
        ({"gpus_per_node": 8}, {"tensor_parallel_size": 8, "pipeline_parallel_size": 2}),
        ({"instances": 4, "gpus_per_node": 2}, {}),
        ({"container": {"runtime": "apptainer", "mounts": ["/data:/it's"]}}, {"envs": {"A": "it's $HOME"}}),
        ({"prologue": ["module load cuda", "source 'a b'/bin/activate"]}, {}),
    ],
)
def test_every_script_is_one_that_bash_can_read(execution: dict[str, Any], deployment: dict[str, Any]) -> None:
    for task in made(execution, deployment).tasks:
        requests = [task.job.request, task.endpoint.request if task.endpoint else None]
        for request in (request for request in requests if request):
            read = subprocess.run(["bash", "-n"], input=request["script"], text=True, capture_output=True, check=False)
            assert (read.returncode, read.stderr) == (0, "")


def test_time_limits_are_minutes_and_the_total_counts_all_time_outs() -> None:
    (task,) = made({"times": {"limit": 600, "warning": 90}}).tasks
    options, script = batch(task)
    (whole,) = made().tasks

    assert {"--time=10", "--signal=B:USR1@90"} <= set(options)
    assert "total_seconds=7710\n" in script  # 3600 s to start, 300 s to answer, 3600 s of evaluation, and slack
    assert "--time=128" in batch(whole)[0]


def test_separate_batch_jobs_and_an_endpoint_that_does_not_come_back_elsewhere() -> None:
    (task,) = made({"topology": "separate", "job": {"partition": "cpu", "cpus": 4}}).tasks
    options, script = batch(task)
    assert task.job.request is not None

    assert "--no-requeue" in options and "kind=endpoint\n" in script
    assert {"--partition=cpu", "--cpus-per-task=4", f"--comment=nv-eval:{ID}:job"} <= set(task.job.request["sbatch"])
    assert not [option for option in task.job.request["sbatch"] if "gpu" in option.replace("gpus_per", "")]


def test_an_existing_endpoint_needs_only_the_evaluation() -> None:
    api = {"api_endpoint": {"url": "http://model.example/v1", "model_id": "m"}}
    plan = build(
        validate(
            {
                "execution": {"type": "slurm"},
                "deployment": {"type": "none"},
                "target": api,
                "evaluation": {"tasks": [{"name": "gsm8k"}]},
            }
        ),
        ID,
    )

    assert "kind=job\n" in batch(plan.tasks[0])[1]


def test_a_further_attempt_has_another_name_everywhere() -> None:
    (task,) = made().tasks

    options, _ = batch(attempt(task, 2, ID))

    assert options[0] == f"--job-name=vllm-gsm8k-0r2-{ID}"
    assert sum(f"vllm-gsm8k-0r2-{ID}" in option for option in options) == 3
    assert not [option for option in options if f"vllm-gsm8k-0-{ID}" in option]


def test_several_nodes_by_ray_and_by_ranks() -> None:
    sizes = {"tensor_parallel_size": 8, "pipeline_parallel_size": 2}
    vllm = batch(made({"gpus_per_node": 8}, sizes).tasks[0])
    sglang = batch(made({"gpus_per_node": 8}, {"type": "sglang", **sizes}).tasks[0])

    assert {"--nodes=2", "--gres=gpu:8"} <= set(vllm[0])
    assert "ray start --head" in vllm[1] and "--distributed-executor-backend ray" in vllm[1]
    assert "--node-rank" in sglang[1]


JUDGE = {"judge": {"deployment": {"type": "vllm", "model_id": "acme/judge", "start_timeout": 900}}}


@pytest.mark.parametrize("topology", ["together", "separate"])
def test_a_judge_is_an_endpoint_that_its_own_batch_job_asks(topology: str) -> None:
    plan = made({"topology": topology}, auxiliary=JUDGE)
    (judge,), (task,) = plan.auxiliary, plan.tasks
    options, script = batch(judge)

    assert f"--comment=nv-eval:{ID}:endpoint" in options and "kind=endpoint\n" in script
    assert judge.endpoint is not None and judge.endpoint.request is not None and judge.endpoint.request["watched"]
    assert judge.job.queue_timeout > 604_800, "what waits in the queue costs nothing"
    assert task.endpoint is not None
    assert (task.endpoint.evaluates, judge.endpoint.evaluates) == (topology == "together", False)


def test_a_task_that_waits_for_a_judge_has_that_time_too() -> None:
    (alone,), (judged,) = made().tasks, made(auxiliary=JUDGE).tasks

    assert "total_seconds=7710\n" not in batch(judged)[1]
    assert f"total_seconds={7680 + 900 + 300}\n" in batch(judged)[1]
    assert "total_seconds=7680\n" in batch(alone)[1]


def test_endpoints_that_all_answer_first_are_batch_jobs_of_their_own() -> None:
    plan = made({"topology": "separate", "start_jobs": "all_ready"})

    assert plan.tasks[0].endpoint is not None and plan.tasks[0].endpoint.request is not None
    assert plan.tasks[0].endpoint.request["watched"]


def test_gpus_of_all_instances_count() -> None:
    plan = made({"instances": 4}, {"tensor_parallel_size": 2})

    assert plan.tasks[0].endpoint is not None
    assert plan.tasks[0].endpoint.gpus == 8
    assert "--gres=gpu:8" in batch(plan.tasks[0])[0]


def test_a_secret_is_in_no_part_of_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-123456")
    plan = made(deployment={"envs": {"HF_TOKEN": {"env": "HF_TOKEN"}}})

    assert "canary" not in render(plan, verbose=True)
    assert "HF_TOKEN" not in batch(plan.tasks[0])[1]


def test_the_dry_run_shows_what_will_be_sent() -> None:
    plan = made()
    options, script = batch(plan.tasks[0])

    short, long = render(plan), render(plan, verbose=True)

    assert "in the batch job of its endpoint" in short
    assert f"{len(script.splitlines())} lines; -v shows them" in short
    assert all(option in long for option in options)
    assert all(line.strip() in long for line in script.splitlines())


@pytest.mark.parametrize(
    ("execution", "deployment", "said"),
    [
        ({"start_jobs": "all_ready"}, {}, "set topology: separate"),
        ({"options": ["--time=5"]}, {}, "--time is set by the launcher"),
        ({"options": ["nice"]}, {}, "write --name"),
        ({"times": {"limit": 30}}, {}, "the least is 60"),
        ({"times": {"limit": 60}}, {}, "more than half"),
        ({"gpus_per_node": 8, "nodes": 1}, {"tensor_parallel_size": 16}, "gpus_per_node is 8"),
        ({"nodes": 2}, {"type": "trtllm", "tensor_parallel_size": 2}, "runs on one node"),
        ({"nodes": 2, "instances": 3}, {}, "spread evenly"),
        ({"container": {"mounts": ["/data"]}}, {}, "SOURCE:TARGET"),
        ({"container": {"runtime": "pyxis"}}, {"type": "smollm"}, "runs only as a program"),
        ({}, {"type": "nim", "image": "nvcr.io/nim/x:1"}, "runs only from its image"),
        ({"hostname": "-oProxyCommand=x"}, {}, "hostname"),
        ({"partition": "a b"}, {}, "partition"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_created(
    execution: dict[str, Any], deployment: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        made(execution, deployment)


@pytest.mark.parametrize(
    ("image", "pyxis", "apptainer"),
    [
        ("vllm/vllm-openai:v1", "vllm/vllm-openai:v1", "docker://vllm/vllm-openai:v1"),
        ("nvcr.io/nim/x:1", "nvcr.io#nim/x:1", "docker://nvcr.io/nim/x:1"),
        ("/images/x.sqsh", "/images/x.sqsh", "/images/x.sqsh"),
        ("localhost:5000/x", "localhost:5000#x", "docker://localhost:5000/x"),
    ],
)
def test_images_as_pyxis_and_apptainer_take_them(image: str, pyxis: str, apptainer: str) -> None:
    assert (wrappers.enroot(image), wrappers.docker(image)) == (pyxis, apptainer)
