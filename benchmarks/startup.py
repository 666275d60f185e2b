"""Start-up: what a command costs against a bare Python, and the dry run against Hydra composing the same config.

Medians of several runs, interleaved, so that a busy machine slows all alike.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.many import fill

ROOT = Path(__file__).resolve().parent.parent
LEPTON = ["run", "--dry-run", "--config-dir", "examples", "--config-name", "lepton_vllm_llama_3_1_8b_instruct"]
COMPOSE = """
from hydra import compose, initialize_config_dir
from launcher.config.compose import Request, compose_tree
compose_tree(Request(name="lepton_vllm_llama_3_1_8b_instruct", config_dir="examples"))
"""
LAUNCHER = [sys.executable, "-m", "launcher.cli.main"]
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "nv-eval --help": [*LAUNCHER, "--help"],
    "nv-eval status": [*LAUNCHER, "status"],
    "nv-eval ls tasks hella": [*LAUNCHER, "ls", "tasks", "hella"],
    "Hydra composing the Lepton example": [sys.executable, "-c", COMPOSE],
    "nv-eval run --dry-run of the Lepton example": [*LAUNCHER, *LEPTON],
}
TARGETS = {"nv-eval --help": 5.0, "nv-eval status": 5.0}
"""Times a bare Python."""
PAST = {
    "nv-eval ls": [*LAUNCHER, "ls"],
    "nv-eval status": [*LAUNCHER, "status"],
    "nv-eval results --all": [*LAUNCHER, "results", "--all"],
}
"""Commands that look at all that ran."""
PAST_TARGETS = {"nv-eval ls": 0.2, "nv-eval results --all": 1.0}
"""Seconds."""


def run(*, quick: bool) -> list[Figure]:
    """Each command over a bare Python, and the dry run over Hydra."""
    medians = measure(2 if quick else 9)
    base, found = medians["python -c pass"], []
    for name, seconds in medians.items():
        aim = TARGETS.get(name)
        found.append(Figure(bench="startup", name=name, value=seconds / base, unit="x", target=aim, note=_ms(seconds)))
    dry, compose = medians[list(COMMANDS)[-1]], medians[list(COMMANDS)[-2]]
    found.append(
        Figure(bench="startup", name="dry run over Hydra's compose", value=dry / compose, unit="x", target=1.5)
    )
    for name, seconds in measure_past(2 if quick else 5).items():
        full = f"{name}, 1,000 past invocations of 10 tasks"
        found.append(Figure(bench="startup", name=full, value=seconds, unit="s", target=PAST_TARGETS.get(name)))
    return found


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def measure(repeat: int) -> dict[str, float]:
    """Median wall seconds of each command."""
    with tempfile.TemporaryDirectory() as home:
        return _medians(COMMANDS, home, repeat)


def measure_past(repeat: int) -> dict[str, float]:
    """Median wall seconds of each command that looks at all that ran, where much has run."""
    with tempfile.TemporaryDirectory() as home:
        fill(Path(home), invocations=1000, tasks=10)
        return _medians(PAST, home, repeat)


def _medians(commands: dict[str, list[str]], home: str, repeat: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in commands}
    env = {**os.environ, "NV_EVAL_HOME": home, "HOME": home}
    for _ in range(repeat + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}
