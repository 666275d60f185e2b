"""Places that run things. Each is imported only when a config names it."""

from __future__ import annotations

from collections.abc import Callable

from launcher.config.execution import AnyExecution, Kubernetes, Lepton, Local, Slurm
from launcher.config.places import AnyPlace, DeepInfraAccount
from launcher.config.pricing import Pricing
from launcher.errors import PreflightError
from launcher.plan.model import Plan
from launcher.platforms.base import Platform
from launcher.platforms.sharing import Shared

__all__ = ["RENTED", "RUNNABLE", "open_for", "open_platform", "places_of", "within_reach"]

RUNNABLE = ("local", "lepton", "kubernetes", "slurm")
"""Execution types that this version can run; the others it can plan."""
RENTED: dict[str, AnyPlace] = {"deepinfra": DeepInfraAccount()}
"""Deployments whose endpoints are in a place of their own, whatever the execution."""


def open_platform(place: AnyPlace, pricing: Pricing | None = None, shared: Shared | None = None) -> Platform:
    """The platform of one place; `pricing` prices what it finds, `shared` is what it has in common with others.

    Raises PreflightError for one that cannot be reached without credentials.
    """
    if isinstance(place, Local):
        from launcher.platforms.local.platform import LocalPlatform

        return LocalPlatform(place)
    if isinstance(place, DeepInfraAccount):
        return _deepinfra()
    if isinstance(place, Slurm):
        from launcher.platforms.slurm.platform import SlurmPlatform

        return SlurmPlatform(place)
    if isinstance(place, Kubernetes):
        from launcher.platforms.kubernetes.platform import KubernetesPlatform

        return KubernetesPlatform(place)
    from launcher.platforms.lepton import credentials

    found = credentials.find(workspace=place.workspace_id)
    from launcher.platforms.lepton.platform import LeptonPlatform  # only now: without credentials no HTTP client

    return LeptonPlatform(place, pricing=pricing, credentials=found, shared=shared)


def _deepinfra() -> Platform:
    from launcher.platforms.deepinfra import credentials

    found = credentials.find()
    from launcher.platforms.deepinfra.platform import DeepInfraPlatform

    return DeepInfraPlatform(found)


def open_for(plan: Plan, shared: Shared | None = None) -> Platform:
    """The platform that a plan runs on: its execution, and the place its endpoints are rented in, if they are.

    Raises PreflightError as `open_platform` does.
    """
    jobs = open_platform(plan.execution_config(), shared=shared)
    rented = RENTED.get(plan.deployment)
    if rented is None:
        return jobs
    from launcher.platforms.pair import Pair

    return Pair(open_platform(rented), jobs)  # last: until it is closed, it lends its key to the environment


def places_of(execution: AnyExecution, deployment: str) -> list[AnyPlace]:
    """Everywhere that a run with these can leave something."""
    rented = RENTED.get(deployment)
    return [execution] if rented is None else [execution, rented]


def within_reach() -> tuple[list[AnyPlace], list[str]]:
    """Every place that can be looked at from here, with its default keys, and why the others cannot, a line each."""
    from launcher.platforms.deepinfra import credentials as deepinfra
    from launcher.platforms.kubernetes import reach as kubernetes
    from launcher.platforms.lepton import credentials as lepton

    places: list[AnyPlace] = [Local()]
    notes = []
    others: tuple[tuple[AnyPlace, str, Callable[[], object]], ...] = (
        (Lepton(), "Lepton", lepton.find),
        (DeepInfraAccount(), "DeepInfra", deepinfra.find),
        (Kubernetes(), "Kubernetes", kubernetes.find),
    )
    for place, service, find in others:
        try:
            find()
        except PreflightError as error:
            notes.append(f"{place.type} was not looked at: {str(error).removeprefix(f'{service}: ')}")
        else:
            places.append(place)
    from launcher.platforms.slurm import here

    if here.is_here():
        places.append(Slurm())
    else:
        notes.append(f"slurm was not looked at: {here.ABSENT}")
    return places, notes
