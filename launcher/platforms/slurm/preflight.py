"""Everything that would keep a plan from running on a cluster, found by reading alone."""

from __future__ import annotations

import asyncio
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from launcher.config.execution import Slurm
from launcher.errors import PlatformError
from launcher.plan.model import Plan
from launcher.plan.slurm.jobs import KEY
from launcher.platforms.base import Check, CheckState
from launcher.platforms.secrets import references, unresolvable
from launcher.platforms.slurm import scripts, words
from launcher.platforms.slurm.queue import version_of
from launcher.platforms.slurm.shell import Shell
from launcher.platforms.slurm.sweeping import work_dir

OLDEST = (21, 8)
SHARED = ("nfs", "lustre", "gpfs", "fuse", "ceph", "beegfs", "weka", "panfs", "afs", "cifs", "smb", "gfs", "ocfs", "9p")
"""How names of file systems begin that several nodes can share."""
_AWAY = re.compile(r"down|drain|fail|unk|boot|power|maint|.*\*$", re.IGNORECASE)
"""States of nodes that take no job now; a star: they do not answer."""
_NAMES = re.compile(r"--(job-name|comment|chdir|output|open-mode|signal)=")


@dataclass
class Cluster:
    """What a look at the login node has shown."""

    missing: list[str] = field(default_factory=list)
    version: str = ""
    reachable: bool = True
    partitions: list[Partition] = field(default_factory=list)
    folder_problem: str | None = None
    filesystem: str = ""
    words: set[str] = field(default_factory=set)
    """pyxis, apptainer, python: what is there."""


@dataclass(frozen=True)
class Partition:
    """A line of sinfo: nodes of a partition that are alike. `minutes`: None: without limit.

    `is_away`: they take no job now.
    """

    name: str
    minutes: float | None
    is_up: bool
    gpus: int
    is_away: bool = False


async def check(shell: Shell, plan: Plan, execution: Slurm) -> list[Check]:
    """All checks. Raises PlatformError if the cluster cannot be reached."""
    home = (await shell.ask(scripts.HOME)).text
    answer = await shell.ask(scripts.EXAMINE, work_dir(execution, home), execution.python)
    cluster = read(answer.text)
    found = [*_references(plan), *_output_folder(plan), *_commands(cluster), *_folder(cluster, execution)]
    if not cluster.missing and cluster.reachable:
        found += [*_containers(cluster, execution), *_python(cluster, execution)]
        wanted = await asyncio.to_thread(lambda: list(_partitions(plan, cluster)))
        found += wanted
        if not any(each.state is CheckState.PROBLEM for each in wanted):
            found += await _tests(shell, plan, cluster)
    return list(dict.fromkeys(found))


def read(text: str) -> Cluster:
    """What the examination printed."""
    cluster = Cluster()
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        match word:
            case "missing":
                cluster.missing.append(rest)
            case "version":
                cluster.version = rest
            case "unreachable":
                cluster.reachable = False
            case "partition":
                cluster.partitions += _partition(rest)
            case "folder":
                cluster.folder_problem = None if rest == "yes" else rest.removeprefix("no ")
            case "filesystem":
                cluster.filesystem = rest
            case "pyxis" | "apptainer" | "python":
                cluster.words.add(word)
    return cluster


def _partition(text: str) -> Iterator[Partition]:
    parts = text.split("|")
    if len(parts) >= 4:
        name, limit, state, gres, nodes = (*parts, "")[:5]
        gpus = sum(int(count) for count in re.findall(r"gpu(?::[A-Za-z][^:(,]*)?:(\d+)", gres))
        yield Partition(name, minutes_of(limit), state == "up", gpus, _AWAY.match(nodes) is not None)


def minutes_of(text: str) -> float | None:
    """A time limit of sinfo in minutes: D-HH:MM:SS, HH:MM:SS or MM:SS; None for infinite."""
    days, _, clock = text.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in parts) or len(parts) not in (2, 3):
        return None
    hours, minutes, seconds = (["0", *parts])[-3:]
    return int(days or 0) * 1440 + int(hours) * 60 + int(minutes) + int(seconds) / 60


def _ok(name: str, message: str = "") -> Check:
    return Check(name, CheckState.OK, message)


def _problem(name: str, message: str) -> Check:
    return Check(name, CheckState.PROBLEM, message)


def _references(plan: Plan) -> Iterator[Check]:
    wanted = [found for found in dict.fromkeys(references(plan)) if found.env != KEY]
    problems = [message for reference in wanted if (message := unresolvable(reference, os.environ))]
    yield from (_problem("references", message) for message in problems)
    if wanted and not problems:
        yield _ok("references", f"{len(wanted)} resolved")


def _output_folder(plan: Plan) -> Iterator[Check]:
    wanted = Path(plan.output_dir)
    existing = next(folder for folder in (wanted, *wanted.parents) if os.access(folder, os.F_OK))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield _problem("output folder", f"{existing} is not writable; set execution.output_dir to a folder of yours")


def _commands(cluster: Cluster) -> Iterator[Check]:
    if cluster.missing:
        yield _problem(
            "commands",
            f"{', '.join(cluster.missing)}: not found; run on a login node, or name one in execution.hostname",
        )
    elif not cluster.reachable:
        yield _problem("controller", "sinfo gets no answer from Slurm's controller; try again when it runs")
    elif version_of(cluster.version) < OLDEST:
        yield _problem("version", f"{cluster.version}: Slurm 21.08 or newer is needed")
    else:
        yield _ok("slurm", cluster.version)


