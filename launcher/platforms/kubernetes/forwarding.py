"""An endpoint at a port of this machine: connections are carried to one of its pods by the API server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from launcher.errors import PlatformError
from launcher.platforms.kubernetes.client import Access
from launcher.platforms.kubernetes.states import one_line

HOST = "127.0.0.1"
CHUNK = 65536
LISTEN = 5.0
"""Seconds for which a request that cannot be carried is read to its end."""


def taken(port: int) -> str:
    """What is said of a port that another program has."""
    return f"execution.access.port: another program listens on port {port} of this machine; choose another one"


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of this machine."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True


class Forward:
    """Listens on this machine as long as it is open.

    `pod`: name of a pod that answers now, None if there is none; `there`: the port that its server listens on.
    """

    def __init__(self, access: Access, pod: Callable[[], str | None], there: int, here: int | None) -> None:
        self._access = access
        self._pod = pod
        self._there = there
        self._here = here or 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[Any]] = set()

    async def open(self) -> str:
        """Begin to listen; the URL. Raises PlatformError for a port that is taken."""
        try:
            self._server = await asyncio.start_server(self._connected, HOST, self._here)
        except OSError:
            raise PlatformError(taken(self._here)) from None
        return f"http://{HOST}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Listen no more, and end all connections."""
        if self._server is not None:
            self._server.close()
        ending = [*self._connections]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            pod = self._pod()
            if pod is None:
                await _answer(reader, writer, 503, "no pod of the endpoint answers now")
            else:
                await self._carry(pod, reader, writer)
        except asyncio.CancelledError:
            return  # it is closed
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _carry(self, pod: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from kubernetes.client.exceptions import ApiException

        try:
            forward = await asyncio.to_thread(self._reach, pod)
        except (ApiException, OSError) as error:
            why = one_line(str(getattr(error, "reason", None) or error))
            await _answer(reader, writer, 502, f"the API server does not connect to pod {pod}: {why}")
            return
        try:
            carried = socket.socket(fileno=os.dup(forward.socket(self._there).fileno()))
            carried.setblocking(False)
            there, onwards = await asyncio.open_connection(sock=carried)
            try:
                await _first_of(_copy(reader, onwards), _copy(there, writer))
            finally:
                onwards.transport.abort()
        finally:
            forward.close()

    def _reach(self, pod: str) -> Any:
        """A connection to a pod, by the official client. Waits. Raises ApiException."""
        from kubernetes.client import ApiClient, CoreV1Api
        from kubernetes.stream import portforward

        api = CoreV1Api(ApiClient(self._access.api.configuration))
        ask = api.connect_get_namespaced_pod_portforward
        return portforward(ask, pod, self._access.namespace, ports=str(self._there))


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int, message: str) -> None:
    """Say in the server's place why it is not reached, in the form of its own errors."""
    body = json.dumps({"error": {"message": f"nv-eval: {message}", "type": "port_forward", "code": status}}).encode()
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(LISTEN):
            await writer.drain()
            writer.write_eof()
            while await reader.read(CHUNK):  # what is not read would take the answer away
                pass


async def _first_of(*ways: Any) -> None:
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
