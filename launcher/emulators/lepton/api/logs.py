"""Collected logs, in the shape of a Loki query."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from starlette.responses import Response

from launcher.emulators.common.logbook import Line, LogBook
from launcher.emulators.lepton.api.call import Call, Routes, answer
from launcher.emulators.lepton.errors import ApiError, Code

DEFAULT_WINDOW = 24 * 3600 * 10**9
"""Nanoseconds back from now where a request names no window."""
DEFAULT_LIMIT = 5000
MOST_LINES = 10_000


def routes() -> Routes:
    """The routes of logs."""
    return [("GET", "/logs", logs), ("GET", "/logs/timeseries", timeseries)]


async def logs(call: Call) -> Response:
    """Lines of a window, newest first unless `direction=forward`."""
    limit = call.number("limit", DEFAULT_LIMIT)
    if limit > MOST_LINES:
        raise ApiError(400, Code.INVALID, f"limit must be at most {MOST_LINES}")
    lines = _lines(call)
    chosen = islice(lines if call.query("direction") == "forward" else reversed(lines), limit)
    streams: dict[str, list[tuple[str, str]]] = {}
    for line in chosen:
        streams.setdefault(line.replica, []).append((str(line.time), line.text))
    result = [{"stream": {"replica": replica}, "values": values} for replica, values in streams.items()]
    return answer({"status": "success", "data": {"resultType": "streams", "result": result}})


async def timeseries(call: Call) -> Response:
    """Numbers of lines per interval."""
    width = max(1, call.number("interval_ms", 60_000)) * 10**6
    counts = Counter(line.time // width * width for line in _lines(call))
    values = [[str(time), str(number)] for time, number in sorted(counts.items())]
    return answer({"status": "success", "data": {"result": [{"metric": {}, "values": values}]}})


def _lines(call: Call) -> list[Line]:
    book, replicas = _book(call)
    now = call.workspace.clock.now()
    start, end = _window(call, now)
    if book is None or not book.is_collected:
        return []
    book.collect(now)
    found = book.window(start, end, now, call.query("replica") or None, call.query("q"))
    return [line for line in found if replicas is None or line.replica in replicas]


def _window(call: Call, now: float) -> tuple[int, int]:
    """Start and end in ns."""
    given = [bool(call.query(name)) for name in ("start", "end")]
    if any(given) and not all(given):
        raise ApiError(400, Code.INVALID, "start and end must come together")
    end = call.number("end", int(now * 1e9) + 1)
    return call.number("start", end - DEFAULT_WINDOW), end


def _book(call: Call) -> tuple[LogBook | None, tuple[str, ...] | None]:
    """The log that is asked for, and of which replicas; None: of all."""
    for key in ("job", "endpoint" if call.workspace.config.new_deployment_api else "deployment"):
        if name := call.query(key):
            return call.workspace.log_book(name), None
    past = call.query("job_history_name")
    for job in call.workspace.jobs.values():
        for run in job.runs:
            if run.name == past:
                return job.book, run.replicas
    if not past:
        raise ApiError(400, Code.INVALID, "one of job, deployment, endpoint, job_history_name is needed")
    return None, None
