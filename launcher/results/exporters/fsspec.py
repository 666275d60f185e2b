"""CSV, Parquet and the files of an invocation to any URL that fsspec knows."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from launcher.config.export import Fsspec
from launcher.results import samples, table
from launcher.results.exporters import places
from launcher.results.exporters.base import Bundle
from launcher.results.model import Record

TASK_COLUMNS = {
    "invocation": "string",
    "model": "string",
    "task_key": "string",
    "task": "string",
    "harness": "string",
    "status": "string",
    "reason": "string",
    "detail": "string",
    "seconds": "float64",
    "gpu_seconds": "float64",
    "usd": "float64",
    "prompt_tokens": "int64",
    "completion_tokens": "int64",
}
"""Columns of the table of tasks, which also has those without scores."""


class Exporter:
    """Writes INVOCATION/scores.* and tasks.*, and the other files where they are wanted."""

    summary: ClassVar[str] = "CSV, Parquet and files to any fsspec URL"
    extra: ClassVar[str] = "fsspec"
    modules: ClassVar[tuple[str, ...]] = ("fsspec",)

    def __init__(self, options: Fsspec) -> None:
        self._options = options

    def problems(self) -> list[str]:
        """A kind of URL that nobody knows, variables that are not set."""
        found = [
            f"export.fsspec.option_names.{option}: variable {name} is not set"
            for option, name in self._options.option_names.items()
            if name not in os.environ
        ]
        return [*self._unknown(), *found]

    def _unknown(self) -> list[str]:
        if not places.is_url(self._options.url) or find_spec("fsspec") is None:
            return []
        from fsspec.registry import known_implementations, registry

        scheme = self._options.url.partition("://")[0]
        if scheme in registry:
            return []
        if scheme not in known_implementations:
            return [f"export.fsspec.url: fsspec knows no {scheme}://"]
        module = known_implementations[scheme]["class"].partition(".")[0]
        needed = f"export.fsspec.url: {scheme}:// needs a package that is not installed: "
        return [] if find_spec(module) else [needed + known_implementations[scheme].get("err", module)]

    def destination(self, bundle: Bundle) -> str:
        """The folder."""
        return f"{places.shown(self._options.url).rstrip('/')}/{bundle.record.invocation}"

    def send(self, bundle: Bundle) -> None:
        """Write what differs."""
        names = self._options.option_names
        options = self._options.options | {option: os.environ[name] for option, name in names.items()}
        files = {f"{bundle.record.invocation}/{name}": content for name, content in self._files(bundle).items()}
        places.put(self._options.url, files, options)

    def _files(self, bundle: Bundle) -> dict[str, bytes]:
        records = [bundle.record]
        files: dict[str, bytes] = {}
        if "csv" in self._options.formats:
            files |= {"scores.csv": table.to_csv(records).encode(), "tasks.csv": _csv(bundle.record)}
        if "parquet" in self._options.formats:
            files["scores.parquet"] = _written(lambda path: table.write_parquet(records, path))
            files["tasks.parquet"] = _written(lambda path: _parquet(bundle.record, path))
        if self._options.artifacts:
            files |= {path.name: path.read_bytes() for path in bundle.files(("results.json", "provenance.json"))}
        return files | (_samples(bundle) if self._options.samples else {})


def _samples(bundle: Bundle) -> dict[str, bytes]:
    """Files of samples under names that a further attempt keeps."""
    return {
        f"samples/{task.key}/{sub_task}.jsonl": path.read_bytes()
        for task in bundle.record.tasks
        for sub_task, path in samples.files(bundle.folder / task.key / "output")
    }


def _rows(record: Record) -> list[dict[str, Any]]:
    return [
        {
            "invocation": record.invocation,
            "model": record.model.served_name,
            "task_key": task.key,
            "task": task.name,
            "harness": task.harness,
            "status": task.status,
            "reason": task.reason,
            "detail": task.detail,
            "seconds": task.seconds,
            "gpu_seconds": task.gpu_seconds,
            "usd": task.usd,
            "prompt_tokens": task.tokens.prompt if task.tokens else None,
            "completion_tokens": task.tokens.completion if task.tokens else None,
        }
        for task in record.tasks
    ]


def _csv(record: Record) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(TASK_COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: table.cell(value) for name, value in row.items()} for row in _rows(record))
    return out.getvalue().encode()


def _parquet(record: Record, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"string": pa.string(), "float64": pa.float64(), "int64": pa.int64()}
    schema: Sequence[Any] = [(name, kinds[kind]) for name, kind in TASK_COLUMNS.items()]
    pq.write_table(pa.Table.from_pylist(_rows(record), schema=pa.schema(schema)), path)


def _written(write: Callable[[Path], None]) -> bytes:
    """What a function writes into a file."""
    with tempfile.TemporaryDirectory(prefix="nv-eval-") as folder:
        write(Path(folder) / "table")
        return (Path(folder) / "table").read_bytes()
