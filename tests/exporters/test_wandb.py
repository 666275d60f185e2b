"""Weights & Biases, offline: what it wrote is decoded with its own messages."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launcher.results.exporters.sending import State
from tests.exporters.runs import INVOCATION, change, mended
from tests.exporters.sent import send

BLOCK = 32_768


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: LevelDB's log format, of which each entry is a message of W&B's."""
    from wandb.proto import wandb_internal_pb2

    data, place, parts = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while place + 7 <= len(data):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


class Offline:
    """One run as it lies in a folder."""

    def __init__(self, folder: Path) -> None:
        self.summary: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.history = self.artifacts = 0
        self.exit_code: int | None = None
        for record in records(next(folder.glob("*.wandb"))):
            self._take(record)

    def _take(self, record: Any) -> None:
        kind = record.WhichOneof("record_type")
        if kind == "run":
            self.id, self.group, self.project = record.run.run_id, record.run.run_group, record.run.project
            self.config |= {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.run.config.update}
        elif kind == "summary":
            self.summary |= {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.summary.update}
        elif kind == "artifact":
            self.artifacts += 1
        elif kind == "history":
            self.history += 1
        elif kind == "exit":
            self.exit_code = record.exit.exit_code


def offline(folder: Path) -> list[Offline]:
    return [Offline(found) for found in sorted((folder / "exports" / "wandb" / "wandb").glob("offline-run-*"))]


def test_each_task_is_one_run_with_its_summary(folder: Path) -> None:
    assert send(folder, "wandb", mode="offline") is State.EXPORTED

    by_task = {run.config["task"]: run for run in offline(folder)}
    assert set(by_task) == {"hellaswag", "gsm8k", "broken"}
    good, bad = by_task["hellaswag"], by_task["broken"]
    assert good.group == INVOCATION and good.project == "nv-eval"
    assert good.summary["acc"] == 0.75 and good.summary["completion_tokens"] == 4 and "odd" not in good.summary
    assert good.config["settings.limit"] == "4" and good.exit_code == 0 and good.history == 0
    assert good.artifacts == 1
    assert bad.exit_code == 1 and bad.summary["status"] == "failed"
    assert "acc" not in bad.summary


def test_a_second_export_makes_no_run_and_a_changed_one_the_same_run_again(folder: Path) -> None:
    send(folder, "wandb", mode="offline")
    first = {run.id: run for run in offline(folder)}
    assert send(folder, "wandb", mode="offline") is State.UNCHANGED
    assert send(folder, "wandb", again=True, mode="offline") is State.EXPORTED
    assert [run.id for run in offline(folder)] == list(first)

    change(folder, mended)
    send(folder, "wandb", mode="offline")
    every = offline(folder)
    assert {run.id for run in every} == set(first) and len(every) == 2 * len(first)
    assert {run.summary["status"] for run in every[3:]} == {"scored"}
