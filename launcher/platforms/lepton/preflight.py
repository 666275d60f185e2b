"""Everything that would keep a plan from running in a workspace, found by reading alone, all of it at once."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from launcher.config.execution import Lepton
from launcher.config.fields import Reference
from launcher.errors import nearest
from launcher.plan.lepton import ENDPOINT_TOKEN
from launcher.plan.model import Plan
from launcher.plan.render import duration
from launcher.platforms.base import Check, CheckState
from launcher.platforms.http import RequestFailed
from launcher.platforms.lepton import sources
from launcher.platforms.lepton.client import LeptonClient
from launcher.platforms.lepton.credentials import Credentials
from launcher.platforms.lepton.requests import ids_of, listed
from launcher.platforms.lepton.sources import Source
from launcher.platforms.lepton.types import (
    Amounts,
    Endpoint,
    EndpointSpec,
    NodeGroup,
    Quota,
    Resources,
    Shape,
    Token,
    Workspace,
)
from launcher.platforms.secrets import references, unresolvable

T = TypeVar("T")

LEAST_LIFE = 1800.0
"""Seconds that a token must still be valid: with an expired one nothing can be deleted."""


@dataclass(frozen=True, kw_only=True)
class World:
    """What the workspace answered; None where it refused to say, with the reason in `unknown`."""

    workspace: Workspace | None = None
    groups: list[NodeGroup] | None = None
    tokens: list[Token] | None = None
    endpoints: list[Endpoint] | None = None
    secrets: list[str] | None = None
    pull_secrets: list[str] | None = None
    shapes: Mapping[str, list[Shape]] = field(default_factory=dict)
    """What each node group offers, by the group's id and `/deployment` or `/job`."""
    source: Source | None = None
    """What it makes of the plan's template or photon."""
    spec: EndpointSpec = field(default_factory=EndpointSpec)
    """What all endpoints of the plan have in common, with what a template adds; empty without endpoints."""
    unknown: tuple[tuple[str, str], ...] = ()

    @property
    def shape(self) -> str | None:
        """The resource shape of the endpoints."""
        return (self.spec.resource_requirement or Resources()).resource_shape


async def look(client: LeptonClient, plan: Plan, execution: Lepton) -> World:
    """Ask for everything that the checks need. Raises RequestFailed only if the workspace does not let us in."""
    workspace = await client.workspace()
    source, not_asked = await _ask_source(client, plan)
    spec = _endpoint_spec(plan, source)
    questions: dict[str, Awaitable[Any]] = {
        "groups": client.node_groups(),
        "tokens": client.tokens(),
        "endpoints": client.endpoints(),
    }
    if _secret_names(plan, spec):
        questions["secrets"] = client.secrets()
    if _pull_secret_names(execution, spec):
        questions["pull_secrets"] = client.pull_secrets()
    answers = await asyncio.gather(*questions.values(), return_exceptions=True)
    known, unknown = _sorted(dict(zip(questions, answers, strict=True)))
    shapes, no_shapes = await _shapes(client, plan, execution, known.get("groups") or [])
    return World(
        workspace=workspace,
        **known,
        shapes=shapes,
        source=source,
        spec=spec,
        unknown=(*not_asked, *unknown, *no_shapes),
    )


async def _ask_source(client: LeptonClient, plan: Plan) -> tuple[Source | None, list[tuple[str, str]]]:
    try:
        return await sources.ask(client, plan), []
    except RequestFailed as error:
        return None, [("template", str(error))]


def _endpoint_spec(plan: Plan, source: Source | None) -> EndpointSpec:
    request = next((task.endpoint.request for task in plan.tasks if task.endpoint is not None), None)
    made = Endpoint() if request is None else msgspec.convert(request, Endpoint)
    rendered = source.rendered if source is not None else None
    return (made if rendered is None else sources.merged(made, rendered)).spec


def _secret_names(plan: Plan, spec: EndpointSpec) -> list[str]:
    """Secrets of the workspace that endpoints and jobs refer to."""
    of_plan = {reference.secret for reference in references(plan)}
    of_template = {variable.value_from.secret_name_ref for variable in spec.envs or () if variable.value_from}
    return sorted(name for name in of_plan | of_template if name is not None)


