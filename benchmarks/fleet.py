"""Fleets on the emulated Lepton workspace: how long a run takes, what it bills, what it asks, against the bound.

The program is the real one in a process of its own; the emulator runs in this process, with simulated containers whose
start-up and job times are drawn from log-normal distributions with a fixed seed.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import math
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from benchmarks.figures import Figure, shown
from launcher.config import Request, load
from launcher.orchestrator.reasons import Reason
from launcher.plan.build import build
from tests.e2e.cli import Home
from tests.e2e.lepton import TOKEN, Bench, bench
from tests.e2e.lepton_virtual import virtual_bench
from tests.fakes.clock import run_virtual

ROOT = Path(__file__).resolve().parent.parent
SEED = 20240229
BOOT, JOB, SPREAD = 20.0, 15.0, 0.35
"""Medians of the start-up and job times in seconds, and the standard deviation of their logarithms."""
BARRIER = "barrier"
"""The mode of a fleet whose jobs wait until all endpoints answer."""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """One run of one fleet. Times in seconds, memory in MiB; `bound` is what no launcher could beat.

    `requests`, `cpu_ms` are per task, the latter without the start-up of the program. `billed` is endpoint time as the
    workspace bills it over the time that start-ups and jobs need, `kept` that if all were deleted after the last job.
    `barrier` and `barrier_billed`: time over the bound and billed time at best if jobs waited for all endpoints.
    Lags are from a fact on the platform to the request that reacts to it: `job_lag` from a ready endpoint to its job,
    `delete_lag` from a job's end to the deletion.
    """

    tasks: int
    mode: str
    bound: float
    seconds: float
    ratio: float
    billed: float
    kept: float
    barrier: float
    barrier_billed: float
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
    """One fleet of the real program. `mode`: what to call it where it is not plain; `scale`: of all times."""
    boots, lasts = draw(tasks, BOOT * scale, SEED), draw(tasks, JOB * scale, SEED + 1)
    with workspace(boots, lasts) as (made, home):
        write_config(home, 1)
        idle = program(home, "--dry-run")
        before = len(made.emulator.requests)
        write_config(home, tasks)
        busy = os.getloadavg()[0]
        used = program(home, *_overrides(mode, slots))
        record: dict[str, Any] = json.loads(used.out) if used.out else {"tasks": [], "seconds": used.wall}
        return _fleet(
            made,
            mode=mode,
            slots=slots,
            times=(boots, lasts),
            seconds=record["seconds"],
            scored=sum(task["status"] == "scored" for task in record["tasks"]),
            requests=len(made.emulator.requests) - before,
            cpu=used.cpu - idle.cpu,
            memory=used.memory,
            load=busy,
        )


def _overrides(mode: str, slots: int | None) -> list[str]:
    wanted = ["execution.start_jobs=all_ready"] if mode == BARRIER else []
    return [*wanted, *([f"limits.max_parallel_endpoints={slots}"] if slots else [])]


def run_virtual_fleet(tasks: int, mode: str, slots: int | None = None) -> Fleet:
    """The same program and emulator in this process, on a clock that passes only while all of them wait."""
    boots, lasts = draw(tasks, BOOT, SEED), draw(tasks, JOB, SEED + 1)

    async def life(folder: Path) -> Fleet:
        async with virtual_bench(folder, boots=boots.__getitem__, lasts=lasts.__getitem__) as made:
            home = Home(folder)
            write_config(home, tasks)
            request = Request(name="config", config_dir=str(folder), overrides=tuple(_overrides(mode, slots)))
            outcome = await made.run(build(load(request)))
            return _fleet(
                made,
                mode=mode,
                slots=slots,
                times=(boots, lasts),
                seconds=outcome.seconds,
                scored=sum(task.reason is Reason.COMPLETED for task in outcome.tasks),
                requests=len(made.emulator.requests),
                load=os.getloadavg()[0],
            )

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        return run_virtual(life(Path(folder)))


def _fleet(
    made: Bench,
    *,
    mode: str,
    slots: int | None,
    times: tuple[list[float], list[float]],
    seconds: float,
    scored: int,
    requests: int,
    cpu: float = 0.0,
    memory: float = 0.0,
    load: float = 0.0,
) -> Fleet:
    tasks, needed = len(times[0]), [boot + last for boot, last in zip(*times, strict=True)]
    bound = list_schedule(needed, slots)
    billed = sum(line.replica_minutes * 60 for line in made.emulator.meter().lines if line.kind == "endpoint")
    job_lags, delete_lags = _lags(made)
    return Fleet(
        tasks=tasks,
        mode=mode,
        bound=bound,
        seconds=seconds,
        ratio=seconds / bound,
        billed=billed / sum(needed),
        kept=_without_teardown(made) / sum(needed),
        barrier=(max(times[0]) + max(times[1])) / max(needed),
        barrier_billed=(tasks * max(times[0]) + sum(times[1])) / sum(needed),
        requests=requests / tasks,
        cpu_ms=1000 * cpu / tasks,
        memory=memory,
        job_lag=statistics.median(job_lags) if job_lags else 0.0,
        delete_lag=statistics.median(delete_lags) if delete_lags else 0.0,
        load=load,
        scored=scored,
    )


def _without_teardown(made: Bench) -> float:
    """Endpoint seconds if all endpoints had been deleted when the last job had ended."""
    state = made.emulator.state()
    over = max((moment for job in state.jobs for moment, _ in job.states), default=0.0)
    return sum(over - endpoint.states[0][0] for endpoint in state.endpoints)


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


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A fleet of the real program, and how often it is run; its figures are medians."""

    tasks: int
    mode: str = ""
    slots: int | None = None
    times: int = 1

    def __str__(self) -> str:
        """What it is called."""
        return f"N = {self.tasks}{f', {self.mode}' if self.mode else ''}"


