"""The pages: each reads what it shows, and nothing is kept from it but what cannot have changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from launcher.errors import LauncherError, NotFound
from launcher.orchestrator.status import TaskStatus
from launcher.view import comparing, detail, listing, logs, tables
from launcher.view.browsing import KINDS, Samples, Search
from launcher.view.listing import Wish
from launcher.view.records import Records
from launcher.view.shown import render
from launcher.view.watcher import Run, Watcher


@dataclass(frozen=True)
class Desk:
    """What the pages share."""

    watcher: Watcher
    records: Records = field(default_factory=Records)
    samples: Samples = field(default_factory=Samples)


def desk(request: Request) -> Desk:
    """What the pages share, by a request."""
    found: Desk = request.app.state.desk
    return found


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A whole page."""
    return HTMLResponse(render(template, **values), status)


def invocations(request: Request) -> Response:
    """`/`: all invocations."""
    watcher, wish = desk(request).watcher, Wish.of(request.query_params)
    watcher.look()
    change, runs = watcher.change, watcher.known()
    values: dict[str, Any] = {"page": listing.page(runs, wish), "wish": wish, "everything": len(runs), "change": change}
    return page("invocations.html", watcher=watcher, listing=listing, **values)


def invocation(request: Request) -> Response:
    """`/runs/ID`: one invocation."""
    run = wanted_run(request)
    return page("run.html", run=run, parts=detail.parts(desk(request).records, desk(request).watcher, run))


def task(request: Request) -> Response:
    """`/runs/ID/tasks/KEY`: the logs, the samples or the flips of one task."""
    run, found = wanted_task(request)
    show = request.query_params.get("show", "")
    values: dict[str, Any] = {
        "run": run,
        "task": found,
        "show": show,
        "listing": listing,
        "part": detail.task_part(run, found),
    }
    if show == "samples":
        search = Search.of(request.query_params)
        shelf = desk(request).samples.shelf(run.folder, found.task, search)
        return page("samples.html", **values, search=search, shelf=shelf, kinds=KINDS)
    if show == "flips":
        others = comparing.others(desk(request).watcher.runs(), run, found.task)
        against = request.query_params.get("against", "")
        return page("flips.html", **values, others=others, against=against)
    source = show if show in logs.SOURCES else "endpoint" if found.is_auxiliary else "job"
    try:
        piece = logs.last(run.folder, found.task, source)
    except NotFound:
        piece = logs.Piece([], 0, 0)
    return page("log.html", **(values | {"show": source}), source=source, piece=piece)


def earlier(request: Request) -> Response:
    """`/runs/ID/tasks/KEY/earlier`: lines of a log before those that are shown, as a part of a page."""
    run, found = wanted_task(request)
    source = request.query_params.get("source", "")
    if source not in logs.SOURCES:
        raise NotFound("There is no such log.")
    end = listing.whole(request.query_params.get("end", ""), 0)
    piece = logs.before(run.folder, found.task, source, end)
    return page("log_earlier.html", run=run, task=found, source=source, piece=piece)


def scores(request: Request) -> Response:
    """`/scores`: scores of all invocations."""
    asked = tables.Asked.of(request.query_params)
    found = tables.table(desk(request).watcher.runs(), desk(request).records, asked)
    return page("scores.html", table=found, asked=asked)


def compare(request: Request) -> Response:
    """`/compare`: two or more runs, sample by sample. The page comes first, then what takes its time."""
    asked = comparing.Asked.of(request.query_params)
    if not asked.is_part:
        runs = [run for run in desk(request).watcher.runs() if comparing.can_be(run)]
        return page("compare.html", asked=asked, runs=runs[: comparing.OFFERED])
    return page("compare_part.html", found=comparing.compare(desk(request).watcher, asked), asked=asked)


def wanted_run(request: Request) -> Run:
    """The invocation that the address names by its whole id. Raises NotFound."""
    return desk(request).watcher.run(request.path_params["id"])


def wanted_task(request: Request) -> tuple[Run, TaskStatus]:
    """The task that the address names by its key. Raises NotFound."""
    run = wanted_run(request)
    for found in run.status.tasks:
        if found.task == request.path_params["key"]:
            return run, found
    raise NotFound(f"{run.id} has no such task.")


def not_found(_request: Request, _error: Exception) -> Response:
    """Nothing lies at this address."""
    return page("problem.html", 404, title="Not found", text="There is no such page.")


def cannot(_request: Request, error: Exception) -> Response:
    """What was asked for cannot be shown, in words."""
    is_missing = isinstance(error, NotFound)
    title = "Not found" if is_missing else "Cannot be shown"
    return page("problem.html", 404 if is_missing else 500, title=title, text=str(error))


HANDLERS: dict[Any, Any] = {404: not_found, LauncherError: cannot}
"""Which errors are shown how."""

__all__ = ["HANDLERS", "Desk", "compare", "earlier", "invocation", "invocations", "scores", "task"]
