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
    run.check_values(scores)
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
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ResultsError(f"{path}: is not a JSON object")
    return content


class _Run:
    """One results file."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self._content = content
        self._entries = self._tables("results", required=True)
        self._groups = self._tables("groups")
        self.counts = self._tables("n-samples", required=True)
        """Per sub-task: `original`, samples of the evaluated split; `effective`, those evaluated."""

    def _section(self, name: str, *, required: bool = False) -> dict[str, Any]:
        section = self._content.get(name)
        if isinstance(section, dict):
            return section
        if required or section is not None:
            raise ResultsError(f"{self.path}: has no {name}")
        return {}

    def _tables(self, name: str, *, required: bool = False) -> dict[str, dict[str, Any]]:
        """A section that holds an object for each task."""
        section = self._section(name, required=required)
        for task, entry in section.items():
            if not isinstance(entry, dict):
                raise ResultsError(f"{self.path}: {name} of {task} is no object")
        return section

    def names(self) -> list[str]:
        """Groups first, as lm-eval aggregates them, then sub-tasks in its order."""
        return [*self._groups, *(name for name in self._entries if name not in self._groups)]

    def check_task(self, task: str, folder: Path) -> None:
        """A tag leaves no trace in lm-eval's own file: what was asked for is in the driver's record."""
        known = {*self._entries, *self._groups, *self._section("group_subtasks")}
        if task in known:
            return
        if any(folder.rglob(PROVENANCE)) and provenance(folder).get("requested") == task:
            return
        raise ResultsError(f"{self.path}: holds {', '.join(sorted(known)[:5])}, not {task}")

    def check_samples(self, leaf: str, settings: Settings) -> None:
        """As many samples as the limit asks for, and as many lines in the file of samples."""
        effective, asked = self._count(leaf), self._asked(leaf, settings.limit)
        if effective < 1:
            raise ResultsError(f"{self.path}: {leaf} has no samples")
        if effective < asked:
            raise ResultsError(f"{self.path}: {leaf} has {effective} of {asked} samples")
        if settings.log_samples is False:
            return
        path = self.path.with_name(self.path.name.replace("results", f"samples_{leaf}", 1)).with_suffix(".jsonl")
        lines = _lines_per_filter(path)
        for name, count in lines.items():
            if count != effective:
                raise ResultsError(f"{path}: {count} samples of filter {name}, but {effective} were scored")
        if not lines:
            raise ResultsError(f"{path}: no samples, but {effective} were scored")

    def _count(self, leaf: str) -> int:
        effective = _whole(self.counts[leaf].get("effective"))
        if effective is None:
            raise ResultsError(f"{self.path}: does not say how many samples of {leaf} were scored")
        return effective

    def _asked(self, leaf: str, limit: float | None) -> int:
        original = _whole(self.counts[leaf].get("original"))
        if original is None:
            raise ResultsError(f"{self.path}: does not say how many samples {leaf} has")
        if limit is None:
            return original
        return min(original, math.ceil(original * limit) if limit < 1 else int(limit))

    def scores(self, name: str) -> Iterator[Score]:
        """One score per metric and filter of a task or group."""
        entry = self._entries.get(name) or self._groups.get(name) or {}
        is_group = name not in self.counts
        shots, version = self._section("n-shot").get(name), self._section("versions").get(name)
        directions = self._tables("higher_is_better").get(name, {})
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
                higher_is_better=directions[metric] if isinstance(directions.get(metric), bool) else None,
                num_fewshot=_whole(shots),
                version=None if version in (None, "N/A", "Yaml") else str(version),
                group=is_group,
            )

    def _n(self, name: str, entry: dict[str, Any], key: str) -> int | None:
        if name in self.counts:
            return self._count(name)
        counts = entry.get("sample_count")
        return _whole(counts.get(key) if isinstance(counts, dict) else None) or _whole(entry.get("sample_len"))

    def check_values(self, scores: list[Score]) -> None:
        """At least one number for each sub-task: a task whose every metric is undefined was not evaluated."""
        known = {score.task for score in scores if score.value is not None}
        for leaf in self.counts:
            if leaf not in known:
                raise ResultsError(f"{self.path}: no metric of {leaf} is a finite number; see the job's log")


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
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _whole(value: Any) -> int | None:
    """None for what is no count that every program can hold exactly."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None
