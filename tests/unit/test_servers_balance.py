"""One address for several servers: real sockets, spread evenly, and a dead server left out."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from launcher.servers.balance import Backend, Balancer


@contextlib.asynccontextmanager
async def backend(name: str) -> AsyncIterator[Backend]:
    """A server that answers each line with its name."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while await reader.readline():
                writer.write(f"{name}\n".encode())
                await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield Backend(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")


async def ask(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        writer.write(b"who?\n")
        name = (await reader.readline()).decode().strip()
        await asyncio.sleep(0.02)  # the connection is kept, as clients do
    return name


async def spread(backends: list[Backend], clients: int) -> Counter[str]:
    front = await asyncio.start_server(Balancer(backends).serve, "127.0.0.1", 0)
    async with front:
        port = front.sockets[0].getsockname()[1]
        return Counter(await asyncio.gather(*(ask(port) for _ in range(clients))))


def test_connections_go_to_the_server_that_has_the_fewest() -> None:
    async def story() -> Counter[str]:
        async with backend("a") as a, backend("b") as b, backend("c") as c:
            return await spread([a, b, c], 9)

    assert asyncio.run(story()) == {"a": 3, "b": 3, "c": 3}


def test_a_server_that_refuses_connections_is_left_out() -> None:
    async def story() -> Counter[str]:
        async with backend("a") as a:
            return await spread([Backend("http://127.0.0.1:1"), a], 4)

    assert asyncio.run(story()) == {"a": 4}


def test_without_any_server_the_connection_is_closed() -> None:
    assert asyncio.run(spread([Backend("http://127.0.0.1:1")], 1)) == {"": 1}
