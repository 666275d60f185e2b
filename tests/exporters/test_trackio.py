"""Trackio on this machine, read back through its own storage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from launcher.results.exporters.sending import State
from tests.exporters.runs import INVOCATION, change, mended
from tests.exporters.sent import send

READ = """
import json, sys
from trackio.sqlite_storage import SQLiteStorage as storage
runs = {r: [storage.get_logs("nv-eval", r), storage.get_run_config("nv-eval", r)] for r in storage.get_runs("nv-eval")}
print(json.dumps(runs))
"""


def stored(folder: Path) -> dict[str, Any]:
    """What Trackio has, by run; it takes its folder when it is imported, so that this needs a process of its own."""
    env = {"PATH": "/usr/bin:/bin", "TRACKIO_DIR": str(folder), "HOME": str(folder)}
    done = subprocess.run([sys.executable, "-c", READ], env=env, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_trackio_has_each_task_once_and_a_changed_score_as_a_further_step(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "trackio"
    assert send(folder, "trackio", folder=str(place)) is State.EXPORTED

    before = stored(place)
    assert set(before) == {f"{task} {INVOCATION}" for task in ("hellaswag", "gsm8k", "broken")}
    ((good,), config) = before[f"hellaswag {INVOCATION}"]
    assert good["acc"] == 0.75 and good["usd"] == 0.5 and config["settings.limit"] == "4"
    ((bad,), _) = before[f"broken {INVOCATION}"]
    assert bad["status"] == "failed" and "acc" not in bad

    assert send(folder, "trackio", folder=str(place)) is State.UNCHANGED
    assert send(folder, "trackio", again=True, folder=str(place)) is State.EXPORTED
    assert stored(place) == before

    change(folder, mended)
    send(folder, "trackio", folder=str(place))
    after = stored(place)
    assert [log["acc"] for log in after[f"hellaswag {INVOCATION}"][0]] == [0.75, 0.25]
    assert after[f"gsm8k {INVOCATION}"] == before[f"gsm8k {INVOCATION}"]
