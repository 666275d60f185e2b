"""Connections of the HTTP client: as many as there are requests at once, kept for the next wave."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from launcher.platforms.http import make_client
from launcher.platforms.lanes import Lanes, one_connection, tls_settings

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers each request once so many have come, and counts connections."""

    def __init__(self) -> None:
        self.connections = 0
        self.together = 1
        self.refuses_to_answer = False
        self.reached = asyncio.Event()
        self._waiting = 0
        self._full = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until the other side closes it."""
        self.connections += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                if self.refuses_to_answer:
                    return
                await self._all_here()
                writer.write(ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _all_here(self) -> None:
        self._waiting += 1
        self.reached.set()
        full = self._full
        if self._waiting == self.together:
            self._waiting, self._full = 0, asyncio.Event()
            full.set()
        await full.wait()


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening, make_client(f"http://127.0.0.1:{port}", {}) as client:
        yield server, client


def live(story: Callable[[Server, httpx.AsyncClient], Awaitable[None]]) -> None:
    async def life() -> None:
        async with asyncio.timeout(60), served() as (server, client):
            await story(server, client)

    asyncio.run(life())


def test_waves_of_requests_share_the_connections_of_the_first() -> None:
    async def story(server: Server, client: httpx.AsyncClient) -> None:
        server.together = 12
        for _ in range(5):
            answers = await asyncio.gather(*(client.get("/") for _ in range(12)))
            assert [one.text for one in answers] == ["ok"] * 12
        assert server.connections == 12

    live(story)


def test_requests_one_after_the_other_take_one_connection() -> None:
    async def story(server: Server, client: httpx.AsyncClient) -> None:
        for _ in range(5):
            await client.get("/")
        assert server.connections == 1

    live(story)


def test_a_connection_that_broke_is_replaced() -> None:
    async def story(server: Server, client: httpx.AsyncClient) -> None:
        await client.get("/")
        server.refuses_to_answer = True
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/")
        server.refuses_to_answer = False
        assert (await client.get("/")).text == "ok"
        assert server.connections == 2

    live(story)


def test_a_request_that_is_given_up_keeps_no_lane() -> None:
    made: list[httpx.AsyncBaseTransport] = []

    async def story(server: Server, client: httpx.AsyncClient) -> None:
        lane = one_connection(tls=False)

        def make() -> httpx.AsyncBaseTransport:
            made.append(lane())
            return made[-1]

        async with httpx.AsyncClient(base_url=client.base_url, transport=Lanes(make)) as other:
            server.together = 2
            waiting = asyncio.ensure_future(other.get("/"))
            await server.reached.wait()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert (await other.get("/")).text == "ok"  # the two that have come by now

    live(story)

    assert len(made) == 1


class Counted(httpx.AsyncBaseTransport):
    """A lane that says whether it was closed."""

    def __init__(self) -> None:
        self.is_closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=httpx.ByteStream(b"ok"))

    async def aclose(self) -> None:
        self.is_closed = True


def test_what_is_read_while_all_is_closed_is_closed_when_it_has_been_read() -> None:
    made: list[Counted] = []

    def make() -> Counted:
        made.append(Counted())
        return made[-1]

    async def life() -> None:
        lanes = Lanes(make)
        request = httpx.Request("GET", "http://there/")
        idle, read = await lanes.handle_async_request(request), await lanes.handle_async_request(request)
        await idle.aclose()
        await lanes.aclose()
        assert [lane.is_closed for lane in made] == [True, False]
        await read.aclose()

    asyncio.run(life())

    assert [lane.is_closed for lane in made] == [True, True]


@pytest.mark.parametrize("needed", [True, False])
def test_tls_is_never_without_proof(needed: bool) -> None:
    settings = tls_settings(needed=needed)

    assert settings.verify_mode is ssl.CERT_REQUIRED
    assert settings.check_hostname
    assert bool(settings.get_ca_certs()) is needed


def test_a_proxy_of_the_environment_is_used_but_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(server: Server, client: httpx.AsyncClient) -> None:
        monkeypatch.setenv("HTTP_PROXY", str(client.base_url))
        async with make_client("http://service.invalid", {}) as beyond:
            assert (await beyond.get("/")).text == "ok"

    live(story)
