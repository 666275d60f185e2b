"""The parts of a plan that only DeepInfra has: the request that rents a model, resolved from the config.

It is the body of POST /deploy/llm and holds no secret: `${oc.env:NAME}` stands where the token of Hugging Face goes,
and `{expiry}` for the time that the name carries. Both are filled in when the request leaves.
"""

from __future__ import annotations

from typing import Any

from launcher.config.deployment import DeepInfra
from launcher.config.fields import Reference
from launcher.config.values import arguments
from launcher.deployments.spec import ServerSpec
from launcher.plan.model import EndpointPlan

API_KEY = "DEEPINFRA_API_KEY"
"""Variable of the key that calls the endpoints; the platform sets it where the key comes from elsewhere."""
EXPIRY = "{expiry}"
"""Stands for the minute, since 1970 and in base 36, from which `nv-eval gc` removes the deployment."""
MODEL = "deploy_id:{id}"
"""Name of the model in requests; the id is known when the deployment exists."""
SLACK = 1800.0
"""Seconds beyond the plan's own time-outs before a deployment is taken for forgotten."""


def endpoint_key(own: Reference | None) -> Reference:
    """The key that calls an endpoint: the person's own variable, else the account's."""
    return own or Reference(env=API_KEY)


def model_name(name: str) -> str:
    """The name that a deployment gets: that of the endpoint, and its expiry."""
    return f"{name}-x{EXPIRY}"


def endpoint(
    config: DeepInfra, server: ServerSpec, *, name: str, start_timeout: float, health_timeout: float, job_timeout: float
) -> EndpointPlan:
    """One endpoint with its request. Times are seconds."""
    most = config.max_instances or max(1, config.min_instances)
    return EndpointPlan(
        name=name,
        server=server,
        start_timeout=start_timeout,
        health_timeout=health_timeout,
        shape=f"{config.num_gpus}x{config.gpu}",
        replicas=most,
        lifetime=config.expires_after or start_timeout + health_timeout + job_timeout + SLACK,
        is_metered=True,
        request={
            "model_name": model_name(name),
            "gpu": config.gpu,
            "num_gpus": config.num_gpus,
            "max_batch_size": config.max_batch_size,
            **_weights(config),
            "settings": {"min_instances": config.min_instances, "max_instances": most},
            "extra_args": [*_length(config), *arguments("deployment.extra_args", config.extra_args)],
        },
    )


def notes(config: DeepInfra, key: Reference | None, *, key_travels: bool) -> list[str]:
    """What the person should know before money is spent. `key_travels`: jobs take the key to another service."""
    found = [
        "DeepInfra bills by the GPU-hour until a deployment is deleted and ends none by itself; should this launcher "
        "die, `nv-eval gc` removes what has expired"
    ]
    if config.weights == "hf" and config.revision is None:
        found.append("deployment.revision is not set, so the weights are those of the day; a commit pins them")
    if key is not None and key_travels:
        found.append(
            f"the value of {key.env} goes to the execution's workspace with each job, where its members can read it"
        )
    return found


def _weights(config: DeepInfra) -> dict[str, Any]:
    image = {"container_image": config.container_image} if config.container_image else {}
    if config.weights == "base_model":
        return {"base_model": config.model_id, **image}
    if config.weights == "image":
        return image
    token = str(Reference(env=config.hf_token_name)) if config.hf_token_name else None
    given = {"repo": config.model_id, "revision": config.revision, "token": token}
    return {"hf": {name: value for name, value in given.items() if value is not None}, **image}


def _length(config: DeepInfra) -> list[str]:
    return ["--max-model-len", str(config.max_model_len)] if config.max_model_len is not None else []
