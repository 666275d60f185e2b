"""Deployments: one file per way to serve a model, each a pure function from typed keys to a ServerSpec."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

from launcher.config.deployment import DEPLOYMENTS, AnyDeployment, NoDeployment
from launcher.deployments.spec import Health, Loglikelihood, ServerSpec

__all__ = ["DEPLOYMENT_TYPES", "Health", "Loglikelihood", "ServerSpec", "build_server"]

DEPLOYMENT_TYPES: tuple[str, ...] = tuple(DEPLOYMENTS)


class _Builder(Protocol):
    """A module of this package: `server` takes the dataclass of its own type."""

    def server(self, config: AnyDeployment, served_name: str) -> ServerSpec: ...


def build_server(deployment: AnyDeployment, served_name: str) -> ServerSpec | None:
    """The server of one endpoint, or None where the endpoint exists already.

    Only the module of the deployment's type is imported. Raises ConfigError, naming the keys, where a key does not
    fit the server or contradicts another.
    """
    if isinstance(deployment, NoDeployment):
        return None
    module = cast("_Builder", import_module(f"launcher.deployments.{deployment.type}"))
    return module.server(deployment, served_name)
