"""The plan of an endpoint that somebody wants for itself: that of a run with one task that evaluates nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

from launcher.config.deployment import LONGEST_LIFE, NoDeployment
from launcher.config.evaluation import EndpointType, Evaluation, Settings, Task
from launcher.config.schema import Config, Export
from launcher.errors import ConfigError
from launcher.plan import build as plans
from launcher.plan.lepton import EXPIRES
from launcher.plan.model import EndpointPlan, Plan, TaskPlan

TASK = "endpoint"
"""Key of the one task: its folder holds the server's log."""
_EVENTS = ("budget", "leftover")
"""What is worth a message of an endpoint that has no scores."""


def refuse_ttl(ttl: float) -> None:
    """Raises ConfigError for a time that no endpoint is kept for, in seconds."""
    if not 0 < ttl <= LONGEST_LIFE:
        raise ConfigError(
            f"ttl: must be above 0 and at most {LONGEST_LIFE / 86_400:g} d: what is kept longer is forgotten"
        )


def build(config: Config, *, ttl: float, now: float, invocation: str | None = None) -> Plan:
    """The plan of one endpoint that is wanted for `ttl` seconds from `now`, in seconds since 1970.

    What the config evaluates is left out of account. Raises ConfigError as the plan of a run does.
    """
    if isinstance(config.deployment, NoDeployment):
        raise ConfigError("deployment.type: none makes no endpoint; choose what serves the model, as deployment=vllm")
    plan = plans.build(_alone(config, ttl), invocation)
    (task,) = plan.tasks
    expires = now + ttl
    return dataclasses.replace(
        plan,
        tasks=(_kept(task, ttl, expires),),
        expires=expires,
        start_jobs="as_ready",
        config={**plan.config, "evaluation": dataclasses.asdict(Evaluation())},
    )


def _alone(config: Config, ttl: float) -> Config:
    """The config with nothing in it but the endpoint, which does not start for longer than it is wanted."""
    assert not isinstance(config.deployment, NoDeployment)
    start = min(config.deployment.start_timeout, ttl)
    notify = config.notify
    return dataclasses.replace(
        config,
        deployment=dataclasses.replace(config.deployment, start_timeout=start),
        evaluation=Evaluation(
            harness="none",  # type: ignore[arg-type]  # no config can name it
            timeout=ttl,
            endpoint_type=_endpoint_type(config),
            tasks=[Task(name=TASK)],
        ),
        auxiliary={},
        export=Export(),
        limits=dataclasses.replace(config.limits, max_attempts=1),
        notify=dataclasses.replace(notify, events=[event for event in notify.events if event in _EVENTS]),
    )


def _endpoint_type(config: Config) -> EndpointType | None:
    """The route that shows whether it answers; None: the usual one."""
    served: list[EndpointType] = getattr(config.deployment, "endpoint_types", [])
    only_chat = bool(served) and "completions" not in served
    return config.evaluation.endpoint_type or ("chat" if only_chat else None)


def _kept(task: TaskPlan, ttl: float, expires: float) -> TaskPlan:
    assert task.endpoint is not None
    return dataclasses.replace(
        task,
        settings=Settings(),
        endpoint=_expiring(task.endpoint, ttl, expires),
        job=dataclasses.replace(task.job, shape=None, image=None, mounts=(), packages=(), request=None),
    )


def _expiring(endpoint: EndpointPlan, ttl: float, expires: float) -> EndpointPlan:
    request = endpoint.request
    if request is not None and "spec" in request:
        request = _marked(request, expires)
    return dataclasses.replace(endpoint, lifetime=ttl, request=request)


def _marked(request: dict[str, Any], expires: float) -> dict[str, Any]:
    """A request of Lepton with the time until when its endpoint is wanted, which `nv-eval gc` honours."""
    spec = request["spec"]
    return {**request, "spec": {**spec, "envs": [*spec["envs"], {"name": EXPIRES, "value": str(round(expires))}]}}
