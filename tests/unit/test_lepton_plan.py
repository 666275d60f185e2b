"""What a plan for Lepton sends, and what it refuses before anything is contacted."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from launcher.config.execution import Lepton
from launcher.config.schema import Config
from launcher.config.validate import validate
from launcher.errors import ConfigError
from launcher.orchestrator.admission import need
from launcher.orchestrator.state import TaskState
from launcher.plan.build import build
from launcher.plan.lepton import on_volume
from launcher.plan.model import Plan, TaskPlan, shape_gpus
from launcher.plan.render import render

DEPLOYMENT = {"type": "vllm", "model_id": "meta-llama/Llama-3.1-8B-Instruct"}


def config(
    execution: dict[str, Any] | None = None,
    deployment: dict[str, Any] | None = None,
    target: dict[str, Any] | None = None,
    prices: dict[str, float] | None = None,
    **evaluation: Any,
) -> Config:
    return validate(
        {
            "execution": {"type": "lepton", "node_group": "h100", "resource_shape": "gpu.1xh100", **(execution or {})},
            "deployment": deployment or DEPLOYMENT,
            "target": {"api_endpoint": target or {}},
            "pricing": {"usd_per_hour": prices or {}},
            "limits": {"max_attempts": 1},
            "evaluation": {"tasks": [{"name": "arc_easy"}], **evaluation},
        }
    )


def plan(*args: Any, **kwargs: Any) -> Plan:
    return build(config(*args, **kwargs), "abc12345")


def first(*args: Any, **kwargs: Any) -> TaskPlan:
    return plan(*args, **kwargs).tasks[0]


def endpoint_spec(*args: Any, **kwargs: Any) -> dict[str, Any]:
    made = first(*args, **kwargs).endpoint
    assert made is not None and made.request is not None
    spec: dict[str, Any] = made.request["spec"]
    return spec


def job_spec(*args: Any, **kwargs: Any) -> dict[str, Any]:
    request = first(*args, **kwargs).job.request
    assert request is not None
    spec: dict[str, Any] = request["spec"]
    return spec


def refusal(*args: Any, **kwargs: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        plan(*args, **kwargs)
    return list(caught.value.problems)


def test_the_request_of_an_endpoint_has_everything_by_default() -> None:
    made = first().endpoint
    assert made is not None

    assert made.request == {
        "metadata": {
            "id": "vllm-arc-easy-0-abc12345",
            "name": "vllm-arc-easy-0-abc12345",
            "visibility": "private",
        },
        "spec": {
            "container": {
                "image": made.server.image,
                "command": list(made.server.command),
                "ports": [{"container_port": 8000, "protocol": "TCP"}],
            },
            "resource_requirement": {
                "resource_shape": "gpu.1xh100",
                "affinity": {"allowed_dedicated_node_groups": ["h100"]},
                "min_replicas": 1,
                "max_replicas": 1,
            },
            "auto_scaler": {"scale_down": {"no_traffic_timeout": 5700, "not_ready_timeout": 4200}},
            "api_tokens": [{"value": "${oc.env:NV_EVAL_ENDPOINT_TOKEN}"}],
            "envs": [
                {"name": "VLLM_NO_USAGE_STATS", "value": "1"},
                {"name": "NV_EVAL_INVOCATION", "value": "abc12345"},
            ],
            "mounts": [
                {
                    "path": "/nemo-evaluator-launcher-workspace/model-cache",
                    "from": "node-nfs:lepton-shared-fs",
                    "mount_path": "/root/.cache/huggingface",
                }
            ],
            "image_pull_secrets": [],
            "health": {"liveness": {"initial_delay_seconds": 3600}},
            "log": {"enable_collection": True},
        },
    }
    assert "0.0.0.0" in made.server.command


def test_the_request_of_a_job_has_everything_by_default() -> None:
    job = first().job

    assert job.request == {
        "metadata": {"id": "eval-arc-easy-0-abc12345", "visibility": "private"},
        "spec": {
            "resource_shape": "cpu.small",
            "affinity": {"allowed_dedicated_node_groups": ["h100"]},
            "container": {"image": "python:3.11-slim", "command": ["/bin/bash", "-c", "{job_script}"]},
            "completions": 1,
            "parallelism": 1,
            "max_failure_retry": 0,
            "max_job_failure_retry": 0,
            "envs": [
                {"name": "NV_EVAL_API_KEY", "value": "${oc.env:NV_EVAL_ENDPOINT_TOKEN}"},
                {"name": "NV_EVAL_INVOCATION", "value": "abc12345"},
            ],
            "mounts": [{"path": "/", "from": "node-nfs:lepton-shared-fs", "mount_path": "/shared"}],
            "image_pull_secrets": [],
            "ttl_seconds_after_finished": 259200,
            "log": {"enable_collection": True},
        },
    }
    assert job.packages == ("lm-eval[api]>=0.4.13,<0.5",)


OPTIONS: list[tuple[dict[str, Any], str, Any]] = [
    ({"endpoint": {"min_replicas": 2}}, "resource_requirement.max_replicas", 2),
    ({"endpoint": {"min_replicas": 1, "max_replicas": 3}}, "resource_requirement.max_replicas", 3),
    ({"endpoint": {"initial_delay": 1800}}, "health.liveness.initial_delay_seconds", 1800),
    ({"endpoint": {"require_approval": True}}, "health.readiness.require_approval", True),
    ({"endpoint": {"pull_metrics": False}}, "metrics.disable_pulling_from_replica", True),
    ({"endpoint": {"header_routing": True}}, "routing_policy.enable_header_based_replica_routing", True),
    ({"endpoint": {"collect_logs": False}}, "log.enable_collection", False),
    ({"endpoint": {"queue_priority": "high-9000"}}, "queue_config.priority_class", "high-9000"),
    ({"image_pull_secrets": ["ngc"]}, "image_pull_secrets", ["ngc"]),
    ({"autoscale": {"no_traffic_timeout": 60}}, "auto_scaler.scale_down.no_traffic_timeout", 60),
    ({"autoscale": {"not_ready_timeout": 90}}, "auto_scaler.scale_down.not_ready_timeout", 90),
    (
        {"endpoint": {"max_replicas": 3}, "autoscale": {"gpu_utilization": 70}},
        "auto_scaler.target_gpu_utilization_percentage",
        70,
    ),
    (
        {"endpoint": {"max_replicas": 3}, "autoscale": {"qpm": 2.5, "qpm_methods": ["POST"], "qpm_paths": ["/v1"]}},
        "auto_scaler.target_throughput",
        {"qpm": 2.5, "methods": ["POST"], "paths": ["/v1"]},
    ),
    ({"access": {"mode": "public"}}, "allow_unauthenticated_access", True),
    ({"access": {"mode": "public"}}, "api_tokens", []),
    ({"access": {"mode": "workspace"}}, "api_tokens", [{"value_from": {"token_name_ref": "WORKSPACE_TOKEN"}}]),
    (
        {"access": {"token_names": ["OTHER"]}},
        "api_tokens",
        [{"value": "${oc.env:NV_EVAL_ENDPOINT_TOKEN}"}, {"value": "${oc.env:OTHER}"}],
    ),
    (
        {
            "storage": {"model_cache": False},
            "endpoint": {"mounts": [{"path": "/m", "mount_path": "/models", "read_only": True}]},
        },
        "mounts",
        [
            {
                "path": "/m",
                "from": "node-nfs:lepton-shared-fs",
                "mount_path": "/models",
                "mount_options": {"read_only": True},
            }
        ],
    ),
]


@pytest.mark.parametrize(("execution", "path", "value"), OPTIONS, ids=[path for _, path, _ in OPTIONS])
def test_an_option_is_where_the_service_reads_it(execution: dict[str, Any], path: str, value: Any) -> None:
    found: Any = endpoint_spec(execution)
    for part in path.split("."):
        found = found[part]

    assert found == value


def test_secrets_of_the_workspace_are_named_and_values_of_ours_are_references() -> None:
    envs = {"HF_TOKEN": {"secret": "my-hf"}, "NGC_API_KEY": {"env": "NGC"}, "PLAIN": 10.0}

    spec = endpoint_spec(deployment=DEPLOYMENT | {"envs": envs})

    assert spec["envs"] == [
        {"name": "HF_TOKEN", "value_from": {"secret_name_ref": "my-hf"}},
        {"name": "NGC_API_KEY", "value": "${oc.env:NGC}"},
        {"name": "PLAIN", "value": "10"},
        {"name": "VLLM_NO_USAGE_STATS", "value": "1"},
        {"name": "NV_EVAL_INVOCATION", "value": "abc12345"},
    ]
    assert any(
        "the value of NGC goes to the workspace" in note for note in plan(deployment=DEPLOYMENT | {"envs": envs}).notes
    )


def test_a_key_of_the_persons_own_guards_the_endpoint() -> None:
    made = first(target={"api_key_name": "MY_KEY"})

    assert made.endpoint is not None and made.endpoint.request is not None and made.job.request is not None
    assert made.endpoint.request["spec"]["api_tokens"] == [{"value": "${oc.env:MY_KEY}"}]
    assert {"name": "NV_EVAL_API_KEY", "value": "${oc.env:MY_KEY}"} in made.job.request["spec"]["envs"]
    assert made.target.api_key is not None and made.target.api_key.env == "MY_KEY"


def test_the_guard_of_the_costs_follows_from_the_time_outs() -> None:
    spec = endpoint_spec(deployment=DEPLOYMENT | {"start_timeout": 600.5, "health_timeout": 60})

    assert spec["auto_scaler"]["scale_down"] == {"no_traffic_timeout": 661 + 1800, "not_ready_timeout": 661 + 300}


def test_without_storage_nothing_is_mounted() -> None:
    execution = {"storage": {"volume": None}}

    assert endpoint_spec(execution)["mounts"] == []
    assert job_spec(execution)["mounts"] == []


def test_a_cache_of_the_persons_own_takes_the_place_of_ours() -> None:
    mine = {"path": "/my-cache", "mount_path": "/root/.cache/huggingface/", "volume": "node-local"}

    mounts = endpoint_spec({"endpoint": {"mounts": [mine]}})["mounts"]

    assert [mount["path"] for mount in mounts] == ["/my-cache"]


def test_an_image_without_a_command_keeps_its_own() -> None:
    nim = {"type": "nim", "model_id": "meta/llama-3.1-8b-instruct", "image": "nvcr.io/nim/meta/llama:1"}

    spec = endpoint_spec(deployment=nim)

    assert "command" not in spec["container"]
    assert spec["mounts"][0]["mount_path"] == "/opt/nim/.cache"


def mounted(path: str) -> dict[str, Any]:
    return {"endpoint": {"mounts": [{"path": "/", "mount_path": path}]}}


REFUSED: list[tuple[dict[str, Any], str]] = [
    (mounted("/usr/bin/"), "nothing may be mounted at /usr/bin/; choose a folder below it"),
    (mounted("//"), "nothing may be mounted at //"),
    (mounted("/a/.."), "nothing may be mounted at /a/.."),
    (mounted("models"), "mount_path 'models' must begin with /"),
    (
        {"endpoint": {"mounts": [{"path": "/a", "mount_path": "/x"}, {"path": "/b", "mount_path": "/x/"}]}},
        "two mounts at /x/",
    ),
    ({**mounted("/models"), "storage": {"volume": None}}, "the mount at /models names no volume"),
    ({"storage": {"workspace": "/elsewhere"}}, "execution.storage.workspace: /elsewhere must lie below mount_path"),
    ({"storage": {"mount_path": "/etc"}}, "execution.storage.mount_path: nothing may be mounted at /etc"),
    ({"endpoint": {"min_replicas": 3, "max_replicas": 2}}, "max_replicas: 2 is less than min_replicas, 3"),
    ({"autoscale": {"gpu_utilization": 50}}, "a target needs room; set max_replicas above min_replicas"),
    ({"autoscale": {"qpm_paths": ["/v1"]}}, "execution.autoscale.qpm: is missing"),
    ({"access": {"mode": "public", "token_names": ["X"]}}, "a public endpoint checks no token"),
]


@pytest.mark.parametrize(("execution", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_the_service_would_refuse_is_refused_here(execution: dict[str, Any], message: str) -> None:
    assert [line for line in refusal(execution) if message in line]


@pytest.mark.parametrize("name", ["LEPTON_WORKSPACE_ID", "LEPTON_ANYTHING", "lepton_x"])
def test_the_services_own_variables_are_refused(name: str) -> None:
    where = {"deployment.envs": {"deployment": DEPLOYMENT | {"envs": {name: "x"}}}, "evaluation.envs": {}}

    assert f"deployment.envs.{name}: Lepton sets variables that begin with LEPTON_ itself" in " ".join(
        refusal(**where["deployment.envs"])
    )
    assert f"evaluation.envs.{name}: Lepton sets" in " ".join(refusal(envs={name: "x"}))


def test_the_mark_of_ours_cannot_be_set() -> None:
    assert "deployment.envs.NV_EVAL_INVOCATION: is set by the launcher" in " ".join(
        refusal(deployment=DEPLOYMENT | {"envs": {"NV_EVAL_INVOCATION": "x"}})
    )


def test_zero_is_no_time_out() -> None:
    with pytest.raises(Exception, match="no_traffic_timeout"):
        config({"autoscale": {"no_traffic_timeout": 0}})


def test_the_worst_case_has_the_price_of_the_shapes() -> None:
    execution = {"endpoint": {"max_replicas": 2}}
    deployment = DEPLOYMENT | {"start_timeout": 3600, "health_timeout": 1800}
    made = plan(execution, deployment, prices={"GPU.1xH100": 3.0, "cpu.small": 0.1}, timeout=1800)

    assert made.worst_case.usd == pytest.approx(2 * (2 * 3.0 + 0.1))
    assert made.worst_case.gpu_hours == 2 * 2
    assert "4 GPU-hours, 12.20 USD" in render(made)
    assert "costs are those of 2 replicas of each endpoint" in render(made)


def test_every_replica_costs_gpus_where_the_shape_has_no_price() -> None:
    deployment = DEPLOYMENT | {"start_timeout": 1800, "health_timeout": 900}
    made = plan({"usd_per_gpu_hour": 2.0, "endpoint": {"min_replicas": 3}}, deployment, timeout=900)

    assert made.worst_case.usd == pytest.approx(6.0)
    assert "up to 3 replicas" in render(made)


CONTAINER = {"type": "container", "model_id": "m", "image": "org/server:1", "start_timeout": 3000}


def test_a_shape_without_a_gpu_costs_too() -> None:
    made = plan({"resource_shape": "cpu.large"}, CONTAINER | {"gpus": 0}, prices={"cpu.large": 2.0}, timeout=300)

    assert "CPU only, shape cpu.large" in render(made)
    assert "no GPU time, 2.00 USD" in render(made)
    assert made.notes == ("pricing.usd_per_hour has no price of cpu.small",)


@pytest.mark.parametrize(
    ("shape", "gpus"),
    [
        ("gpu.1xh100", 1),
        ("GPU.8xH100-80gb", 8),
        ("gpu.16xa100", 16),
        ("cpu.small", 0),
        ("gpu.a10", None),
        ("gpu.x", None),
        ("", None),
        (None, None),
    ],
)
def test_the_name_of_a_shape_tells_its_gpus_where_it_has_that_form(shape: str | None, gpus: int | None) -> None:
    assert shape_gpus(shape) == gpus


@pytest.mark.parametrize(("gpus", "occupied"), [(0, 8), (2, 8), (16, 16)])
def test_a_whole_shape_is_occupied_by_each_replica(gpus: int, occupied: int) -> None:
    execution = {"resource_shape": "gpu.8xh100", "usd_per_gpu_hour": 1.0, "endpoint": {"max_replicas": 2}}
    made = plan(execution, CONTAINER | {"gpus": gpus}, timeout=300)
    state = TaskState(plan=made.tasks[0], admitted=True, started_at=0.0)

    assert made.worst_case.gpu_hours == 2 * occupied
    assert made.worst_case.usd == pytest.approx(2.0 * occupied)
    assert need(state).gpus == 2 * occupied
    assert state.gpu_seconds(60.0) == 60.0 * 2 * occupied
    assert f"{occupied} GPUs, " in render(made)
    assert f"{2 * occupied} GPU-hours" in render(made)


def test_gpu_time_that_no_name_tells_is_not_said_to_be_none() -> None:
    made = plan({"resource_shape": "gpu.a10", "usd_per_gpu_hour": 1.0}, CONTAINER | {"gpus": 0})

    assert made.worst_case.usd is None
    assert "GPUs not known, shape gpu.a10" in render(made)
    assert "GPU time not known, no price set" in render(made)
    assert "Note: the name of shape gpu.a10 does not tell its GPUs: GPU time is not known.\n" in render(made)


def test_a_note_that_a_problem_tells_again_is_left_out() -> None:
    made = plan({"node_group": None, "resource_shape": None})
    problem = "Lepton: execution.node_group is not set; the workspace has: a"

    shown = render(made, [("problem", "node group", problem)])

    assert shown.count("execution.node_group is not set") == 1
    assert "Note: execution.resource_shape is not set: " in shown
    assert "Note: execution.node_group is not set: " in render(made)


def test_jobs_alone_have_a_price_too() -> None:
    none = {"type": "none", "health_timeout": 1800}
    made = plan(None, none, {"url": "http://h/v1", "model_id": "m"}, {"cpu.small": 0.5}, timeout=1800 * 5)

    assert made.worst_case.usd == pytest.approx(0.5 * (3600 + 9000) / 3600)


def test_a_price_per_gpu_serves_where_the_shape_has_none() -> None:
    deployment = DEPLOYMENT | {"tensor_parallel_size": 2, "start_timeout": 1800, "health_timeout": 900}

    assert plan({"usd_per_gpu_hour": 2.0}, deployment=deployment, timeout=900).worst_case.usd == pytest.approx(4.0)
    assert plan(deployment=deployment).worst_case.usd is None


def test_the_dry_run_shows_the_request_and_verbose_all_of_it() -> None:
    short, long = render(plan()), render(plan(), verbose=True)

    assert '"no_traffic_timeout": 5700' in short
    assert '{"name": "NV_EVAL_INVOCATION"' in long
    assert "installs  lm-eval[api]>=0.4.13,<0.5, where the image lacks it" in short


def test_a_plan_survives_being_written_and_read() -> None:
    made = plan()

    assert msgspec.json.decode(msgspec.json.encode(made), type=Plan) == made


@pytest.mark.parametrize(
    ("path", "mount_path", "folder", "there"),
    [
        ("/", "/shared", "/shared/ws/abc", "/ws/abc"),
        ("/team", "/shared/", "/shared/ws/", "/team/ws"),
        ("/", "/a/b", "/a/b/c", "/c"),
    ],
)
def test_a_folder_of_a_job_has_its_place_on_the_volume(path: str, mount_path: str, folder: str, there: str) -> None:
    storage = msgspec.convert({"storage": {"path": path, "mount_path": mount_path}}, Lepton).storage

    assert on_volume(storage, folder) == there
