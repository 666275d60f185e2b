"""What a template renders to and what the plan says become one endpoint; what cannot be made is told in one line."""

from __future__ import annotations

from typing import Any

import msgspec

from launcher.deployments.spec import Template
from launcher.plan.build import build
from launcher.platforms.lepton.requests import Filling
from launcher.platforms.lepton.sources import describe, merged
from launcher.platforms.lepton.types import Endpoint, Rendered
from launcher.platforms.secrets import Secrets
from tests.unit.test_lepton_plan import config

JOB = {
    "metadata": {"name": "serve"},
    "spec": {
        "container": {
            "image": "org/server:1",
            "command": ["serve", "--port", "9000"],
            "ports": [{"container_port": 9000, "expose_strategies": ["IngressProxy"]}],
        },
        "resource_shape": "gpu.8xh100",
        "shared_memory_size": 1024,
        "affinity": {"allowed_dedicated_node_groups": ["elsewhere"]},
        "envs": [
            {"name": "MODE", "value": "theirs"},
            {"name": "ONLY_THEIRS", "value": "1"},
            {"name": "KEY", "value_from": {"secret_name_ref": "their-key"}},
        ],
        "mounts": [
            {"path": "/a", "from": "node-nfs:x", "mount_path": "/data"},
            {"path": "/b", "from": "node-nfs:x", "mount_path": "/cache/"},
        ],
        "image_pull_secrets": ["theirs", "both"],
        "completions": 4,
        "ttl_seconds_after_finished": 600,
    },
}
"""As the service answers; with much that only jobs have."""
DEPLOYMENT = {"metadata": {}, "spec": {"container": {"image": "i"}, "resource_requirement": {"resource_shape": "s"}}}


def rendered(document: dict[str, Any]) -> Rendered:
    return msgspec.json.decode(msgspec.json.encode(document), type=Rendered)


def sent(document: dict[str, Any], **spec: Any) -> dict[str, Any]:
    own = msgspec.convert({"metadata": {"name": "mine"}, "spec": spec}, Endpoint)
    made: dict[str, Any] = msgspec.to_builtins(merged(own, rendered(document)))
    assert made["metadata"] == {"name": "mine"}
    found: dict[str, Any] = made["spec"]
    return found


def test_a_template_gives_what_the_plan_does_not_say() -> None:
    spec = sent(JOB, resource_requirement={"min_replicas": 2})

    assert spec["container"] == {
        "image": "org/server:1",
        "command": ["serve", "--port", "9000"],
        "ports": [{"container_port": 9000}],
    }
    assert spec["resource_requirement"] == {
        "resource_shape": "gpu.8xh100",
        "shared_memory_size": 1024,
        "min_replicas": 2,
    }
    assert [mount["mount_path"] for mount in spec["mounts"]] == ["/data", "/cache/"]
    assert set(spec) == {"container", "resource_requirement", "envs", "mounts", "image_pull_secrets"}


def test_what_the_plan_says_goes_before_the_template() -> None:
    spec = sent(
        JOB,
        container={"image": "mine:1", "ports": [{"container_port": 8000}]},
        resource_requirement={"resource_shape": "gpu.1xh100", "shared_memory_size": 5},
        envs=[{"name": "MODE", "value": "mine"}],
        mounts=[{"path": "/c", "from": "node-nfs:y", "mount_path": "/cache"}],
        image_pull_secrets=["both", "mine"],
    )

    assert spec["container"] == {
        "image": "mine:1",
        "command": ["serve", "--port", "9000"],
        "ports": [{"container_port": 8000}],
    }
    assert spec["resource_requirement"] == {"resource_shape": "gpu.1xh100", "shared_memory_size": 5}
    assert [(v["name"], v.get("value")) for v in spec["envs"]] == [
        ("ONLY_THEIRS", "1"),
        ("KEY", None),
        ("MODE", "mine"),
    ]
    assert [mount["path"] for mount in spec["mounts"]] == ["/a", "/c"]
    assert spec["image_pull_secrets"] == ["both", "mine", "theirs"]


def test_a_template_of_an_endpoint_is_read_as_well() -> None:
    assert sent(DEPLOYMENT)["resource_requirement"] == {"resource_shape": "s"}


def test_a_template_cannot_ask_for_a_value_of_this_machine() -> None:
    template = {"spec": {"container": {"image": "i"}, "envs": [{"name": "STEAL", "value": "${oc.env:MY_CANARY}"}]}}
    deployment = {"type": "lepton_template", "model_id": "m", "template_id": "t", "envs": {"OWN": {"env": "MY_CANARY"}}}
    endpoint = build(config(deployment=deployment)).tasks[0].endpoint
    assert endpoint is not None
    secrets = Secrets({"MY_CANARY": "canary-77e1", "NV_EVAL_ENDPOINT_TOKEN": "token-0001"})

    made = Filling(secrets, {"h100": "h100-id"}, rendered(template)).endpoint(endpoint)

    values = {variable.name: variable.value for variable in made.spec.envs or ()}
    assert (values["OWN"], values["STEAL"]) == ("canary-77e1", "${oc.env:MY_CANARY}")


def test_what_was_rendered_is_told_without_values() -> None:
    text = describe(Template(id="serve", visibility="private"), rendered(JOB))

    assert text == (
        "template private/serve renders image org/server:1; command serve --port 9000; port 9000; shape gpu.8xh100; "
        "variables MODE, ONLY_THEIRS, KEY; mounts node-nfs:x:/a at /data, node-nfs:x:/b at /cache/; "
        "image pull secrets theirs, both"
    )
    assert describe(Template(id="x", visibility="public"), Rendered()) == "template public/x renders nothing of use"
