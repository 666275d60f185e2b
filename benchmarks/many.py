"""A state folder with many past invocations, as a year of nightly sweeps leaves it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import msgspec

from launcher.harnesses.spec import Score
from launcher.orchestrator import schema
from launcher.orchestrator.journal import Fact, Journal
from launcher.results.model import ModelRecord, Record, TaskRecord, Tokens

LIFE = (
    Fact.INTEND_CREATE_ENDPOINT,
    Fact.ENDPOINT_CREATED,
    Fact.INTEND_SUBMIT_JOB,
    Fact.JOB_SUBMITTED,
    Fact.TASK_EVALUATING,
    Fact.TASK_ENDED,
    Fact.TASK_COLLECTED,
    Fact.INTEND_DELETE_ENDPOINT,
    Fact.TASK_GONE,
)
SETTINGS = {"harness": "lm_eval", "limit": 100, "seed": 1234, "concurrency": 4, "batch_size": 1, "timeout": 14400.0}


def fill(home: Path, invocations: int, tasks: int, *, execution: str = "lepton") -> list[str]:
    """Write that many invocations of that many scored tasks each; returns their ids, oldest first."""
    journal = Journal(home / "journal.db")
    names = [f"task_{number}" for number in range(tasks)]
    ids = [f"{number:08x}" for number in range(invocations)]
    begun = time.time() - 3600.0 * invocations
    with schema.writing(journal._db):
        for number, id_ in enumerate(ids):
            _facts(journal, id_, names, home / "results" / id_, begun + 3600.0 * number, execution)
    for number, id_ in enumerate(ids):
        _results(home / "results" / id_, id_, names, begun + 3600.0 * number, execution)
    return ids


def _facts(journal: Journal, id_: str, tasks: list[str], folder: Path, begun: float, execution: str) -> None:
    db = journal._db
    row = (id_, begun, execution, "vllm", str(folder), json.dumps(tasks), "host", os.getpid(), "0")
    db.execute("INSERT INTO invocations VALUES (?,?,?,?,?,?,?,?,?)", row)
    facts = [(begun, id_, None, Fact.RUN_STARTED, "", "{}")]
    facts += [(begun + step, id_, task, kind, f"name-{task}", "{}") for task in tasks for step, kind in enumerate(LIFE)]
    facts.append((begun + 99.0, id_, None, Fact.RUN_ENDED, "", '{"exit_code": 0, "leftovers": []}'))
    db.executemany("INSERT INTO facts (time,invocation,task,kind,name,data) VALUES (?,?,?,?,?,?)", facts)
    live = [{"task": task, "phase": "completed", "done": 100, "total": 100, "usd": 0.5} for task in tasks]
    db.execute("INSERT INTO live VALUES (?,?,?)", (id_, begun + 99.0, json.dumps(live)))


def _results(folder: Path, id_: str, tasks: list[str], begun: float, execution: str) -> None:
    folder.mkdir(parents=True)
    model = ModelRecord(model_id="organisation/model", served_name="model", revision="0" * 40)
    record = Record(
        invocation=id_,
        created=begun,
        execution=execution,
        deployment="vllm",
        model=model,
        seconds=99.0,
        complete=True,
        tasks=[_task(name) for name in tasks],
    )
    (folder / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(record)))


def _task(name: str) -> TaskRecord:
    scores = [
        Score(
            task=name,
            metric=metric,
            filter="none",
            value=0.5,
            stderr=0.05,
            n=100,
            higher_is_better=True,
            num_fewshot=0,
            version="1.0",
            low=0.4,
            high=0.6,
            interval="wilson",
        )
        for metric in ("acc", "acc_norm")
    ]
    return TaskRecord(
        key=name,
        name=name,
        harness="lm_eval",
        status="scored",
        reason="completed",
        seconds=90.0,
        gpu_seconds=90.0,
        usd=0.5,
        tokens=Tokens(prompt=10000, completion=2000),
        scores=scores,
        settings=SETTINGS,
    )
