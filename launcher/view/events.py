"""Live connections: server-sent events whose data are parts of pages, those alone that have changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from launcher.errors import NotFound
from launcher.view import detail, listing, logs
from launcher.view.listing import Wish
from launcher.view.pages import desk, wanted_run, wanted_task
from launcher.view.shown import render
from launcher.view.watcher import Run, Watcher

LOG_PERIOD, LOG_PERIOD_AT_REST = 0.5, 3.0
"""Seconds between two looks at a log: of an invocation that runs, and of one that may be resumed."""

Update = Callable[[], str]


async def invocations(request: Request) -> Response:
    """`/events/runs`: rows of the list."""
    watcher = desk(request).watcher
    rows = _Rows(watcher, Wish.of(request.query_params), _seen(request))
    return _stream(request, rows.update)


async def invocation(request: Request) -> Response:
    """`/events/runs/ID`: parts of an invocation's page."""
    run = await asyncio.to_thread(wanted_run, request)
    return _stream(request, _Parts(request, run.id, _seen(request)).update)


async def task(request: Request) -> Response:
    """`/events/runs/ID/tasks/KEY`: how the task stands, and lines that are added to a log."""
    run, found = await asyncio.to_thread(wanted_task, request)
    source = request.query_params.get("source", "")
    if source not in logs.SOURCES:
        raise NotFound("There is no such log.")
    return _stream(request, _Log(request, run, found.task, source).update, is_log=True)


def _seen(request: Request) -> int:
    """The change up to which the page knows; of a connection made anew, up to which the one before had sent."""
    sent = request.headers.get("last-event-id") or request.query_params.get("seen", "")
    return listing.whole(sent, 0)


def _stream(request: Request, update: Update, *, is_log: bool = False) -> Response:
    return StreamingResponse(_follow(request, update, is_log=is_log), media_type="text/event-stream")


async def _follow(request: Request, update: Update, *, is_log: bool) -> AsyncIterator[str]:
    watcher = desk(request).watcher
    async with watcher.following():
        yield "retry: 2000\n\n"
        goes_on = True
        while goes_on and not await request.is_disconnected():
            change = watcher.change
            found = await asyncio.to_thread(update)
            yield _event(found, change) if found else ":\n\n"
            goes_on = await (_pause(request) if is_log else watcher.wait(change))


async def _pause(request: Request) -> bool:
    """Until a log is looked at again; False once the server ends."""
    run = desk(request).watcher.latest(request.path_params["id"])
    rests = run is None or run.is_settled
    return await desk(request).watcher.pause(LOG_PERIOD_AT_REST if rests else LOG_PERIOD)


def _event(text: str, change: int) -> str:
    data = "\n".join(f"data: {line}" for line in text.splitlines())
    return f"id: {change}\nevent: swap\n{data}\n\n"


class _Rows:
    """The list as one browser shows it."""

    def __init__(self, watcher: Watcher, wish: Wish, seen: int) -> None:
        self._watcher, self._wish, self._seen = watcher, wish, seen
        self._shown: list[str] | None = None
        self._count = -1

    def update(self) -> str:
        """What has changed since the last time."""
        change, runs = self._watcher.change, self._watcher.known()
        page = listing.page(runs, self._wish)
        ids = [run.id for run in page.rows]
        if self._shown is None and self._seen == change:
            found = ""
        elif self._shown is None or not (kept := _kept(self._shown, ids)):
            found = self._render("rows_all.html", page=page, everything=len(runs))
        else:
            new = set(ids[: len(ids) - len(kept)])
            found = self._some(page, new, [id_ for id_ in self._shown if id_ not in set(ids)], len(runs))
        self._shown, self._seen, self._count = ids, change, page.count
        return found

    def _some(self, page: listing.Page, new: set[str], gone: list[str], everything: int) -> str:
        """Rows that are new, rows that are gone, rows that have changed, and how many there are."""
        return self._render(
            "rows_some.html",
            new=[run for run in page.rows if run.id in new],
            gone=gone,
            changed=[run for run in page.rows if run.change > self._seen and run.id not in new],
            page=page,
            has_count=page.count != self._count,
            everything=everything,
        )

    def _render(self, template: str, **values: object) -> str:
        return render(template, wish=self._wish, listing=listing, watcher=self._watcher, **values).strip()


def _kept(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """The rows that stay, if all that are new come before them in the same order; none if the list is another one."""
    known, present = set(before), set(now)
    kept = [id_ for id_ in before if id_ in present]
    return kept if kept == list(now[len(now) - len(kept) :]) and not known & set(now[: len(now) - len(kept)]) else []


class _Parts:
    """The page of an invocation as one browser shows it."""

    def __init__(self, request: Request, invocation: str, seen: int) -> None:
        self._desk, self._id, self._seen = desk(request), invocation, seen
        self._sent: dict[str, str] | None = None

    def update(self) -> str:
        """The parts that have changed since the last time."""
        run = self._desk.watcher.latest(self._id)
        if run is None or (self._sent is not None and run.change == self._seen):
            return ""
        parts = detail.parts(self._desk.records, self._desk.watcher, run, is_update=True)
        before = self._sent if self._sent is not None else parts if run.change <= self._seen else {}
        self._sent, self._seen = {**parts}, run.change
        return "".join(text for name, text in parts.items() if before.get(name) != text)


class _Log:
    """The page of a task with a log as one browser shows it."""

    def __init__(self, request: Request, run: Run, task: str, source: str) -> None:
        query = request.query_params
        self._desk, self._id, self._task = desk(request), run.id, task
        self._change = listing.whole(query.get("seen", ""), 0)
        sent = request.headers.get("last-event-id", "")
        end = 0 if sent else listing.whole(query.get("end", ""), 0)  # a connection made anew begins with the last lines
        file = "" if sent else query.get("file", "")
        self._tail = logs.Tail(run.folder, task, source, file=file, end=end, is_packed=query.get("packed") == "1")

    def update(self) -> str:
        """How the task stands, if that has changed, and lines that have come."""
        had_begun = self._tail.has_begun
        lines, is_new = self._tail.read()
        found = ""
        if lines or is_new:
            found = render("log_lines.html", lines=lines, is_new=is_new, is_replaced=is_new and had_begun).strip()
        run = self._desk.watcher.latest(self._id)
        if run is not None and run.change != self._change:
            self._change = run.change
            found += "".join(
                detail.task_part(run, one, is_update=True) for one in run.status.tasks if one.task == self._task
            )
        return found
