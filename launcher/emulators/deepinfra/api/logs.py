"""Logs of instances."""

from __future__ import annotations

from itertools import islice

from starlette.responses import Response

from launcher.emulators.common.logbook import Line
from launcher.emulators.deepinfra.api.call import Call, Routes
from launcher.emulators.deepinfra.deployment import FOREVER
from launcher.emulators.deepinfra.errors import ApiError, answer

MOST_LINES = 1000
SECOND = 10**9
"""Nanoseconds."""


def routes() -> Routes:
    """The routes of logs."""
    return [("GET", "/v1/logs/query", logs), ("GET", "/v1/deployment_logs/query", logs_by_instance)]


def logs(call: Call) -> Response:
    """Lines of all instances, oldest first."""
    return answer({"entries": [_entry(line) for line in _lines(call, None)]})


def logs_by_instance(call: Call) -> Response:
    """The same by instance."""
    entries: dict[str, list[tuple[str, str]]] = {}
    for line in _lines(call, call.query("pod_name") or None):
        entries.setdefault(line.replica, []).append(_entry(line))
    return answer({"entries": entries})


def _lines(call: Call, instance: str | None) -> list[Line]:
    deployment = call.account.deployment(call.needed("deploy_id"))
    limit = call.query("limit", "100")
    if not limit.isdecimal() or not 1 <= int(limit) <= MOST_LINES:
        raise ApiError(400, f"limit must be from 1 to {MOST_LINES}")
    now = call.account.clock.now()
    deployment.book.collect(now)
    found = deployment.book.window(_nanoseconds(call, "from", 0), _nanoseconds(call, "to", FOREVER), now, instance, "")
    return list(islice(found, int(limit)))


def _nanoseconds(call: Call, name: str, default: int) -> int:
    """A query parameter in seconds, exactly: a float holds no nanoseconds since 1970."""
    whole, _, fraction = (text := call.query(name)).partition(".")
    if not text:
        return default
    if not whole.isdecimal() or (fraction and not fraction.isdecimal()):
        raise ApiError(400, f"{name} must be a number of seconds since 1970, not {text!r}")
    return int(whole) * SECOND + int(fraction[:9].ljust(9, "0"))


def _entry(line: Line) -> tuple[str, str]:
    seconds, rest = divmod(line.time, SECOND)
    return f"{seconds}.{rest:09d}", line.text
