"""Any image or command that serves the OpenAI routes on a port."""

from __future__ import annotations

from launcher.config.deployment import Container
from launcher.deployments.common import own_command, server_env
from launcher.deployments.spec import Health, ServerSpec
from launcher.errors import ConfigError

_NOTE = "deployment.loglikelihood is no; if the server returns prompt log-probabilities, set it to probe"


def server(config: Container, served_name: str) -> ServerSpec:
    """The server of one endpoint. Raises ConfigError if there is nothing to run."""
    if config.image is None and not config.command:
        raise ConfigError("deployment.image: container needs an image, a command, or both")
    if config.extra_args:
        raise ConfigError("deployment.extra_args: container has no command of its own; use deployment.command")
    if not config.health_path.startswith("/"):
        raise ConfigError(f"deployment.health_path: {config.health_path!r} must start with /")
    return ServerSpec(
        type=config.type,
        model_id=config.model_id,
        served_name=served_name,
        command=own_command(config, served_name),
        image=config.image,
        env=server_env(config),
        port=config.port or 8000,
        revision=config.revision,
        gpus=config.gpus,
        cpus=config.cpus,
        memory_gib=config.memory_gib,
        shared_memory_mib=config.shared_memory_mib,
        health=Health(path=config.health_path),
        endpoint_types=tuple(config.endpoint_types),
        loglikelihood=config.loglikelihood,
        loglikelihood_note=_NOTE if config.loglikelihood == "no" else "",
    )
