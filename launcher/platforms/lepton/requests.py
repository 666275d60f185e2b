"""From the requests of a plan to those that leave: values where references stand, ids where names of groups stand."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from launcher.decoding import convert
from launcher.errors import PlatformError
from launcher.plan.lepton import ENDPOINT_TOKEN, JOB_SCRIPT
from launcher.plan.model import EndpointPlan, JobPlan
from launcher.platforms.lepton.credentials import Credentials
from launcher.platforms.lepton.sources import merged
from launcher.platforms.lepton.types import Affinity, ApiToken, Endpoint, EnvVar, Job, NodeGroup, Rendered
from launcher.platforms.secrets import Secrets


@dataclass
class Filling:
    """What is filled into the requests of one invocation. Values of references stay in memory."""

    secrets: Secrets
    groups: Mapping[str, str] = field(default_factory=dict)
    """Ids of node groups by their names, and by themselves."""
    rendered: Rendered | None = None
    """What the template of the endpoints became."""

    def endpoint(self, spec: EndpointPlan) -> Endpoint:
        """The endpoint to create. Raises PlatformError for a variable without a value or a group that is not there."""
        made = convert(spec.request, Endpoint)
        self._envs(made.spec.envs)
        for token in made.spec.api_tokens or ():
            self._token(token)
        if made.spec.resource_requirement is not None:
            self._affinity(made.spec.resource_requirement.affinity)
        # Only now: a reference in what somebody else's template says must not get a value of ours.
        return made if self.rendered is None else merged(made, self.rendered)

    def job(self, spec: JobPlan, script: str) -> Job:
        """The job to submit. Raises PlatformError as `endpoint` does."""
        made = convert(spec.request, Job)
        self._envs(made.spec.envs)
        self._affinity(made.spec.affinity)
        if made.spec.container is not None:
            command = made.spec.container.command or []
            made.spec.container.command = [script if word == JOB_SCRIPT else word for word in command]
        return made

    def _envs(self, envs: list[EnvVar] | None) -> None:
        for variable in envs or ():
            variable.value = self._value(variable.value)

    def _token(self, token: ApiToken) -> None:
        token.value = self._value(token.value)

    def _value(self, text: str | None) -> str | None:
        return self.secrets.fill(text) if text else text

    def _affinity(self, affinity: Affinity | None) -> None:
        if affinity is None or affinity.allowed_dedicated_node_groups is None:
            return
        affinity.allowed_dedicated_node_groups = [self._group(n) for n in affinity.allowed_dedicated_node_groups]

    def _group(self, name: str) -> str:
        found = self.groups.get(name)
        if found is None:
            raise PlatformError(f"Lepton: node group {name} does not exist; the workspace has: {listed(self.groups)}")
        return found


def ids_of(groups: Iterable[NodeGroup]) -> dict[str, str]:
    """Ids of node groups by their names, and by themselves."""
    known = list(groups)
    return {group.name: group.id for group in known} | {group.id: group.id for group in known}


def environment(credentials: Credentials, invocation: str, mode: str) -> dict[str, str]:
    """The launcher's environment with the token that calls the endpoints of this invocation, or of this sweep.

    It follows from the workspace's token and that id, so that a launcher that takes over knows it too, and
    nobody else can. In mode `workspace` it is the workspace's token itself.
    """
    own = credentials.token if mode == "workspace" else _derived(credentials.token, invocation)
    return {**os.environ, ENDPOINT_TOKEN: own}


def _derived(token: str, invocation: str) -> str:
    return "nve-" + hmac.new(token.encode(), f"endpoints of {invocation}".encode(), hashlib.sha256).hexdigest()[:40]


def listed(names: Iterable[str]) -> str:
    """Names for a message."""
    return ", ".join(sorted(names)) or "none"
