"""What two runs have in common: scores, samples, and what makes them measure different things."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from launcher.errors import NotFound, ResultsError, nearest
from launcher.harnesses.lm_eval import clusters
from launcher.harnesses.spec import Score
from launcher.plan.changes import changes
from launcher.results import read, samples
from launcher.results.model import Record, TaskRecord
from launcher.results.samples import SampleSet
from launcher.results.statistics import Estimate, Values, paired, unpaired
from launcher.results.table import label

_SHOWN = 12
"""Characters of a digest that tell it from others."""
_NOT_MEASURED = ("limit", "num_fewshot", "harness", "log_samples", "batch_size", "expected_duration", "cluster_by")
"""Settings that are compared by what came of them, or that measure nothing."""

Name = tuple[str, str, str]
"""Sub-task, metric and filter of a score."""


@dataclass(frozen=True)
class Run:
    """One invocation as it lies in its folder."""

    folder: Path
    record: Record

    @property
    def name(self) -> str:
        """Its id."""
        return self.record.invocation

    @cached_property
    def tasks(self) -> dict[str, TaskRecord]:
        """Tasks by key."""
        return {task.key: task for task in self.record.tasks}

    def fingerprint(self, task_key: str, task: str) -> str | None:
        """Of the data that a sub-task was asked of, as the datasets library computes it."""
        found: Any = self._provenance
        for key in ("tasks", task_key, "harness", "tasks", task, "dataset_fingerprint"):
            found = found.get(key) if isinstance(found, dict) else None
        return found if isinstance(found, str) else None

    def auxiliary(self, task_key: str) -> dict[str, dict[str, Any]]:
        """What served a task beside the evaluated model, a judge say, by name, as `provenance.json` has it."""
        found: Any = self._provenance
        for key in ("tasks", task_key, "auxiliary"):
            found = found.get(key) if isinstance(found, dict) else None
        named = found.items() if isinstance(found, dict) else ()
        return {name: one for name, one in named if isinstance(one, dict)}

    @cached_property
    def _provenance(self) -> Any:
        path = self.folder / "provenance.json"
        try:
            return json.loads(path.read_bytes()) if path.is_file() else {}
        except (OSError, ValueError, RecursionError) as error:
            raise ResultsError(f"{path}: broken: {error}") from None


def load(folder: Path) -> Run:
    """A run. Raises NotFound where nothing came home, ResultsError where it is broken or of another version."""
    return Run(folder, read.load(folder))


@dataclass(frozen=True)
class Difference:
    """Why two scores do not measure the same: what differs, and what it is in each run."""

    what: str
    baseline: str
    candidate: str

    def __str__(self) -> str:
        return f"{self.what}: {self.baseline} in the baseline, {self.candidate} in the candidate"


@dataclass(frozen=True)
class Pairs:
    """Samples of both runs with the same id and, as far as digests tell, the same document: their places in each."""

    baseline: SampleSet
    candidate: SampleSet
    places: tuple[tuple[int, int], ...]
    without_value: int = 0
    """Common samples that are left out because one of the two has no value."""

    def clusters(self) -> list[str]:
        """Which pairs belong together; none where each is for itself, or where that is not known of all."""
        names = self.baseline.clusters
        found = [names[first] for first, _ in self.places] if names else []
        return found if all(found) and len(set(found)) < len(found) else []

    def values(self, metric: str) -> tuple[Values, Values]:
        """Values of a metric, pair by pair; NaN where there is none."""
        first, second = zip(*self.places, strict=True)
        return _at(self.baseline, metric, first), _at(self.candidate, metric, second)


def _at(kept: SampleSet, metric: str, places: Sequence[int]) -> Values:
    values = kept.values.get(metric)
    return np.full(len(places), np.nan) if values is None else np.asarray(values)[list(places)]


@dataclass(frozen=True)
class Matched:
    """A score of both runs, and what is known of their difference.

    `estimate`: None where a value is missing; `pairs`: those it was made from, if it was; `differences`: what makes
    the two measure different things; `notes`: what a reader must know, one line each.
    """

    task: TaskRecord
    baseline: Score
    candidate: Score
    estimate: Estimate | None
    values: tuple[float | None, float | None]
    pairs: Pairs | None = None
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """Tasks and sub-tasks by patterns of their names; all without patterns."""

    patterns: Sequence[str] = ()

    def has(self, task: TaskRecord, score: Score | None = None) -> bool:
        """Whether a score is chosen, or any of a task's."""
        scores = task.scores if score is None else [score]
        names = {task.key, task.name, *(one.task for one in scores)}
        return not self.patterns or any(fnmatchcase(name, pattern) for name in names for pattern in self.patterns)

    def check(self, runs: Sequence[Run]) -> None:
        """Raise NotFound for a pattern that fits nothing in any run."""
        tasks = [task for run in runs for task in run.record.tasks]
        for pattern in self.patterns:
            if not any(Choice((pattern,)).has(task) for task in tasks):
                hint = nearest(pattern, {score.task for task in tasks for score in task.scores})
                raise NotFound(f"no task {pattern} in {', '.join(run.name for run in runs)}{hint}")


