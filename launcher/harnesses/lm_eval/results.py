"""Files of a finished run -> scores, refusing what is broken, incomplete or of another task."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launcher.config.evaluation import Settings
from launcher.errors import ResultsError
from launcher.harnesses.lm_eval.job import PROVENANCE, RESULTS
from launcher.harnesses.spec import Score

_NO_METRICS = {"alias", "name", "sample_len", "sample_count", "samples"}
"""Keys beside the metrics in an entry of `results`."""


def parse(folder: Path, task: str, settings: Settings) -> list[Score]:
    """Scores of the newest results file below `folder`. Raises ResultsError, saying which file and what is wrong."""
    path = _newest(folder, RESULTS)
    run = _Run(path, _read(path))
    run.check_task(task, folder)
    for leaf in run.counts:
        run.check_samples(leaf, settings)
    scores = [score for name in run.names() for score in run.scores(name)]
    if not scores:
        raise ResultsError(f"{path}: holds no scores of {task}")
    return scores


def provenance(folder: Path) -> dict[str, Any]:
    """What the driver recorded. Raises ResultsError if the file is missing or broken."""
    return _read(_newest(folder, PROVENANCE))


def _newest(folder: Path, pattern: str) -> Path:
    """File names carry the time; the folder above them depends on lm-eval's version."""
    found = sorted(folder.rglob(pattern), key=lambda path: path.name)
    if not found:
        raise ResultsError(f"{folder}: lm-eval wrote no {pattern}")
    return found[-1]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ResultsError(f"{path}: is not a JSON object")
    return content


class _Run:
    """One results file."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self._content = content
        self._entries = self._section("results")
        self.counts = self._section("n-samples")
        """Per sub-task: `original`, samples of the evaluated split; `effective`, those evaluated."""

    def _section(self, name: str) -> dict[str, Any]:
        section = self._content.get(name)
        if not isinstance(section, dict):
            raise ResultsError(f"{self.path}: has no {name}")
        return section

    def _optional(self, section: str, name: str) -> Any:
        return (self._content.get(section) or {}).get(name)

    def names(self) -> list[str]:
        """Groups first, as lm-eval aggregates them, then sub-tasks in its order."""
        groups = self._content.get("groups") or {}
        return [*groups, *(name for name in self._entries if name not in groups)]

    def check_task(self, task: str, folder: Path) -> None:
        """A tag leaves no trace in lm-eval's own file: what was asked for is in the driver's record."""
        known = {*self._entries, *(self._content.get("groups") or {}), *(self._content.get("group_subtasks") or {})}
        if task in known:
            return
        if any(folder.rglob(PROVENANCE)) and provenance(folder).get("requested") == task:
            return
        raise ResultsError(f"{self.path}: holds {', '.join(sorted(known)[:5])}, not {task}")

    def check_samples(self, leaf: str, settings: Settings) -> None:
        """As many samples as the limit asks for, and as many lines in the file of samples."""
        effective, asked = self._count(leaf), self._asked(leaf, settings.limit)
        if effective < asked:
            raise ResultsError(f"{self.path}: {leaf} has {effective} of {asked} samples")
        if settings.log_samples is False:
            return
        path = self.path.with_name(self.path.name.replace("results", f"samples_{leaf}", 1)).with_suffix(".jsonl")
        lines = _lines_per_filter(path)
        for name, count in lines.items():
            if count != effective:
                raise ResultsError(f"{path}: {count} samples of filter {name}, but {effective} were scored")
        if not lines and effective:
            raise ResultsError(f"{path}: no samples, but {effective} were scored")

    def _count(self, leaf: str) -> int:
        effective = (self.counts.get(leaf) or {}).get("effective")
        if not isinstance(effective, int):
            raise ResultsError(f"{self.path}: does not say how many samples of {leaf} were scored")
        return effective

    def _asked(self, leaf: str, limit: float | None) -> int:
        original = int(self.counts[leaf].get("original") or 0)
        if limit is None:
            return original
        return min(original, math.ceil(original * limit) if limit < 1 else int(limit))

    def scores(self, name: str) -> Iterator[Score]:
        """One score per metric and filter of a task or group."""
        entry = self._entries.get(name) or self._optional("groups", name) or {}
        is_group = name not in self.counts
        shots, version = self._optional("n-shot", name), self._optional("versions", name)
        for key, value in entry.items():
            metric, _, filter_name = key.partition(",")
            if metric in _NO_METRICS or metric.endswith("_stderr") or not filter_name:
                continue
            yield Score(
                task=name,
                metric=metric,
                filter=filter_name,
                value=_number(value),
                stderr=_number(entry.get(f"{metric}_stderr,{filter_name}")),
                n=self._n(name, entry, key),
                higher_is_better=(self._optional("higher_is_better", name) or {}).get(metric),
                num_fewshot=shots if isinstance(shots, int) else None,
                version=None if version in (None, "N/A", "Yaml") else str(version),
                group=is_group,
            )

    def _n(self, name: str, entry: dict[str, Any], key: str) -> int | None:
        if name in self.counts:
            return self._count(name)
        count = (entry.get("sample_count") or {}).get(key) or entry.get("sample_len")
        return count if isinstance(count, int) else None


def _lines_per_filter(path: Path) -> Counter[str]:
    try:
        with path.open(encoding="utf-8") as lines:
            return Counter(str(json.loads(line)["filter"]) for line in lines)
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{path}: has a broken line: {error}") from error


def _number(value: Any) -> float | None:
    """None for what is no finite number: lm-eval writes N/A, and NaN where a metric is undefined."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
