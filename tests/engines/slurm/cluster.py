"""Finds the Slurm cluster that SLURM_CONF names. `tests/engines/slurm/up.sh` starts one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Cluster:
    """A cluster of up.sh, whose folder this is."""

    folder: Path

    def run(self, *words: str) -> str:
        """What a command of Slurm's prints."""
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout

    def queue(self) -> list[tuple[str, str, str]]:
        """Id, state and name of every job that may still run something."""
        lines = self.run("squeue", "-h", "-r", "-o", "%i|%T|%j").splitlines()
        return [(number, state, name) for number, state, name in (line.split("|", 2) for line in lines)]

    def node_of(self, name: str) -> str:
        """The node on which a job of this name runs; empty if it runs nowhere."""
        return self.run("squeue", "-h", "-t", "R", "-n", name, "-o", "%N").strip()

    def kill_node(self, node: str) -> None:
        """End a node's daemon and all that it runs, as a loss of power would; Slurm is told, as it notices late."""
        pid = self._pid(f"slurmd-{node}")
        for step in _steps_of(node):
            for process in [*_tree(step)[::-1], step]:
                _kill(process)
        _kill(pid)
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=no power")

    def start_node(self, node: str) -> None:
        """Boot it again."""
        subprocess.run(["slurmd", "-N", node], env=self._env(), check=True, capture_output=True)
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], capture_output=True, check=False)
        self.wait(lambda: "idle" in self.run("sinfo", "-h", "-n", node, "-o", "%t"), f"{node} is back")

    def kill_controller(self) -> None:
        """End slurmctld with SIGKILL, once it has written down what it knows: it does so seconds after each change."""
        begun = time.time()
        for number, _, _ in self.queue():
            self.run("scontrol", "update", f"jobid={number}", "admincomment=written down")
        written = self.folder / "state" / "job_state"
        self.wait(lambda: written.exists() and written.stat().st_mtime > begun, "it has written its jobs down")
        _kill(self._pid("slurmctld"))

    def start_controller(self) -> None:
        """Start it again, with what it remembers."""
        subprocess.run(["slurmctld"], env=self._env(), check=True, capture_output=True)
        self.wait(lambda: subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0, "it answers")

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
        """Until it is true."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"never came true: {what}"
            time.sleep(0.1)

    def _pid(self, name: str) -> int:
        return int((self.folder / "run" / f"{name}.pid").read_text())

    def _env(self) -> dict[str, str]:
        return {**os.environ, "PATH": PATH}


def cluster() -> Cluster:
    """The cluster. Skips the test, with the reason, where there is none."""
    conf = os.environ.get("SLURM_CONF")
    if not conf or shutil.which("sbatch") is None:
        pytest.skip("SLURM_CONF is not set; tests/engines/slurm/up.sh FOLDER starts a cluster")
    if subprocess.run(["sinfo"], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"the controller of {conf} does not answer")
    return Cluster(Path(conf).parents[1])


def steps() -> list[str]:
    """Command lines of the processes that run steps of jobs, of whatever cluster is on this machine."""
    return [_command(pid) for pid in _pids() if _command(pid).startswith("slurmstepd")]


def _steps_of(node: str) -> list[int]:
    """The step daemons of one node: each has its node's name in its environment, or in its spool folder's path."""
    return [pid for pid in _pids() if _command(pid).startswith("slurmstepd") and _belongs(pid, node)]


def _belongs(pid: int, node: str) -> bool:
    try:
        listening = os.readlink(f"/proc/{pid}/cwd")
        sockets = (Path(f"/proc/{pid}/net/unix")).read_text()
    except OSError:
        return False
    command = _command(pid)
    found = command.partition("[")[2].partition("]")[0].partition(".")[0]
    return node in listening or f"/{node}/{node}_{found}" in sockets


def _tree(pid: int) -> list[int]:
    found = []
    for other in _pids():
        try:
            parent = int(Path(f"/proc/{other}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found += [other, *_tree(other)]
    return found


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