def _pull_secret_names(execution: Lepton, spec: EndpointSpec) -> list[str]:
    return list(dict.fromkeys([*execution.image_pull_secrets, *(spec.image_pull_secrets or ())]))


def _sorted(answers: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What was answered, and why the rest was not. Raises what is no refusal."""
    known: dict[str, Any] = {}
    unknown: list[tuple[str, str]] = []
    for name, answer in answers.items():
        if isinstance(answer, RequestFailed):
            unknown.append((name.replace("_", " "), str(answer)))
        elif isinstance(answer, BaseException):
            raise answer
        else:
            known[name] = answer
    return known, unknown


async def _shapes(
    client: LeptonClient, plan: Plan, execution: Lepton, groups: list[NodeGroup]
) -> tuple[dict[str, list[Shape]], list[tuple[str, str]]]:
    ids = ids_of(groups)
    endpoint_group, job_group = ids.get(execution.node_group or ""), ids.get(_job_group(execution) or "")
    questions: dict[str, Awaitable[Any]] = {}
    if endpoint_group and any(task.endpoint for task in plan.tasks):
        questions[f"{endpoint_group}/deployment"] = client.shapes(endpoint_group, "deployment")
    if job_group:
        questions[f"{job_group}/job"] = client.shapes(job_group, "job")
    answers = await asyncio.gather(*questions.values(), return_exceptions=True)
    known, unknown = _sorted(dict(zip(questions, answers, strict=True)))
    return known, [(f"shapes of {name}", why) for name, why in unknown]


def _job_group(execution: Lepton) -> str | None:
    return execution.job_node_group or execution.node_group


def refused(error: RequestFailed, credentials: Credentials) -> Check:
    """The one check of a workspace that does not let us in."""
    reasons = {
        401: f"the token is not valid (any more) for workspace {credentials.workspace}; make one in the dashboard and "
        f"log in again: nv-eval login lepton -c {credentials.workspace}:TOKEN",
        403: f"the token may not use workspace {credentials.workspace}; log in with one of that workspace",
        404: f"there is no workspace {credentials.workspace} at {credentials.url}; check LEPTON_WORKSPACE_ID and _URL",
    }
    known = reasons.get(error.status or 0)
    return _problem("workspace", known) if known else Check("workspace", CheckState.PROBLEM, str(error))


def check(plan: Plan, execution: Lepton, world: World, token: str, environment: Mapping[str, str]) -> list[Check]:
    """All checks, each result once."""
    found = [
        *_workspace(world),
        *_token(world, token, longest(plan)),
        *_source(plan, world),
        *_node_groups(plan, execution, world),
        *_shape_checks(plan, execution, world),
        *_quota(plan, execution, world),
        *_variables(plan, environment),
        *_secrets(plan, execution, world),
        *_volumes(plan, execution, world),
        *_images(plan),
        *_names(plan, world),
        *(Check(name, CheckState.SKIPPED, why) for name, why in world.unknown),
    ]
    return list(dict.fromkeys(found))


def account(world: World, token: str) -> list[Check]:
    """What can be said without a plan: the workspace's state and the token's end."""
    return [*_workspace(world), *_token(world, token, 0.0)]


def _ok(name: str, message: str = "") -> Check:
    return Check(name, CheckState.OK, message)


def _problem(name: str, message: str) -> Check:
    return Check(name, CheckState.PROBLEM, f"Lepton: {message}")


def _workspace(world: World) -> Iterator[Check]:
    state = (world.workspace.workspace_state if world.workspace else None) or "normal"
    if state == "normal":
        yield _ok("workspace")
    else:
        yield _problem("workspace", f"the workspace is {state}; see its billing and settings in the dashboard")


def longest(plan: Plan) -> float:
    """Seconds that a plan takes if every time-out runs to its end, one wave of endpoints after the other."""
    tasks = [task.target.start_timeout + task.target.health_timeout + task.job.timeout for task in plan.tasks]
    waves = math.ceil(len(tasks) / max(1, _endpoints_at_once(plan) or len(tasks)))
    seconds = waves * max(tasks, default=0.0)
    return seconds if plan.max_duration is None else min(seconds, plan.max_duration)


def _token(world: World, token: str, needed: float) -> Iterator[Check]:
    own = next((entry for entry in world.tokens or () if entry.is_of(token)), None)
    if own is None or not own.expires_at:
        return
    left = own.expires_at / 1000 - time.time()
    if left < LEAST_LIFE:
        when = f"expires in {duration(left)}" if left > 0 else "has expired"
        yield _problem("token", f"the token {when}; make one that lasts in the dashboard and log in again")
    elif left < needed:
        text = f"Lepton: the token expires in {duration(left)}, and the run may take {duration(needed)}"
        yield Check("token", CheckState.NOTE, f"{text}; with an expired one nothing can be deleted: make a longer one")
    else:
        yield _ok("token", f"valid for {duration(left)}")


def _source(plan: Plan, world: World) -> Iterator[Check]:
    server = next((task.endpoint.server for task in plan.tasks if task.endpoint is not None), None)
    if world.source is None or server is None:
        return
    if world.source.refusal is not None:
        yield _problem("template" if server.template else "photon", world.source.refusal)
    elif server.template is not None and world.source.rendered is not None:
        yield Check("template", CheckState.NOTE, sources.describe(server.template, world.source.rendered))
    elif server.photon is not None:
        yield _ok("photon", "the workspace speaks the legacy API; whether the photon exists was not asked")


def _node_groups(plan: Plan, execution: Lepton, world: World) -> Iterator[Check]:
    if world.groups is None:
        return
    names = [group.name for group in world.groups]
    wanted = {"execution.job_node_group": execution.job_node_group}
    if any(task.endpoint for task in plan.tasks):
        wanted["execution.node_group"] = execution.node_group
        if execution.node_group is None:
            yield _problem("node group", f"execution.node_group is not set; the workspace has: {listed(names)}")
    for key, name in wanted.items():
        if name is not None and name not in ids_of(world.groups):
            has = nearest(name, names) or f"; the workspace has: {listed(names)}"
            yield _problem("node group", f"{key}: no node group {name}{has}")
        elif name is not None:
            yield _ok("node group")


def _shape_checks(plan: Plan, execution: Lepton, world: World) -> Iterator[Check]:
    for key, name, shapes in _wanted_shapes(plan, execution, world):
        if shapes is None:
            continue
        offered = [shape.id for shape in shapes]
        if name is None:
            yield _problem("shape", f"{key} is not set; the node group offers: {listed(offered)}")
        elif name.lower() not in (shape.lower() for shape in offered):
            yield _problem("shape", f"{key}: the node group has no shape {name}; it offers: {listed(offered)}")
        else:
            yield _ok("shape")


def _wanted_shapes(plan: Plan, execution: Lepton, world: World) -> Iterator[tuple[str, str | None, list[Shape] | None]]:
    ids = ids_of(world.groups or [])
    template = next((task.endpoint.server.template for task in plan.tasks if task.endpoint is not None), None)
    may_bring_one = template is not None and (world.source is None or world.source.rendered is None)
    if any(task.endpoint for task in plan.tasks) and not (world.shape is None and may_bring_one):
        group = ids.get(execution.node_group or "")
        yield "execution.resource_shape", world.shape, world.shapes.get(f"{group}/deployment")
    group = ids.get(_job_group(execution) or "")
    yield "execution.job_resource_shape", execution.job_resource_shape, world.shapes.get(f"{group}/job")


def _quota(plan: Plan, execution: Lepton, world: World) -> Iterator[Check]:
    """All endpoints that may be alive together must fit into what is left of the workspace's quota."""
    quota = (world.workspace.resource_quota if world.workspace else None) or Quota()
    shape = next((s for s in _endpoint_shapes(execution, world) if s.id == (world.shape or "").lower()), None)
    replicas = _endpoints_at_once(plan) * execution.endpoint.min_replicas
    if shape is None or not replicas:
        return
    needs = {"accelerator_num": shape.spec.accelerator_num, "cpu": shape.spec.cpu, "memory": shape.spec.memory_in_mb}
    words = {"accelerator_num": "GPUs", "cpu": "CPU cores", "memory": "MB of memory"}
    short = [
        f"{each * replicas:g} {words[name]} and {left:g} are left"
        for name, each in needs.items()
        if each and (left := _left(quota, name)) is not None and each * replicas > left
    ]
    if short:
        yield _problem(
            "quota",
            f"{replicas} x {shape.id} need {', '.join(short)}; set limits.max_parallel_endpoints, or ask for more",
        )
    else:
        yield _ok("quota")


def _endpoint_shapes(execution: Lepton, world: World) -> list[Shape]:
    group = ids_of(world.groups or []).get(execution.node_group or "")
    return list(world.shapes.get(f"{group}/deployment") or ())


def _endpoints_at_once(plan: Plan) -> int:
    endpoints = [task.endpoint for task in plan.tasks if task.endpoint is not None]
    gpus = max((endpoint.server.gpus for endpoint in endpoints), default=0)
    bounds = [len(endpoints)]
    bounds += [plan.max_parallel_endpoints] if plan.max_parallel_endpoints else []
    bounds += [max(1, plan.max_gpus // gpus)] if plan.max_gpus and gpus else []
    return min(bounds)


def _left(quota: Quota, name: str) -> float | None:
    """What is left of one resource; None where the workspace sets no limit."""
    limit, used = getattr(quota.limit or Amounts(), name), getattr(quota.used or Amounts(), name)
    return None if not limit else float(limit - (used or 0))


def _variables(plan: Plan, environment: Mapping[str, str]) -> Iterator[Check]:
    named = {Reference(env=name) for name in _token_names(plan)}
    wanted = {r for r in {*references(plan), *named} if r.secret is None and r.env != ENDPOINT_TOKEN}
    for reference in sorted(wanted, key=str):
        why = unresolvable(reference, environment)
        yield _problem("variables", why) if why else _ok("variables")


def _token_names(plan: Plan) -> list[str]:
    access: dict[str, Any] = plan.config["execution"].get("access") or {}
    return list(access.get("token_names") or ())


def _secrets(plan: Plan, execution: Lepton, world: World) -> Iterator[Check]:
    for kind, names, there in (
        ("secret", _secret_names(plan, world.spec), world.secrets),
        ("image pull secret", _pull_secret_names(execution, world.spec), world.pull_secrets),
    ):
        if there is None or not names:
            continue
        missing = [name for name in names if name not in there]
        for name in missing:
            has = nearest(name, there) or f"; it has: {listed(there)}"
            yield _problem(f"{kind}s", f"the workspace has no {kind} {name}{has}")
        if not missing:
            yield _ok(f"{kind}s")


def _volumes(plan: Plan, execution: Lepton, world: World) -> Iterator[Check]:
    if world.groups is None:
        return
    by_id = {group.id: group for group in world.groups}
    ids = ids_of(world.groups)
    jobs = [task.job.request for task in plan.tasks if task.job.request]
    for name, volumes in (
        (execution.node_group, {mount.source for mount in world.spec.mounts or ()}),
        (_job_group(execution), {mount["from"] for request in jobs for mount in request["spec"]["mounts"]}),
    ):
        group = by_id.get(ids.get(name or "", ""))
        if group is not None:
            yield from _volumes_of(group, sorted(volume for volume in volumes if volume), execution.storage.volume)


def _volumes_of(group: NodeGroup, volumes: list[str], storage: str | None) -> Iterator[Check]:
    there = [volume.source for volume in group.spec.volumes or ()]
    for source in volumes:
        if source in there or source == "node-local":
            yield _ok("volumes")
        else:
            key = "set execution.storage.volume to one of them, or to null"
            hint = key if source == storage else "name one of them in the mount"
            yield _problem(
                "volumes", f"node group {group.name} has no volume {source}; it has: {listed(there)}; {hint}"
            )


def _images(plan: Plan) -> Iterator[Check]:
    servers = [task.endpoint.server for task in plan.tasks if task.endpoint is not None]
    for server in servers:
        if server.image is None and server.template is None and server.photon is None:
            yield _problem(
                "images", f"deployment {server.type} has no container image; set deployment.image, or choose another"
            )


def _names(plan: Plan, world: World) -> Iterator[Check]:
    wanted = {task.endpoint.name for task in plan.tasks if task.endpoint is not None}
    clashes = [e for e in world.endpoints or () if e.name in wanted and e.invocation != plan.invocation]
    for endpoint in clashes:
        yield _problem("names", f"an endpoint {endpoint.name} exists and is not ours; remove it, or run again")
    if not clashes and world.endpoints is not None:
        yield _ok("names")
