"""Everything on this machine that carries our mark, whichever runtime made it."""

from __future__ import annotations

import asyncio
import importlib.util

from launcher.config.execution import Local
from launcher.platforms.base import Leftover
from launcher.platforms.local.process import sweep_processes


async def sweep(execution: Local) -> list[Leftover]:
    """Processes always; containers where the docker client is installed and an engine answers."""
    found = sweep_processes()
    if importlib.util.find_spec("docker") is not None:
        from launcher.platforms.local.docker import engine

        found += await asyncio.to_thread(engine.sweep, engine.address(execution.docker.host))
    return found