def match(baseline: Run, candidate: Run, task_key: str) -> list[Matched]:
    """All scores of one task that both runs have. Raises ResultsError for broken samples."""
    return list(_Match(baseline, candidate, task_key).scores())


def unmatched(run: Run, other: Run, choice: Choice) -> list[str]:
    """Tasks and scores that `other` has no scores of, and why."""
    lines = []
    for key, task in run.tasks.items():
        there = other.tasks.get(key)
        if there is not None and there.scores:
            names = {_name(score) for score in there.scores}
            missing = [one for one in task.scores if choice.has(task, one) and _name(one) not in names]
            lines += [f"{label(task, one)} {one.metric} {one.filter}" for one in missing]
        elif task.scores and choice.has(task):
            lines.append(key if there is None else f"{key}: {there.reason.replace('_', ' ')} in {other.name}")
    return lines


class _Match:
    """One task in two runs. Its samples are in memory for as long as this is."""

    def __init__(self, baseline: Run, candidate: Run, task_key: str) -> None:
        self._runs = (baseline, candidate)
        self._key = task_key
        self._tasks = (baseline.tasks[task_key], candidate.tasks[task_key])
        self._samples = tuple(samples_of(run, task) for run, task in zip(self._runs, self._tasks, strict=True))
        self._scores = tuple({_name(score): score for score in task.scores} for task in self._tasks)
        self._pairs: dict[tuple[str, str], Pairs | None] = {}
        self._differences: dict[str, list[Difference]] = {}

    def scores(self) -> Iterator[Matched]:
        settings = self._settings()
        for name, first in self._scores[0].items():
            if name in self._scores[1]:
                yield self._matched(first, self._scores[1][name], settings)

    def _matched(self, first: Score, second: Score, settings: list[str]) -> Matched:
        differences = tuple(self._all_differences(first, second))
        estimate: Estimate | None
        if first.value is None or second.value is None:
            missing = [run.name for run, score in zip(self._runs, (first, second), strict=True) if score.value is None]
            notes = [f"no value in {' and '.join(missing)}: the metric is undefined there"]
            estimate, values, pairs = None, (first.value, second.value), None
        elif isinstance(found := self._pairs_of(first, second), str):
            estimate = unpaired(first.value, second.value, (first.stderr, second.stderr))
            untested = ["not tested: no standard error, or one of 0"] if estimate.p is None else []
            notes, values, pairs = [f"not paired: {found}", *untested], (first.value, second.value), None
        else:
            estimate, values, notes = _estimate(first, second, found)
            pairs = found
        return Matched(
            task=self._tasks[0],
            baseline=first,
            candidate=second,
            estimate=estimate,
            values=values,
            pairs=pairs,
            differences=differences,
            notes=(*notes, *settings),
        )

    def _pairs_of(self, first: Score, second: Score) -> Pairs | str:
        """The pairs in which both samples have a value, or why there are none."""
        if first.group or second.group:
            return "an aggregate has no samples of its own"
        pairs = self._common(first.task, first.filter)
        if pairs is None:
            without = [run.name for run, kept in zip(self._runs, self._samples, strict=True) if not _of(kept, first)]
            return f"no samples in {' and '.join(without)}"
        if not pairs.places:
            return "the runs have no sample in common"
        values = pairs.values(first.metric)
        usable = np.isfinite(values[0]) & np.isfinite(values[1])
        if not usable.any():
            return f"samples have no single number for {first.metric}"
        if not (is_mean(first, pairs.baseline) and is_mean(second, pairs.candidate)):
            return f"{first.metric} is not the mean of its samples"
        kept = tuple(place for place, keep in zip(pairs.places, usable, strict=True) if keep)
        return Pairs(pairs.baseline, pairs.candidate, kept, without_value=len(pairs.places) - len(kept))

    def _common(self, task: str, filter_name: str) -> Pairs | None:
        key = (task, filter_name)
        if key not in self._pairs:
            first, second = (kept.get(key) for kept in self._samples)
            self._pairs[key] = Pairs(first, second, tuple(_common(first, second))) if first and second else None
        return self._pairs[key]

    def _all_differences(self, first: Score, second: Score) -> Iterator[Difference]:
        """Of a sub-task; of an aggregate, also those of everything below it."""
        yield from self._of_scores(first, second)
        names = {name[0] for name in self._scores[0]} if first.group else {first.task}
        for task in sorted(names):
            if task not in self._differences:
                self._differences[task] = list(self._of_task(task))
            for one in self._differences[task]:
                yield Difference(f"{task}: {one.what}", one.baseline, one.candidate) if first.group else one

    @staticmethod
    def _of_scores(first: Score, second: Score) -> Iterator[Difference]:
        yield from _unequal("version of the task", first.version, second.version)
        yield from _unequal("few-shot examples", first.num_fewshot, second.num_fewshot)
        yield from _unequal("higher is better", first.higher_is_better, second.higher_is_better)
        yield from _unequal("samples", first.n, second.n)

    def _of_task(self, task: str) -> Iterator[Difference]:
        yield from _unequal("harness", *(known.harness or None for known in self._tasks), unknown=False)
        yield from _unequal("metrics", *(self._metrics(scores, task) for scores in self._scores))
        prints = (run.fingerprint(self._key, task) for run in self._runs)
        yield from _unequal("dataset fingerprint", *prints, unknown=False)
        yield from _of_auxiliary(*(run.auxiliary(self._key) for run in self._runs))
        for key in self._samples[0]:
            if key[0] == task and (pairs := self._common(*key)) is not None:
                yield from _of_samples(pairs)
                return

    @staticmethod
    def _metrics(scores: dict[Name, Score], task: str) -> str:
        return ", ".join(sorted(f"{metric} ({kind})" for name, metric, kind in scores if name == task)) or "none"

    def _settings(self) -> list[str]:
        """Settings that measure something else and show in no digest, such as those of generation."""
        first, second = ({"evaluation": _without(task.settings)} for task in self._tasks)
        found = [change for change in changes(first, second) if not change.is_operational]
        served = (run.auxiliary(self._key) for run in self._runs)
        return [
            *(f"settings differ: {str(change).removeprefix('evaluation.')}" for change in found),
            *_served_otherwise(*served),
        ]


