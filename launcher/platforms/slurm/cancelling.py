"""Cancellation of batch jobs: whatever is asked for within a moment is one call of scancel."""

from __future__ import annotations

import asyncio

from launcher.platforms.slurm import scripts
from launcher.platforms.slurm.shell import Shell

GATHERING = 0.1
"""Seconds in which requests are put together."""


class Canceller:
    """Cancels the batch jobs of one invocation. `folder` is its folder on the cluster."""

    def __init__(self, shell: Shell, folder: str) -> None:
        self._shell = shell
        self._folder = folder
        self._wanted: dict[str, str] = {}
        self._asking: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def cancel(self, name: str, element: str = "") -> None:
        """Return when Slurm was asked. `element`: what it calls a job that is part of an array. PlatformError."""
        self._wanted[name] = element
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
            self._running.add(self._asking)
            self._asking.add_done_callback(self._over)
        await asyncio.shield(self._asking)

    def _over(self, asked: asyncio.Task[None]) -> None:
        self._running.discard(asked)
        if not asked.cancelled():
            asked.exception()  # whoever waits for it is told; perhaps nobody does any more

    async def close(self) -> None:
        """Ask for nothing more."""
        running = list(self._running)
        for asking in running:
            asking.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _ask(self) -> None:
        await asyncio.sleep(GATHERING)
        lines = "".join(f"{name} {element}".strip() + "\n" for name, element in self._wanted.items())
        self._wanted, self._asking = {}, None
        await self._shell.ask(scripts.CANCEL, self._folder, payload=lines.encode(), timeout=120.0)
