"""What would keep a plan from running in a namespace. Reads only: to ask for one's own rights changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping
from typing import Any

from launcher.config.execution import Kubernetes
from launcher.errors import PlatformError
from launcher.plan.groups import API
from launcher.plan.kubernetes import spans_nodes
from launcher.plan.model import EndpointPlan, Plan
from launcher.platforms.base import Check, CheckState
from launcher.platforms.http import RequestFailed, patience
from launcher.platforms.kubernetes.client import IN_CLUSTER, Access, Json, KubeClient, host_of
from launcher.platforms.kubernetes.forwarding import is_free, taken
from launcher.platforms.kubernetes.rbac import FORWARDING, NEEDED, ROUTING, SETS, Right
from launcher.platforms.secrets import Secrets, references

FIRST_PATIENCE = 15.0
"""Seconds in which somebody has to answer at all."""
_SETS_MISSING = "have LeaderWorkerSet installed, or use GPUs of one node"
_SUFFIXES = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


async def check(client: KubeClient, config: Kubernetes, plan: Plan, environment: Mapping[str, str]) -> list[Check]:
    """All checks. Raises PlatformError if the cluster cannot be asked."""
    try:
        with patience(FIRST_PATIENCE):
            await client.api.get("/version", dict[str, Any])
    except RequestFailed as error:
        where = host_of(client.access.host)
        if error.status in (401, 403):
            text = f"Kubernetes: {where} does not let us in ({error.status}): {error.message}; check the kubeconfig"
            return [_problem("cluster", text)]
        raise PlatformError(f"Kubernetes: {where} cannot be asked: {error.message}; check the kubeconfig") from error
    if any(map(spans_nodes, plan.endpoints)) and not await client.has_group(API):
        text = f"Kubernetes: an endpoint needs several nodes, and the cluster has no {API}; {_SETS_MISSING}"
        return [_problem("nodes", text), *_variables(plan, environment)]
    rights = await _rights(client, config, plan)
    if any(found.state is CheckState.PROBLEM for found in rights):
        return [*rights, *_variables(plan, environment)]
    parts: list[Awaitable[list[Check]]] = [
        _namespace(client),
        _claims(client, config),
        _secrets(client, config, plan),
        _gpus(client, config, plan),
        _quota(client, config, plan),
        _access(client, config, plan),
    ]
    found = await asyncio.gather(*parts)
    return [*rights, *(one for part in found for one in part), *_variables(plan, environment)]


def _variables(plan: Plan, environment: Mapping[str, str]) -> list[Check]:
    names = dict.fromkeys(str(one.env) for one in references(plan) if one.env is not None)
    missing = [name for name in names if name not in environment]
    return [
        _problem("variables", f"variable {name} is not set; export {name}=... before the run") for name in missing
    ] or [Check("variables", CheckState.OK)]


def remember(plan: Plan, secrets: Secrets, environment: Mapping[str, str]) -> None:
    """Have the values of a plan's references taken out of text, as far as this machine has them."""
    for reference in references(plan):
        if reference.env is not None and reference.env in environment:
            secrets.resolve(reference)


async def _rights(client: KubeClient, config: Kubernetes, plan: Plan) -> list[Check]:
    """Whether each verb is allowed that a run needs, one review each."""
    has_env = any(one.env is not None for one in references(plan))
    wanted = [right for right in NEEDED if _is_used(right, config, has_env)]
    if any(map(spans_nodes, plan.endpoints)):
        wanted += SETS
    if plan.expires is not None and is_forwarded(config, client.access):
        wanted += FORWARDING
    if plan.expires is not None and config.access.by == "gateway":
        wanted += ROUTING
    answers = await asyncio.gather(*(allowed(client, right) for right in wanted), return_exceptions=True)
    missing = [str(right) for right, answer in zip(wanted, answers, strict=True) if answer is False]
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    if failed:
        return [Check("rights", CheckState.SKIPPED, str(failed[0]))]
    if not missing:
        return [Check("rights", CheckState.OK, f"all {len(wanted)} that a run needs")]
    told = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
    text = f"Kubernetes: not allowed in {client.access.namespace}: {told}; "
    text += "`nv-eval gc --manifest` prints a role that allows it"
    return [_problem("rights", text)]


