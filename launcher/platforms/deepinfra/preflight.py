"""Everything that would keep a plan from running on DeepInfra, found by reading alone, all of it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from launcher.config.fields import Reference
from launcher.plan.deepinfra import API_KEY
from launcher.plan.model import EndpointPlan, Plan
from launcher.plan.words import beyond_limit, counted, money
from launcher.platforms.base import BUDGET, Check, CheckState
from launcher.platforms.deepinfra.client import SERVICE, DeepInfraClient
from launcher.platforms.deepinfra.credentials import Credentials
from launcher.platforms.deepinfra.meter import parts, price_of
from launcher.platforms.deepinfra.states import KEY_REFUSED
from launcher.platforms.deepinfra.types import Deployment, Me, Offer
from launcher.platforms.http import RequestFailed
from launcher.platforms.secrets import reference_in, references, unresolvable

DEFAULT_LIMIT = 4
"""GPUs that an account may hold of a type that its limits do not name (custom LLM guide)."""
OTHER = "other"
"""The type of GPU that no price list names."""


@dataclass(frozen=True, kw_only=True)
class World:
    """What the account answered; None where it refused to say, with the reason in `unknown`."""

    me: Me
    offers: list[Offer] | None = None
    limits: dict[str, int] | None = None
    deployments: list[Deployment] | None = None
    unknown: tuple[tuple[str, str], ...] = ()


async def look(client: DeepInfraClient, plan: Plan) -> World:
    """Ask for everything that the checks need. Raises RequestFailed only if the account does not let us in."""
    me = await client.me()
    endpoint = next(iter(plan.endpoints), None)
    base_model = (endpoint.request or {}).get("base_model") if endpoint is not None else None
    questions: dict[str, Awaitable[Any]] = {
        "offers": client.offers(base_model),
        "limits": client.gpu_limits(),
        "deployments": client.everything(),
    }
    answers = await asyncio.gather(*questions.values(), return_exceptions=True)
    known: dict[str, Any] = {}
    unknown: list[tuple[str, str]] = []
    for name, answer in zip(questions, answers, strict=True):
        if isinstance(answer, RequestFailed):
            unknown.append((name, str(answer)))
        elif isinstance(answer, BaseException):
            raise answer
        else:
            known[name] = answer
    return World(me=me, unknown=tuple(unknown), **known)


def refused(error: RequestFailed, credentials: Credentials) -> Check:
    """The one check of an account that does not let us in."""
    if error.status in (401, 403):
        return _problem("key", f"{KEY_REFUSED}; the one used is from {credentials.source}")
    if is_unreachable(error):
        what = f"answered {error.status}: {error.message}" if error.status else f"cannot be asked: {error.message}"
        return _problem("key", f"{credentials.url} {what}; check DEEPINFRA_BASE_URL and the network")
    return Check("key", CheckState.PROBLEM, str(error))


def is_unreachable(error: RequestFailed) -> bool:
    """Whether nobody, or nothing that could answer, was there."""
    return error.status is None or error.status >= 500


def check(plan: Plan, world: World, credentials: Credentials, environment: Mapping[str, str]) -> list[Check]:
    """All checks, each result once."""
    wanted = plan.endpoints
    found = [
        Check("key", CheckState.NOTE, f"{SERVICE}: account {world.me.owner}, by the key from {credentials.source}"),
        Check(
            "payment",
            CheckState.SKIPPED,
            f"{SERVICE} tells only when it is asked to create a deployment whether the account can pay",
        ),
        *_variables(plan, environment),
        *(check for endpoint in wanted for check in _gpu(endpoint, world)),
        *_price(plan, wanted, world),
        *_limit(plan, wanted, world),
        *_names(wanted, world),
        *(Check(name, CheckState.SKIPPED, why) for name, why in world.unknown),
    ]
    return list(dict.fromkeys(found))


def gpu_limit(limits: Mapping[str, int], gpu: str) -> int:
    """Most GPUs of a type that an account may hold."""
    return limits.get(gpu, DEFAULT_LIMIT)


def gpu_of(endpoint: EndpointPlan) -> str:
    """The type of its GPUs."""
    return parts(endpoint.shape or "")[1]


def _problem(name: str, message: str) -> Check:
    return Check(name, CheckState.PROBLEM, f"{SERVICE}: {message}")


def _note(name: str, message: str) -> Check:
    return Check(name, CheckState.NOTE, f"{SERVICE}: {message}")


def _variables(plan: Plan, environment: Mapping[str, str]) -> Iterator[Check]:
    """References of the requests; the others are those of jobs, which the execution looks at.

    The account's own key is lent where it is missing.
    """
    named = {reference for endpoint in plan.endpoints for reference in references_in(endpoint.request)}
    for reference in sorted(named - {Reference(env=API_KEY), *references(plan)}, key=str):
        why = unresolvable(reference, environment)
        yield _problem("variables", why) if why else Check("variables", CheckState.OK)


def references_in(value: Any) -> Iterator[Reference]:
    """All references in a request, or in a part of it."""
    if isinstance(value, str) and (found := reference_in(value)) is not None:
        yield found
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from references_in(part)


def _gpu(endpoint: EndpointPlan, world: World) -> Iterator[Check]:
    """Offered or not decides; that it is not available now only makes it wait: the service queues what it lacks."""
    number, gpu = parts(endpoint.shape or "")
    if world.offers is None or gpu == OTHER:
        return
    if price_of(world.offers, endpoint.shape or "") is None:
        offered = ", ".join(sorted({offer.gpu_config for offer in world.offers})) or "nothing"
        yield _problem(
            "gpu", f"{endpoint.shape} (deployment.num_gpus x deployment.gpu) is not offered; offered are: {offered}"
        )
        return
    is_available = {offer.gpu_config: offer.available for offer in world.offers}
    if is_available.get(endpoint.shape or "", is_available.get(f"1x{gpu}", is_available.get(gpu, True))):
        yield Check("gpu", CheckState.OK)
    else:
        others = ", ".join(name for name, free in sorted(is_available.items()) if free and parts(name)[0] >= number)
        yield _note(
            "gpu",
            f"{endpoint.shape} is not available now: deployments wait for it, at most deployment.start_timeout; "
            f"available are: {others or 'none'}",
        )


def _price(plan: Plan, wanted: list[EndpointPlan], world: World) -> Iterator[Check]:
    if world.offers is None or not wanted:
        return
    shape = wanted[0].shape or ""
    price = price_of(world.offers, shape)
    if price is None:
        return
    worst = plan.worst_case.gpu_hours / parts(shape)[0] * price
    text = f"{shape} costs {money(price)} per hour and instance; if every time-out runs to its end, {money(worst)}"
    yield _note("price", text)
    if plan.max_cost_usd is not None and plan.max_cost_usd < worst:
        yield Check(BUDGET, CheckState.PROBLEM, beyond_limit("limits.max_cost_usd", worst, plan.max_cost_usd, "USD"))


def _limit(plan: Plan, wanted: list[EndpointPlan], world: World) -> Iterator[Check]:
    if world.limits is None or not wanted:
        return
    gpu = gpu_of(wanted[0])
    limit, each = gpu_limit(world.limits, gpu), max(endpoint.gpus for endpoint in wanted)
    if each > limit:
        yield _problem(
            "gpu limit",
            f"one endpoint needs {counted(each, 'GPU')} and the account may hold {limit} of {gpu}; set "
            "deployment.num_gpus or max_instances lower, or ask for more in the dashboard",
        )
        return
    free = max(0, limit - held(world.deployments or (), gpu, plan.invocation))
    if sum(endpoint.gpus for endpoint in wanted) > free:
        use = f", of which {limit - free} are in use" if free < limit else ""
        yield _note(
            "gpu limit",
            f"{counted(len(wanted), 'endpoint')} of {counted(each, 'GPU')}, and the account may hold {limit} of "
            f"{gpu}{use}: tasks queue for them",
        )
    else:
        yield Check("gpu limit", CheckState.OK)


def held(deployments: Iterable[Deployment], gpu: str, invocation: str) -> int:
    """GPUs of a type that deployments hold which are not of an invocation."""
    others = [found for found in deployments if found.ours is None or found.ours.invocation != invocation]
    return sum(found.gpus_held for found in others if found.config is not None and found.config.gpu == gpu)


def _names(wanted: list[EndpointPlan], world: World) -> Iterator[Check]:
    """A name that somebody else gave; one of ours holds the invocation, so that it is of this same run."""
    if world.deployments is None:
        return
    theirs = [found.model_name for found in world.deployments if found.ours is None]
    for full in theirs:
        if any(full.rpartition("/")[2].startswith(f"{endpoint.name}-x") for endpoint in wanted):
            yield _problem("names", f"the name {full} is taken by something that is not ours; run again")
            return
    yield Check("names", CheckState.OK)