@dataclass(frozen=True)
class Schedule:
    """All fleets of a measurement. `together`: small ones that may run at the same time; `alone`: one after another."""

    together: tuple[Wanted, ...]
    alone: tuple[Wanted, ...]


RATIO = {100: 1.05, 1000: 1.10}
"""Most of the bound that a run of so many tasks may take."""
FULL = Schedule(
    together=(
        Wanted(tasks=24, mode="8 slots", slots=8),
        Wanted(tasks=96, mode="32 slots", slots=32),
        *(Wanted(tasks=tasks, mode=mode) for tasks in (3, 10, 30) for mode in ("", BARRIER)),
        Wanted(tasks=100, mode=BARRIER),
    ),
    alone=(
        Wanted(tasks=100, times=3),
        Wanted(tasks=300),
        Wanted(tasks=1000, times=2),
        Wanted(tasks=1000, mode=BARRIER),
    ),
)
QUICK = Schedule(
    together=(Wanted(tasks=10), Wanted(tasks=10, mode=BARRIER), Wanted(tasks=100, mode=BARRIER)),
    alone=(Wanted(tasks=100, times=3), Wanted(tasks=1000)),
)
VIRTUAL = (
    (100, "virtual clock", None),
    (40, "8 slots, virtual clock", 8),
    (160, "32 slots, virtual clock", 32),
)
APART = 5.0
"""Seconds between the starts of fleets that run together: so long programs take to be imported."""


def measure(*, quick: bool) -> tuple[list[Figure], list[dict[str, Any]]]:
    """Fleets all at once, with a barrier, with slots, and on a virtual clock."""
    runs = measured(QUICK if quick else FULL)
    plain = [one for one in runs if not one.mode]
    runs += [run_virtual_fleet(size, mode, slots) for size, mode, slots in VIRTUAL]
    barriers = {one.tasks for one in runs if one.mode == BARRIER}
    figures = [figure for alike in grouped(runs) for figure in _told(alike, best=alike[0].tasks not in barriers)]
    return [*figures, *slopes(plain)], [asdict(one) for one in runs]


