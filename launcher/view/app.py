"""The application: which address shows what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from launcher.view import assets, events, pages
from launcher.view.guard import Guard
from launcher.view.watcher import Watcher

ROUTES = [
    Route("/", pages.invocations),
    Route("/runs/{id}", pages.invocation),
    Route("/runs/{id}/tasks/{key}", pages.task),
    Route("/runs/{id}/tasks/{key}/earlier", pages.earlier),
    Route("/scores", pages.scores),
    Route("/compare", pages.compare),
    Route("/events/runs", events.invocations),
    Route("/events/runs/{id}", events.invocation),
    Route("/events/runs/{id}/tasks/{key}", events.task),
    Route("/static/{name}", assets.asset),
]


def application(journal: Path, *, token: str, hosts: Iterable[str], cookie: str = "nv-eval-view") -> Starlette:
    """The pages over one journal.

    `hosts`: what the Host header may say, in lower case, with the port; `cookie`: the name under which a browser keeps
    the token.
    """
    watcher = Watcher(journal)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(watcher.look)
        watching = asyncio.create_task(watcher.watch())
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            watcher.shut()

    guard = Middleware(Guard, token=token, hosts=frozenset(hosts), cookie=cookie)
    made = Starlette(routes=ROUTES, middleware=[guard], exception_handlers=pages.HANDLERS, lifespan=lifespan)
    made.state.desk = pages.Desk(watcher)
    return made
