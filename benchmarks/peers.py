"""Other programs of this kind, each in an environment of its own: their start-up, and the incumbent's makespan.

The environments are made on first use, with pip, below $XDG_CACHE_HOME/nv-eval-benchmarks. What cannot be installed, or
does not run, is said with its last line. The makespan is that of nemo-evaluator-launcher on the emulated Lepton
workspace, with the start-up and job times of the fleets that benchmarks.fleet runs.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks import fleet
from benchmarks.figures import Figure
from launcher.emulators.lepton import Config, LeptonEmulator, Script
from launcher.emulators.lepton.container import Command
from tests.e2e.lepton import TOKEN

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nv-eval-benchmarks"
PIP = ("-m", "pip", "install", "-qq", "--no-input", "--disable-pip-version-check")
HELP, STATUS, TASKS, DRY_RUN = "--help", "status", "ls tasks", "dry run"
SIZES = (3, 10, 30)
"""Fleets, as long as the incumbent survives them. More of its pollers than these need processors to themselves."""
PATIENCE = 900.0
"""Seconds that the incumbent gets until it has submitted all jobs."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A program, what pip installs for it, and its arguments by what they are compared with; {config} is filled in.

    `apart`: why a command is shown beside the others but is of another kind, so that ours is not measured against it.
    """

    name: str
    program: str
    packages: tuple[str, ...]
    commands: Mapping[str, str]
    apart: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Its environment."""
        return CACHE / "-".join(self.packages).replace("==", "-")


NEMO = Peer(
    name="nemo-evaluator-launcher 0.2.6",
    program="nemo-evaluator-launcher",
    packages=("nemo-evaluator-launcher==0.2.6",),
    commands={HELP: "--help", STATUS: "ls runs", TASKS: "ls tasks", DRY_RUN: "run --dry-run --config {config}"},
)
NEMO_OLD_SDK = Peer(
    name="nemo-evaluator-launcher 0.2.6 with leptonai 0.27.3",
    program=NEMO.program,
    packages=(*NEMO.packages, "leptonai==0.27.3"),
    commands={},
)
PEERS = (
    NEMO,
    Peer(
        name="torchx",
        program="torchx",
        packages=("torchx",),
        commands={
            HELP: "--help",
            STATUS: "status local_cwd://torchx/none",
            TASKS: "builtins",
            DRY_RUN: "run --dryrun -s local_cwd utils.echo --msg hello",
        },
        apart={DRY_RUN: "composes no config and checks no benchmark"},
    ),
    Peer(
        name="lm-eval",
        program="lm-eval",
        packages=("lm-eval[api]",),
        commands={HELP: "--help", TASKS: "ls tasks", DRY_RUN: "validate --tasks hellaswag"},
    ),
    Peer(
        name="inspect-ai",
        program="inspect",
        packages=("inspect-ai",),
        commands={HELP: "--help", STATUS: "log list", TASKS: "list tasks"},
    ),
)
"""The nearest that each has; what it has nothing like is left out.

Of the same kind as ours is a dry run that composes a config or checks benchmarks, and a list of whatever can be run by
name: torchx' eleven components count there, few as they are.
"""
OURS = {
    HELP: ("--help",),
    STATUS: ("status",),
    TASKS: ("ls", "tasks", "hella"),
    DRY_RUN: (
        *("run", "--dry-run", "--config-dir", str(ROOT / "examples")),
        *("--config-name", "lepton_vllm_llama_3_1_8b_instruct"),
    ),
}


@dataclass(frozen=True)
class Installed:
    """Where a peer's programs are, or why they are not."""

    peer: Peer
    failure: str = ""

    @property
    def bin(self) -> Path:
        """The folder of its programs."""
        return self.peer.folder / "bin"


