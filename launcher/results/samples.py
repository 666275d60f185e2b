"""Samples of a task, as lm-eval logs them: which documents were asked, and what each one scored.

Only numbers and digests are kept, a few hundred bytes for each sample; texts are read again from the file for the
few samples that somebody wants to see.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.errors import ResultsError

_NAME = re.compile(r"samples_(?P<task>.+)_(?P<stamp>\d{4}-\d\d-\d\dT[-\d.]+)\.jsonl")
_BYTES_SHOWN = 60
_CLUSTER_DIGITS = 16
NO_VALUE = math.nan
"""Stands in arrays of values where a sample has none: it never counts as 0."""


@dataclass
class SampleSet:
    """Samples of one sub-task under one filter, in the order of their file.

    `docs`, `prompts` and `targets` are lm-eval's digests, empty text where it wrote none; `offsets` where each
    sample's line begins, in bytes; `values` by metric, NO_VALUE where a sample has no number.
    """

    task: str
    filter: str
    path: Path
    ids: list[int | str] = field(default_factory=list)
    docs: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    offsets: array[int] = field(default_factory=lambda: array("q"))
    values: dict[str, array[float]] = field(default_factory=dict)
    clusters: list[str] = field(default_factory=list)
    """Digests of what samples share, where `read` was told which field that is; empty text where one has none."""

    def __len__(self) -> int:
        return len(self.ids)

    def positions(self) -> dict[int | str, int]:
        """Where each id is. Raises ResultsError if one is there twice."""
        found = {key: place for place, key in enumerate(self.ids)}
        if len(found) != len(self.ids):
            raise ResultsError(f"{self.path}: filter {self.filter}: the same doc_id is there twice")
        return found

    def add(self, line: dict[str, Any], offset: int, cluster_by: str = "") -> None:
        """Take a sample in."""
        metrics = _metrics(line)
        for metric in metrics - self.values.keys():
            self.values[metric] = array("d", [NO_VALUE] * len(self.ids))
        self.ids.append(_id(line["doc_id"]))
        for digests, key in ((self.docs, "doc_hash"), (self.prompts, "prompt_hash"), (self.targets, "target_hash")):
            digests.append(str(line.get(key) or ""))
        self.offsets.append(offset)
        if cluster_by:
            self.clusters.append(_cluster(line.get("doc"), cluster_by))
        for metric, values in self.values.items():
            values.append(number(line.get(metric)) if metric in metrics else NO_VALUE)


def _id(found: int | str) -> int | str:
    return found if isinstance(found, int) else _whole(found)


@dataclass(frozen=True)
class SampleText:
    """What one sample reads like: prompt, what was expected, what the model answered."""

    prompt: str
    target: str
    answer: str


def number(value: Any) -> float:
    """The number of a sample; NO_VALUE for null, NaN, infinity, and everything that is no single number."""
    if isinstance(value, int | float):
        try:
            found = float(value)
        except OverflowError:
            return NO_VALUE
        return found if math.isfinite(found) else NO_VALUE
    return NO_VALUE


def read(output: Path, cluster_by: Callable[[str], str] = lambda _task: "") -> dict[tuple[str, str], SampleSet]:
    """Samples of the newest results below a task's `output` folder, by sub-task and filter; none where none are kept.

    `cluster_by`: the field of a sub-task's documents whose equal values belong together; empty where it has none.
    Raises ResultsError if a file is broken or cut off.
    """
    found: dict[tuple[str, str], SampleSet] = {}
    for task, path in files(output):
        common = cluster_by(task)
        for offset, line in _lines(path):
            key = (task, str(line["filter"]))
            if key not in found:
                found[key] = SampleSet(*key, path=path)
            found[key].add(line, offset, common)
    return found


def files(output: Path) -> Iterator[tuple[str, Path]]:
    """Sub-tasks with the files of their samples, those beside the newest results file: not an earlier attempt's."""
    results = sorted(output.rglob("results_*.json"), key=lambda path: path.name)
    if not results:
        return
    stamp = results[-1].stem.removeprefix("results_")
    for path in sorted(results[-1].parent.glob("samples_*.jsonl")):
        match = _NAME.fullmatch(path.name)
        if match and match["stamp"] == stamp:
            yield match["task"], path


