"""One model of an endpoint, two shapes on the wire."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from launcher.platforms.lepton.families import Family, Legacy, New
from launcher.platforms.lepton.types import Endpoint, EndpointState, Job, JobState

LEGACY: dict[str, Any] = {
    "metadata": {"id": "vllm-llama", "name": "vllm-llama", "visibility": "private"},
    "spec": {
        "container": {
            "image": "vllm/vllm-openai:v0.11.0",
            "ports": [{"container_port": 8000, "protocol": "TCP"}],
            "command": ["/bin/bash", "-c", "vllm serve meta-llama/Llama-3.1-8B-Instruct --port 8000"],
        },
        "resource_requirement": {
            "resource_shape": "gpu.1xh100",
            "shared_memory_size": 16384,
            "affinity": {"allowed_dedicated_node_groups": ["h100-pool-ab12cd34"]},
            "min_replicas": 1,
            "max_replicas": 1,
        },
        "auto_scaler": {"scale_down": {"no_traffic_timeout": 3600}},
        "api_tokens": [{"value": "sk-endpoint-token-000001"}],
        "envs": [
            {"name": "HF_HOME", "value": "/root/.cache/huggingface"},
            {"name": "HF_TOKEN", "value_from": {"secret_name_ref": "MY_HF_TOKEN"}},
        ],
        "mounts": [
            {"path": "/hf-cache", "from": "node-nfs:lepton-shared-fs", "mount_path": "/root/.cache/huggingface"}
        ],
        "image_pull_secrets": ["ngc"],
        "health": {"liveness": {"initial_delay_seconds": 1800}},
        "log": {"enable_collection": True},
    },
}
"""What `lep endpoint create` sends in a workspace with the legacy family."""

NEW: dict[str, Any] = {
    "metadata": {"name": "vllm-llama", "lepton_metadata": {"visibility": "private"}},
    "spec": {
        "components": [
            {
                "name": "default",
                "image": "vllm/vllm-openai:v0.11.0",
                "command": LEGACY["spec"]["container"]["command"],
                "ports": [{"container_port": 8000, "protocol": "TCP"}],
                "envs": LEGACY["spec"]["envs"],
                "mounts": LEGACY["spec"]["mounts"],
                "resource_shape": "gpu.1xh100",
                "min_replicas": 1,
                "max_replicas": 1,
                "shared_memory_size": 16384,
                "autoscaling": {"scale_down": {"no_traffic_timeout": 3600}},
                "affinity": {"allowed_dedicated_node_groups": ["h100-pool-ab12cd34"]},
                "health": {"liveness": {"initial_delay_seconds": 1800}},
            }
        ],
        "api_tokens": [{"value": "sk-endpoint-token-000001"}],
        "log": {"enable_collection": True},
        "image_pull_secrets": ["ngc"],
    },
}
"""What the same command sends in a workspace with the new family."""


def endpoint(document: dict[str, Any] = LEGACY, **status: Any) -> Endpoint:
    return Legacy().decode(msgspec.json.encode(document | ({"status": status} if status else {})))


def test_the_same_endpoint_goes_out_in_the_shape_of_each_family() -> None:
    assert Legacy().encode(endpoint()) == LEGACY
    assert New().encode(endpoint()) == NEW


def test_what_comes_back_from_the_new_family_is_the_same_endpoint() -> None:
    document = NEW | {"status": {"state": "NotReady", "external_url": "https://x", "ready_replicas": 0}}

    found = New().decode(msgspec.json.encode(document))

    assert msgspec.to_builtins(found.spec) == LEGACY["spec"]
    assert (found.name, found.state, found.url) == ("vllm-llama", EndpointState.NOT_READY, "https://x")


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({"state": "Ready"}, EndpointState.READY),
        ({"state": "Not Ready"}, EndpointState.NOT_READY),
        ({"state": "NotReady"}, EndpointState.NOT_READY),
        ({"state": "Not Ready", "phase": "Stopped"}, EndpointState.STOPPED),
        ({"state": "Not Ready", "phase": "Stopping"}, EndpointState.STOPPING),
        ({"state": ""}, EndpointState.UNKNOWN),
        ({"state": "Hibernating"}, EndpointState.UNKNOWN),
    ],
)
def test_states_are_told_in_several_ways(status: dict[str, str], state: EndpointState) -> None:
    assert endpoint(**status).state is state


def test_an_unknown_state_of_a_job_is_no_error() -> None:
    job = msgspec.json.decode(b'{"metadata": {"id": "a-x1y2"}, "status": {"state": "Dreaming"}}', type=Job)

    assert job.state is JobState.UNKNOWN
    assert job.is_named("a")
    assert not job.is_named("b")


def merge(base: Any, patch: Any) -> Any:
    """RFC 7386, as both families do it."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(base) if isinstance(base, dict) else {}
    for name, value in patch.items():
        merged[name] = merge(merged.get(name), value)
    return merged


@pytest.mark.parametrize("family", [Legacy(), New()])
@pytest.mark.parametrize("replicas", [0, 3])
def test_scaling_changes_the_replicas_and_loses_nothing(family: Family, replicas: int) -> None:
    before = family.encode(endpoint())

    after = family.decode(msgspec.json.encode(merge(before, family.scaling(endpoint(), replicas))))

    resources = after.spec.resource_requirement
    assert resources is not None
    assert (resources.min_replicas, resources.max_replicas) == (replicas, replicas)
    assert resources.resource_shape == "gpu.1xh100"
    assert after.spec.envs == endpoint().spec.envs
    assert after.spec.api_tokens == endpoint().spec.api_tokens
    scale_down = after.spec.auto_scaler.scale_down if after.spec.auto_scaler else None
    assert scale_down is not None
    assert scale_down.no_traffic_timeout == (0 if replicas == 0 else 3600)


def test_the_mark_of_a_hidden_token_is_never_sent_as_one() -> None:
    shown = LEGACY | {"spec": LEGACY["spec"] | {"api_tokens": [{"value": "***"}, {"value": "sk-real"}]}}

    assert New().encode(endpoint(shown))["spec"]["api_tokens"] == [{"value": "sk-real"}]