def _of_auxiliary(first: dict[str, dict[str, Any]], second: dict[str, dict[str, Any]]) -> Iterator[Difference]:
    """Another judge measures something else: another model, or another revision of it."""
    for name in dict.fromkeys([*first, *second]):
        models = [_judging(one.get(name)) for one in (first, second)]
        yield from _unequal(f"auxiliary {name}", models[0][0], models[1][0])
        if models[0][0] == models[1][0]:
            yield from _unequal(f"revision of auxiliary {name}", models[0][1], models[1][1], unknown=False)


def _judging(one: dict[str, Any] | None) -> tuple[str, str | None]:
    """Model and revision of an auxiliary endpoint: as planned, else as its server told it."""
    model = one.get("model") if one is not None else None
    if one is None or not isinstance(model, dict):
        return "none", None
    name = str(model.get("id") or model.get("served_name"))
    server = one.get("server")
    listed = server.get("data") if isinstance(server, dict) else None
    told = [entry.get("revision") for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    revision = model.get("revision") or next((entry for entry in told if entry), None)
    return name, None if revision is None else str(revision)


def _served_otherwise(first: dict[str, dict[str, Any]], second: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What differs in how the same judge was served, one line each."""
    for name in first.keys() & second.keys():
        before, after = ({"auxiliary": {name: _place(one[name])}} for one in (first, second))
        yield from (f"settings differ: {change}" for change in changes(before, after))


def _place(one: dict[str, Any]) -> dict[str, Any]:
    return {key: one[key] for key in ("endpoint", "url") if key in one}


def samples_of(run: Run, task: TaskRecord) -> dict[tuple[str, str], SampleSet]:
    """Samples of a task. Raises ResultsError if a file is cut off, be it between two samples or at its beginning."""
    output = run.folder / task.key / "output"
    chosen = task.settings.get("cluster_by")
    found = samples.read(output, clusters.field if chosen is None else lambda _task: str(chosen))
    logged = dict(samples.files(output))
    for score in task.scores:
        kept = len(found.get((score.task, score.filter), ()))
        if score.task in logged and not score.group and score.n is not None and kept != score.n:
            raise ResultsError(
                f"{logged[score.task]}: {kept} samples of filter {score.filter}, but {score.n} were scored"
            )
    return found


def _name(score: Score) -> Name:
    return (score.task, score.metric, score.filter)


def _of(kept: dict[tuple[str, str], SampleSet], score: Score) -> bool:
    return (score.task, score.filter) in kept


def _without(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in _NOT_MEASURED and value not in ({}, [])}


def _unequal(what: str, first: Any, second: Any, *, unknown: bool = True) -> Iterator[Difference]:
    """A difference if there is one; `unknown`: to be known in one run only is one too."""
    if first != second and (unknown or (first is not None and second is not None)):
        yield Difference(what, *("unknown" if value is None else str(value) for value in (first, second)))


def _common(first: SampleSet, second: SampleSet) -> Iterator[tuple[int, int]]:
    places = second.positions()
    for key, place in first.positions().items():
        other = places.get(key)
        if other is not None and _same(first.docs[place], second.docs[other]):
            yield place, other


def _same(first: str, second: str) -> bool:
    """Whether two digests are equal as far as both are known."""
    return not first or not second or first == second


def _of_samples(pairs: Pairs) -> Iterator[Difference]:
    first, second = pairs.baseline, pairs.candidate
    shared = first.positions().keys() & second.positions().keys()
    alone = tuple(sorted(kept.positions().keys() - shared, key=str) for kept in (first, second))
    if (alone[0] or alone[1]) and len(first) == len(second):
        yield Difference("sample ids", *(f"{ids[0]} and {len(ids) - 1} more that the other has not" for ids in alone))
    yield from _digests("documents", first, second, (first.docs, second.docs))
    yield from _digests("prompts", first, second, (first.prompts, second.prompts))
    yield from _digests("targets", first, second, (first.targets, second.targets))


def _digests(
    what: str, first: SampleSet, second: SampleSet, digests: tuple[list[str], list[str]]
) -> Iterator[Difference]:
    places = second.positions()
    pairs = [(key, digests[0][i], digests[1][places[key]]) for i, key in enumerate(first.ids) if key in places]
    other = [pair for pair in pairs if not _same(pair[1], pair[2])]
    if other:
        key, *ends = other[0]
        named = f"{what} ({len(other)} of {len(pairs)} differ; digest of {key})"
        yield Difference(named, *(end[:_SHOWN] for end in ends))


def _estimate(
    first: Score, second: Score, pairs: Pairs
) -> tuple[Estimate, tuple[float | None, float | None], list[str]]:
    """The estimate from pairs, the two values that it is the difference of, and what to say of them."""
    values = pairs.values(first.metric)
    notes = [f"{pairs.without_value} common samples have no value in one run and are left out"]
    estimate = paired(*values, pairs.clusters())
    if len(pairs.places) == max(len(pairs.baseline), len(pairs.candidate)):
        return estimate, (first.value, second.value), []
    notes = [f"values are those of the {len(pairs.places)} common samples", *(notes if pairs.without_value else [])]
    return estimate, (float(values[0].mean()), float(values[1].mean())), notes


def is_mean(score: Score, kept: SampleSet) -> bool:
    """Whether the harness's number is the mean of its samples, so that they say something of it."""
    values = np.asarray(kept.values[score.metric])
    if score.value is None or not np.isfinite(values).all():
        return True  # some sample is undefined: the number can neither be told from its samples nor refuted
    return math.isclose(float(values.mean()), score.value, rel_tol=1e-6, abs_tol=1e-6)