def install(peer: Peer) -> Installed:
    """Make the peer's environment, unless there is one."""
    stamp = peer.folder / "installed"
    if stamp.is_file():
        return Installed(peer)
    steps = (
        [sys.executable, "-m", "venv", "--clear", str(peer.folder)],
        [str(peer.folder / "bin" / "python"), *PIP, *peer.packages],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            return Installed(peer, last_line(done.stderr or done.stdout))
    stamp.touch()
    return Installed(peer)


def last_line(text: str) -> str:
    """Of what a program said."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


@dataclass(frozen=True)
class Cost:
    """Wall and processor seconds of one command."""

    wall: float
    cpu: float


def cost(command: Sequence[str], env: Mapping[str, str], folder: str) -> Cost:
    """Of one run; that a command finds nothing is no failure."""
    before, began = _children(), time.perf_counter()
    subprocess.run(command, env=env, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return Cost(time.perf_counter() - began, _children() - before)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One command of one program: medians of seconds, and wall time over that of a bare Python.

    `apart`: why it is not counted among the peers of ours; empty if it is.
    """

    program: str
    kind: str
    command: str
    wall: float
    cpu: float
    ratio: float
    apart: str = ""

    @property
    def note(self) -> str:
        """What stands beside the figure."""
        why = f"; not counted: it {self.apart}" if self.apart else ""
        return f"{self.wall * 1000:.0f} ms, processor time {self.cpu * 1000:.0f} ms; {self.command}{why}"


def start_up(peers: Sequence[Installed], repeat: int) -> list[Compared]:
    """All commands in turn, so many rounds after one that warms caches."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "HOME": folder, "NV_EVAL_HOME": folder, "PYTHONPATH": str(ROOT)}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        config = Path(folder) / "config.yaml"
        config.write_text(yaml.safe_dump(incumbent_config(3, folder)))
        commands = _commands(peers, config)
        rounds: dict[tuple[str, str], list[Cost]] = {key: [] for key in commands}
        for _ in range(repeat + 1):
            for key, (words, _) in commands.items():
                theirs = key[0] not in ("python", "nv-eval")
                rounds[key].append(cost(words, _without_path(env) if theirs else env, folder))
        costs = {key: _median(made[1:]) for key, made in rounds.items()}
    bare = costs["python", "-c pass"].wall
    apart = {(one.peer.name, kind): why for one in peers for kind, why in one.peer.apart.items()}
    return [
        Compared(
            program=key[0],
            kind=key[1],
            command=shown,
            wall=one.wall,
            cpu=one.cpu,
            ratio=one.wall / bare,
            apart=apart.get(key, ""),
        )
        for (key, one), (_, shown) in zip(costs.items(), commands.values(), strict=True)
    ]


def _commands(peers: Sequence[Installed], config: Path) -> dict[tuple[str, str], tuple[list[str], str]]:
    """Words, and what people type, by program and kind."""
    made = {("python", "-c pass"): ([sys.executable, "-c", "pass"], "python -c pass")}
    for kind, arguments in OURS.items():
        made["nv-eval", kind] = ([sys.executable, "-m", "launcher.cli.main", *arguments], f"nv-eval {kind}")
    for one in peers:
        for kind, text in one.peer.commands.items():
            words = [str(one.bin / one.peer.program), *text.format(config=config).split()]
            made[one.peer.name, kind] = (words, f"{one.peer.program} {text.format(config='CONFIG')}")
    return made


def _without_path(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name != "PYTHONPATH"}


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(statistics.median(one.wall for one in costs), statistics.median(one.cpu for one in costs))


def beaten(rows: Sequence[Compared]) -> list[Figure]:
    """Every command over a bare Python, and ours over the fastest of the peers of its kind."""
    figures = [
        Figure(
            bench="peers",
            name=f"{one.kind}: {one.program}",
            value=one.ratio,
            unit="x",
            note=one.note,
        )
        for one in sorted(rows, key=lambda one: (list(OURS).index(one.kind) if one.kind in OURS else -1, one.ratio))
    ]
    for kind in OURS:
        ours = next(one for one in rows if (one.program, one.kind) == ("nv-eval", kind))
        theirs = [one for one in rows if one.kind == kind and one.program != "nv-eval"]
        counted = [one for one in theirs if not one.apart]
        if not counted:
            continue
        first = min(counted, key=lambda one: one.wall)
        value = ours.wall / first.wall
        apart = "".join(f"; {one.program} is not counted" for one in theirs if one.apart)
        note = f"{first.program}; processor time {ours.cpu / first.cpu:.2f} x{apart}"
        name = f"{kind}: nv-eval over the fastest peer"
        figures.append(Figure(bench="peers", name=name, value=value, unit="x", target=1.0, note=note))
    return figures


def incumbent_config(tasks: int, folder: str) -> dict[str, Any]:
    """The incumbent's config of a fleet like that of benchmarks.fleet."""
    group = Config().node_groups[0]
    platform = {
        "deployment": {"node_group": group.id, "platform_defaults": {"image_pull_secrets": []}},
        "tasks": {"node_group": group.name, "image_pull_secrets": []},
    }
    scaling = {
        "scale_down": {"no_traffic_timeout": 3600},
        "target_gpu_utilization_percentage": 0,
        "target_throughput": {"qpm": 2.5},
    }
    served = {"resource_shape": "gpu.1xh100", "min_replicas": 1, "max_replicas": 1, "auto_scaler": scaling, "envs": {}}
    return {
        "defaults": [{"execution": "lepton/default"}, {"deployment": "vllm"}, "_self_"],
        "execution": {"output_dir": f"{folder}/results", "lepton_platform": platform},
        "deployment": {
            "checkpoint_path": "organisation/model",
            "hf_model_handle": None,
            "served_model_name": "m",
            "image": "vllm/vllm-openai:latest",
            "tensor_parallel_size": 1,
            "lepton_config": served,
        },
        "evaluation": {"tasks": [{"name": "lm-evaluation-harness.ifeval"} for _ in range(tasks)]},
    }


@dataclass(frozen=True, kw_only=True)
class Makespan:
    """A fleet by the incumbent. Times in seconds; `seconds` to the end of the last job, or of the program if it failed.

    `needed` is what start-ups and jobs take, `billed` what the workspace bills for endpoints until then, and `left` how
    many endpoints run on.
    """

    program: str
    tasks: int
    bound: float
    needed: float
    seconds: float
    ended: int
    billed: float
    left: int
    error: str = ""

    @property
    def ratio(self) -> float:
        """Time over the bound."""
        return self.seconds / self.bound


@dataclass
class Simulated:
    """Containers of the incumbent's endpoints and jobs, which last as those of a fleet of ours."""

    boots: Sequence[float]
    lasts: Sequence[float]
    started: list[str] = field(default_factory=list)

    def endpoint(self, command: Command) -> Script:
        """`vllm-TASK-NUMBER-INVOCATION`."""
        name = command.env["LEPTON_DEPLOYMENT_NAME"]
        return Script(output="serving\n", opens_after=self.boots[int(name.split("-")[-2])])

    def job(self, command: Command) -> Script:
        """`eval-INVOCATION-TASK-NUMBER-…`."""
        name = command.env["LEPTON_JOB_NAME"]
        self.started.append(name)
        return Script(output="done\n", seconds=self.lasts[int(name.split("-")[3])])


def makespan(made: Installed, tasks: int, scale: float) -> Makespan:
    """One fleet by the incumbent, with all programs of its environment in PATH."""
    boots = fleet.draw(tasks, fleet.BOOT * scale, fleet.SEED)
    lasts = fleet.draw(tasks, fleet.JOB * scale, fleet.SEED + 1)
    containers = Simulated(boots, lasts)
    images = {"vllm/*": containers.endpoint, "*": containers.job}
    with tempfile.TemporaryDirectory() as folder, LeptonEmulator(simulations=images) as emulator:
        (Path(folder) / "config.yaml").write_text(yaml.safe_dump(incumbent_config(tasks, folder)))
        env = {
            "PATH": f"{made.bin}{os.pathsep}{os.environ['PATH']}",
            "HOME": folder,
            "NEMO_EVALUATOR_TELEMETRY_LEVEL": "0",
            "LEPTON_WORKSPACE_ID": emulator.config.workspace,
            "LEPTON_WORKSPACE_TOKEN": TOKEN,
            "LEPTON_WORKSPACE_URL": emulator.url,
        }
        began = time.time()
        error = _submit([str(made.bin / made.peer.program), "run", "--config", f"{folder}/config.yaml"], env, folder)
        ends = [] if error else _ends(emulator, tasks, max(lasts))
        seconds = max(ends, default=time.time()) - began
        billed = sum(line.replica_minutes * 60 for line in emulator.meter().lines if line.kind == "endpoint")
        needed = [boot + last for boot, last in zip(boots, lasts, strict=True)]
        return Makespan(
            program=made.peer.name,
            tasks=tasks,
            bound=max(needed),
            needed=sum(needed),
            seconds=seconds,
            ended=len(ends),
            billed=billed,
            left=sum(not item.gone for item in emulator.state().endpoints),
            error=error,
        )


def _submit(words: list[str], env: dict[str, str], folder: str) -> str:
    """Run it to its end; returns its last line if it failed, nothing otherwise."""
    try:
        done = subprocess.run(words, env=env, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return f"not done after {PATIENCE:g} s"
    return last_line(done.stderr) if done.returncode else ""


def _ends(emulator: LeptonEmulator, tasks: int, longest: float) -> list[float]:
    """When each job ended, in seconds since 1970; waits for all of them."""
    deadline = time.time() + longest + 30
    while True:
        states = [item.states for item in emulator.state().jobs]
        ends = [when for one in states for when, state in one if state == "Completed"]
        if len(ends) >= tasks or time.time() > deadline:
            return ends
        time.sleep(0.2)


def fleets(one: Makespan) -> list[Figure]:
    """Figures of one fleet by the incumbent."""
    name = f"{one.program}, N = {one.tasks}"
    figures = [
        Figure(bench="peers", name=f"{name}, jobs that ended", value=one.ended, note=one.error[:300]),
        Figure(bench="peers", name=f"{name}, endpoints left running", value=one.left),
        Figure(bench="peers", name=f"{name}, endpoint time billed", value=one.billed, unit="s"),
    ]
    if one.ended < one.tasks:
        return figures
    return [
        *figures,
        Figure(bench="peers", name=f"{name}, time over the bound", value=one.ratio, note=f"{one.seconds:.1f} s"),
        Figure(bench="peers", name=f"{name}, billed time over what is needed", value=one.billed / one.needed),
    ]


def ours(one: fleet.Fleet) -> list[Figure]:
    """Figures of the same fleet by nv-eval."""
    name, note = f"nv-eval, N = {one.tasks}", f"{one.seconds:.1f} s"
    return [
        Figure(bench="peers", name=f"{name}, jobs that ended", value=one.scored),
        Figure(bench="peers", name=f"{name}, time over the bound", value=one.ratio, note=note),
        Figure(bench="peers", name=f"{name}, billed time over what is needed", value=one.billed),
    ]


def run(*, quick: bool) -> tuple[list[Figure], list[dict[str, Any]]]:
    """Start-up of all, and fleets by the incumbent and by nv-eval in turn."""
    made = [install(peer) for peer in (*PEERS, NEMO_OLD_SDK)]
    lacking = [one for one in made if one.failure]
    figures = [
        Figure(
            bench="peers",
            name="peers that could not be installed",
            value=len(lacking),
            note="; ".join(f"{one.peer.name}: {one.failure}" for one in lacking),
        )
    ]
    rows = start_up([one for one in made if not one.failure and one.peer.commands], 1 if quick else 3)
    figures += beaten(rows)
    series = [asdict(row) for row in rows]
    scale, there = 0.2 if quick else 1.0, [one for one in made if not one.failure]
    for tasks in SIZES[:1] if quick else SIZES:
        mine = fleet.run(tasks, scale=scale)
        figures += ours(mine)
        series.append({"program": "nv-eval", **asdict(mine)})
        for one in [one for one in there if one.peer in (NEMO, NEMO_OLD_SDK)]:
            if failed := next((row for row in series if row["program"] == one.peer.name and row.get("error")), None):
                note = f"not tried, as N = {failed['tasks']} failed"
                name = f"{one.peer.name}, N = {tasks}, jobs that ended"
                figures.append(Figure(bench="peers", name=name, value=0, note=note))
                continue
            theirs = makespan(one, tasks, scale)
            figures += fleets(theirs)
            series.append(asdict(theirs))
    return figures, series
