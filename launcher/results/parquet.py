"""Writes the scores table as Parquet: `python -m launcher.results.parquet FILE`, rows as JSON on standard input.

A program of its own, because pyarrow takes more memory than all the rest of a launcher that watches a thousand tasks.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.errors import ResultsError

PATIENCE = 120.0
"""Seconds after which it is not waited for any more."""
Rows = Sequence[Mapping[str, Any]]


def write(rows: Rows, columns: Mapping[str, str], path: Path) -> None:
    """Write rows with these columns and types (string, float64, int64, bool). Raises ResultsError and OSError."""
    if "pyarrow" in sys.modules:
        try:
            write_here(rows, columns, path)
        except (ValueError, OverflowError) as error:  # such as a number of samples that has more than 64 bits
            raise ResultsError(f"{path}: cannot be written: {error}") from None
        return
    document = json.dumps({"rows": list(rows), "columns": dict(columns)})
    command = [sys.executable, "-P", "-m", "launcher.results.parquet", str(path)]
    try:
        done = subprocess.run(
            command, input=document, capture_output=True, text=True, encoding="utf-8", timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise ResultsError(f"it took longer than {PATIENCE:.0f} s") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise ResultsError(said[-1] if said else f"the process that writes it ended with status {done.returncode}")


def write_here(rows: Rows, columns: Mapping[str, str], path: Path) -> None:
    """As `write`, in this process."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"string": pa.string(), "float64": pa.float64(), "int64": pa.int64(), "bool": pa.bool_()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)


def main() -> int:
    """Exit status 0 when the file is written; otherwise the last line on standard error says why not."""
    document = json.loads(sys.stdin.buffer.read())
    try:
        write_here(document["rows"], document["columns"], Path(sys.argv[1]))
    except Exception as error:  # for the person, in a line; whatever a library meets
        reason = error.strerror if isinstance(error, OSError) and error.strerror else f"{error}"
        sys.stderr.write(f"{reason or type(error).__name__}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
