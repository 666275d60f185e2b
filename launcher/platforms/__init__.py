"""Places that run things. Each is imported only when a config names it."""

from __future__ import annotations

from launcher.config.execution import AnyExecution, Lepton, Local
from launcher.config.pricing import Pricing
from launcher.errors import PreflightError
from launcher.platforms.base import Platform

__all__ = ["RUNNABLE", "open_platform", "within_reach"]

RUNNABLE = ("local", "lepton")
"""Execution types that this version can run; the others it can plan."""


def open_platform(execution: AnyExecution, pricing: Pricing | None = None) -> Platform:
    """The platform of an execution; `pricing` prices what it finds.

    Raises PreflightError for one that cannot be reached without credentials.
    """
    if isinstance(execution, Local):
        from launcher.platforms.local.platform import LocalPlatform

        return LocalPlatform(execution)
    from launcher.platforms.lepton import credentials

    found = credentials.find(workspace=execution.workspace_id)
    from launcher.platforms.lepton.platform import LeptonPlatform  # only now: without credentials no HTTP client

    return LeptonPlatform(execution, pricing=pricing, credentials=found)


def within_reach() -> tuple[list[AnyExecution], list[str]]:
    """Every place that can be looked at from here, with its default keys, and why the others cannot, a line each."""
    from launcher.platforms.lepton import credentials

    try:
        credentials.find()
    except PreflightError as error:
        return [Local()], [f"lepton was not looked at: {str(error).removeprefix('Lepton: ')}"]
    return [Local(), Lepton()], []