def measured(schedule: Schedule) -> list[Fleet]:
    """All fleets of a schedule. What is done is said on standard error, as it takes minutes."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=len(schedule.together) or 1, mp_context=spawn) as pool:
        places = [one for one in schedule.together for _ in range(one.times)]
        runs = list(pool.map(_run_after, count(step=APART), places))
    return [*runs, *(_run_wanted(one) for one in schedule.alone for _ in range(one.times))]


def _run_after(seconds: float, wanted: Wanted) -> Fleet:
    time.sleep(seconds)
    return _run_wanted(wanted)


def _run_wanted(wanted: Wanted) -> Fleet:
    done = run(wanted.tasks, wanted.mode, wanted.slots)
    print(f"fleet: {wanted}: {done.seconds:.0f} s, {done.ratio:.3f} times the bound", file=sys.stderr, flush=True)
    return done


def grouped(runs: Sequence[Fleet]) -> list[list[Fleet]]:
    """Runs of the same fleet: by size, that with a barrier behind that without; then all others as they come."""
    groups: dict[tuple[int, str], list[Fleet]] = {}
    for one in sorted(runs, key=lambda one: (0, one.tasks, one.mode) if one.mode in ("", BARRIER) else (1, 0, "")):
        groups.setdefault((one.tasks, one.mode), []).append(one)
    return list(groups.values())


def slopes(runs: Sequence[Fleet]) -> list[Figure]:
    """What each further task costs: straight lines through the totals of all runs, and through the lags."""
    if len({one.tasks for one in runs}) < 2:
        return []
    totals: tuple[tuple[str, Callable[[Fleet], float], str], ...] = (
        ("requests of each further task", lambda one: one.requests * one.tasks, ""),
        ("processor time of each further task", lambda one: one.cpu_ms * one.tasks, "ms"),
        ("memory of each further task", lambda one: one.memory * 1024, "KiB"),
        ("a ready endpoint's wait for its job, for each further task", lambda one: one.job_lag * 1000, "ms"),
        ("an endpoint's wait for its deletion, for each further task", lambda one: one.delete_lag * 1000, "ms"),
    )
    return [_line(f"{name}, least squares", runs, value, unit) for name, value, unit in totals]


def _line(name: str, runs: Sequence[Fleet], value: Callable[[Fleet], float], unit: str) -> Figure:
    """The slope of a straight line against the number of tasks, where it begins, and how straight it is."""
    sizes, values = [one.tasks for one in runs], [value(one) for one in runs]
    slope, start = statistics.linear_regression(sizes, values)
    fit = f", r2 {statistics.correlation(sizes, values) ** 2:.3f}" if len(set(values)) > 1 else ""
    note = f"{shown(start, unit)} for N = 0{fit}"
    return Figure(bench="fleet", name=name, value=slope, unit=unit, note=note)


def _told(runs: Sequence[Fleet], *, best: bool = True) -> list[Figure]:
    """The figures of one fleet, medians of its runs. `best`: say what one with a barrier would have cost at best."""
    first = runs[0]
    name = f"N = {first.tasks}{f', {first.mode}' if first.mode else ''}"

    def figure(what: str, value: Callable[[Fleet], float], **keys: Any) -> Figure:
        return Figure(bench="fleet", name=f"{name}, {what}", value=statistics.median(map(value, runs)), **keys)

    low, high = min(one.ratio for one in runs), max(one.ratio for one in runs)
    spread = f"of {len(runs)} runs, {low:.3f} to {high:.3f}; " if len(runs) > 1 else ""
    note = f"{spread}{statistics.median(one.seconds for one in runs):.1f} s, load {max(one.load for one in runs):.1f}"
    is_barrier = first.mode == BARRIER
    common = [
        figure("tasks without scores", lambda one: one.tasks - one.scored, target=0),
        figure(
            "time over the bound",
            lambda one: one.ratio,
            target=1.10 if "slots" in first.mode else None if first.mode else RATIO.get(first.tasks),
            note=f"{note}; {first.barrier:.3f} at best" if is_barrier else note,
        ),
        figure(
            "billed time over what is needed",
            lambda one: one.billed,
            target=1.05 if first.tasks == 100 and not first.mode else None,
            note=f"{first.barrier_billed:.3f} at best" if is_barrier else "",
        ),
    ]
    if first.mode:
        return common
    large = first.tasks == 1000
    most = (60e6 + 50e3 * first.tasks) / 2**20
    computed = (
        figure("time over the bound with a barrier, at best", lambda one: one.barrier),
        figure("billed with a barrier, at best", lambda one: one.barrier_billed),
    )
    return [
        *common,
        figure("billed without teardown per task", lambda one: one.kept),
        *(computed if best else ()),
        figure("requests of a task", lambda one: one.requests, target=6.0 if large else None),
        figure("processor time of a task", lambda one: one.cpu_ms, unit="ms", target=30.0 if large else None),
        figure("memory", lambda one: one.memory, unit="MiB", target=most),
        figure("a ready endpoint waits for its job", lambda one: one.job_lag, unit="s"),
        figure("an endpoint waits for its deletion", lambda one: one.delete_lag, unit="s"),
    ]
