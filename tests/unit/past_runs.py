"""Runs that have ended, as they lie on disk: results.json, provenance.json and lm-eval's files of samples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from launcher.harnesses.spec import Score
from launcher.results.model import ModelRecord, Record, TaskRecord

STAMP = "2026-01-02T03-04-05.678901"


@dataclass(frozen=True)
class PastTask:
    """One task; `values` of its samples by metric, of which None, NaN and lists are written as they are."""

    name: str
    values: dict[str, Sequence[Any]]
    ids: Sequence[int] | None = None
    prompt: str = "Question {id}?"
    document: str = "document {id}"
    fingerprint: str = "f1"
    key: str = ""
    score: dict[str, Any] = field(default_factory=dict)
    """Fields of every score that are other than what the samples make them."""
    group: Score | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    logged: bool = True

    @property
    def folder(self) -> str:
        return self.key or self.name

    def scores(self) -> list[Score]:
        made = [self._score(metric, values) for metric, values in self.values.items()]
        return [self.group, *made] if self.group else made

    def _score(self, metric: str, values: Sequence[Any]) -> Score:
        known = [value for value in values if isinstance(value, int | float) and value == value]
        spread = float(np.std(known, ddof=1)) / len(known) ** 0.5 if len(known) > 1 else None
        made = Score(
            task=self.name,
            metric=metric,
            filter="none",
            value=float(np.mean(known)) if known else None,
            stderr=spread,
            n=len(values),
            higher_is_better=True,
            num_fewshot=0,
            version="1.0",
        )
        return replace(made, **self.score)

    def lines(self) -> str:
        columns = [[(metric, value) for value in values] for metric, values in self.values.items()]
        rows = list(zip(*columns, strict=True))
        ids = self.ids if self.ids is not None else range(len(rows))
        return "".join(json.dumps(self._line(key, dict(row))) + "\n" for key, row in zip(ids, rows, strict=True))

    def _line(self, key: int, values: dict[str, Any]) -> dict[str, Any]:
        prompt, document = self.prompt.format(id=key), self.document.format(id=key)
        return {
            "doc_id": key,
            "doc": {"text": document},
            "target": f"target {key}",
            "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": {"until": []}}},
            "resps": [["answer"]],
            "filtered_resps": [f"answer {next(iter(values.values()))}"],
            "filter": "none",
            "metrics": list(values),
            "doc_hash": digest(document),
            "prompt_hash": digest(prompt),
            "target_hash": digest(f"target {key}"),
            **values,
        }


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_run(root: Path, invocation: str, *tasks: PastTask, **fields: Any) -> Path:
    """Write a run; returns its folder."""
    folder = root / invocation
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text("{}")
    records = [record_of(task) for task in tasks]
    model = ModelRecord(served_name="small")
    made = {"created": 0.0, "execution": "local", "deployment": "smollm", "seconds": 1.0, "complete": True, **fields}
    record = Record(invocation=invocation, model=model, tasks=records, **made)
    (folder / "results.json").write_bytes(msgspec.json.encode(record))
    known = {
        task.folder: {"harness": {"tasks": {task.name: {"dataset_fingerprint": task.fingerprint}}}} for task in tasks
    }
    (folder / "provenance.json").write_text(json.dumps({"tasks": known}))
    for task in tasks:
        write_samples(folder, task)
    return folder


def record_of(task: PastTask) -> TaskRecord:
    scores = task.scores()
    status, reason = ("scored", "completed") if scores else ("failed", "harness_failed")
    return TaskRecord(
        key=task.folder,
        name=task.group.task if task.group else task.name,
        harness="lm_eval",
        status=status,
        reason=reason,
        scores=scores,
        settings=task.settings,
    )


def write_samples(folder: Path, task: PastTask) -> Path:
    output = folder / task.folder / "output"
    output.mkdir(parents=True)
    (output / f"results_{STAMP}.json").write_text("{}")
    path = output / f"samples_{task.name}_{STAMP}.jsonl"
    if task.logged and task.values:
        path.write_text(task.lines())
    return path
