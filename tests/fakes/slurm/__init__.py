"""A Slurm cluster that is a folder: its commands are programs for a PATH, its jobs processes here or scripts.

with FakeSlurm(folder, FakeConfig()) as slurm:
    ...  # slurm.environment, slurm.jobs(), slurm.queue()
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.slurm import commands


@dataclass(frozen=True, kw_only=True)
class FakeFaults:
    """Probabilities. `late`: sbatch takes a while. `lose`: it submits and says that it did not get an answer.

    `refuse`: the controller does not answer a command, which does nothing.
    """

    late: float = 0.0
    lose: float = 0.0
    refuse: float = 0.0


@dataclass(frozen=True, kw_only=True)
class FakeConfig:
    """One cluster. Seconds throughout; those from `boots` on are of simulated jobs."""

    version: str = "22.05.8"
    min_job_age: float = 300.0
    """For which squeue shows a job that has ended."""
    waits: float = 0.0
    """From a submission to the job's begin."""
    faults: FakeFaults = field(default_factory=FakeFaults)
    late: float = 1.0
    seed: int = 0
    simulated: bool = False
    boots: float = 0.1
    lasts: float = 0.3
    leaves: float = 0.1
    """From a cancellation to the end."""
    results: Mapping[str, Any] = field(default_factory=dict)
    """What each task writes to results.json."""
    events: str = ""
    """The runner's events of an evaluation that ends well."""
    first_server_dies: bool = False
    """In the first attempt of the first task, before it is scored."""


class FakeSlurm:
    """A running cluster."""

    def __init__(self, folder: Path, config: FakeConfig) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        (folder / "slurm.conf").write_text("ClusterName=fake\n")
        self.configure(config)
        for command in commands.COMMANDS:
            program = folder / "bin" / command.__name__
            words = (sys.executable, "-S", "-E", commands.__file__, command.__name__, str(folder))
            program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
            program.chmod(0o755)

    def configure(self, config: FakeConfig) -> None:
        """Change it."""
        part = self.folder / "config.part"
        part.write_text(json.dumps(dataclasses.asdict(config)))
        part.replace(self.folder / "config.json")

    def __enter__(self) -> FakeSlurm:
        return self

    def __exit__(self, *_: object) -> None:
        """End what still runs."""
        with commands.Cluster(self.folder) as cluster:
            for job in cluster.jobs:
                cluster.cancel(job)
        deadline = time.monotonic() + 4 * commands.KILL_WAIT
        while any(job["pid"] is not None for job in self.queue()) and time.monotonic() < deadline:
            time.sleep(0.05)

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which a launcher finds it."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return {"PATH": path, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def jobs(self) -> list[dict[str, Any]]:
        """Every job that was ever submitted, as it is now."""
        with commands.Cluster(self.folder) as cluster:
            return list(cluster.jobs)

    def queue(self) -> list[dict[str, Any]]:
        """Those that may still run something."""
        return [job for job in self.jobs() if job["state"] in commands.ACTIVE]
