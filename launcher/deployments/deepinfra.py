"""A dedicated model on DeepInfra: the service runs the server, and answers to the deployment's id."""

from __future__ import annotations

from launcher.config.deployment import DeepInfra
from launcher.deployments.common import refuse
from launcher.deployments.spec import Health, ServerSpec
from launcher.errors import ConfigError

_NO_LOGLIKELIHOOD = "deployment.loglikelihood is no; if the model returns prompt log-probabilities, set it to probe"


def server(config: DeepInfra, served_name: str) -> ServerSpec:
    """The server of one endpoint. Raises ConfigError for keys that contradict each other, or that it cannot have."""
    refuse(
        "a dedicated model on DeepInfra",
        envs=(config.envs, "give arguments in deployment.extra_args"),
        served_model_name=(config.served_model_name, "it answers to the id of its deployment"),
        cpus=(config.cpus, "leave it out"),
        memory_gib=(config.memory_gib, "leave it out"),
    )
    _refuse_contradictions(config)
    return ServerSpec(
        type=config.type,
        model_id=config.model_id,
        served_name=served_name,
        command=(),
        image=config.container_image,
        revision=config.revision,
        gpus=config.num_gpus,
        health=Health(path=None),
        loglikelihood=config.loglikelihood,
        loglikelihood_note=_NO_LOGLIKELIHOOD if config.loglikelihood == "no" else "",
        max_length=config.max_model_len,
        single_prompt=True,
        named_later=True,
    )


def _refuse_contradictions(config: DeepInfra) -> None:
    problems = []
    if config.weights != "hf" and (config.revision or config.hf_token_name):
        problems.append(f"deployment.weights: {config.weights} takes no revision and no hf_token_name; set it to hf")
    if config.weights == "image" and config.container_image is None:
        problems.append("deployment.container_image: is missing; deployment.weights is image")
    if config.max_instances is not None and config.max_instances < config.min_instances:
        problems.append(f"deployment.max_instances: {config.max_instances} is less than min_instances")
    if problems:
        raise ConfigError(problems)
