"""The plan of an endpoint that is wanted for itself."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from launcher.config.problems import Invalid
from launcher.config.schema import Config
from launcher.config.validate import validate
from launcher.errors import ConfigError
from launcher.orchestrator import budget
from launcher.plan.endpoint import build
from launcher.plan.model import Plan

NOW = 1_800_000_000.0
LEPTON = {"type": "lepton", "node_group": "pool", "resource_shape": "gpu.1xh100"}
SERVER = {"type": "container", "model_id": "m", "image": "i", "command": ["serve"], "start_timeout": 3600}


def config(**sections: Any) -> Config:
    return validate({"deployment": SERVER, "evaluation": {"tasks": [{"name": "no_such_task"}]}, **sections})


def plan(ttl: float = 600.0, **sections: Any) -> Plan:
    return build(config(**sections), ttl=ttl, now=NOW, invocation="a1b2c3d4")


def test_it_has_one_endpoint_and_nothing_of_what_the_config_evaluates() -> None:
    made = plan(evaluation={"tasks": [{"name": "no_such_task"}, {"name": "another"}]})
    (task,) = made.tasks

    assert made.expires == NOW + 600
    assert (task.key, task.harness, made.max_attempts) == ("endpoint", "none", 1)
    assert task.endpoint is not None and task.endpoint.lifetime == 600
    assert "no_such_task" not in str(made)


def test_it_survives_the_journal() -> None:
    made = plan(execution=LEPTON)

    assert msgspec.json.decode(msgspec.json.encode(made), type=Plan).expires == made.expires


def test_on_lepton_the_expiry_travels_in_the_request() -> None:
    (task,) = plan(execution=LEPTON).tasks
    assert task.endpoint is not None and task.endpoint.request is not None

    envs = task.endpoint.request["spec"]["envs"]

    assert {"name": "NV_EVAL_EXPIRES", "value": str(round(NOW + 600))} in envs
    assert {"name": "NV_EVAL_INVOCATION", "value": "a1b2c3d4"} in envs
    assert task.job.request is None


def test_on_deepinfra_its_lifetime_is_the_time_it_is_wanted_for() -> None:
    (task,) = plan(deployment={"type": "deepinfra", "model_id": "o/m", "gpu": "H100-80GB"}).tasks
    assert task.endpoint is not None and task.endpoint.request is not None

    assert task.endpoint.lifetime == 600
    assert "NV_EVAL_EXPIRES" not in str(task.endpoint.request)


def test_it_does_not_start_for_longer_than_it_is_wanted() -> None:
    made = plan(execution={"type": "local", "usd_per_gpu_hour": 2.0}, deployment={**SERVER, "gpus": 1})
    (task,) = made.tasks

    assert (task.target.start_timeout, task.job.timeout) == (600, 600)
    assert made.worst_case.gpu_hours == pytest.approx((1200 + task.target.health_timeout) / 3600, abs=0.001)


def test_limits_of_the_config_hold() -> None:
    sections = {"execution": {"type": "local", "usd_per_gpu_hour": 60.0}, "deployment": {**SERVER, "gpus": 1}}

    assert budget.beyond(plan(limits={"max_cost_usd": 1.0}, **sections)) != []
    assert budget.beyond(plan(limits={"max_cost_usd": 100.0}, **sections)) == []


@pytest.mark.parametrize(
    ("sections", "route"),
    [
        ({}, "completions"),
        ({"deployment": {**SERVER, "endpoint_types": ["chat"]}}, "chat"),
        ({"evaluation": {"endpoint_type": "chat", "tasks": []}}, "chat"),
        ({"target": {"api_endpoint": {"type": "chat"}}}, "chat"),
    ],
)
def test_the_route_that_is_asked_is_one_that_the_server_has(sections: dict[str, Any], route: str) -> None:
    assert plan(**sections).tasks[0].target.endpoint_type == route


def test_only_messages_that_are_not_about_scores_are_sent() -> None:
    assert plan().notify_config().events == ["budget", "leftover"]


def test_a_deployment_without_a_server_is_refused() -> None:
    existing = {"deployment": {"type": "none"}, "target": {"api_endpoint": {"url": "http://h", "model_id": "m"}}}

    with pytest.raises(ConfigError, match="none makes no endpoint"):
        plan(**existing)


def test_no_config_can_name_the_harness_that_evaluates_nothing() -> None:
    with pytest.raises(Invalid, match=r"evaluation\.harness"):
        config(evaluation={"harness": "none", "tasks": [{"name": "t"}]})
