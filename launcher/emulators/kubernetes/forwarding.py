"""Port forwarding over a WebSocket: channel 0 carries data, channel 1 errors, both begin with the port's number."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.websockets import WebSocket, WebSocketDisconnect

from launcher.emulators.kubernetes.kinds import PODS
from launcher.platforms.local.ports import HOST

if TYPE_CHECKING:
    from launcher.emulators.kubernetes.cluster import Cluster

PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERROR = b"\0", b"\1"


async def forward(socket: WebSocket, cluster: Cluster, namespace: str, name: str, port: int) -> None:
    """Carry one connection to a port of a pod until one side ends it."""
    await socket.accept(subprotocol=PROTOCOL)
    number = port.to_bytes(2, "little")
    with suppress(WebSocketDisconnect, RuntimeError):  # the client has gone
        await socket.send_bytes(_DATA + number)
        await socket.send_bytes(_ERROR + number)
        pod = cluster.store.find(PODS, namespace, name)
        there = await cluster.network.port_of(pod["metadata"]["uid"]) if pod is not None else None
        try:
            reader, writer = await asyncio.open_connection(HOST, there or 0)
        except OSError as error:
            await socket.send_bytes(_ERROR + f"error forwarding port {port} to pod {name}: {error}".encode())
        else:
            await _carry(socket, reader, writer)
        await socket.close()


async def _carry(socket: WebSocket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async def inwards() -> None:
        while True:
            content = await socket.receive_bytes()
            if content[:1] == _DATA:
                writer.write(content[1:])
                await writer.drain()

    async def outwards() -> None:
        while chunk := await reader.read(65536):
            await socket.send_bytes(_DATA + chunk)

    ways = [asyncio.ensure_future(inwards()), asyncio.ensure_future(outwards())]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        writer.transport.abort()
