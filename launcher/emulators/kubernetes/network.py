"""Services: each has an address of the loopback network, and passes connections on to a pod that is ready."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn

from launcher.emulators.kubernetes.kinds import HTTP_ROUTES, PODS, SERVICES
from launcher.emulators.kubernetes.selectors import Json, matches
from launcher.emulators.kubernetes.store import Store
from launcher.platforms.local.ports import HOST

if TYPE_CHECKING:
    from launcher.emulators.kubernetes.running import RunningPod

_FIRST = 0x7F600000
"""127.96.0.0: addresses of services begin behind it. All of 127.0.0.0/8 is this machine, on Linux."""


class Network:
    """The addresses of all services."""

    def __init__(
        self, store: Store, pods: Mapping[str, RunningPod], spawn: Callable[[Callable[[], Any]], None]
    ) -> None:
        self._store = store
        self._pods = pods
        self._spawn = spawn
        self._given = 0
        self._open: dict[str, list[socket.socket]] = {}
        self._servers: dict[str, list[Any]] = {}
        self._gateways: set[str] = set()
        self._simulations: dict[uvicorn.Server, asyncio.Task[None]] = {}
        self._connections: set[asyncio.Task[Any]] = set()

    def give_address(self, service: Json) -> None:
        """An address for a new service, and a socket that listens there."""
        spec = service.setdefault("spec", {})
        if spec.get("clusterIP") == "None":
            return
        address, listeners = self._listen([port["port"] for port in spec.get("ports", ())])
        self._open[address] = listeners
        spec |= {"clusterIP": address, "clusterIPs": [address], "type": spec.get("type", "ClusterIP")}
        for listener in listeners:
            self._spawn(partial(self._serve, address, listener))

    def _listen(self, ports: list[int]) -> tuple[str, list[socket.socket]]:
        while True:
            self._given += 1
            address = socket.inet_ntoa((_FIRST + self._given).to_bytes(4, "big"))
            made: list[socket.socket] = []
            try:
                for port in ports:
                    made.append(socket.create_server((address, port)))
            except OSError:  # another emulator on this machine has it
                for one in made:
                    one.close()
            else:
                return address, made

    def open_gateway(self, name: str) -> int:
        """The port of a Gateway that listens from now on."""
        listener = socket.create_server((HOST, 0))
        self._open[f"gateway {name}"] = [listener]
        self._gateways.add(f"gateway {name}")
        self._spawn(partial(self._serve, f"gateway {name}", listener))
        return int(listener.getsockname()[1])

    async def _serve(self, address: str, listener: socket.socket) -> None:
        pass_on = self._route if address in self._gateways else self._pass_on

        async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._connections.add(task)
            try:
                await pass_on(address, reader, writer)
            except asyncio.CancelledError:
                return  # the network is closed
            finally:
                self._connections.discard(task)

        server = await asyncio.start_server(passed_on, sock=listener)
        self._servers.setdefault(address, []).append(server)

    async def _pass_on(self, address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        backend = self._backend(address)
        if backend is None:
            writer.transport.abort()
            return
        await carry(reader, writer, HOST, backend.port or await self._simulated(backend))

    async def _route(self, gateway: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass a connection on by the host that its first request names."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            writer.transport.abort()
            return
        hosts = [line.partition(b":")[2] for line in head.lower().splitlines() if line.startswith(b"host:")]
        host = hosts[0].strip().decode().partition(":")[0] if hosts else ""
        backend = self._backend(self._routed(gateway.removeprefix("gateway "), host))
        if backend is None:
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            writer.close()
            return
        await carry(reader, writer, HOST, backend.port or await self._simulated(backend), head)

    def _routed(self, gateway: str, host: str) -> str:
        """The address of the service that a gateway has for a host; empty if it has none."""
        for route in self._store.all(HTTP_ROUTES):
            spec, namespace = route["spec"], route["metadata"]["namespace"]
            parents = [parent["name"] for parent in spec.get("parentRefs", ())]
            if gateway in parents and host in spec.get("hostnames", ()):
                service = self._store.find(SERVICES, namespace, spec["rules"][0]["backendRefs"][0]["name"])
                return str(service["spec"]["clusterIP"]) if service is not None else ""
        return ""

    def _backend(self, address: str) -> RunningPod | None:
        for service in self._store.all(SERVICES):
            if service["spec"].get("clusterIP") == address:
                for pod in self._store.all(PODS, service["metadata"]["namespace"]):
                    running = self._pods.get(pod["metadata"]["uid"])
                    labels = pod["metadata"].get("labels") or {}
                    if running and running.is_ready and matches(service["spec"].get("selector") or {}, labels):
                        return running
        return None

    async def port_of(self, uid: str) -> int | None:
        """Where a pod listens on this machine; None if it does not."""
        running = self._pods.get(uid)
        if running is None or not running.is_alive:
            return None
        return running.port or (await self._simulated(running) if running.application is not None else None)

    async def _simulated(self, backend: RunningPod) -> int:
        """The port of a server for a simulated pod, which is started when somebody first asks."""
        listener = socket.create_server((HOST, 0))
        backend.port = listener.getsockname()[1]
        application: Any = backend.application
        config = uvicorn.Config(application, lifespan="off", log_config=None, log_level="critical", ws="none")
        server = uvicorn.Server(config)
        self._simulations[server] = asyncio.ensure_future(server.serve(sockets=[listener]))
        return backend.port

    def step(self) -> None:
        """Stop listening where a service is gone."""
        if not self._open:
            return
        present = {service["spec"].get("clusterIP") for service in self._store.all(SERVICES)} | self._gateways
        for address in [address for address in self._open if address not in present]:
            self._close(address)

    def _close(self, address: str) -> None:
        for server in self._servers.pop(address, ()):
            server.close()
        for listener in self._open.pop(address):
            listener.close()

    async def close(self) -> None:
        """Stop listening everywhere."""
        ending = [*self._connections]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for simulation in self._simulations:
            simulation.should_exit = simulation.force_exit = True
        await asyncio.gather(*self._simulations.values(), return_exceptions=True)
        for address in [*self._open]:
            self._close(address)


async def carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, head: bytes = b""
) -> None:
    """Pass a connection on, both ways, until it ends; `head` has been read of it."""
    opened = [writer]
    try:
        there, onwards = await asyncio.open_connection(host, port)
        opened.append(onwards)
        onwards.write(head)
        await asyncio.gather(_copy(reader, onwards), _copy(there, writer))
    except OSError:
        return
    finally:
        for one in opened:
            one.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except (OSError, RuntimeError):
        writer.transport.abort()
