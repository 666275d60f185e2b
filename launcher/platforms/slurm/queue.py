"""What squeue says of jobs, in the forms of all versions from 21.08."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from launcher.errors import PlatformError
from launcher.plan.slurm.jobs import MARK

COLUMNS = ("%i", "%T", "%r", "%V", "%e", "%N", "%k", "%j")
"""Job id, state, reason, times of submission and end, nodes, comment, name: the last may hold anything."""
TEXT = ("squeue", "-h", "-r", "-t", "all", "--me", "-o", "|".join(COLUMNS))
JSON = ("squeue", "--json", "-t", "all", "--me")
ARRAY = "array"
"""How the name of a job array of ours begins; a nonce and the invocation follow."""
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
    """Of an element of a job array, that of the array."""
    index: int | None = None
    """Which element of its array it is."""
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
    def label(self) -> str:
        """How Slurm's commands call it: 12, or 12_3."""
        return str(self.id) if self.index is None else f"{self.id}_{self.index}"

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
    digits = re.match(r"(\d+)(?:_(\d+))?", number)
    return QueuedJob(
        id=int(digits[1]) if digits else 0,
        index=int(digits[2]) if digits and digits[2] else None,
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
        return [job for entry in found for job in _elements(_from_object(entry), entry)]
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


def _elements(job: QueuedJob, entry: dict[str, Any]) -> Iterator[QueuedJob]:
    """The job, or the elements of an array: those that wait are one entry, `array_task_string` says which."""
    array, index = entry.get("array_job_id"), entry.get("array_task_id")
    if not _number(array):
        yield job
    elif waiting := entry.get("array_task_string"):
        yield from (replace(job, id=int(_number(array)), index=number) for number in _indices(str(waiting)))
    else:
        yield replace(job, id=int(_number(array)), index=int(_number(index)))


def _indices(text: str) -> Iterator[int]:
    """The numbers of `0,3-5,8-12:2%4`."""
    for part in text.partition("%")[0].strip("[]").split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if found:
            yield from range(int(found[1]), int(found[2] or found[1]) + 1, int(found[3] or 1))


def named(jobs: Iterable[QueuedJob], arrays: Mapping[str, Sequence[str]]) -> Iterator[QueuedJob]:
    """The jobs; elements of arrays have the names of `arrays`, which is by the array's name, or are left out."""
    for job in jobs:
        if job.index is None:
            yield job
        elif job.index < len(names := arrays.get(job.name, ())):
            yield replace(job, name=names[job.index])


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