def texts(samples: SampleSet, places: Iterable[int], metric: str) -> list[SampleText]:
    """Texts of the samples at `places`. Raises ResultsError if the file has changed meanwhile."""
    found = []
    try:
        with samples.path.open("rb") as file:
            for place in places:
                file.seek(samples.offsets[place])
                found.append(_text(json.loads(file.readline()), metric))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{samples.path}: cannot be read again: {error}") from error
    return found


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each line with the byte at which it begins."""
    offset, number_of_line = 0, 0
    try:
        with path.open("rb") as file:
            for line in file:
                number_of_line += 1
                yield offset, _sample(line)
                offset += len(line)
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ResultsError(f"{path}:{number_of_line}: broken or cut off: {_reason(error)}") from error


def _sample(line: bytes) -> dict[str, Any]:
    sample = json.loads(line)
    if not isinstance(sample, dict):
        raise TypeError("is no JSON object")
    if not isinstance(sample["doc_id"], int | str) or not isinstance(sample["filter"], str):
        raise TypeError("doc_id or filter is of the wrong type")
    return sample


def _cluster(document: Any, names: str) -> str:
    """Digest of a field of a document; `a.b` is the field b of the field a."""
    for name in names.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    if document in (None, ""):
        return ""
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()[:_CLUSTER_DIGITS]


def _reason(error: Exception) -> str:
    return f"has no {error.args[0]}" if isinstance(error, KeyError) else str(error)[:_BYTES_SHOWN]


def _metrics(line: dict[str, Any]) -> set[str]:
    """Names of the numbers in a sample: lm-eval lists them, its older versions leave them among the other keys."""
    listed = line.get("metrics")
    if isinstance(listed, list):
        return {name for name in listed if isinstance(name, str) and name in line}
    return {name for name, value in line.items() if name != "doc_id" and isinstance(value, int | float)}


def _text(line: dict[str, Any], metric: str) -> SampleText:
    requests = _requests(line.get("arguments"))
    choices = [_part(request, 1) for request in requests]
    target, answers = line.get("target"), line.get("filtered_resps")
    chosen = _chosen(answers, choices, metric) if len(choices) > 1 else None
    return SampleText(
        prompt=_whole(_part(requests[0], 0)) if requests else "",
        target=_whole(_choice(target, choices) if len(choices) > 1 else _plain(target)),
        answer=_whole(choices[chosen].strip() if chosen is not None else _plain(_only(answers))),
    )


def _whole(text: str) -> str:
    """A text that can be written anywhere: half characters, which no file can hold, by their numbers."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _requests(arguments: Any) -> list[Any]:
    """The requests of a sample; lm-eval writes them as a mapping, its older versions as a list."""
    if isinstance(arguments, dict):
        return list(arguments.values())
    return arguments if isinstance(arguments, list) else []


def _part(request: Any, index: int) -> str:
    if isinstance(request, dict):
        return _plain(request.get(f"arg_{index}", ""))
    return _plain(request[index]) if isinstance(request, list) and len(request) > index else ""


def _chosen(answers: Any, choices: list[str], metric: str) -> int | None:
    """The given answer that the model finds likeliest; for `acc_norm`, for its length."""
    if not isinstance(answers, list) or len(answers) != len(choices):
        return None
    try:
        likelihoods = [float(answer[0]) for answer in answers]
    except (TypeError, ValueError, IndexError):
        return None
    if metric == "acc_norm":
        likelihoods = [one / max(1, len(choice.strip())) for one, choice in zip(likelihoods, choices, strict=True)]
    return max(range(len(choices)), key=likelihoods.__getitem__)


def _choice(target: Any, choices: list[str]) -> str:
    """A target that is the number of a given answer, as its text."""
    text = _plain(target)
    return choices[int(text)].strip() if text.isdecimal() and int(text) < len(choices) else text


def _only(answers: Any) -> Any:
    return answers[0] if isinstance(answers, list) and len(answers) == 1 else answers


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
