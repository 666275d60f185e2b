"""Samples of all runs side by side, packed so that a page of a few megabytes holds tens of thousands of them.

A set is one sub-task under one filter. Its samples are read one task at a time and leave as chunks: JSON, compressed,
in base64. What a page needs to list, filter and sort them stays apart from their texts, so that texts are unpacked only
where somebody looks. Sets share a budget of bytes: small ones are kept whole, large ones as far as it reaches, samples
that scored differently in two runs first.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from launcher.errors import ResultsError
from launcher.plan.words import counted
from launcher.results import pairing, samples
from launcher.results.model import TaskRecord
from launcher.results.pairing import Run
from launcher.results.report.content import RunView
from launcher.results.samples import SampleSet, SampleText

TEXT_LIMIT = 4_000
"""Characters of one text."""
MOST_ROWS = 100_000
"""Samples that a page lists."""
_CHUNK = 96_000
"""Bytes of a chunk before it is compressed."""
_SMALLEST_CHUNK = 6_000
_BATCH = 64
_EQUAL = 1e-9
_HEAD = 0.3
"""How much of a text that is too long is taken from its beginning: what matters in a prompt is its end."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What the sample browser needs. `lists`: ids and scores of each set; `chunks`: texts; both compressed, in base64.

    `sets`: for each what it is called, its metrics and runs, its chunks with their numbers of samples; `notes`: what is
    not there, and why, one line each.
    """

    sets: list[dict[str, Any]] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)
    chunks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    samples: int = 0
    without_text: int = 0
    text_limit: int = TEXT_LIMIT


@dataclass
class _Group:
    """One sub-task under one filter, in those of the runs (by their places) that kept its samples."""

    task_key: str
    task: str
    filter: str
    kept: dict[int, SampleSet]
    metrics: list[str]

    ids: list[int | str] = field(default_factory=list)
    places: list[dict[int, int]] = field(default_factory=list)
    """For each sample, where it is in each run."""
    apart: int = 0
    """Samples that are listed once more because a run has another document under their id."""

    def __post_init__(self) -> None:
        where = {run: kept.positions() for run, kept in self.kept.items()}
        for key in dict.fromkeys(key for kept in self.kept.values() for key in kept.ids):
            found = list(self._documents({run: known[key] for run, known in where.items() if key in known}))
            self.ids += [key] * len(found)
            self.places += found
            self.apart += len(found) - 1

    def _documents(self, places: dict[int, int]) -> Iterator[dict[int, int]]:
        """Places of one id, those together whose documents are the same as far as digests tell."""
        while places:
            digests = {run: self.kept[run].docs[place] for run, place in places.items()}
            first = next((digest for digest in digests.values() if digest), "")
            same = {run: place for run, place in places.items() if digests[run] in ("", first)}
            yield same
            places = {run: place for run, place in places.items() if run not in same}

    def value(self, sample: int, run: int, metric: str) -> float | None:
        place = self.places[sample].get(run)
        values = self.kept[run].values.get(metric) if run in self.kept else None
        found = values[place] if place is not None and values is not None else samples.NO_VALUE
        return None if math.isnan(found) else found

    def changed(self, sample: int) -> bool:
        """Whether two runs scored it differently, by any metric."""
        for metric in self.metrics:
            values = [value for run in self.kept if (value := self.value(sample, run, metric)) is not None]
            if values and max(values) - min(values) > _EQUAL:
                return True
        return False


def pack(runs: Sequence[RunView], *, budget: int, text_limit: int = TEXT_LIMIT) -> Packed:
    """Samples of all runs in at most `budget` bytes, or in as many as their scores alone take."""
    packer = _Packer([Run(run.folder, run.record) for run in runs if run.record], budget, text_limit)
    return packer.pack()


class _Packer:
    """Packs one task after the other; those with small files first, so that what they leave is there for the large."""

    def __init__(self, runs: Sequence[Run], budget: int, text_limit: int) -> None:
        self._runs = runs
        self._left = budget
        self._rows_left = MOST_ROWS
        self._limit = text_limit
        self._notes: list[str] = []
        self._chunks: list[str] = []
        self._sets: dict[tuple[int, int], tuple[dict[str, Any], str]] = {}
        self._samples = self._without_text = 0
        self._cut = False

    def pack(self) -> Packed:
        keys = list(dict.fromkeys(key for run in self._runs for key in run.tasks))
        sizes = {key: sum(self._size(run, key) for run in self._runs) for key in keys}
        waiting = len(keys)
        for key in sorted(keys, key=lambda key: sizes[key]):
            self._task(keys.index(key), key, max(0, self._left // waiting))
            waiting -= 1
        ordered = [self._sets[place] for place in sorted(self._sets)]
        return Packed(
            sets=[about for about, _ in ordered],
            lists=[lists for _, lists in ordered],
            chunks=self._chunks,
            notes=[*self._all_notes(), *self._notes],
            samples=self._samples,
            without_text=self._without_text,
            text_limit=self._limit,
        )

    def _all_notes(self) -> Iterator[str]:
        if self._without_text:
            yield (
                f"The texts of {self._without_text:,} of {self._samples:,} samples were left out to keep this file "
                "small; their scores are here. Samples that scored differently came first."
            )
        if self._cut:
            yield f"Texts longer than {self._limit:,} characters lost their middle; each says how much."

    @staticmethod
    def _size(run: Run, key: str) -> int:
        try:
            return sum(path.stat().st_size for _, path in samples.files(run.folder / key / "output"))
        except OSError:
            return 0

    def _task(self, order: int, key: str, share: int) -> None:
        kept = {place: found for place, run in enumerate(self._runs) if (found := self._read(run, key))}
        names = list(dict.fromkeys(name for found in kept.values() for name in found))
        groups = [self._group(key, name, kept) for name in names]
        for place, group in enumerate(one for one in groups if one is not None):
            share -= self._pack_group((order, place), group, share // max(1, len(groups) - place))

    def _read(self, run: Run, key: str) -> dict[tuple[str, str], SampleSet]:
        task = run.tasks.get(key)
        if task is None or not task.scores:
            return {}
        try:
            found = pairing.samples_of(run, task)
        except ResultsError as error:
            self._notes.append(f"{run.name}, {key}: its samples cannot be read: {error}")
            return {}
        if not found:
            self._notes.append(f"{run.name}, {key}: {_why_none(task)}")
        return found

    def _group(
        self, key: str, name: tuple[str, str], kept: Mapping[int, dict[tuple[str, str], SampleSet]]
    ) -> _Group | None:
        found = {place: sets[name] for place, sets in kept.items() if name in sets}
        scored = [score for place in found for score in self._runs[place].tasks[key].scores]
        metrics = [one.metric for one in scored if (one.task, one.filter) == name]
        logged = dict.fromkeys(metric for one in found.values() for metric in one.values)
        known = [metric for metric in dict.fromkeys(metrics) if metric in logged] or list(logged)
        try:
            return _Group(key, *name, kept=found, metrics=known)
        except ResultsError as error:
            self._notes.append(f"{key}: {error}")
            return None

    def _pack_group(self, place: tuple[int, int], group: _Group, share: int) -> int:
        """Pack a set in about `share` bytes; returns how many it took."""
        changed = [group.changed(sample) for sample in range(len(group.ids))] if len(group.kept) > 1 else []
        order = sorted(range(len(group.ids)), key=lambda sample: not changed[sample]) if changed else None
        rows = list(order if order is not None else range(len(group.ids)))[: self._rows_left]
        if len(rows) < len(group.ids):
            self._notes.append(
                f"{group.task_key}: {len(group.ids) - len(rows):,} of {len(group.ids):,} samples are not listed: "
                f"a report lists {MOST_ROWS:,}"
            )
        self._rows_left -= len(rows)
        if group.apart:
            self._notes.append(
                f"{group.task_key}: {counted(group.apart, 'sample')} listed apart: "
                "the runs have another document under the same id"
            )
        lists = self._lists(group, rows)
        written, spans = self._write_texts(group, rows, share - len(lists))
        self._left -= len(lists) + written
        texts = sum(count for _, count in spans)
        self._samples += len(rows)
        self._without_text += len(rows) - texts
        about = {
            "key": group.task_key,
            "task": group.task,
            "filter": group.filter,
            "metrics": group.metrics,
            "runs": sorted(group.kept),
            "chunks": spans,
            "n": len(rows),
            "texts": texts,
        }
        self._sets[place] = (about, lists)
        return len(lists) + written

    @staticmethod
    def _lists(group: _Group, rows: Sequence[int]) -> str:
        """Ids, places in the file and values (by metric, then by run) of samples, in the order of `rows`."""
        values = [
            [[_rounded(group.value(sample, run, metric)) for sample in rows] for run in sorted(group.kept)]
            for metric in group.metrics
        ]
        return _encoded(_json({"ids": [group.ids[sample] for sample in rows], "at": rows, "values": values}))

    def _write_texts(self, group: _Group, rows: Sequence[int], share: int) -> tuple[int, list[tuple[int, int]]]:
        """Chunks of a set until its share is used up: bytes written, and each chunk's number with its samples."""
        written, spans = 0, []
        most = max(_SMALLEST_CHUNK, min(_CHUNK, 2 * share))
        for lines in self._chunked(group, rows, most):
            chunk = _encoded(b"[" + b",".join(lines) + b"]")
            if written + len(chunk) > share:
                break
            written += len(chunk)
            spans.append((len(self._chunks), len(lines)))
            self._chunks.append(chunk)
        return written, spans

    def _chunked(self, group: _Group, rows: Sequence[int], most: int) -> Iterator[list[bytes]]:
        lines: list[bytes] = []
        size = 0
        for line in self._lines(group, rows):
            if lines and size + len(line) > most:
                yield lines
                lines, size = [], 0
            lines.append(line)
            size += len(line)
        if lines:
            yield lines

    def _lines(self, group: _Group, rows: Sequence[int]) -> Iterator[bytes]:
        """The texts of samples, in the order of `rows`, a batch of them read at a time."""
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            found = [self._texts(group, run, batch) for run in sorted(group.kept)]
            for offset in range(len(batch)):
                yield _json(self._sample([of_run[offset] for of_run in found]))

    def _texts(self, group: _Group, run: int, batch: Sequence[int]) -> list[list[SampleText] | None]:
        """For each sample what it reads like in one run, by metric where the answer depends on it; None: not there."""
        places = [group.places[sample].get(run) for sample in batch]
        there = [place for place in places if place is not None]
        metrics = group.metrics if "acc_norm" in group.metrics else group.metrics[:1]
        read = [samples.texts(group.kept[run], there, metric) for metric in metrics or [""]]
        found = iter(zip(*read, strict=True))
        return [None if place is None else list(next(found)) for place in places]

    def _sample(self, runs: Sequence[list[SampleText] | None]) -> list[Any]:
        """Prompt and target, one text where all runs agree; an answer for each run, or one for each of its metrics."""
        first = [None if texts is None else texts[0] for texts in runs]
        prompts = [None if text is None else self._short(text.prompt) for text in first]
        targets = [None if text is None else self._short(text.target) for text in first]
        answers = [None if texts is None else self._one([self._short(text.answer) for text in texts]) for texts in runs]
        return [self._one(prompts), self._one(targets), answers]

    @staticmethod
    def _one(texts: Sequence[str | None]) -> Any:
        known = {text for text in texts if text is not None}
        return known.pop() if len(known) == 1 else list(texts)

    def _short(self, text: str) -> str:
        if len(text) <= self._limit:
            return text
        self._cut = True
        head = int(self._limit * _HEAD)
        gone = len(text) - self._limit
        return f"{text[:head]} […{gone:,} characters left out…] {text[gone + head :]}"


def _why_none(task: TaskRecord) -> str:
    if task.harness not in ("lm_eval", ""):
        return f"the harness {task.harness} keeps no samples that can be shown"
    return "it kept no samples"


def _rounded(value: float | None) -> float | None:
    if value is None:
        return None
    return int(value) if value == int(value) and abs(value) < 1e9 else float(f"{value:.5g}")


def _json(value: Any) -> bytes:
    """Pure ASCII: also half a character, which JSON may hold and UTF-8 may not, arrives as it is."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _encoded(data: bytes) -> str:
    """Compressed, in the form that browsers call deflate."""
    return base64.b64encode(zlib.compress(data, 9)).decode()
