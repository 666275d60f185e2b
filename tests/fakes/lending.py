"""Endpoints that a sweep keeps for several tasks, in memory."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from launcher.orchestrator import keeper
from launcher.plan.model import Plan
from launcher.platforms.base import Observation, Resource
from tests.fakes.platform import FakePlatform

START = 100.0
"""Seconds that a server takes to start which is kept for several tasks."""


def lend(monkeypatch: pytest.MonkeyPatch) -> FakePlatform:
    """One place for all endpoints that are kept: servers that take 100 s to start, and answer at once then."""
    place = FakePlatform(poll_interval=0.5)

    class Seen:
        """The place as one invocation sees it."""

        def __init__(self, plan: Plan) -> None:
            self._mark = f"-{plan.invocation}"

        def __getattr__(self, name: str) -> Any:
            return getattr(place, name)

        async def close(self, *, at_once: bool = False) -> None:
            """It stays, whoever leaves."""

        async def observe(self) -> Observation:
            seen = await place.observe()
            mine = {n: self.now(e) for n, e in seen.endpoints.items() if n.endswith(self._mark)}
            return Observation(endpoints=mine)

        async def create_endpoint(self, task: Any, spec: Any) -> Resource:
            return self.now(await place.create_endpoint(task, spec))

        def now(self, found: Resource) -> Resource:
            up = asyncio.get_running_loop().time() >= place.endpoints[found.name].begun + START
            return found if up else dataclasses.replace(found, url=None)

    class Answers:
        def __init__(self, _invocation: str, _platform: object) -> None:
            pass

        async def answers(self, _task: Any, _say: Any = None) -> None:
            return

        def stop_all(self) -> None:
            return

        def stop(self, _task: str) -> None:
            return

    monkeypatch.setattr(keeper, "open_endpoints", lambda plan, _shared: Seen(plan))
    monkeypatch.setattr(keeper, "Probes", Answers)
    return place


def seconds_of(place: FakePlatform) -> float:
    """What all endpoints of a place were billed for."""
    return sum((thing.gone_at or float("nan")) - thing.begun for thing in place.endpoints.values())