def _folder(cluster: Cluster, execution: Slurm) -> Iterator[Check]:
    if cluster.folder_problem is not None:
        yield _problem(
            "work_dir",
            f"execution.work_dir: {cluster.folder_problem} is not writable on the cluster; set a folder of yours",
        )
    elif not cluster.filesystem.lower().startswith(SHARED):
        yield Check(
            "work_dir",
            CheckState.NOTE,
            f"execution.work_dir: {execution.work_dir} is on a file system of type {cluster.filesystem}; all nodes "
            "have to see it",
        )
    else:
        yield _ok("work_dir", f"{execution.work_dir} ({cluster.filesystem})")


def _containers(cluster: Cluster, execution: Slurm) -> Iterator[Check]:
    runtime = execution.container.runtime
    if runtime == "none":
        return
    if runtime in cluster.words:
        yield _ok("containers", runtime)
    elif runtime == "pyxis":
        yield _problem(
            "containers", "srun knows no --container-image: Pyxis is not installed; set container.runtime: apptainer"
        )
    else:
        yield Check("containers", CheckState.SKIPPED, "apptainer is not on the login node; the nodes may have it")


def _python(cluster: Cluster, execution: Slurm) -> Iterator[Check]:
    if "python" not in cluster.words:
        yield Check(
            "python",
            CheckState.SKIPPED,
            f"execution.python: {execution.python} is not on the login node; the nodes or a prologue may have it",
        )


def _partitions(plan: Plan, cluster: Cluster) -> Iterator[Check]:
    known = {partition.name for partition in cluster.partitions}
    for options in _distinct(plan):
        named = dict(word.removeprefix("--").partition("=")[::2] for word in options)
        name = named.get("partition")
        if name is not None and not set(name.split(",")) <= known:
            yield _problem(
                "partition", f"execution.partition: there is no {name}; there are {', '.join(sorted(known))}"
            )
            continue
        candidates = [one for one in cluster.partitions if name is None or one.name in name.split(",")]
        yield from _fits(named, candidates, name)


def _fits(named: dict[str, str], candidates: list[Partition], name: str | None) -> Iterator[Check]:
    where = f"partition {name}" if name else "any partition"
    if candidates and not any(partition.is_up for partition in candidates):
        yield Check("partition", CheckState.NOTE, f"{where} is down: jobs wait until it is up")
    wanted, limits = float(named["time"]), [partition.minutes for partition in candidates]
    if name and limits and None not in limits and wanted > max(limit for limit in limits if limit is not None):
        most = max(limit for limit in limits if limit is not None)
        yield _problem(
            "time limit",
            f"{wanted:g} min are above the {most:g} min of {where}; set execution.times.limit={math.floor(most * 60)}, "
            "so that tasks go on in further jobs, or lower their time-outs",
        )
    gpus = int(re.split(r"[:=]", named.get("gres") or named.get("gpus-per-node") or "0")[-1])
    most_gpus = max((partition.gpus for partition in candidates), default=0)
    if gpus > most_gpus:
        yield _problem(
            "gpus",
            f"a node of {where} has at most {most_gpus} GPUs, and an endpoint asks for {gpus} on each; check the "
            "parallel sizes, execution.nodes and gpus_per_node",
        )


def _distinct(plan: Plan) -> list[tuple[str, ...]]:
    """Options of sbatch that differ in more than names."""
    requests = [task.job.request for task in plan.tasks]
    requests += [task.endpoint.request for task in plan.tasks if task.endpoint is not None]
    found = [
        tuple(word for word in request["sbatch"] if not _NAMES.match(word))
        for request in requests
        if request is not None and "sbatch" in request
    ]
    return list(dict.fromkeys(found))


async def _tests(shell: Shell, plan: Plan, cluster: Cluster) -> list[Check]:
    """What Slurm itself says of the jobs, without submitting them."""
    is_short = any(partition.is_away for partition in cluster.partitions)
    hint = "; some nodes are down or do not answer now: sinfo -R says why" if is_short else ""
    found = []
    for options in _distinct(plan):
        answer = await shell.run(scripts.TEST_ONLY, *options)
        if answer.code != 0:
            found.append(_problem("sbatch --test-only", words.refused(answer.text) + hint))
    return found or [_ok("sbatch --test-only")]


async def reach(shell: Shell, execution: Slurm) -> Check:
    """Whether a cluster is there, for `nv-eval doctor`."""
    try:
        home = (await shell.ask(scripts.HOME)).text
        cluster = read((await shell.ask(scripts.EXAMINE, work_dir(execution, home), execution.python)).text)
    except PlatformError as error:
        return _problem("slurm", str(error))
    finally:
        await shell.close()
    problems = [found for found in _commands(cluster) if found.state is CheckState.PROBLEM]
    if problems:
        return _problem("slurm", problems[0].message)
    names = ", ".join(sorted({partition.name for partition in cluster.partitions}))
    most = max((partition.gpus for partition in cluster.partitions), default=0)
    return _ok("slurm", f"{cluster.version}, partitions {names}, up to {most} GPUs in a node")
