"""Everything that would keep a plan from running in a workspace, found by reading alone, all of it at once."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from launcher.config.execution import Lepton
from launcher.config.fields import Reference
from launcher.decoding import convert
from launcher.errors import nearest
from launcher.plan.lepton import ENDPOINT_TOKEN
from launcher.plan.model import Plan, shape_gpus
from launcher.plan.render import duration
from launcher.plan.words import counted
from launcher.platforms.base import QUOTA, Check, CheckState
from launcher.platforms.http import RequestFailed, patience
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

MOST_GROUPS = 5
"""Node groups that are asked for their shapes where none is chosen."""
FIRST_PATIENCE = 15.0
"""Seconds after which an address that takes no connection is given up: it is mostly a wrong one."""
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


def parts(plan: Plan, execution: Lepton) -> tuple[Plan, list[tuple[Plan, Lepton]]]:
    """A plan without its auxiliary endpoints, and each of these as a plan, with its own shape and node group.

    Those of the same shape as the tasks' endpoints stay, too, in the first: together they must fit into the quota.
    """
    shapes = {task.endpoint.shape for task in plan.tasks if task.endpoint is not None}
    alike = [one for one in plan.auxiliary if one.endpoint is None or one.endpoint.shape in shapes]
    others = []
    for helper in plan.helpers:
        assert helper.endpoint is not None
        own = replace(execution, resource_shape=helper.endpoint.shape, node_group=helper.endpoint.node_group)
        others.append((replace(plan, tasks=(helper,), auxiliary=()), own))
    return replace(plan, auxiliary=tuple(alike)), others


def auxiliary(check: Check, part: Plan) -> Check:
    """A check of an auxiliary endpoint, in its own keys."""
    name, message = part.tasks[0].key, check.message.removeprefix("Lepton: ")
    own = re.sub(r"\bexecution\.(resource_shape|node_group)\b", rf"auxiliary.{name}.\1", message)
    said = own if own.startswith("auxiliary.") else f"auxiliary {name}: {own}"
    return replace(check, message=f"Lepton: {said}" if message else "")


async def look(client: LeptonClient, plan: Plan, execution: Lepton) -> World:
    """Ask for everything that the checks need. Raises RequestFailed only if the workspace does not let us in."""
    workspace = await _let_in(client)
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


async def _let_in(client: LeptonClient) -> Workspace:
    """The first question. Silence, and `try again later`, are worth the usual patience: somebody may be there."""
    with suppress(TimeoutError), patience(FIRST_PATIENCE):
        async with asyncio.timeout(FIRST_PATIENCE):
            try:
                return await client.workspace()
            except RequestFailed as error:
                if error.status is None or (error.status != 429 and error.status < 500):
                    raise
    return await client.workspace()


async def _ask_source(client: LeptonClient, plan: Plan) -> tuple[Source | None, list[tuple[str, str]]]:
    try:
        return await sources.ask(client, plan), []
    except RequestFailed as error:
        return None, [("template", str(error))]


def _endpoint_spec(plan: Plan, source: Source | None) -> EndpointSpec:
    request = next((task.endpoint.request for task in plan.tasks if task.endpoint is not None), None)
    made = Endpoint() if request is None else convert(request, Endpoint)
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
    job_group = ids_of(groups).get(_job_group(execution) or "")
    questions: dict[str, Awaitable[Any]] = {}
    if any(task.endpoint for task in plan.tasks):
        for group in _endpoint_groups(execution, groups):
            questions[f"{group.id}/deployment"] = client.shapes(group.id, "deployment")
    if job_group:
        questions[f"{job_group}/job"] = client.shapes(job_group, "job")
    answers = await asyncio.gather(*questions.values(), return_exceptions=True)
    known, unknown = _sorted(dict(zip(questions, answers, strict=True)))
    return known, [(f"shapes of {name}", why) for name, why in unknown]


def _endpoint_groups(execution: Lepton, groups: list[NodeGroup]) -> list[NodeGroup]:
    """The node group of the endpoints; until one that exists is chosen, those to choose from, but not too many."""
    chosen = ids_of(groups).get(execution.node_group or "")
    return [group for group in groups if group.id == chosen] or groups[:MOST_GROUPS]


def _job_group(execution: Lepton) -> str | None:
    return execution.job_node_group or execution.node_group


def refused(error: RequestFailed, credentials: Credentials) -> Check:
    """The one check of a workspace that does not let us in."""
    reasons = {
        401: f"the token is not valid (any more) for workspace {credentials.workspace}; make one in the dashboard and "
        "log in again: nv-eval login lepton",
        403: f"the token may not use workspace {credentials.workspace}; log in with one of that workspace",
        404: f"there is no workspace {credentials.workspace} at {credentials.url}; check LEPTON_WORKSPACE_ID and _URL",
    }
    if is_unreachable(error):
        what = f"answered {error.status}: {error.message}" if error.status else f"cannot be asked: {error.message}"
        reasons[error.status or 0] = f"{credentials.url} {what}; check LEPTON_WORKSPACE_URL and the network"
    known = reasons.get(error.status or 0)
    return _problem("workspace", known) if known else Check("workspace", CheckState.PROBLEM, str(error))


def is_unreachable(error: RequestFailed) -> bool:
    """Whether nobody, or nothing that could answer, was there."""
    return error.status is None or error.status >= 500


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
    tasks = [task.longest for task in plan.tasks]
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
        text = "the workspace speaks the legacy API; whether the photon exists was not asked"
        yield Check("photon", CheckState.SKIPPED, text)


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
    ids = ids_of(world.groups or [])
    if _needs_shape(plan, world):
        group = ids.get(execution.node_group or "")
        if group is None:
            yield from _shape_of_any_group(execution, world)
        else:
            yield from _shape("execution.resource_shape", world.shape, world.shapes.get(f"{group}/deployment"))
        yield from _shape_gpus(plan, execution, world)
    group = ids.get(_job_group(execution) or "")
    yield from _shape("execution.job_resource_shape", execution.job_resource_shape, world.shapes.get(f"{group}/job"))


def _needs_shape(plan: Plan, world: World) -> bool:
    """Whether endpoints are made whose shape is known, or will not come from a template either."""
    template = next((task.endpoint.server.template for task in plan.tasks if task.endpoint is not None), None)
    may_bring_one = template is not None and (world.source is None or world.source.rendered is None)
    return any(task.endpoint for task in plan.tasks) and not (world.shape is None and may_bring_one)


def _shape(key: str, name: str | None, shapes: list[Shape] | None) -> Iterator[Check]:
    if shapes is None:
        return
    offered = [shape.id for shape in shapes]
    if name is None:
        yield _problem("shape", f"{key} is not set; the node group offers: {listed(offered)}")
    elif name.lower() not in (shape.lower() for shape in offered):
        yield _problem("shape", f"{key}: the node group has no shape {name}; it offers: {listed(offered)}")
    else:
        yield _ok("shape")


def _shape_of_any_group(execution: Lepton, world: World) -> Iterator[Check]:
    """Without a node group a shape can only be missing; what each group offers helps to choose both."""
    if world.shape is not None:
        return
    asked = [
        (group.name, [shape.id for shape in world.shapes[f"{group.id}/deployment"]])
        for group in _endpoint_groups(execution, world.groups or [])
        if f"{group.id}/deployment" in world.shapes
    ]
    offers = "; ".join(f"{name} offers: {listed(shapes)}" for name, shapes in sorted(asked))
    yield _problem("shape", f"execution.resource_shape is not set; {offers or 'choose one that the group offers'}")


def _shape_gpus(plan: Plan, execution: Lepton, world: World) -> Iterator[Check]:
    """A shape needs as many GPUs as the server uses."""
    server = next(task.endpoint.server for task in plan.tasks if task.endpoint is not None)
    shapes = _endpoint_shapes(execution, world)
    chosen = next((shape for shape in shapes if shape.id.lower() == (world.shape or "").lower()), None)
    has = _gpus(chosen) if chosen is not None else None
    if chosen is None or has is None or has >= server.gpus:
        return
    enough = [shape.id for shape in shapes if (_gpus(shape) or 0) >= server.gpus]
    yield _problem(
        "shape",
        f"execution.resource_shape: {chosen.id} has {counted(has, 'GPU') if has else 'no GPU'}, and deployment "
        f"{server.type} needs {server.gpus}; shapes with enough: {listed(enough)}",
    )


def _gpus(shape: Shape) -> int | None:
    """Devices that a server sees in a shape, a part of a GPU being one; None where the workspace does not tell."""
    number, part = shape.spec.accelerator_num, shape.spec.accelerator_fraction
    return shape_gpus(shape.id) if number is None else math.ceil(number) or int(bool(part))


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
            QUOTA,
            f"{replicas} x {shape.id} need {', '.join(short)}; set limits.max_parallel_endpoints, or ask for more",
        )
    else:
        yield _ok(QUOTA)


def _endpoint_shapes(execution: Lepton, world: World) -> list[Shape]:
    """Those of the node group; until one is chosen, those of all that were asked, each once."""
    groups = _endpoint_groups(execution, world.groups or [])
    shapes = [shape for group in groups for shape in world.shapes.get(f"{group.id}/deployment") or ()]
    return list({shape.id: shape for shape in shapes}.values())


def _endpoints_at_once(plan: Plan) -> int:
    endpoints = plan.endpoints
    gpus = max((endpoint.gpus for endpoint in endpoints), default=0)
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