def is_forwarded(config: Kubernetes, access: Access) -> bool:
    """Whether people reach an endpoint by a port of this machine."""
    by = config.access.by
    return by == "port_forward" or (by == "auto" and access.context != IN_CLUSTER)


def _is_used(right: Right, config: Kubernetes, has_env: bool) -> bool:
    if right.resource == "secrets":
        return has_env
    return right.only_with_claim is False or config.storage.claim is not None


async def allowed(client: KubeClient, right: Right) -> bool:
    """Whether we may do something in the namespace. Raises RequestFailed."""
    resource, _, part = right.resource.partition("/")
    attributes = {
        "namespace": client.access.namespace,
        "verb": right.verb,
        "group": right.group,
        "resource": resource,
        "subresource": part,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
    }
    answer = await client.create("selfsubjectaccessreviews", review, cluster=True)
    return bool(answer["status"].get("allowed"))


async def _namespace(client: KubeClient) -> list[Check]:
    name = client.access.namespace
    try:
        found = await client.api.get(f"/api/v1/namespaces/{name}", dict[str, Any])
    except RequestFailed as error:
        if error.status == 404:
            return [_problem("namespace", f"Kubernetes: there is no namespace {name}; set execution.namespace")]
        return [Check("namespace", CheckState.SKIPPED, error.message)]
    if (found.get("status") or {}).get("phase") == "Terminating":
        return [_problem("namespace", f"Kubernetes: namespace {name} is being deleted; choose another one")]
    return [Check("namespace", CheckState.OK, name)]


async def _claims(client: KubeClient, config: Kubernetes) -> list[Check]:
    wanted = {"storage.claim": config.storage.claim, "storage.model_cache": config.storage.model_cache}
    checks = []
    for key, name in wanted.items():
        if name is None:
            continue
        try:
            found = await client.get("persistentvolumeclaims", name)
        except RequestFailed as error:
            checks.append(Check("volumes", CheckState.SKIPPED, error.message))
            continue
        phase = (found or {}).get("status", {}).get("phase")
        if found is None:
            text = f"Kubernetes: execution.{key}: there is no claim {name} in {client.access.namespace}; make it first"
            checks.append(_problem("volumes", text))
        elif phase == "Lost":
            checks.append(_problem("volumes", f"Kubernetes: execution.{key}: the volume of claim {name} is lost"))
        else:
            checks.append(Check("volumes", CheckState.OK, f"{name} {phase or ''}".strip()))
    return checks


async def _secrets(client: KubeClient, config: Kubernetes, plan: Plan) -> list[Check]:
    """Secrets that are referred to by name, which the launcher may not be allowed to read."""
    named = {f"{str(one.secret).partition('/')[0]}": "a reference" for one in references(plan) if one.secret}
    named |= dict.fromkeys(config.image_pull_secrets, "execution.image_pull_secrets")
    checks = []
    for name, where in named.items():
        try:
            if await client.get("secrets", name) is None:
                text = f"Kubernetes: {where}: there is no secret {name} in {client.access.namespace}; make it first"
                checks.append(_problem("secrets", text))
        except RequestFailed as error:
            checks.append(Check("secrets", CheckState.SKIPPED, f"{name}: {error.message}"))
    return checks


