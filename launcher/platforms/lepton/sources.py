"""What a plan leaves to the workspace: templates that it renders, photons that only its legacy API runs.

A template renders to the spec of a job, as its clients post it, or to that of an endpoint; which one is the template's
affair, so both are read. Taken from it are the container (image, command, ports), variables, mounts, image pull
secrets, shared memory and, where the config names none, the resource shape. Whatever the plan says itself goes before
it: variables by their name, mounts by their place. All else of it is about jobs, or is the plan's to decide: where and
how often it runs, who may call it, when it ends.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import msgspec

from launcher.deployments.spec import ServerSpec, Template
from launcher.errors import PlatformError, nearest
from launcher.plan.model import Plan
from launcher.platforms.http import RequestFailed
from launcher.platforms.lepton.client import LeptonClient
from launcher.platforms.lepton.families import Legacy
from launcher.platforms.lepton.types import Container, Endpoint, Mount, Rendered, Resources

INSTEAD = "use deployment=lepton_llm (vLLM or SGLang) or deployment=container instead"
_LONGEST = 160
"""Characters of a command, or of what a service says, in a message."""
_NOT_SERVED = (404, 405, 501)
_PASSING = (408, 425, 429)


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the workspace says of how a plan's endpoints are made. `refusal`: why it cannot make them, in one line."""

    rendered: Rendered | None = None
    refusal: str | None = None


async def ask(client: LeptonClient, plan: Plan) -> Source:
    """What the workspace makes of the plan's template or photon. Raises RequestFailed if it cannot be asked."""
    server = next((task.endpoint.server for task in plan.tasks if task.endpoint is not None), None)
    if server is not None and server.photon is not None:
        family = await client.family()
        return Source() if isinstance(family, Legacy) else Source(refusal=_no_photons())
    if server is not None and server.template is not None:
        return await _ask_for_template(client, server, server.template)
    return Source()


async def settle(client: LeptonClient, plan: Plan, known: Source | None) -> Rendered | None:
    """What a template rendered to, asked for unless it is `known`. Raises PlatformError where nothing can be made."""
    source = known or await ask(client, plan)
    if source.refusal is not None:
        raise PlatformError(f"Lepton: {source.refusal}")
    return source.rendered


def _no_photons() -> str:
    return f"deployment lepton_photon needs the legacy /deployments API, which this workspace has left; {INSTEAD}"


async def _ask_for_template(client: LeptonClient, server: ServerSpec, template: Template) -> Source:
    try:
        listed = [found.id for found in await client.templates(template.visibility)]
        if not listed:
            return Source(refusal=f"the workspace has no {template.visibility} templates; {INSTEAD}")
        if template.id not in listed:
            has = nearest(template.id, listed) or f"; it has: {', '.join(sorted(listed))}"
            return Source(refusal=f"deployment.template_id: no {template.visibility} template {template.id}{has}")
        rendered = await client.render(template.visibility, template.id, template.run)
    except RequestFailed as error:
        refusal = _refusal(template, error)
        if refusal is None:
            raise
        return Source(refusal=refusal)
    if rendered.container.image is None and server.image is None:
        return Source(refusal=f"template {template} renders no container image; set deployment.image, or {INSTEAD}")
    return Source(rendered=rendered)


def _refusal(template: Template, error: RequestFailed) -> str | None:
    """What an error says about the template; None where it only says that nobody could be asked."""
    renders = error.path.endswith("/render")
    if error.status in _NOT_SERVED and not renders:
        return f"the workspace serves no templates; {INSTEAD}"
    if error.status is None or error.status >= 500 or error.status in _PASSING:
        return None
    why = shorten(error.message, _LONGEST) or f"it answers {error.status}"
    if renders:
        return f"template {template} cannot be rendered with deployment.run as it is: {why}"
    return f"the workspace does not show its templates ({why}); {INSTEAD}"


def merged(endpoint: Endpoint, rendered: Rendered) -> Endpoint:
    """An endpoint of the plan with what a template adds. Its own say goes before the template's."""
    made, spec = msgspec.structs.replace(endpoint.spec), rendered.spec
    own = made.container or Container()
    made.container = Container(
        image=own.image or rendered.container.image,
        command=own.command or rendered.container.command,
        ports=own.ports or rendered.container.ports,
    )
    resources = msgspec.structs.replace(made.resource_requirement or Resources())
    resources.resource_shape = resources.resource_shape or rendered.shape
    resources.shared_memory_size = resources.shared_memory_size or rendered.shared_memory
    made.resource_requirement = resources
    names = {variable.name for variable in made.envs or ()}
    made.envs = [*(v for v in spec.envs or () if v.name not in names), *(made.envs or ())]
    places = {_place(mount) for mount in made.mounts or ()}
    made.mounts = [*(m for m in spec.mounts or () if _place(m) not in places), *(made.mounts or ())]
    made.image_pull_secrets = list(dict.fromkeys([*(made.image_pull_secrets or ()), *(spec.image_pull_secrets or ())]))
    return msgspec.structs.replace(endpoint, spec=made)


def _place(mount: Mount) -> str:
    return posixpath.normpath(mount.mount_path or "")


def describe(template: Template, rendered: Rendered) -> str:
    """What a template rendered to, for the dry run. Values of variables are not shown: they may be secrets."""
    container, spec = rendered.container, rendered.spec
    ports = [str(port.container_port) for port in container.ports or () if port.container_port]
    parts = {
        "image": container.image,
        "command": shorten(shlex.join(container.command), _LONGEST) if container.command else None,
        "port": _joined(ports),
        "shape": rendered.shape,
        "variables": _joined(variable.name for variable in spec.envs or ()),
        "mounts": _joined(f"{mount.source}:{mount.path} at {mount.mount_path}" for mount in spec.mounts or ()),
        "image pull secrets": _joined(spec.image_pull_secrets or ()),
    }
    told = "; ".join(f"{name} {value}" for name, value in parts.items() if value)
    return f"template {template} renders {told or 'nothing of use'}"


def _joined(words: Iterable[Any]) -> str:
    return ", ".join(str(word) for word in words)
