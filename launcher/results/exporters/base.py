"""What every exporter is given and gives back; a package of others needs nothing else of this room."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeGuard

import msgspec

from launcher.errors import ExportFailed, NotFound
from launcher.harnesses.spec import Score
from launcher.results import read, samples, timeline
from launcher.results.model import Record, TaskRecord
from launcher.results.timeline import Timeline

FILES = ("results.json", "results.parquet", "provenance.json")
"""What `artifacts` stands for."""
OUTPUT = "exports"
"""Folder below an invocation's for exporters that write files and are told no other place."""


@dataclass(frozen=True)
class Number:
    """One number of a task under the name that dashboards show. Never NaN, never infinite."""

    name: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """All that is known of an invocation that has ended, without any secret.

    `provenance` is what provenance.json holds, empty without it; `timeline` is None where the run left none.
    """

    folder: Path
    record: Record
    provenance: Mapping[str, Any] = field(default_factory=dict)
    timeline: Timeline | None = None

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """What a folder holds. Raises NotFound for an invocation that has not ended, ResultsError for broken files."""
        if not (folder / "results.json").is_file():
            raise NotFound(f"{folder}: no results.json: the run has not ended; see: nv-eval status {folder.name}")
        return cls(
            folder=folder.resolve(),
            record=read.load(folder),
            provenance=_mapping(folder / "provenance.json"),
            timeline=timeline.load(folder),
        )

    @property
    def model(self) -> str:
        """The model's name: that of its weights, else the one it is served under."""
        return self.record.model.model_id or self.record.model.served_name or "unknown"

    @property
    def began(self) -> float:
        """Seconds since 1970."""
        return self.timeline.began if self.timeline else self.record.created

    @property
    def ended(self) -> float:
        """Seconds since 1970; the beginning where nobody knows more."""
        known = self.timeline.ended if self.timeline else None
        return known or self.began + (self.record.seconds if math.isfinite(self.record.seconds) else 0.0)

    @cached_property
    def digest(self) -> str:
        """Of everything that exporters show: the same as long as nothing has changed."""
        shown = [self.record, dict(self.provenance), self.timeline]
        return hashlib.sha256(msgspec.json.encode(shown, enc_hook=str)).hexdigest()

    def files(self, names: tuple[str, ...] = FILES) -> Iterator[Path]:
        """Those of `names` that are there."""
        return (path for name in names if (path := self.folder / name).is_file())

    def sample_files(self) -> Iterator[tuple[str, Path]]:
        """Files of samples, each with the task's key; none where the harness kept none."""
        for task in self.record.tasks:
            for _, path in samples.files(self.folder / task.key / "output"):
                yield task.key, path

    def content(self, *, samples: bool) -> str:
        """Digest of all that an exporter sends that also takes the samples, or does not."""
        digest = hashlib.sha256(self.digest.encode())
        for key, path in self.sample_files() if samples else ():
            digest.update(f"{key}\0{path.name}\0".encode() + path.read_bytes())
        return digest.hexdigest()

    def place(self, folder: str | None, name: str) -> str:
        """Where an exporter writes files: `folder` of its keys, or one of its own in the invocation's folder."""
        return folder or str(self.folder / OUTPUT / name)

    def facts(self, task: TaskRecord) -> dict[str, str]:
        """What a task is and how it was asked, as text by dotted names: settings, model, provenance."""
        record = self.record
        found: dict[str, Any] = {
            "task": task.name,
            "harness": task.harness,
            "model": self.model,
            "served_name": record.model.served_name,
            "revision": record.model.revision,
            "deployment": record.deployment,
            "execution": record.execution,
            "plan_sha256": self.provenance.get("plan_sha256"),
            "packages": self.provenance.get("packages"),
            "settings": task.settings,
        }
        return {name: text for name, text in _flat("", found) if text}


class Exporter(Protocol):
    """Sends an invocation to one place, as often as it is asked, so that the place has it once.

    The entry point names a class with these attributes; it is made with the exporter's keys from `export`. It runs in
    a process of its own, which ends with it or with `export.timeout`, with the environment of the launcher.
    """

    summary: ClassVar[str]
    """What it does, for `nv-eval ls exporters`."""
    extra: ClassVar[str]
    """The launcher's extra that brings what it needs; empty for one of another package."""
    modules: ClassVar[tuple[str, ...]]
    """Modules that must be there; looked for, not imported, before a run begins."""

    def problems(self) -> list[str]:
        """What keeps it from working, without asking anyone; before a run begins. One line each, with the key."""
        ...

    def destination(self, bundle: Bundle, /) -> str:
        """The place, without secrets: what messages name, and what receipts are kept by."""
        ...

    def send(self, bundle: Bundle, /) -> None:
        """Bring the place to the state that the bundle describes. Raises ExportFailed, or what its library raises."""
        ...


def numbers(task: TaskRecord) -> list[Number]:
    """The numbers of a task: scores with their bounds, cost, tokens. A task without scores has none of the former."""
    tokens = task.tokens
    used = {
        "seconds": task.seconds,
        "gpu_seconds": task.gpu_seconds,
        "usd": task.usd,
        "prompt_tokens": tokens.prompt if tokens else None,
        "completion_tokens": tokens.completion if tokens else None,
    }
    found = [pair for score in task.scores for pair in _of_score(task, score)]
    return [Number(name, float(value)) for name, value in [*found, *used.items()] if is_number(value)]


def _of_score(task: TaskRecord, score: Score) -> Iterator[tuple[str, float | None]]:
    """A score and what says how sure it is; nothing of a score that is no number."""
    if not is_number(score.value):
        return
    name = score_name(task, score)
    yield name, score.value
    for part in ("stderr", "low", "high", "n"):
        yield f"{name}_{part}", getattr(score, part)


def text_of(value: float | None) -> str:
    """A time in seconds since 1970 as ISO 8601 in UTC."""
    return datetime.fromtimestamp(value or 0.0, UTC).isoformat(timespec="microseconds")


def score_name(task: TaskRecord, score: Score) -> str:
    """The name of a score in its task: metric, filter where there is one, before them the sub-task of a group."""
    parts = ["" if score.task == task.name else score.task, score.metric]
    return "/".join(filter(None, [*parts, "" if score.filter in ("none", "") else score.filter]))


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is there and finite: NaN is no score, and nothing is not 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def identity(*parts: str, length: int = 32) -> str:
    """A hexadecimal name that is always the same for the same parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:length]


def need(value: str | None, key: str, otherwise: str) -> list[str]:
    """One line if a key that has no default is not set."""
    return [] if value else [f"{key}: is not set; {otherwise}"]


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else str(name), item)
    elif value is not None:
        yield prefix, value if isinstance(value, str) else json.dumps(value, default=str)


def _mapping(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


__all__ = [
    "FILES",
    "OUTPUT",
    "Bundle",
    "ExportFailed",
    "Exporter",
    "Number",
    "identity",
    "is_number",
    "need",
    "numbers",
    "score_name",
    "text_of",
]
