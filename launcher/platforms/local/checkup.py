"""What this machine can run as a platform, by trying it: nothing is left behind."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from launcher.config.execution import Local
from launcher.errors import PlatformError
from launcher.platforms.base import Check, CheckState
from launcher.platforms.local import cgroups, machine
from launcher.platforms.local.supervised import Command, Mark, Supervised

_DRIVER = Path("/proc/driver/nvidia/version")
_POLL = 0.01


def processes(limit: float) -> list[Check]:
    """Run `true` under a supervisor, as a server or a job is run. `limit` in seconds."""
    with tempfile.TemporaryDirectory(prefix="nv-eval-doctor-") as folder:
        command = Command(
            argv=("true",),
            env={"PATH": os.environ.get("PATH", os.defpath)},
            cwd=Path(folder),
            log=Path(folder) / "true.log",
            grace=0.1,
        )
        try:
            unit = Supervised(Mark(invocation="doctor", name="doctor", kind="prepare"), command)
        except PlatformError as error:
            return [_problem("processes", f"{error}; is /proc mounted?")]
        try:
            return [_how_it_ended(unit, time.monotonic() + limit)]
        finally:
            unit.close()


def _how_it_ended(unit: Supervised, deadline: float) -> Check:
    while (ending := unit.look()) is None:
        if time.monotonic() > deadline:
            return _problem("processes", "a supervised process does not end; is this sandbox without signals?")
        time.sleep(_POLL)
    if ending.exit_code != 0:
        return _problem("processes", f"`true` {ending.detail}; check PATH and the limits of this shell (ulimit -a)")
    groups = "each in a cgroup of its own" if cgroups.home() else "no cgroup can be made for each (not needed)"
    said = f"servers and jobs run as supervised processes, {machine.cores(Local())} CPU cores; {groups}"
    return _ok("processes", said)


def containers() -> list[Check]:
    """Ask the engine for its version."""
    if importlib.util.find_spec("docker") is None:
        return [_absent("containers", "the docker client is not installed: pip install 'nv-eval-launcher[docker]'")]
    from launcher.platforms.local.docker import engine

    host = engine.address(None)
    if (unusable := _unusable_socket(host, is_named=engine.is_named(None))) is not None:
        return [unusable]
    try:
        client = engine.connect(host)
    except PlatformError as error:
        return [_problem("containers", f"{error}; start it, or set DOCKER_HOST")]
    try:
        return [_ok("containers", f"{client.version()['Version']} at {host}")]
    except engine.ENGINE_ERRORS as error:
        return [_problem("containers", f"the engine at {host} does not say its version: {engine.explain(error)}")]
    finally:
        client.close()


def _unusable_socket(host: str, *, is_named: bool) -> Check | None:
    """What is wrong with the engine's address, before anything is sent there."""
    parts = urlsplit(host)
    if parts.scheme != "unix":
        return _problem("containers", f"{host} is not on this machine; set DOCKER_HOST to a unix:// socket")
    path = Path(parts.path)
    if not path.is_socket() and not is_named:
        return _absent("containers", f"no Docker or podman ({path}); install one for execution.runtime=docker")
    if path.is_socket() and not os.access(path, os.W_OK):
        return _problem("containers", f"{path} is not yours to use: sudo usermod -aG docker $USER, and log in again")
    return None


def gpus() -> list[Check]:
    """Count the GPUs that servers here can get."""
    found = machine.gpus(Local())
    if found:
        kinds = [f"{gpu.name}{f', {gpu.memory_gib:.0f} GiB' if gpu.memory_gib else ''}" for gpu in found]
        return [_ok("gpus", "; ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds)))]
    if not _DRIVER.exists():
        return [_absent("gpus", "no NVIDIA driver; deployments on CPU and on other platforms need none")]
    if importlib.util.find_spec("pynvml") is None:
        return [_problem("gpus", "there is a driver, but no nvidia-ml-py: pip install 'nv-eval-launcher[gpu]'")]
    return [_problem("gpus", "the driver shows no GPU; see what nvidia-smi says, and check CUDA_VISIBLE_DEVICES")]


def _ok(name: str, message: str) -> Check:
    return Check(name, CheckState.OK, message)


def _problem(name: str, message: str) -> Check:
    return Check(name, CheckState.PROBLEM, message)


def _absent(name: str, message: str) -> Check:
    return Check(name, CheckState.SKIPPED, message)
