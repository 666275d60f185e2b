"""What squeue says of jobs, in the forms of all versions from 21.08."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from launcher.errors import PlatformError
from launcher.plan.slurm.jobs import MARK

COLUMNS = ("%i", "%T", "%r", "%V", "%e", "%N", "%k", "%j")
"""Job id, state, reason, times of submission and end, nodes, comment, name: the last may hold anything."""
TEXT = ("squeue", "-h", "-t", "all", "--me", "-o", "|".join(COLUMNS))
JSON = ("squeue", "--json", "-t", "all", "--me")
JSON_FROM = (23, 11)
"""Versions before list everybody's jobs in JSON, whatever they are asked for."""
ACTIVE = frozenset(
    (
        "PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT",
        "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD", "POWER_UP_NODE",
    )
)  # fmt: skip
"""States of a job that may still run something. slurm.schedmd.com/squeue.html, JOB STATE CODES."""


@dataclass(frozen=True, kw_only=True)
class QueuedJob:
    """One job as squeue shows it. Times in seconds since 1970, 0 where it does not say."""

    id: int
    name: str
    states: tuple[str, ...]
    """One word, or several from 23.11 on: COMPLETING stands beside how it ended."""
    reason: str = ""
    comment: str = ""
    nodes: str = ""
    submitted: float = 0.0
    ends: float = 0.0
    """When it has ended, or its time limit ends it."""

    @property
    def state(self) -> str:
        """How it is, or how it ended."""
        return next((word for word in self.states if word != "COMPLETING"), "COMPLETING")

    @property
    def is_active(self) -> bool:
        """Whether something of it may still run, or will."""
        return any(word in ACTIVE for word in self.states)

    @property
    def invocation(self) -> str:
        """Whose it is; empty for jobs that are not ours."""
        marked = re.search(rf"{re.escape(MARK)}([a-z][a-z0-9]+)", self.comment)
        return marked[1] if marked else ""


def parse_text(text: str) -> list[QueuedJob]:
    """Jobs of the text form. Raises PlatformError for what is none."""
    return [_from_line(line) for line in text.splitlines() if line.strip()]


def _from_line(line: str) -> QueuedJob:
    parts = line.split("|", len(COLUMNS) - 1)
    if len(parts) != len(COLUMNS):
        raise PlatformError(f"Slurm: squeue said what is no job: {line[:100]}")
    number, state, reason, submitted, ends, nodes, comment, name = parts
    digits = re.match(r"\d+", number)
    return QueuedJob(
        id=int(digits[0]) if digits else 0,
        name=name,
        states=(state.upper(),),
        reason=_word(reason),
        comment=comment,
        nodes=nodes,
        submitted=float(submitted) if submitted.isdigit() else 0.0,
        ends=float(ends) if ends.isdigit() else 0.0,
    )


def parse_json(text: str) -> list[QueuedJob]:
    """Jobs of the JSON form: of data_parser v0.0.37 to v0.0.39 plain values, from v0.0.40 on lists and objects.

    Raises PlatformError for what is none.
    """
    try:
        found = json.loads(text)["jobs"]
        return [_from_object(entry) for entry in found]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PlatformError(f"Slurm: squeue --json said what is no list of jobs: {error}") from error


def _from_object(entry: dict[str, Any]) -> QueuedJob:
    states = entry["job_state"]
    comment = entry.get("comment") or ""
    return QueuedJob(
        id=int(_number(entry["job_id"])),
        name=str(entry.get("name") or ""),
        states=tuple(str(word).upper() for word in ([states] if isinstance(states, str) else states)),
        reason=_word(str(entry.get("state_reason") or "")),
        comment=str(comment.get("user", "") if isinstance(comment, dict) else comment),
        nodes=str(entry.get("nodes") or ""),
        submitted=_number(entry.get("submit_time")),
        ends=_number(entry.get("end_time")),
    )


def _number(value: Any) -> float:
    """A number, or what an object {set, infinite, number} says."""
    if isinstance(value, dict):
        return float(value.get("number") or 0) if value.get("set") else 0.0
    return float(value or 0)


def _word(reason: str) -> str:
    return "" if reason in ("None", "(null)", "N/A") else reason


def version_of(text: str) -> tuple[int, ...]:
    """The version that `squeue --version` tells: (22, 5, 8) of `slurm-wlm 22.05.8`; () where it tells none."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in found.groups() if part is not None) if found else ()


def newest(jobs: Iterable[QueuedJob]) -> dict[str, QueuedJob]:
    """The job of each name that was submitted last."""
    return {job.name: job for job in sorted(jobs, key=lambda job: job.id)}


def ours(jobs: Iterable[QueuedJob], invocation: str) -> Iterator[QueuedJob]:
    """Jobs of one invocation; where a cluster keeps no comments, its name ends with it."""
    for job in jobs:
        if job.invocation == invocation or (not job.invocation and job.name.endswith(f"-{invocation}")):
            yield job
