"""Start-up: what a command costs against a bare Python, and the dry run against Hydra composing the same config.

Medians of several runs, interleaved, so that a busy machine slows all alike; in a home where 1,000 invocations of 10
tasks have run, and with byte code kept as an installed package has it.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.many import fill

ROOT = Path(__file__).resolve().parent.parent
LEPTON = ["run", "--dry-run", "--config-dir", "examples", "--config-name", "lepton_vllm_llama_3_1_8b_instruct"]
COMPOSE = f"""
from hydra import compose, initialize_config_dir
with initialize_config_dir({str(ROOT / "examples")!r}, version_base="1.3"):
    compose("lepton_vllm_llama_3_1_8b_instruct", overrides=["hydra.searchpath=[file://{ROOT / "configs"}]"])
"""
"""Hydra alone, without a line of ours."""
BARE = "python -c pass"
HYDRA, DRY_RUN = "Hydra composing the Lepton example", "nv-eval run --dry-run of the Lepton example"
_INSTALLED = Path(sys.executable).parent / "nv-eval"
LAUNCHER = [str(_INSTALLED)] if _INSTALLED.is_file() else [sys.executable, "-m", "launcher.cli.main"]
COMMANDS = {
    BARE: [sys.executable, "-c", "pass"],
    "nv-eval --help": [*LAUNCHER, "--help"],
    "nv-eval status": [*LAUNCHER, "status"],
    "nv-eval ls tasks hella": [*LAUNCHER, "ls", "tasks", "hella"],
    HYDRA: [sys.executable, "-c", COMPOSE],
    DRY_RUN: [*LAUNCHER, *LEPTON],
    "nv-eval ls": [*LAUNCHER, "ls"],
    "nv-eval results --all": [*LAUNCHER, "results", "--all"],
}
TARGETS = {"nv-eval --help": 5.0, "nv-eval status": 5.0}
"""Times a bare Python."""
PAST_TARGETS = {"nv-eval ls": 0.2, "nv-eval results --all": 1.0}
"""Seconds, of commands that show all that ran."""


@dataclass(frozen=True)
class Cost:
    """One command: medians of wall and processor seconds. The latter are much the same on a busy machine."""

    wall: float
    cpu: float


def run(*, quick: bool) -> list[Figure]:
    """Each command over a bare Python, and the dry run over Hydra."""
    costs = measure(5 if quick else 15)
    base = costs[BARE]
    found = [_figure(name, cost, base) for name, cost in costs.items()]
    dry, compose = costs[DRY_RUN], costs[HYDRA]
    note = f"processor time {dry.cpu / compose.cpu:.2f} x"
    ratio = Figure(
        bench="startup",
        name="dry run over Hydra's compose",
        value=dry.wall / compose.wall,
        unit="x",
        target=1.5,
        note=note,
    )
    return [*found, ratio]


def _figure(name: str, cost: Cost, base: Cost) -> Figure:
    if name in PAST_TARGETS:
        return Figure(bench="startup", name=name, value=cost.wall, unit="s", target=PAST_TARGETS[name])
    note = f"{cost.wall * 1000:.0f} ms; processor time {cost.cpu / base.cpu:.2f} x"
    return Figure(
        bench="startup", name=name, value=cost.wall / base.wall, unit="x", target=TARGETS.get(name), note=note
    )


def measure(repeat: int) -> dict[str, Cost]:
    """What each command costs."""
    with tempfile.TemporaryDirectory() as home:
        fill(Path(home), invocations=1000, tasks=10)
        return costs_of(COMMANDS, {"NV_EVAL_HOME": home, "HOME": home}, repeat)


def costs_of(commands: dict[str, list[str]], environment: dict[str, str], repeat: int) -> dict[str, Cost]:
    """Medians of so many rounds of all commands after one that warms caches."""
    rounds: dict[str, list[Cost]] = {name: [] for name in commands}
    env = {**os.environ, **environment}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    for _ in range(repeat + 1):
        for name, command in commands.items():
            rounds[name].append(_once(command, env))
    return {
        name: Cost(statistics.median(c.wall for c in made[1:]), statistics.median(c.cpu for c in made[1:]))
        for name, made in rounds.items()
    }


def _once(command: list[str], env: dict[str, str]) -> Cost:
    before, start = _children(), time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
    return Cost(time.perf_counter() - start, _children() - before)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
