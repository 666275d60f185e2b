"""Points at which a launcher can die: around every write to the journal, every request, every file.

A point is a label and a number: the third `GET /jobs sent` of this process. Labels hold no ids, so that the points of
one run are the points of another run of the same plan.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import threading
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx

from launcher.orchestrator.journal import Entry, Journal
from launcher.platforms.slurm import scripts
from launcher.platforms.slurm.shell import Shell

JOURNAL_METHODS = ("begin", "take_lease", "replan", "beat", "give_up_lease")
_SERVED = re.compile(r"^/api/v2/workspaces/[^/]+")
_DEPLOYMENT = re.compile(r"^/deploy/(?!(?:llm|list|stats)(?:/|$))[^/]+")


@dataclass(frozen=True)
class Point:
    """The `number`th time, from 1, that a process comes to `label`; with an empty label, to any point at all."""

    label: str
    number: int

    def __str__(self) -> str:
        return f"{self.label or 'any point'} #{self.number}"


class Act(StrEnum):
    """What happens at the point that was waited for."""

    KILL = "kill"
    PAUSE = "pause"
    """The process is stopped until somebody lets it go on."""
    FULL_DISK = "full disk"
    """From now on the journal's files cannot grow."""
    READ_ONLY = "read-only journal"


@dataclass
class Watch:
    """Counts the points that this process comes to, writes them down, and acts at the one it waits for."""

    invocation: str
    folder: Path
    """Files below it are points."""
    trace: Path
    awaited: Point | None = None
    act: Act = Act.KILL
    _journal: Journal | None = None
    _counts: Counter[str] = field(default_factory=Counter)
    _trace: int = -1
    _lock: threading.RLock = field(default_factory=threading.RLock)
    """Threads wait for the answers of Kubernetes."""

    def install(self) -> None:
        """From now on points are counted. There is no way back: this is for processes that are made for it."""
        self._trace = os.open(self.trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._watch_journal()
        self._watch_requests()
        self._watch_threaded_requests()
        self._watch_scripts()
        sys.addaudithook(self._audit)

    def reach(self, label: str, *, last_act: Callable[[], object] = lambda: None) -> None:
        """The process is at a point. `last_act` is done before something happens there."""
        with self._lock:
            self._counts[label] += 1
            self._counts[""] += 1
            os.write(self._trace, f"{label}\n".encode())
            if self.awaited in (Point(label, self._counts[label]), Point("", self._counts[""])):
                last_act()
                self._happen()

    def _happen(self) -> None:
        match self.act:
            case Act.KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            case Act.PAUSE:
                os.kill(os.getpid(), signal.SIGSTOP)
            case Act.FULL_DISK:
                assert self._journal is not None
                size = Path(f"{self._journal.path}-wal").stat().st_size
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            case Act.READ_ONLY:
                assert self._journal is not None
                self._journal._db.execute("PRAGMA query_only = ON")

    # --- the journal --------------------------------------------------------------------------------------------------

    def _watch_journal(self) -> None:
        record_all = Journal.record_all

        def recorded(journal: Journal, invocation: str, entries: Sequence[Entry]) -> None:
            self._journal = journal
            for entry in entries:
                self.reach(f"fact {entry.kind.value} before")
            record_all(journal, invocation, entries)
            for entry in entries:
                self.reach(f"fact {entry.kind.value} after")

        setattr(Journal, "record_all", recorded)  # noqa: B010  a class that is changed on purpose
        for name in JOURNAL_METHODS:
            setattr(Journal, name, self._around(f"journal {name}", getattr(Journal, name)))

    def _around(self, label: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def around(journal: Journal, *args: Any, **keys: Any) -> Any:
            self._journal = journal
            self.reach(f"{label} before")
            result = method(journal, *args, **keys)
            self.reach(f"{label} after")
            return result

        return around

    # --- requests -----------------------------------------------------------------------------------------------------

    def _watch_requests(self) -> None:
        send = httpx.AsyncHTTPTransport.handle_async_request

        async def sent(transport: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
            route = self._route(request)

            async def trace(event: str, _: dict[str, Any]) -> None:
                if event == "http11.receive_response_headers.started":  # the last byte of the request is on its way
                    self.reach(f"{route} sent")

            self.reach(f"{route} before")
            request.extensions["trace"] = trace
            response = await send(transport, request)
            self.reach(f"{route} answered")
            return response

        setattr(httpx.AsyncHTTPTransport, "handle_async_request", sent)  # noqa: B010

    def _watch_threaded_requests(self) -> None:
        """What the official client of Kubernetes sends."""
        try:
            from urllib3.connection import HTTPConnection
        except ModuleNotFoundError:
            return
        request, getresponse = HTTPConnection.request, HTTPConnection.getresponse
        routes: dict[int, str] = {}

        def asked(connection: HTTPConnection, method: str, url: str, *args: Any, **keys: Any) -> None:
            path, _, query = url.partition("?")
            route = self._named(f"{method} watch" if "watch=true" in query else method, path)
            self.reach(f"{route} before")
            request(connection, method, url, *args, **keys)
            routes[id(connection)] = route
            self.reach(f"{route} sent")

        def answered(connection: HTTPConnection) -> Any:
            response = getresponse(connection)
            self.reach(f"{routes[id(connection)]} answered")
            return response

        setattr(HTTPConnection, "request", asked)  # noqa: B010
        setattr(HTTPConnection, "getresponse", answered)  # noqa: B010

    def _watch_scripts(self) -> None:
        """What is asked of Slurm: scripts of a shell, whose standard input they come through."""
        names = {text: name.lower() for name, text in vars(scripts).items() if isinstance(text, str)}
        running: ContextVar[str] = ContextVar("running", default="")
        run, feed = Shell.run, Process._feed_stdin  # type: ignore[attr-defined]

        async def ran(shell: Shell, script: str, *arguments: str, **keys: Any) -> Any:
            name = f"script {names.get(script, script.strip())}"
            self.reach(f"{name} before")
            token = running.set(name)
            try:
                answer = await run(shell, script, *arguments, **keys)
            finally:
                running.reset(token)
            self.reach(f"{name} answered")
            return answer

        async def fed(process: Process, payload: bytes | None) -> None:
            await feed(process, payload)
            if running.get():
                self.reach(f"{running.get()} sent")

        setattr(Shell, "run", ran)  # noqa: B010
        setattr(Process, "_feed_stdin", fed)  # noqa: B010

    def _route(self, request: httpx.Request) -> str:
        return self._named(request.method, _DEPLOYMENT.sub("/deploy/{id}", _SERVED.sub("", request.url.path)))

    def _named(self, method: str, path: str) -> str:
        parts = ["{name}" if self.invocation in part else part for part in path.split("/")]
        return f"{method} {'/'.join(parts) or '/'}"

    # --- files --------------------------------------------------------------------------------------------------------

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR):
            self._touched("write", args[0], empties=bool(args[2] & os.O_TRUNC))
        elif event in ("os.rename", "os.mkdir", "os.remove"):
            self._touched(event.removeprefix("os."), args[0])

    def _touched(self, verb: str, path: Any, *, empties: bool = False) -> None:
        if not isinstance(path, str | bytes | os.PathLike) or not os.fsdecode(path).startswith(str(self.folder)):
            return
        name = os.fsdecode(path)[len(str(self.folder)) :].replace(self.invocation, "{id}")
        name = name.replace(f".{os.getpid()}", ".{pid}")
        self.reach(f"file {verb} {name} before")
        if empties:
            self.reach(f"file {verb} {name} empty", last_act=lambda: _empty(os.fsdecode(path)))


def _empty(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))


def read_trace(trace: Path) -> list[Point]:
    """The points that a process came to, in their order."""
    counts: Counter[str] = Counter()
    found = []
    for label in trace.read_text().splitlines():
        counts[label] += 1
        found.append(Point(label, counts[label]))
    return found
