"""What results.json holds: one documented, versioned schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from launcher.harnesses.spec import Score

SCHEMA = "nv-eval.results/1"
BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding a file raises that is no JSON, no text, nested without end, or of another form."""


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """Which model was evaluated. `revision` as the deployment names it."""

    model_id: str | None = None
    served_name: str | None = None
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class AttemptRecord:
    """An attempt of a task that was followed by another."""

    number: int
    reason: str
    detail: str = ""
    endpoint_seconds: float = 0.0
    evidence: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Tokens of all requests that were answered in the runs of a task, as the server counted them.

    `prompt`: those it was asked with, `completion`: those it wrote. Answers that were kept from an earlier attempt
    count once.
    """

    prompt: int
    completion: int


@dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """How one task went. `seconds` from the creation of its endpoint to the end of its evaluation."""

    key: str
    name: str
    harness: str
    status: str
    reason: str
    detail: str = ""
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    usd: float | None = None
    tokens: Tokens | None = None
    """None where the server, or the harness, does not tell."""
    scores: list[Score] = field(default_factory=list)
    evidence: dict[str, list[str]] = field(default_factory=dict)
    """Last lines of the `endpoint`'s and the `job`'s output, for tasks without scores."""
    settings: dict[str, Any] = field(default_factory=dict)
    attempts: list[AttemptRecord] = field(default_factory=list)
    """Those before the last one."""


@dataclass(frozen=True, kw_only=True)
class AuxiliaryRecord:
    """An endpoint that tasks used beside their own, such as a judge. Its costs are in no task's.

    `reason` is `released` if it went with the last task that used it, and empty for one that existed anyway.
    """

    name: str
    tasks: list[str]
    """Keys of the tasks that used it."""
    model: ModelRecord
    reason: str = ""
    detail: str = ""
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    usd: float | None = None
    attempts: list[AttemptRecord] = field(default_factory=list)
    evidence: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Record:
    """Results of one invocation. `created` in seconds since 1970; `complete` if every task has scores.

    `seconds` of one that was resumed count from there; GPU time and cost of its tasks are those of its whole life.
    """

    invocation: str
    created: float
    execution: str
    deployment: str
    model: ModelRecord
    seconds: float
    complete: bool
    tasks: list[TaskRecord]
    auxiliary: list[AuxiliaryRecord] = field(default_factory=list)
    resumed: bool = False
    exit_code: int = 0
    left: list[str] = field(default_factory=list)
    """Names of endpoints and jobs that may still be running."""
    schema: str = SCHEMA

    @property
    def spenders(self) -> list[TaskRecord | AuxiliaryRecord]:
        """Everything that endpoints were made for, each with its own costs; what existed anyway has none."""
        return [*self.tasks, *(one for one in self.auxiliary if one.reason)]
