"""Three hundred tasks at once: what the API server is asked, how long submission takes, what the launcher needs.

The program is the real one, in a process of its own. `pytest -s` prints the figures.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

pytest.importorskip("kubernetes", reason="pip install 'nv-eval-launcher[kubernetes]'")

from launcher.emulators.kubernetes import Config, Node, Timing
from tests.e2e.cluster_bench import bench

pytestmark = [pytest.mark.e2e, pytest.mark.engine]  # alone on the machine: it measures time
TASKS = 300
MOST_REQUESTS, MOST_SECONDS, MOST_MEMORY = 8.0, 30.0, 150.0
"""Requests per task; seconds from the first to the last creation; MB of the launcher."""


def test_three_hundred_tasks(tmp_path: Path) -> None:
    config = Config(nodes=(Node(cpus=10_000.0, gpus=1000),), timing=Timing(tick=0.2))
    with bench(tmp_path, config) as made:
        made.lasts = lambda _: 40.0
        served = {"type": "container", "model_id": "m", "image": "sim/server", "command": ["serve"], "gpus": 1}
        names = [{"name": f"t{number}"} for number in range(TASKS)]
        document = {
            "execution": {"type": "kubernetes", "job_image": "sim/job", "output_dir": "results"},
            "deployment": {**served, "start_timeout": 120, "health_timeout": 20},
            "evaluation": {"harness": "command", "command": ["true"], "timeout": 120, "tasks": names},
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
        words = [sys.executable, "-m", "launcher.cli.main", "run", "--config-dir", str(tmp_path)]
        words += ["--config-name", "config", f"execution.output_dir={tmp_path}/results"]
        env = {**os.environ, "KUBECONFIG": str(made.emulator.kubeconfig), "NV_EVAL_HOME": str(tmp_path / "state")}

        code, memory = run(words, env, tmp_path)

        asked = [request for request in made.emulator.requests if request.status < 500]
        created = [r.time for r in asked if r.method == "POST" and r.path.endswith(("/deployments", "/services"))]
        left = made.emulator.left()
    per_task, seconds = len(asked) / TASKS, max(created) - min(created)
    print(f"{TASKS} tasks: {per_task:.2f} requests per task, submitted in {seconds:.1f} s, launcher {memory:.0f} MB")
    assert (code, left) == (0, []), (tmp_path / "out").read_text()[-2000:]
    assert per_task <= MOST_REQUESTS
    assert seconds <= MOST_SECONDS
    assert memory <= MOST_MEMORY


def peak_memory(pid: int) -> float:
    """Most memory of a process so far, in MB; what wait4 tells is at least that of the process which started it."""
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    return 0.0


def run(words: list[str], env: dict[str, str], folder: Path) -> tuple[int, float]:
    """Exit code of a program, and the most memory it had, in MB."""
    with (folder / "out").open("w") as out:
        pid = os.posix_spawn(
            words[0],
            words,
            env,
            file_actions=[(os.POSIX_SPAWN_DUP2, out.fileno(), 1), (os.POSIX_SPAWN_DUP2, out.fileno(), 2)],
        )
        deadline = time.monotonic() + 400
        memory = 0.0
        while time.monotonic() < deadline:
            memory = max(memory, peak_memory(pid))
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status), memory
            time.sleep(0.2)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    return -9, 0.0
