"""A result file as leaderboards on Hugging Face read it.

The layout is lm-eval's, https://github.com/EleutherAI/lm-evaluation-harness, with what the readers of the Open LLM
leaderboard and of the leaderboards made from its template look for: `config` or `config_general` with `model_name`,
`model_sha` and `model_dtype`, and `results` by task and metric.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any, ClassVar

from launcher.config.export import Leaderboard
from launcher.harnesses.spec import Score
from launcher.results.exporters import places
from launcher.results.exporters.base import Bundle, is_number
from launcher.results.model import Record


class Exporter:
    """Writes MODEL/results_TIME.json; one file for each invocation."""

    summary: ClassVar[str] = "result files that leaderboards on Hugging Face read"
    extra: ClassVar[str] = "huggingface"
    modules: ClassVar[tuple[str, ...]] = ()

    def __init__(self, options: Leaderboard) -> None:
        self._options = options

    def problems(self) -> list[str]:
        """A URL without fsspec."""
        url = self._options.folder is not None and places.is_url(self._options.folder)
        if url and find_spec("fsspec") is None:
            return ["export.leaderboard.folder: a URL needs fsspec; pip install 'nv-eval-launcher[fsspec]'"]
        return []

    def destination(self, bundle: Bundle) -> str:
        """The file."""
        return f"{places.shown(bundle.place(self._options.folder, 'leaderboard'))}/{_name(bundle)}"

    def send(self, bundle: Bundle) -> None:
        """Write the file where it differs."""
        content = json.dumps(document(bundle, self._options.precision), indent=2, allow_nan=False) + "\n"
        places.put(bundle.place(self._options.folder, "leaderboard"), {_name(bundle): content.encode()})


def _name(bundle: Bundle) -> str:
    time = datetime.fromtimestamp(bundle.record.created, UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
    return f"{places.below(bundle.model)}/results_{time}.json"


def document(bundle: Bundle, precision: str) -> dict[str, Any]:
    """The file's content; tasks without scores are only below `nv_eval`."""
    record = bundle.record
    model = {"model_name": bundle.model, "model_sha": record.model.revision or "", "model_dtype": precision}
    scores = list(_scores(record))
    return {
        "config_general": {**model, "total_evaluation_time_secondes": str(record.seconds)},
        "config": {**model, "model_args": f"pretrained={bundle.model}"},
        "results": _by_task(scores, _numbers),
        "versions": _by_task(scores, lambda score: score.version),
        "n-shot": _by_task(scores, lambda score: score.num_fewshot),
        "n-samples": _by_task(scores, lambda score: {"original": score.n, "effective": score.n} if score.n else None),
        "higher_is_better": _by_task(
            scores, lambda score: None if score.higher_is_better is None else {score.metric: score.higher_is_better}
        ),
        "configs": {},
        "date": record.created,
        "nv_eval": {
            "invocation": record.invocation,
            "failed": {task.key: task.reason for task in record.tasks if task.status != "scored"},
        },
    }


def _scores(record: Record) -> Iterator[tuple[str, Score]]:
    """Scores with the name of their task, which is there once: a task that ran twice has its key."""
    for task in record.tasks:
        for score in task.scores:
            if is_number(score.value):
                yield (score.task if task.key == task.name else f"{task.key}/{score.task}"), score


def _by_task(scores: list[tuple[str, Score]], read: Any) -> dict[str, Any]:
    """What `read` finds in the scores of each task; mappings are merged."""
    found: dict[str, Any] = {}
    for name, score in scores:
        value = read(score)
        if isinstance(value, dict):
            found[name] = {**found.get(name, {"alias": name} if read is _numbers else {}), **value}
        elif value is not None:
            found[name] = value
    return found


def _numbers(score: Score) -> dict[str, float]:
    """`metric,filter` as lm-eval writes it, and `metric` alone, which older readers look for."""
    pairs = {score.metric: score.value, f"{score.metric}_stderr": score.stderr}
    named = {f"{name},{score.filter or 'none'}": value for name, value in pairs.items()}
    plain = pairs if score.filter in ("none", "") else {}
    return {name: value for name, value in {**named, **plain}.items() if value is not None and is_number(value)}
