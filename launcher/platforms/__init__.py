"""Places that run things. Each is imported only when a config names it."""

from __future__ import annotations

from launcher.config.execution import AnyExecution, Local
from launcher.platforms.base import Platform

__all__ = ["RUNNABLE", "open_platform"]

RUNNABLE = ("local", "lepton")
"""Execution types that this version can run; the others it can plan."""


def open_platform(execution: AnyExecution) -> Platform:
    """The platform of an execution. Raises PreflightError for one that cannot be reached without credentials."""
    if isinstance(execution, Local):
        from launcher.platforms.local.platform import LocalPlatform

        return LocalPlatform(execution)
    from launcher.platforms.lepton import credentials

    found = credentials.find(workspace=execution.workspace_id)
    from launcher.platforms.lepton.platform import LeptonPlatform  # only now: without credentials no HTTP client

    return LeptonPlatform(execution, credentials=found)
