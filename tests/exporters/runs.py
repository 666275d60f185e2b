"""A run that has ended, with everything that an exporter may show: two tasks with scores, one that failed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec

from launcher.harnesses.spec import Score
from launcher.results import read
from launcher.results.model import ModelRecord, Record, Tokens
from launcher.results.timeline import Span, Timeline
from tests.unit.past_runs import PastTask, write_run

INVOCATION = "0a1b2c3d"
BEGAN, ENDED = 1_767_323_045.25, 1_767_323_405.5
MODEL = ModelRecord(model_id="acme/small", served_name="small", revision="abc")
ACC = [1.0, 0.0, 1.0, 1.0]


def ended_run(root: Path) -> Path:
    """Write the run; returns its folder."""
    folder = write_run(
        root,
        INVOCATION,
        PastTask(name="hellaswag", values={"acc": ACC, "acc_norm": [1.0, 1.0, 1.0, 0.0]}, settings={"limit": 4}),
        PastTask(name="gsm8k", values={"exact_match": [0.0, 1.0]}),
        PastTask(name="broken", values={}),
        created=BEGAN,
        seconds=ENDED - BEGAN,
        complete=False,
        exit_code=4,
    )
    (folder / "timeline.json").write_bytes(msgspec.json.encode(_timeline()))
    change(folder, lambda record: replace(record, model=MODEL, tasks=_used(record)))
    return folder


def _used(record: Record):
    first, second, failed = record.tasks
    scores = [*first.scores, Score(task="hellaswag", metric="odd", filter="none", value=None, n=4)]
    return [
        replace(first, gpu_seconds=120.0, usd=0.5, tokens=Tokens(prompt=800, completion=4), scores=scores),
        replace(second, gpu_seconds=60.0, tokens=Tokens(prompt=100, completion=50)),
        replace(failed, detail="no space left", evidence={"job": ["OSError: no space"]}),
    ]


def _timeline() -> Timeline:
    spans = []
    for index, task in enumerate(("hellaswag", "gsm8k", "broken")):
        at = BEGAN + index
        times = {"began": at, "ready": at + 20, "ended": at + 300}
        spans.append(Span(kind="endpoint", name=f"vllm-{task}", task=task, attempt=1, gpus=1, users=[task], **times))
        reason = "harness_failed" if task == "broken" else "completed"
        spans.append(Span(kind="job", name=f"eval-{task}", task=task, attempt=1, reason=reason, **times))
    return Timeline(invocation=INVOCATION, began=BEGAN, ended=ENDED, spans=spans)


def change(folder: Path, how) -> None:
    """Write results.json again, as a resumed run does."""
    record = how(read.load(folder))
    (folder / "results.json").write_bytes(msgspec.json.encode(record))


def mended(record: Record) -> Record:
    """The run after a resume: the failed task has a score, another has a new one."""
    first, second, failed = record.tasks
    again = replace(first.scores[0], value=0.25)
    healed = Score(task="broken", metric="acc", filter="none", value=0.5, stderr=0.1, n=10, higher_is_better=True)
    tasks = [
        replace(first, scores=[again, *first.scores[1:]]),
        second,
        replace(failed, status="scored", reason="completed", detail="", scores=[healed], evidence={}),
    ]
    return replace(record, tasks=tasks, complete=True, resumed=True, exit_code=0)
