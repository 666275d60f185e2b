"""Recovery: a launcher is killed in the middle of a fleet, and another goes on."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.figures import Figure
from benchmarks.fleet import BOOT, JOB, SEED, draw, workspace, write_config
from launcher.emulators.common.front import RequestRecord
from tests.e2e.lepton import Bench

LAUNCHER = [sys.executable, "-m", "launcher.cli.main"]
WRITES = ("POST", "DELETE")


@dataclass(frozen=True)
class Resumed:
    """Seconds from the kill to the first request that changes something, that of a bare start, and how it ended.

    `last_sample`: seconds from the end of the last job to the request that deletes its endpoint.
    """

    seconds: float
    start: float
    last_sample: float
    scored: int


def run(*, quick: bool) -> list[Figure]:
    """Kill and resume a fleet of a hundred tasks."""
    tasks, scale, repeat = (100, 0.3, 1) if quick else (100, 0.5, 3)
    found = [once(tasks, scale) for _ in range(repeat)]
    lost = [one for one in found if one.scored != tasks]
    name = f"N = {tasks}"
    return [
        Figure(
            bench="recovery",
            name=f"{name}, kill -9 to the resumed run's next change",
            value=statistics.median(one.seconds for one in found),
            unit="s",
            note=f"of which {statistics.median(one.start for one in found):.2f} s start the program",
        ),
        Figure(
            bench="recovery",
            name=f"{name}, last sample to the endpoint's deletion",
            value=statistics.median(one.last_sample for one in found),
            unit="s",
            note="the last job of the resumed run",
        ),
        Figure(bench="recovery", name=f"{name}, runs with a lost task", value=len(lost), target=0),
    ]


def once(tasks: int, scale: float) -> Resumed:
    """One fleet, killed when half of its jobs run."""
    boots, lasts = draw(tasks, BOOT * scale, SEED), draw(tasks, JOB * scale, SEED + 1)
    with workspace(boots, lasts) as (made, home):
        write_config(home, tasks)
        words = [*LAUNCHER, "run", "--config-dir", ".", "--config-name", "config", "--json"]
        launcher = subprocess.Popen(
            words, cwd=home.folder, env=home.env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while sum(r.method == "POST" and r.path.endswith("/jobs") for r in made.emulator.requests) < tasks / 2:
            time.sleep(0.02)
        os.kill(launcher.pid, signal.SIGKILL)
        killed = time.time()
        launcher.wait()
        resumed = subprocess.run(
            [*LAUNCHER, "resume", home.invocation(), "--json"],
            cwd=home.folder,
            env=home.env(),
            capture_output=True,
            text=True,
            check=False,
        )
        began = _first(made, killed, lambda r: r.path.endswith("/workspace"))  # before it, what the dead one had sent
        changed = _first(made, began, lambda r: r.method in WRITES)
        record = json.loads(resumed.stdout) if resumed.stdout else {"tasks": []}
        scored = sum(task["status"] == "scored" for task in record["tasks"])
        return Resumed(changed - killed, _bare_start(home.env()), _last_sample(made), scored)


def _first(made: Bench, after: float, fits: Callable[[RequestRecord], bool]) -> float:
    """When the first such request after a moment came."""
    return next(r.time for r in made.emulator.requests if r.time > after and fits(r))


def _last_sample(made: Bench) -> float:
    """From the end of the job that ended last to the deletion of its endpoint."""
    state = made.emulator.state()
    ends = [(moment, job.name) for job in state.jobs for moment, phase in job.states if phase == "Completed"]
    ended, name = max(ends)
    endpoint = next(item for item in state.endpoints if item.name.split("-")[-2] == name.split("-")[-2])
    return next(moment for moment, phase in endpoint.states if phase == "Deleting") - ended


def _bare_start(env: dict[str, str]) -> float:
    began = time.monotonic()
    subprocess.run([*LAUNCHER, "version"], env=env, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began
