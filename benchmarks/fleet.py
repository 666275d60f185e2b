"""Fleets on the emulated Lepton workspace: how long a run takes, what it bills, what it asks, against the bound.

The program is the real one in a process of its own; the emulator runs in this process, with simulated containers whose
start-up and job times are drawn from log-normal distributions with a fixed seed.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.figures import Figure
from tests.e2e.cli import Home
from tests.e2e.lepton import TOKEN, Bench, bench

ROOT = Path(__file__).resolve().parent.parent
SEED = 20240229
BOOT, JOB, SPREAD = 20.0, 15.0, 0.35
"""Medians of the start-up and job times in seconds, and the standard deviation of their logarithms."""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """One run of one fleet. Times in seconds, memory in MiB; `bound` is what no launcher could beat.

    `requests`, `cpu_ms` are per task, the latter without the start-up of the program. `billed` is endpoint time as the
    workspace bills it over the time that start-ups and jobs need. Lags are from a fact on the platform to the request
    that reacts to it: `job_lag` from a ready endpoint to its job, `delete_lag` from a job's end to the deletion.
    """

    tasks: int
    mode: str
    bound: float
    seconds: float
    ratio: float
    billed: float
    requests: float
    cpu_ms: float
    memory: float
    job_lag: float
    delete_lag: float
    load: float
    scored: int


def draw(tasks: int, median: float, seed: int) -> list[float]:
    """Times of a fleet; those of a small fleet are the first of a large one."""
    dice = random.Random(seed)
    return [dice.lognormvariate(math.log(median), SPREAD) for _ in range(tasks)]


def list_schedule(times: Sequence[float], slots: int | None) -> float:
    """When the last of these ends if each takes the first free slot, in their order; all at once without slots."""
    if slots is None:
        return max(times)
    free = [0.0] * min(slots, len(times))
    for span in times:
        heapq.heappush(free, heapq.heappop(free) + span)
    return max(free)


@contextmanager
def workspace(boots: Sequence[float], lasts: Sequence[float]) -> Iterator[tuple[Bench, Home]]:
    """An emulated workspace, and the program's home with its credentials."""
    with tempfile.TemporaryDirectory() as folder, bench(Path(folder)) as made:
        made.boots, made.lasts = boots.__getitem__, lasts.__getitem__
        home = Home(Path(folder))
        home.extra |= {
            "LEPTON_WORKSPACE_ID": made.emulator.config.workspace,
            "LEPTON_WORKSPACE_TOKEN": TOKEN,
            "LEPTON_WORKSPACE_URL": made.emulator.url,
        }
        yield made, home


def write_config(home: Home, tasks: int) -> None:
    """A fleet's config."""
    served = {"type": "container", "model_id": "m", "image": "sim/server", "command": ["serve"]}
    times = {"start_timeout": 3600, "health_timeout": 600}
    execution = {"type": "lepton", "node_group": "h100-pool", "resource_shape": "gpu.1xh100", "output_dir": "results"}
    names = [{"name": f"t{number}"} for number in range(tasks)]
    evaluation = {"harness": "command", "command": ["true"], "timeout": 3600, "tasks": names}
    config = {"execution": execution, "deployment": served | times, "evaluation": evaluation}
    (home.folder / "config.yaml").write_text(yaml.safe_dump(config))


@dataclass(frozen=True)
class Used:
    """One process to its end: exit code, wall and processor seconds, greatest memory in MiB, standard output."""

    code: int
    wall: float
    cpu: float
    memory: float
    out: str
    err: str


def program(home: Home, *arguments: str) -> Used:
    """The program, to its end."""
    words = [sys.executable, "-m", "launcher.cli.main", "run", "--config-dir", ".", "--config-name", "config"]
    out, err = home.folder / "out", home.folder / "err"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [(os.POSIX_SPAWN_OPEN, 1, str(out), flags, 0o600), (os.POSIX_SPAWN_OPEN, 2, str(err), flags, 0o600)]
    here = Path.cwd()
    os.chdir(home.folder)
    try:
        began = time.monotonic()
        pid = os.posix_spawn(sys.executable, [*words, "--json", *arguments], home.env(), file_actions=actions)
    finally:
        os.chdir(here)
    done, status, memory = 0, 0, 0.0
    while not done:
        memory = max(memory, _peak_memory(pid))
        done, status, used = os.wait4(pid, os.WNOHANG)
        time.sleep(0 if done else 0.2)
    wall, cpu = time.monotonic() - began, used.ru_utime + used.ru_stime
    code = os.waitstatus_to_exitcode(status)
    return Used(code, wall, cpu, memory, out.read_text(), err.read_text())


def _peak_memory(pid: int) -> float:
    """Most memory of a process so far, in MiB; what wait4 tells is at least that of the process which started it."""
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    return 0.0


