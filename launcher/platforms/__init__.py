"""Places that run things. Each is imported only when a config names it."""

from __future__ import annotations

from launcher.config.execution import AnyExecution, Local
from launcher.errors import PreflightError
from launcher.platforms.base import Platform

__all__ = ["RUNNABLE", "open_platform"]

RUNNABLE = ("local",)
"""Execution types that this version can run; the others it can plan."""


def open_platform(execution: AnyExecution) -> Platform:
    """The platform of an execution. Raises PreflightError for one that this version can only plan."""
    if isinstance(execution, Local):
        from launcher.platforms.local.platform import LocalPlatform

        return LocalPlatform(execution)
    raise PreflightError(f"execution {execution.type} can be planned (--dry-run) but not run by this version")
