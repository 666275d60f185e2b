"""Any image or command that serves the OpenAI routes on a port."""

from __future__ import annotations

from launcher.config.deployment import Container
from launcher.deployments.common import described, own_command, refuse_extra_args, server_env
from launcher.deployments.spec import ServerSpec
from launcher.errors import ConfigError


def server(config: Container, served_name: str) -> ServerSpec:
    """The server of one endpoint. Raises ConfigError if there is nothing to run."""
    if config.image is None and not config.command:
        raise ConfigError("deployment.image: container needs an image, a command, or both")
    refuse_extra_args(config, "container", "use deployment.command")
    spec = ServerSpec(
        type=config.type,
        model_id=config.model_id,
        served_name=served_name,
        command=own_command(config, served_name),
        image=config.image,
        env=server_env(config),
        port=config.port or 8000,
        shared_memory_mib=config.shared_memory_mib,
    )
    return described(spec, config)
