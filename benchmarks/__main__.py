"""Start-up: what a command costs against a bare Python, and the dry run against Hydra composing the same config.

`python -m benchmarks [--json]`. Medians of several runs, interleaved, so that a busy machine slows all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
PAST = {
    "nv-eval ls": [*LAUNCHER, "ls"],
    "nv-eval results --all": [*LAUNCHER, "results", "--all"],
}
"""Commands that look at all that ran."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--repeat", type=int, default=9, help="runs of each command; default: 9")
    args = parser.parse_args()
    medians = measure(args.repeat)
    base = medians["python -c pass"]
    rows = [(name, seconds, seconds / base) for name, seconds in medians.items()]
    if args.json:
        print(json.dumps({"load": os.getloadavg()[0], "rows": rows}))
        return
    print(f"load average {os.getloadavg()[0]:.2f} on {os.cpu_count()} CPUs; medians of {args.repeat}")
    for name, seconds, ratio in rows:
        print(f"{name:<46} {seconds * 1000:7.0f} ms {ratio:6.1f} x bare Python")
    dry, compose = medians[list(COMMANDS)[-1]], medians[list(COMMANDS)[-2]]
    print(f"dry run over Hydra's own composition: {dry / compose:.2f}")
    print("with 1,000 past invocations of 10 tasks each:")
    for name, seconds in measure_past(args.repeat).items():
        print(f"{name:<46} {seconds * 1000:7.0f} ms {seconds / base:6.1f} x bare Python")


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


if __name__ == "__main__":
    main()
