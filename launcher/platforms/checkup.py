"""What a machine can run, platform by platform. Each function imports its platform only when it is called."""

from __future__ import annotations

import asyncio

from launcher.errors import PreflightError
from launcher.platforms.base import Check, CheckState


def processes(limit: float) -> list[Check]:
    """Whether servers and jobs can run as processes of this machine. `limit` in seconds, here and below."""
    from launcher.platforms.local import checkup

    return checkup.processes(limit)


def containers(_limit: float) -> list[Check]:
    """Whether they can run in containers."""
    from launcher.platforms.local import checkup

    return checkup.containers()


def gpus(_limit: float) -> list[Check]:
    """Which GPUs they can get."""
    from launcher.platforms.local import checkup

    return checkup.gpus()


def lepton(limit: float) -> list[Check]:
    """Whether the credentials of this machine open a Lepton workspace."""
    from launcher.platforms.lepton import credentials

    try:
        found = credentials.find()
    except PreflightError as error:
        return [Check("lepton", CheckState.SKIPPED, str(error).removeprefix("Lepton: "))]
    from launcher.platforms.lepton import checkup

    return asyncio.run(checkup.check(found, limit))


def deepinfra(limit: float) -> list[Check]:
    """Whether the key of this machine opens a DeepInfra account."""
    from launcher.platforms.deepinfra import credentials

    try:
        found = credentials.find()
    except PreflightError as error:
        return [Check("deepinfra", CheckState.SKIPPED, str(error).removeprefix("DeepInfra: "))]
    from launcher.platforms.deepinfra import checkup

    return [asyncio.run(checkup.check(found, limit))]


def kubernetes(limit: float) -> list[Check]:
    """Whether the kubeconfig of this machine opens a cluster."""
    from launcher.platforms.kubernetes import reach

    try:
        reach.find()
    except PreflightError as error:
        return [Check("kubernetes", CheckState.SKIPPED, str(error).removeprefix("Kubernetes: "))]
    from launcher.platforms.kubernetes import checkup

    return [asyncio.run(checkup.check(limit))]


def slurm(_limit: float) -> list[Check]:
    """Whether this machine is a login node of a Slurm cluster."""
    from launcher.platforms.slurm import here

    if not here.is_here():
        return [Check("slurm", CheckState.SKIPPED, here.ABSENT)]
    from launcher.config.execution import Slurm
    from launcher.platforms.slurm import preflight
    from launcher.platforms.slurm.shell import Shell

    return [asyncio.run(preflight.reach(Shell(None), Slurm()))]