def run(tasks: int, mode: str = "", slots: int | None = None, scale: float = 1.0) -> Fleet:
    """One fleet. `mode`: `barrier` (jobs wait for all endpoints), `slots` or nothing; `scale`: of all times."""
    boots, lasts = draw(tasks, BOOT * scale, SEED), draw(tasks, JOB * scale, SEED + 1)
    with workspace(boots, lasts) as (made, home):
        write_config(home, 1)
        idle = program(home, "--dry-run")
        before = len(made.emulator.requests)
        write_config(home, tasks)
        extra = [f"limits.max_parallel_endpoints={slots}"] if slots else []
        extra += ["execution.start_jobs=all_ready"] if mode == "barrier" else []
        load = os.getloadavg()[0]
        used = program(home, *extra)
        record: dict[str, Any] = json.loads(used.out) if used.out else {"tasks": [], "seconds": used.wall}
        requests = len(made.emulator.requests) - before
        return _figures(made, mode, boots, lasts, slots, idle, used, record, requests, load)


def _figures(
    made: Bench,
    mode: str,
    boots: list[float],
    lasts: list[float],
    slots: int | None,
    idle: Used,
    used: Used,
    record: dict[str, Any],
    requests: int,
    load: float,
) -> Fleet:
    tasks, needed = len(boots), [boot + last for boot, last in zip(boots, lasts, strict=True)]
    bound = list_schedule(needed, slots)
    billed = sum(line.replica_minutes * 60 for line in made.emulator.meter().lines if line.kind == "endpoint")
    job_lags, delete_lags = _lags(made)
    return Fleet(
        tasks=tasks,
        mode=mode,
        bound=bound,
        seconds=record["seconds"],
        ratio=record["seconds"] / bound,
        billed=billed / sum(needed),
        requests=requests / tasks,
        cpu_ms=1000 * (used.cpu - idle.cpu) / tasks,
        memory=used.memory,
        job_lag=statistics.median(job_lags) if job_lags else math.nan,
        delete_lag=statistics.median(delete_lags) if delete_lags else math.nan,
        load=load,
        scored=sum(task["status"] == "scored" for task in record["tasks"]),
    )


def _lags(made: Bench) -> tuple[list[float], list[float]]:
    """From a ready endpoint to its job, and from a job's end to the deletion of its endpoint, task by task."""
    state = made.emulator.state()
    endpoints = {item.name.split("-")[-2]: dict(reversed([(s, t) for t, s in item.states])) for item in state.endpoints}
    jobs = {item.name.split("-")[-2]: item.states for item in state.jobs}
    job_lags, delete_lags = [], []
    for key, states in jobs.items():
        made_ready, deleting = endpoints[key].get("Ready"), endpoints[key].get("Deleting")
        ended = next((t for t, s in states if s == "Completed"), None)
        if made_ready is not None:
            job_lags.append(states[0][0] - made_ready)
        if deleting is not None and ended is not None:
            delete_lags.append(deleting - ended)
    return job_lags, delete_lags


RATIO = {100: 1.05, 1000: 1.10}
"""Most of the bound that a run of so many tasks may take."""


def measure(*, quick: bool) -> tuple[list[Figure], list[dict[str, Any]]]:
    """All sizes at once, with slots, and with the barrier."""
    scale = 0.2 if quick else 1.0
    sizes = (3, 10) if quick else (3, 10, 30, 100, 300, 1000)
    shaped = ((10, "barrier", None), (10, "slots", 4)) if quick else ((100, "barrier", None), (100, "slots", 32))
    runs = [run(size, scale=scale) for size in sizes]
    runs += [run(size, mode, slots, scale=scale) for size, mode, slots in shaped]
    return [figure for one in runs for figure in _told(one)], [asdict(one) for one in runs]


def _told(one: Fleet) -> list[Figure]:
    name = f"N = {one.tasks}{f', {one.mode}' if one.mode else ''}"
    note = f"{one.seconds:.1f} s, load {one.load:.1f}"
    lost = Figure(bench="fleet", name=f"{name}, tasks without scores", value=one.tasks - one.scored, target=0)
    aim = 1.10 if one.mode == "slots" else RATIO.get(one.tasks) if not one.mode else None
    ratio = Figure(bench="fleet", name=f"{name}, time over the bound", value=one.ratio, target=aim, note=note)
    if one.mode:
        return [lost, ratio, Figure(bench="fleet", name=f"{name}, billed time over what is needed", value=one.billed)]
    large = one.tasks == 1000
    aim = 1.05 if one.tasks == 100 else None
    return [
        lost,
        ratio,
        Figure(bench="fleet", name=f"{name}, billed time over what is needed", value=one.billed, target=aim),
        Figure(bench="fleet", name=f"{name}, requests of a task", value=one.requests, target=6.0 if large else None),
        Figure(
            bench="fleet",
            name=f"{name}, processor time of a task",
            value=one.cpu_ms,
            unit="ms",
            target=30.0 if large else None,
        ),
        Figure(
            bench="fleet",
            name=f"{name}, memory",
            value=one.memory,
            unit="MiB",
            target=(60e6 + 50e3 * one.tasks) / 2**20,
        ),
        Figure(bench="fleet", name=f"{name}, a ready endpoint waits for its job", value=one.job_lag, unit="s"),
        Figure(bench="fleet", name=f"{name}, an endpoint waits for its deletion", value=one.delete_lag, unit="s"),
    ]
