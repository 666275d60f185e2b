"""A dedicated model on DeepInfra, as the plan has it: the very request, the name it answers to, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from launcher.config.fields import Reference
from launcher.config.problems import Invalid
from launcher.config.validate import validate
from launcher.errors import ConfigError
from launcher.plan.addressing import addressed
from launcher.plan.attempts import attempt
from launcher.plan.build import build
from launcher.plan.document import job_document
from launcher.plan.model import Plan
from launcher.plan.render import render

ID = "abcdef12"
REPO = "meta-llama/Llama-2-7b-chat-hf"


def plan(execution: dict[str, Any] | None = None, evaluation: dict[str, Any] | None = None, **deployment: Any) -> Plan:
    config = {
        "execution": execution or {"type": "local"},
        "deployment": {"type": "deepinfra", "model_id": REPO, "gpu": "A100-80GB", **deployment},
        "evaluation": {"tasks": [{"name": "hellaswag_100"}], **(evaluation or {})},
    }
    return build(validate(config), ID)


def request(**deployment: Any) -> dict[str, Any]:
    endpoint = plan(**deployment).tasks[0].endpoint
    assert endpoint is not None and endpoint.request is not None
    return endpoint.request


def test_the_request_has_every_key_and_no_secret() -> None:
    assert request(
        num_gpus=2,
        max_batch_size=64,
        revision="c1b0db9",
        hf_token_name="MY_HF",
        container_image="vllm/vllm-openai:v0.8.4",
        min_instances=2,
        max_instances=3,
        max_model_len=4096,
        extra_args="--seed 7",
    ) == {
        "model_name": "nv-eval-hellaswag-100-0-abcdef12-x{expiry}",
        "gpu": "A100-80GB",
        "num_gpus": 2,
        "max_batch_size": 64,
        "hf": {"repo": REPO, "revision": "c1b0db9", "token": "${oc.env:MY_HF}"},
        "container_image": "vllm/vllm-openai:v0.8.4",
        "settings": {"min_instances": 2, "max_instances": 3},
        "extra_args": ["--max-model-len", "4096", "--seed", "7"],
    }


@pytest.mark.parametrize(
    ("keys", "source"),
    [
        ({}, {"hf": {"repo": REPO}}),
        ({"weights": "base_model"}, {"base_model": REPO}),
        ({"weights": "image", "container_image": "own/server:1"}, {"container_image": "own/server:1"}),
    ],
)
def test_weights_come_from_one_source(keys: dict[str, Any], source: dict[str, Any]) -> None:
    made = request(**keys)

    assert {name: made[name] for name in ("hf", "base_model", "container_image") if name in made} == source


def test_without_a_least_number_of_instances_one_can_still_be_made() -> None:
    assert request(min_instances=0)["settings"] == {"min_instances": 0, "max_instances": 1}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"envs": {"A": "b"}}, "deployment.envs: a dedicated model on DeepInfra cannot do this"),
        ({"served_model_name": "m"}, "deployment.served_model_name: a dedicated model on DeepInfra cannot do this"),
        ({"weights": "image"}, "deployment.container_image: is missing; deployment.weights is image"),
        ({"weights": "base_model", "revision": "main"}, "deployment.weights: base_model takes no revision"),
        ({"min_instances": 3, "max_instances": 2}, "deployment.max_instances: 2 is less than min_instances"),
        ({"gpu": "H100"}, "deployment.gpu"),
        ({"num_gpus": 9}, "deployment.num_gpus"),
        ({"max_batch_size": 0}, "deployment.max_batch_size"),
    ],
)
def test_what_the_service_cannot_do_is_refused_with_its_key(keys: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, Invalid)) as refused:
        plan(**keys)

    assert said in str(refused.value)


def test_the_key_of_the_account_calls_the_endpoint_unless_another_is_named() -> None:
    config = {
        "deployment": {"type": "deepinfra", "model_id": REPO},
        "target": {"api_endpoint": {"api_key_name": "TEAM_KEY"}},
        "evaluation": {"tasks": [{"name": "hellaswag_100"}]},
    }

    assert plan().tasks[0].target.api_key == Reference(env="DEEPINFRA_API_KEY")
    assert build(validate(config), ID).tasks[0].target.api_key == Reference(env="TEAM_KEY")


def test_the_model_gets_its_name_when_the_deployment_exists() -> None:
    task = plan().tasks[0]
    assert task.target.model == "deploy_id:{id}"

    named = addressed(task, "deploy_id:fkj843")
    document = job_document(ID, named, url="http://127.0.0.1:9", output_dir="/o", work_dir="/w")

    assert (document["target"]["model"], document["target"]["lists_model"]) == ("deploy_id:fkj843", False)
    assert json.loads(document["run"]["files"]["run.json"])["model_args"]["model"] == "deploy_id:fkj843"
    assert "{id}" not in json.dumps(document)
    assert addressed(task, None) is task


def test_answers_are_kept_for_whatever_deployment_gives_them() -> None:
    first, second = (json.loads(p.tasks[0].job.run.files["run.json"])["cache"] for p in (plan(), plan(num_gpus=2)))

    assert first == second


def test_lm_eval_sends_one_prompt_as_text_in_each_request() -> None:
    arguments = json.loads(plan().tasks[0].job.run.files["run.json"])["model_args"]

    assert (arguments["tokenized_requests"], arguments["batch_size"]) == (False, 1)
    with pytest.raises(ConfigError, match=r"evaluation\.batch_size: 8 prompts in one request are refused there"):
        plan(evaluation={"batch_size": 8})


def test_a_further_attempt_rents_under_another_name() -> None:
    task = attempt(plan().tasks[0], 2, ID)

    assert task.endpoint is not None and task.endpoint.request is not None
    assert task.endpoint.name == "nv-eval-hellaswag-100-0r2-abcdef12"
    assert task.endpoint.request["model_name"] == "nv-eval-hellaswag-100-0r2-abcdef12-x{expiry}"


def test_the_expiry_lies_beyond_every_time_out_unless_it_is_set() -> None:
    endpoint = plan(evaluation={"timeout": 600}, start_timeout=100, health_timeout=50).tasks[0].endpoint
    own = plan(expires_after=900).tasks[0].endpoint

    assert endpoint is not None and endpoint.lifetime == 100 + 50 + 600 + 1800
    assert own is not None and own.lifetime == 900


def test_the_dry_run_tells_request_expiry_and_that_nothing_ends_it_by_itself() -> None:
    text = render(plan(hf_token_name="MY_HF"))

    assert "deploys" not in text and "the service says so within" in text
    assert '"token": "${oc.env:MY_HF}"' in text
    assert "expires   " in text and "after its creation, by its name" in text
    assert "ends none by itself" in text and "nv-eval gc" in text


def test_jobs_on_lepton_take_the_key_along_and_the_plan_says_so() -> None:
    made = plan(execution={"type": "lepton", "node_group": "g"})

    job = made.tasks[0].job.request
    assert job is not None
    assert {"name": "NV_EVAL_API_KEY", "value": "${oc.env:DEEPINFRA_API_KEY}"} in job["spec"]["envs"]
    assert any("the value of DEEPINFRA_API_KEY goes to the execution's workspace" in note for note in made.notes)
