"""What an earlier launcher asked for may appear when nothing else is left to look at."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from launcher.platforms.base import ResourceState
from launcher.platforms.lepton.client import LeptonClient
from launcher.platforms.lepton.endpoints import Endpoints
from launcher.platforms.lepton.jobs import Jobs
from launcher.platforms.lepton.types import MARK, Endpoint, EndpointSpec, EnvVar, Job, JobSpec, Metadata
from launcher.platforms.tracking import APPEARS_WITHIN
from tests.fakes.clock import run_virtual

MINE = "a1234567"


class Workspace(LeptonClient):
    """A control plane whose lists show one thing from some moment on. Times are seconds of the loop's clock."""

    def __init__(self, appears: float) -> None:
        self.appears = appears
        self.api = SimpleNamespace(in_flight=8)  # type: ignore[assignment]
        self.asked: list[float] = []

    def _shown(self, thing: Any) -> list[Any]:
        now = asyncio.get_running_loop().time()
        self.asked.append(now)
        return [thing] if now >= self.appears else []

    async def endpoints(self) -> list[Endpoint]:
        spec = EndpointSpec(envs=[EnvVar(name=MARK, value=MINE)])
        return self._shown(Endpoint(metadata=Metadata(name="e", id="e"), spec=spec))

    async def jobs(self, containing: str = "", mode: str = "") -> list[Job]:
        spec = JobSpec(envs=[EnvVar(name=MARK, value=MINE)])
        return self._shown(Job(metadata=Metadata(name="j", id="j-1"), spec=spec))


@pytest.mark.parametrize("kind", [Endpoints, Jobs])
def test_what_appears_late_is_seen_and_later_nobody_asks_any_more(kind: type[Endpoints] | type[Jobs]):
    workspace = Workspace(appears=25.0)
    idle = Workspace(appears=1e9)

    async def seen(of: Workspace, until: float) -> list[ResourceState]:
        watched = kind(of, MINE, 0.0)
        watched._diagnose = watched._read_progress = nothing  # type: ignore[union-attr]
        while asyncio.get_running_loop().time() < until:
            await watched.refresh()
            await asyncio.sleep(0.2)
        return [resource.state for resource in watched.resources().values()]

    def nothing() -> None:
        return

    assert len(run_virtual(seen(workspace, 30.0))) == 1
    assert run_virtual(seen(idle, 600.0)) == []
    assert max(idle.asked) < APPEARS_WITHIN + 10
    assert len(idle.asked) < 40
