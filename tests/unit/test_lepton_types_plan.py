"""Deployments that only Lepton has: what a plan sends for them, what it refuses, and what the dry run says."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from launcher.config.execution import Local
from launcher.deployments import sglang, vllm
from launcher.errors import ConfigError
from launcher.plan.build import build
from launcher.plan.model import Plan
from launcher.plan.render import render
from tests.unit.test_lepton_plan import config, endpoint_spec, first, plan, refusal

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
LLM: dict[str, Any] = {"type": "lepton_llm", "model_id": MODEL}
TEMPLATE: dict[str, Any] = {"type": "lepton_template", "model_id": "m", "template_id": "serve"}
PHOTON: dict[str, Any] = {"type": "lepton_photon", "model_id": "m", "photon_id": "mine-abc123"}
ALL = pytest.mark.parametrize("deployment", [LLM, TEMPLATE, PHOTON], ids=lambda deployment: deployment["type"])


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_an_llm_endpoint_runs_the_command_of_its_engines_own_deployment(engine: str) -> None:
    keys = {"model_id": MODEL, "tensor_parallel_size": 2, "max_model_len": 8192, "extra_args": "--seed 7"}
    made, engines_own = first(deployment=LLM | keys | {"engine": engine}), first(deployment=keys | {"type": engine})

    assert made.endpoint is not None and engines_own.endpoint is not None
    assert made.endpoint.name == "lepton-llm-arc-easy-0-abc12345"
    assert dataclasses.replace(made.endpoint.server, type=engine) == engines_own.endpoint.server
    assert made.endpoint.server.image == {"vllm": vllm.IMAGE, "sglang": sglang.IMAGE}[engine]


def test_everything_of_an_llm_endpoint_can_be_replaced() -> None:
    keys = {"image": "mine:1", "command": ["serve", "{model_id}", "--as", "{model}"], "port": 9000}

    container = endpoint_spec(deployment=LLM | keys)["container"]

    assert container == {
        "image": "mine:1",
        "command": ["serve", MODEL, "--as", MODEL],
        "ports": [{"container_port": 9000, "protocol": "TCP"}],
    }


def test_a_gated_model_gets_its_token_from_a_secret_of_the_workspace() -> None:
    envs = endpoint_spec(deployment=LLM | {"hf_token_secret": "my-hf"})["envs"]

    assert {"name": "HF_TOKEN", "value_from": {"secret_name_ref": "my-hf"}} in envs


@pytest.mark.parametrize("volume", [None, "node-nfs:models"])
def test_a_model_of_the_file_system_is_mounted_and_served_from_there(volume: str | None) -> None:
    keys = {"model_path": "/llama", "model_volume": volume}
    made = first(deployment=LLM | keys).endpoint
    assert made is not None and made.request is not None

    assert made.request["spec"]["mounts"][1] == {
        "path": "/llama",
        "from": volume or "node-nfs:lepton-shared-fs",
        "mount_path": "/mnt/model",
        "mount_options": {"read_only": True},
    }
    assert made.server.command[:3] == ("vllm", "serve", "/mnt/model")
    assert made.server.model_id == MODEL
    assert made.server.served_name == MODEL


def test_a_model_below_a_mount_of_the_persons_own_needs_no_other() -> None:
    mounts = {"endpoint": {"mounts": [{"path": "/", "mount_path": "/models"}]}}

    assert "/models/llama" in endpoint_spec(mounts, LLM | {"model_id": "/models/llama"})["container"]["command"]


def test_a_template_is_asked_for_only_what_the_config_does_not_say() -> None:
    assert endpoint_spec(deployment=TEMPLATE)["container"] == {}
    assert endpoint_spec(deployment=TEMPLATE | {"image": "mine:1", "port": 9000})["container"] == {
        "image": "mine:1",
        "ports": [{"container_port": 9000, "protocol": "TCP"}],
    }
    assert "resource_shape" not in endpoint_spec({"resource_shape": None}, TEMPLATE)["resource_requirement"]


def test_a_photon_has_no_container() -> None:
    spec = endpoint_spec(deployment=PHOTON | {"photon_namespace": "public", "envs": {"A": 1}})

    assert "container" not in spec
    assert (spec["photon_id"], spec["photon_namespace"]) == ("mine-abc123", "public")
    assert {"name": "A", "value": "1"} in spec["envs"]


@ALL
def test_all_else_is_the_same_for_every_type(deployment: dict[str, Any]) -> None:
    execution = {"image_pull_secrets": ["ngc"], "endpoint": {"max_replicas": 2}, "access": {"token_names": ["MINE"]}}
    keys = {"cache_path": "/cache"} if deployment is not LLM else {}
    reference = endpoint_spec(execution, {"type": "container", "model_id": "m", "image": "i:1", "cache_path": "/cache"})

    spec = endpoint_spec(execution, deployment | keys)

    for part in ("auto_scaler", "api_tokens", "image_pull_secrets", "health", "log", "resource_requirement"):
        assert spec[part] == reference[part], part
    assert spec["mounts"][0] | {"mount_path": "/cache"} == reference["mounts"][0]


@ALL
def test_only_lepton_can_make_them(deployment: dict[str, Any]) -> None:
    wanted = dataclasses.replace(config(deployment=deployment), execution=Local())

    with pytest.raises(ConfigError) as caught:
        build(wanted)

    (line,) = caught.value.problems
    kind = deployment["type"]
    assert line.startswith(f"deployment.type: {kind} runs only on Lepton; set execution=lepton, or for local use ")


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        {},
        LLM | {"engine": "sglang", "max_logprobs": 5},
        "deployment.max_logprobs: sglang cannot do this; put its own option in extra_args, or set engine: vllm",
    ),
    ({}, LLM | {"engine": "sglang", "expert_parallel": True}, "deployment.expert_parallel: sglang cannot do this"),
    (
        {},
        LLM | {"hf_token_secret": "a", "envs": {"HF_TOKEN": {"secret": "b"}}},
        "deployment.envs.HF_TOKEN: repeats deployment.hf_token_secret",
    ),
    ({}, LLM | {"model_volume": "node-nfs:x"}, "deployment.model_volume: says where model_path is; set model_path"),
    ({}, LLM | {"model_path": "llama"}, "deployment.model_path: 'llama' must start with /"),
    ({}, LLM | {"model_path": "/llama", "revision": "abc"}, "deployment.revision: is one of a repository"),
    (
        {"storage": {"volume": None}},
        LLM | {"model_path": "/llama"},
        "deployment.model_volume: is missing; execution.storage has no volume that model_path could be on",
    ),
    ({}, LLM | {"model_id": "/llama"}, "deployment.model_id: nothing is mounted at /llama; set deployment.model_path"),
    ({}, LLM | {"extra_args": "--port 1"}, "--port repeats deployment.port"),
    ({}, TEMPLATE | {"extra_args": ["--x"]}, "deployment.extra_args: lepton_template has no command of its own"),
    ({}, TEMPLATE | {"command": ["serve", "{port}"]}, "deployment.port: is missing; {port} is used"),
    ({}, TEMPLATE | {"envs": {"PORT": "{port}"}}, "deployment.port: is missing"),
    ({}, TEMPLATE | {"health_path": "up"}, "deployment.health_path: 'up' must start with /"),
    ({}, PHOTON | {"cache_path": "cache"}, "deployment.cache_path: 'cache' must start with /"),
    ({}, PHOTON | {"extra_args": ["--x"]}, "deployment.extra_args: lepton_photon has no command of its own"),
    ({}, TEMPLATE | {"loglikelihood": "no"}, "deployment.loglikelihood is no"),
]


@pytest.mark.parametrize(("execution", "deployment", "message"), REFUSED, ids=[message for *_, message in REFUSED])
def test_what_contradicts_itself_is_one_line(
    execution: dict[str, Any], deployment: dict[str, Any], message: str
) -> None:
    (line,) = refusal(execution, deployment)

    assert message in line


def test_a_photon_has_no_image_to_choose() -> None:
    with pytest.raises(Exception, match="unknown key of deployment lepton_photon"):
        config(deployment=PHOTON | {"image": "x"})


def test_the_dry_run_names_the_template_and_what_it_does_not_know_yet() -> None:
    made = plan({"resource_shape": None}, TEMPLATE | {"run": {"model": "org/m"}})
    text = render(made, [("note", "template", "template public/serve renders image x")])

    assert '   template  public/serve, rendered with {"model": "org/m"}\n' in text
    assert "   command   (the template's own)\n" in text
    assert "Note: the resource shape is the template's own; set execution.resource_shape to choose it" in text
    assert "its GPU time, which is not known.\n" in text
    assert ": GPUs not known, " in text
    assert "Worst case: GPU time not known.\n" in text
    assert "Found: template public/serve renders image x\n" in text
    assert "resource_shape is not set: a run needs" not in text


def test_the_dry_run_names_the_photon() -> None:
    assert "   photon    private/mine-abc123\n   command   (the photon's own)\n" in render(plan(deployment=PHOTON))


@ALL
def test_a_plan_of_it_survives_being_written_and_read(deployment: dict[str, Any]) -> None:
    made = plan(deployment=deployment | ({"run": {"a": [1, "b"]}} if deployment is TEMPLATE else {}))

    assert msgspec.json.decode(msgspec.json.encode(made), type=Plan) == made
