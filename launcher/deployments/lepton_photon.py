"""A custom model of Lepton: a photon, which brings its own image and command."""

from __future__ import annotations

from launcher.config.deployment import LeptonPhoton
from launcher.deployments.common import described, refuse_extra_args, server_env
from launcher.deployments.spec import Photon, ServerSpec

PORT = 8080
"""Photons listen there; nothing can change it."""


def server(config: LeptonPhoton, served_name: str) -> ServerSpec:
    """The server of one endpoint. Raises ConfigError for arguments, which a photon does not take."""
    refuse_extra_args(config, "lepton_photon", "use deployment.envs")
    spec = ServerSpec(
        type=config.type,
        model_id=config.model_id,
        served_name=served_name,
        command=(),
        env=server_env(config),
        port=PORT,
        shared_memory_mib=config.shared_memory_mib,
        photon=Photon(id=config.photon_id, namespace=config.photon_namespace),
    )
    return described(spec, config)
