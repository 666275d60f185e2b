"""One client for several runs in one workspace: a list that one of them asks for is the answer to all of them.

What a workspace has, its shapes and secrets and node groups, is asked for again only after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar, cast

import httpx

from launcher.platforms.http import RetryPolicy
from launcher.platforms.lepton.client import ALIVE, PAGE_SIZE, LeptonClient
from launcher.platforms.lepton.credentials import Credentials
from launcher.platforms.lepton.types import Endpoint, Job, NodeGroup, Shape, Token, Workspace
from launcher.platforms.sharing import Shared

T = TypeVar("T")

KNOWN_FOR = 300.0
"""Seconds for which what a workspace has is not asked for again."""


@dataclass(frozen=True)
class _Answer:
    asked: float
    answer: asyncio.Task[Any]


class SharedClient(LeptonClient):
    """See the module. Each run takes it by `of` and gives it back by `close`; `end` closes the connections."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        super().__init__(credentials, transport=transport, policy=policy)
        self._users = 0
        self._begun: float | None = None
        self._answers: dict[str, _Answer] = {}

    @classmethod
    def of(
        cls,
        shared: Shared,
        credentials: Credentials,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        policy: RetryPolicy | None = None,
    ) -> SharedClient:
        """The client of these credentials, for one more user."""
        key = ("lepton", credentials)
        found = shared.by_account.get(key)
        if not isinstance(found, SharedClient):
            found = shared.by_account[key] = cls(credentials, transport=transport, policy=policy)
        found._users += 1
        return found

    @property
    def users(self) -> int:
        """How many runs use it now."""
        return max(self._users, 1)

    def begun(self, now: float) -> float:
        """When the first of all of them began."""
        if self._begun is None:
            self._begun = now
        return self._begun

    async def close(self) -> None:
        """One user less."""
        self._users -= 1

    async def end(self) -> None:
        """Close the connections."""
        for one in self._answers.values():
            one.answer.cancel()
        await super().close()

    # --- what changes -------------------------------------------------------------------------------------------------

    async def endpoints_since(self, since: float) -> tuple[float, list[Endpoint]]:
        """All endpoints of the workspace, as one of the runs has asked for them."""
        return await self._asked("endpoints", since, super().endpoints)

    async def jobs_since(self, invocation: str, since: float) -> tuple[float, list[Job]]:
        """All jobs of the workspace that are not archived; where these are too many, those of the invocation."""
        last = self._answers.get("jobs")
        known = last.answer.result() if last is not None and _has_answer(last) else []
        if len(known) > PAGE_SIZE * self.users:
            return await super().jobs_since(invocation, since)
        return await self._asked("jobs", since, partial(self.jobs, mode=ALIVE))

    # --- what stays ---------------------------------------------------------------------------------------------------

    async def workspace(self) -> Workspace:
        """State, quota and features."""
        return await self._known("workspace", super().workspace)

    async def tokens(self) -> list[Token]:
        """Tokens of the workspace."""
        return await self._known("tokens", super().tokens)

    async def node_groups(self) -> list[NodeGroup]:
        """Dedicated node groups."""
        return await self._known("node groups", super().node_groups)

    async def shapes(self, node_group: str, purpose: Literal["deployment", "job"]) -> list[Shape]:
        """Shapes of a node group."""
        return await self._known(f"shapes {node_group} {purpose}", partial(super().shapes, node_group, purpose))

    async def secrets(self) -> list[str]:
        """Names of the workspace's secrets."""
        return await self._known("secrets", super().secrets)

    async def pull_secrets(self) -> list[str]:
        """Names of the workspace's image pull secrets."""
        return await self._known("pull secrets", super().pull_secrets)

    async def make_folder(self, path: str) -> None:
        """Make a folder of the storage, unless one of the runs has."""
        await self._known(f"folder {path}", partial(super().make_folder, path))

    # --- asking -------------------------------------------------------------------------------------------------------

    async def _known(self, question: str, ask: Callable[[], Awaitable[T]]) -> T:
        now = asyncio.get_running_loop().time()
        return (await self._asked(question, now - KNOWN_FOR, ask))[1]

    async def _asked(self, question: str, since: float, ask: Callable[[], Awaitable[T]]) -> tuple[float, T]:
        """The last answer if it was asked for after `since`, and when; it is everybody's, so nobody's end ends it."""
        found = self._answers.get(question)
        if found is None or found.asked <= since or _has_failed(found):
            asking = asyncio.ensure_future(cast(Coroutine[Any, Any, T], ask()))
            asking.add_done_callback(_noted)
            found = self._answers[question] = _Answer(asyncio.get_running_loop().time(), asking)
        return found.asked, await asyncio.shield(found.answer)


def _noted(asking: asyncio.Task[Any]) -> None:
    """That it failed is said to those who wait for it; there may be nobody any more."""
    if not asking.cancelled():
        asking.exception()


def _has_failed(one: _Answer) -> bool:
    return one.answer.done() and (one.answer.cancelled() or one.answer.exception() is not None)


def _has_answer(one: _Answer) -> bool:
    return one.answer.done() and not _has_failed(one)