async def _gpus(client: KubeClient, config: Kubernetes, plan: Plan) -> list[Check]:
    """Whether any node is large enough for an endpoint, and all together for one at least."""
    most = max((gpus_of_pod(endpoint) for endpoint in plan.endpoints), default=0)
    if not most:
        return []
    try:
        nodes = await client.every("nodes", namespace="")
    except RequestFailed as error:
        return [Check("gpus", CheckState.SKIPPED, f"nodes may not be listed: {error.message}")]
    chosen = [node for node in nodes if _is_chosen(node, config.endpoint.node_selector)]
    sizes = [int(number(_allocatable(node).get(config.gpu_resource, "0"))) for node in chosen]
    largest = max(sizes, default=0)
    if largest < most:
        text = (
            f"Kubernetes: an endpoint needs {most} {config.gpu_resource}, and the largest of {len(chosen)} nodes that "
            f"are chosen has {largest}; use fewer or change execution.endpoint.node_selector"
        )
        return [_problem("gpus", text)]
    return [Check("gpus", CheckState.OK, f"{sum(sizes)} {config.gpu_resource} on {len(chosen)} nodes")]


def gpus_of_pod(endpoint: EndpointPlan) -> int:
    """GPUs that one pod of an endpoint asks for."""
    if not spans_nodes(endpoint):
        return endpoint.server.gpus
    assert endpoint.request is not None
    return endpoint.server.gpus // int(endpoint.request["items"][0]["spec"]["leaderWorkerTemplate"]["size"])


def _allocatable(node: Json) -> Mapping[str, str]:
    found: Mapping[str, str] = (node.get("status") or {}).get("allocatable") or {}
    return found


def _is_chosen(node: Json, wanted: Mapping[str, str]) -> bool:
    labels = node["metadata"].get("labels") or {}
    cordoned = (node.get("spec") or {}).get("unschedulable", False)
    return not cordoned and all(labels.get(name) == value for name, value in wanted.items())


async def _access(client: KubeClient, config: Kubernetes, plan: Plan) -> list[Check]:
    """Whether people will reach an endpoint that is kept for them."""
    if plan.expires is not None and config.access.by == "gateway":
        return await _gateway(client, config)
    port = config.access.port
    if plan.expires is None or not is_forwarded(config, client.access) or port is None or is_free(port):
        return []
    return [_problem("access", taken(port))]


async def _gateway(client: KubeClient, config: Kubernetes) -> list[Check]:
    """Whether there is the Gateway that is to lead to endpoints."""
    if not await client.has_group("gateway.networking.k8s.io/v1"):
        text = "Kubernetes: execution.access.by: the cluster has no gateway.networking.k8s.io/v1; use port_forward"
        return [_problem("access", text)]
    namespace, _, name = str(config.access.gateway).rpartition("/")
    try:
        if await client.get("gateways", name, namespace=namespace or None) is not None:
            return [Check("access", CheckState.OK, f"gateway {name}")]
    except RequestFailed as error:
        return [Check("access", CheckState.SKIPPED, error.message)]
    where = namespace or client.access.namespace
    return [_problem("access", f"Kubernetes: execution.access.gateway: there is no Gateway {name} in {where}")]


async def _quota(client: KubeClient, config: Kubernetes, plan: Plan) -> list[Check]:
    try:
        quotas = await client.every("resourcequotas")
    except RequestFailed as error:
        return [Check("quota", CheckState.SKIPPED, error.message)]
    most = max((endpoint.server.gpus for endpoint in plan.endpoints), default=0)
    return [*_of_quotas(quotas, config, most)]


def _of_quotas(quotas: list[Json], config: Kubernetes, most: int) -> Iterator[Check]:
    for quota in quotas:
        hard = (quota.get("spec") or {}).get("hard") or {}
        limit = hard.get(f"requests.{config.gpu_resource}")
        name = quota["metadata"]["name"]
        if limit is not None and number(limit) < most:
            text = f"Kubernetes: quota {name} allows {limit} {config.gpu_resource}, and an endpoint needs {most}"
            yield _problem("quota", text)
        elif limit is not None:
            yield Check("quota", CheckState.NOTE, f"{name} allows {limit} {config.gpu_resource} at once")


def number(text: str) -> float:
    """An amount of a resource as Kubernetes writes it."""
    suffix = text.lstrip("+-.0123456789")
    return float(text.removesuffix(suffix)) * _SUFFIXES.get(suffix, 1)


def _problem(name: str, message: str) -> Check:
    return Check(name, CheckState.PROBLEM, message)
