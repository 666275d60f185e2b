"""A watch that is cut, refused and told 410, and single requests that are refused: what is repeated, and what is said.

kubernetes.io/docs/reference/using-api/api-concepts, "Efficient detection of changes" and "410 Gone".
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from launcher.errors import PlatformError
from launcher.platforms.http import RequestFailed
from launcher.platforms.kubernetes import client as client_module
from launcher.platforms.kubernetes import watching
from launcher.platforms.kubernetes.client import Access, KubeClient
from launcher.platforms.kubernetes.watching import Watched
from tests.fakes.clock import run_virtual

Json = dict[str, Any]


class Answer:
    """One answer of a cluster, piece by piece. `hold`: it stays open after the last until it is closed."""

    def __init__(self, status: int, *pieces: bytes, hold: bool = False, **headers: str) -> None:
        self.status = status
        self.headers = {name.replace("_", "-"): text for name, text in headers.items()}
        self._pieces = list(pieces)
        self._hold = hold
        self._closed = threading.Event()

    def read1(self, _: int) -> bytes:
        if self._pieces:
            return self._pieces.pop(0)
        if self._hold:
            self._closed.wait(30)
        return b""

    def close(self) -> None:
        self._closed.set()

    shutdown = release_conn = close


class FakeCluster:
    """Answers requests with what a test has prepared, in order; the last watch stays open."""

    def __init__(self) -> None:
        self.answers: list[Answer | Exception] = []
        self.urls: list[str] = []

    def open(self, _access: Any, method: str, url: str, *_: Any) -> Answer:
        self.urls.append(f"{method} {url}")
        found = self.answers.pop(0) if self.answers else Answer(200, hold=True)
        if isinstance(found, Exception):
            raise found
        return found

    def versions(self) -> list[str]:
        """From which version each watch went on; `list` for lists."""
        asked = [parse_qs(urlsplit(url.partition(" ")[2]).query) for url in self.urls]
        return [query["resourceVersion"][0] if "watch" in query else "list" for query in asked]


def thing(name: str, version: int) -> Json:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def listed(version: int, *things: Json) -> Answer:
    return Answer(200, json.dumps({"metadata": {"resourceVersion": str(version)}, "items": things}).encode())


def event(type_: str, about: Json) -> bytes:
    return json.dumps({"type": type_, "object": about}).encode() + b"\n"


GONE = event("ERROR", {"kind": "Status", "code": 410, "message": "too old resource version"})


def access() -> Access:
    pool = SimpleNamespace(clear=lambda: None)
    api = SimpleNamespace(rest_client=SimpleNamespace(pool_manager=pool))
    return Access(api=api, host="http://cluster.test", namespace="default", context="test")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    found = FakeCluster()
    monkeypatch.setattr(watching, "open_", found.open)
    monkeypatch.setattr(client_module, "open_", found.open)
    monkeypatch.setattr(watching, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(watching, "LONGEST_WAIT", 0.002)
    yield found


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  a thread of its own changes it
            await asyncio.sleep(0.001)


def watch(follow: Callable[[Watched], Coroutine[Any, Any, None]]) -> list[Json]:
    """Watch pods while something is looked at; returns what was told to have changed."""
    heard: list[Json] = []

    async def run() -> None:
        client = KubeClient(access())
        watched = Watched(client, "pods", "a=b", heard.append)
        watched.start()
        try:
            await follow(watched)
        finally:
            watched.stop()
            await client.close()
            await asyncio.to_thread(watched._thread.join, 20)

    asyncio.run(run())
    return heard


def names(watched: Watched) -> list[str]:
    return sorted(watched.items)


def test_a_watch_goes_on_where_it_was_cut(cluster: FakeCluster) -> None:
    cluster.answers = [
        listed(5, thing("a", 3)),
        Answer(200, event("ADDED", thing("b", 6)), event("BOOKMARK", thing("", 9))),
    ]

    async def follow(watched: Watched) -> None:
        await until(lambda: len(cluster.urls) == 3 and names(watched) == ["a", "b"])

    heard = watch(follow)

    assert cluster.versions() == ["list", "5", "9"]
    assert [one["metadata"]["name"] for one in heard] == ["a", "b"]


def test_an_event_that_comes_in_pieces_is_one_event(cluster: FakeCluster) -> None:
    whole = event("ADDED", thing("b", 6))
    cluster.answers = [listed(5), Answer(200, whole[:7], whole[7:20], whole[20:], hold=True)]

    async def follow(watched: Watched) -> None:
        await until(lambda: names(watched) == ["b"])

    watch(follow)


def test_after_410_everything_is_listed_again_and_nobody_hears_of_an_outage(cluster: FakeCluster) -> None:
    cluster.answers = [
        listed(5, thing("a", 3), thing("b", 4)),
        Answer(200, GONE),
        listed(20, thing("b", 4), thing("c", 19)),
    ]

    async def follow(watched: Watched) -> None:
        await until(lambda: names(watched) == ["b", "c"])
        await watched.synced()
        assert watched.problem == ""

    watch(follow)

    assert cluster.versions()[:4] == ["list", "5", "list", "20"]


def test_410_as_an_answer_is_the_same_as_in_an_event(cluster: FakeCluster) -> None:
    cluster.answers = [listed(5, thing("a", 3)), Answer(410, b"{}"), listed(20)]

    async def follow(watched: Watched) -> None:
        await until(lambda: len(cluster.urls) >= 4 and names(watched) == [])

    watch(follow)

    assert cluster.versions()[:4] == ["list", "5", "list", "20"]


def test_what_is_deleted_goes_and_what_is_older_is_not_believed(cluster: FakeCluster) -> None:
    cluster.answers = [
        listed(5, thing("a", 3), thing("b", 5)),
        Answer(200, event("MODIFIED", thing("b", 2)), event("DELETED", thing("a", 7)), hold=True),
    ]

    async def follow(watched: Watched) -> None:
        await until(lambda: names(watched) == ["b"])
        assert watched.items["b"]["metadata"]["resourceVersion"] == "5"

    watch(follow)


def test_what_the_cluster_answered_to_us_stays_newer_than_a_list_from_before(cluster: FakeCluster) -> None:
    cluster.answers = [listed(5), Answer(200, GONE), listed(6)]

    async def follow(watched: Watched) -> None:
        await until(watched._synced.is_set)
        watched.put(thing("mine", 9))
        await until(lambda: len(cluster.urls) >= 4)
        await asyncio.sleep(0)
        assert names(watched) == ["mine"]

    watch(follow)


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        (Answer(403, b"pods is forbidden"), "pods cannot be watched: answered 403: pods is forbidden"),
        (httpx.ConnectError("connection refused"), "pods cannot be watched: connection refused"),
    ],
)
def test_who_asks_while_nobody_knows_hears_why(
    cluster: FakeCluster, trouble: Answer | Exception, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "SYNC_TIME", 0.2)
    monkeypatch.setattr(watching, "FIRST_WAIT", 60.0)
    cluster.answers = [trouble]

    async def follow(watched: Watched) -> None:
        await until(lambda: watched.problem)
        with pytest.raises(PlatformError, match=says):
            await watched.synced()

    watch(follow)


def test_an_outage_is_over_with_the_next_list(cluster: FakeCluster) -> None:
    cluster.answers = [listed(5, thing("a", 3)), httpx.ReadError("cut"), httpx.ConnectError("refused"), listed(8)]

    async def follow(watched: Watched) -> None:
        await until(lambda: len(cluster.urls) >= 5)
        await watched.synced()
        assert (watched.problem, names(watched)) == ("", [])

    watch(follow)

    assert cluster.versions()[:5] == ["list", "5", "list", "list", "8"]


# --- single requests --------------------------------------------------------------------------------------------------


def ask(cluster: FakeCluster, request: Callable[[KubeClient], Coroutine[Any, Any, Any]], *answers: Answer) -> Any:
    cluster.answers = list(answers)

    async def run() -> Any:
        client = KubeClient(access())
        try:
            return await request(client)
        finally:
            await client.close()

    return run_virtual(run())


def status(code: int, reason: str) -> bytes:
    return json.dumps({"kind": "Status", "code": code, "reason": reason, "message": f"it is {reason}"}).encode()


def busy() -> Answer:
    return Answer(429, status(429, "TooManyRequests"), Retry_After="3", content_type="application/json")


def test_too_many_requests_are_asked_again_also_when_they_create(cluster: FakeCluster) -> None:
    made = Answer(201, json.dumps(thing("a", 1)).encode())

    assert ask(cluster, lambda c: c.create("configmaps", thing("a", 0)), busy(), busy(), made) == thing("a", 1)
    assert len(cluster.urls) == 3


def test_a_conflict_is_final_and_certain(cluster: FakeCluster) -> None:
    taken = Answer(409, status(409, "AlreadyExists"), content_type="application/json")

    with pytest.raises(RequestFailed) as caught:
        ask(cluster, lambda c: c.create("configmaps", thing("a", 0)), taken)

    assert (caught.value.status, caught.value.maybe_done, len(cluster.urls)) == (409, False, 1)
    assert "it is AlreadyExists" in str(caught.value)


def test_what_is_not_there_is_the_clusters_word_and_no_error(cluster: FakeCluster) -> None:
    assert ask(cluster, lambda c: c.get("pods", "a"), Answer(404, status(404, "NotFound"))) is None
    assert ask(cluster, lambda c: c.delete("pods", "a"), Answer(404, status(404, "NotFound"))) is False


def test_a_deletion_of_another_one_under_the_name_deletes_nothing(cluster: FakeCluster) -> None:
    other = Answer(409, status(409, "Conflict"))

    assert ask(cluster, lambda c: c.delete("jobs", "a", uid="old"), other) is False
    with pytest.raises(RequestFailed):
        ask(cluster, lambda c: c.delete("jobs", "a"), Answer(409, status(409, "Conflict")))


def test_kinds_have_the_paths_of_their_groups(cluster: FakeCluster) -> None:
    def answer() -> Answer:
        return Answer(200, json.dumps({"items": []}).encode())

    async def every(client: KubeClient) -> None:
        for plural in ("pods", "deployments", "jobs"):
            await client.every(plural, labels="a=b")

    ask(cluster, every, answer(), answer(), answer())

    paths = [urlsplit(url.partition(" ")[2]).path for url in cluster.urls]
    assert paths == [f"{base}/namespaces/default/{plural}" for base, plural in PATHS]


PATHS = (("/api/v1", "pods"), ("/apis/apps/v1", "deployments"), ("/apis/batch/v1", "jobs"))
