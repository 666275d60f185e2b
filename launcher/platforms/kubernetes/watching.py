"""What exists of one invocation, kept up by one watch for each kind.

A watch begins with one list, goes on where it was cut, and lists again after a gap: after 410, and after it lost its
connection. While it has none, nobody knows what exists: that is said, and nothing is taken for gone.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import httpx
import msgspec

from launcher.errors import PlatformError
from launcher.platforms.kubernetes.client import Access, Json, KubeClient, decode, open_, read

WATCH_TIME = 300
"""Seconds after which a watch is renewed."""
SILENCE = 330.0
"""Seconds without a word after which a watch is taken for dead; bookmarks come every minute or so."""
ANSWER_TIME = 30.0
FIRST_WAIT, LONGEST_WAIT = 0.25, 8.0
SYNC_TIME = 20.0
"""Seconds that a look waits for a list."""
GONE = 410


class Watched:
    """The objects of one kind with a label."""

    def __init__(self, client: KubeClient, plural: str, labels: str, changed: Callable[[Json], None]) -> None:
        """`changed` is told of each object that is new or has changed."""
        self.plural = plural
        self.items: dict[str, Json] = {}
        self.problem = ""
        self.requests = 0
        self._client = client
        self._labels = labels
        self._changed = changed
        self._synced = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._answer: Any = None
        self._version = ""
        self._thread = threading.Thread(target=self._run, name=f"watch-{plural}", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stop.set()
        answer = self._answer
        if answer is not None:
            try:
                answer.shutdown() if hasattr(answer, "shutdown") else answer.close()
            except (OSError, ValueError, RuntimeError):
                return

    async def synced(self) -> None:
        """Wait until what is known is up to date. Raises PlatformError if nobody can say."""
        try:
            async with asyncio.timeout(SYNC_TIME):
                await self._synced.wait()
        except TimeoutError:
            raise PlatformError(f"Kubernetes: {self.plural} cannot be watched: {self.problem or 'no answer'}") from None

    def put(self, thing: Json) -> None:
        """What the cluster answered to a request of ours: the watch may tell it later."""
        name = thing["metadata"]["name"]
        known = self.items.get(name)
        if known is None or _version(known) < _version(thing):
            self.items[name] = thing
            self._changed(thing)

    # --- in the loop --------------------------------------------------------------------------------------------------

    def _replace(self, found: list[Json], version: str) -> None:
        listed = {thing["metadata"]["name"]: thing for thing in found}
        newer = {name: thing for name, thing in self.items.items() if _version(thing) > _number(version)}
        self.items = {**listed, **newer}
        for thing in listed.values():
            self._changed(thing)
        self.problem = ""
        self._synced.set()

    def _take(self, event: Json) -> None:
        thing = event["object"]
        name = thing["metadata"]["name"]
        known = self.items.get(name)
        if known is not None and _version(known) > _version(thing):
            return
        self._changed(thing)
        if event["type"] == "DELETED":
            self.items.pop(name, None)
        else:
            self.items[name] = thing

    def _lost(self, problem: str) -> None:
        self.problem = problem
        self._synced.clear()

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _tell(self, function: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop is closed
            self._stop.set()

    def _run(self) -> None:
        wait = FIRST_WAIT
        while not self._stop.is_set():
            try:
                if not self._version:
                    self._list()
                self._watch()
                wait = FIRST_WAIT
            except (httpx.RequestError, _Refused, msgspec.DecodeError, KeyError) as error:
                if self._stop.is_set():
                    return
                if not (isinstance(error, _Refused) and error.status == GONE):
                    self._tell(self._lost, str(error) or type(error).__name__)
                    self._stop.wait(wait)
                    wait = min(2 * wait, LONGEST_WAIT)
                self._version = ""

    def _list(self) -> None:
        self.requests += 1
        content = b"".join(self._chunks({"labelSelector": self._labels}, ANSWER_TIME))
        found = decode(content)
        self._version = str(found["metadata"]["resourceVersion"])
        self._tell(self._replace, found["items"], self._version)

    def _watch(self) -> None:
        self.requests += 1
        query = {
            "labelSelector": self._labels,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(WATCH_TIME),
        }
        rest = b""
        for chunk in self._chunks(query, SILENCE):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line:
                    self._hear(decode(line))

    def _hear(self, event: Json) -> None:
        thing = event["object"]
        if event["type"] == "ERROR":
            raise _Refused(int(thing.get("code", 500)), str(thing.get("message", "")))
        self._version = str(thing["metadata"]["resourceVersion"])
        if event["type"] != "BOOKMARK":
            self._tell(self._take, event)

    def _chunks(self, query: dict[str, str], silence: float) -> Iterator[bytes]:
        access: Access = self._client.access
        url = f"{access.host}{self._client.path(self.plural)}?{urlencode(query)}"
        answer = open_(access, "GET", url, {"Accept": "application/json"}, None, silence)
        self._answer = answer
        try:
            if answer.status != 200:
                raise _Refused(answer.status, read(answer).decode("utf-8", "replace")[:300])
            while not self._stop.is_set() and (chunk := read(answer)):
                yield chunk
        finally:
            self._answer = None
            answer.close()


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(f"answered {status}: {message}")


def _version(thing: Json) -> int:
    return _number(str(thing["metadata"].get("resourceVersion", "")))


def _number(version: str) -> int:
    """Versions grow; a cluster whose versions are no numbers has its word taken as it comes."""
    return int(version) if version.isdecimal() else 0
