"""A prebuilt template of a Lepton workspace: the workspace says what is run, the config may replace parts of it."""

from __future__ import annotations

from launcher.config.deployment import LeptonTemplate
from launcher.deployments.common import described, own_command, refuse_extra_args, server_env
from launcher.deployments.spec import ServerSpec, Template
from launcher.errors import ConfigError


def server(config: LeptonTemplate, served_name: str) -> ServerSpec:
    """The server of one endpoint. Raises ConfigError where the port is needed and not known before the run."""
    refuse_extra_args(config, "lepton_template", "use deployment.run, or deployment.command")
    command, env = own_command(config, served_name), server_env(config)
    if config.port is None and any("{port}" in str(text) for text in (*command, *env.values())):
        raise ConfigError("deployment.port: is missing; {port} is used, and the template's own is not known yet")
    spec = ServerSpec(
        type=config.type,
        model_id=config.model_id,
        served_name=served_name,
        command=command,
        image=config.image,
        env=env,
        port=config.port or 8000,
        shared_memory_mib=config.shared_memory_mib,
        template=Template(
            id=config.template_id, visibility=config.template_visibility, run=config.run, port=config.port
        ),
    )
    return described(spec, config)
