"""A reserved port belongs to one server, from its choice to the server's end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.platforms.local import ports

SERVERS = {
    "http.server": [sys.executable, "-m", "http.server", "{PORT}", "--bind", "127.0.0.1"],
    "asyncio on all addresses": [
        sys.executable,
        "-c",
        "import asyncio\nasync def main():\n"
        " server = await asyncio.start_server(lambda reader, writer: writer.close(), None, {PORT})\n"
        " await server.serve_forever()\nasyncio.run(main())",
    ],
    "SO_REUSEPORT alone": [
        sys.executable,
        "-c",
        "import socket, time\nserver = socket.socket()\n"
        "server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
        "server.bind(('127.0.0.1', {PORT}))\nserver.listen()\ntime.sleep(60)",
    ],
    "node": ["node", "-e", "require('http').createServer((q, a) => a.end()).listen({PORT}, '127.0.0.1')"],
    "uvicorn": [
        sys.executable,
        "-c",
        "import uvicorn\nasync def app(scope, receive, send): pass\n"
        "uvicorn.run(app, host='127.0.0.1', port={PORT}, lifespan='off', log_level='error')",
    ],
}


def connects(port: int) -> bool:
    with contextlib.closing(socket.socket()) as client:
        client.settimeout(5)
        return client.connect_ex((ports.HOST, port)) == 0


@pytest.mark.parametrize("name", SERVERS)
def test_an_ordinary_server_listens_on_its_reserved_port(name: str, tmp_path: Path) -> None:
    command = SERVERS[name]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    if name == "uvicorn":
        pytest.importorskip("uvicorn")
    with ports.reserve() as reservation:
        argv = [word.replace("{PORT}", str(reservation.port)) for word in command]
        with (tmp_path / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as server:
            try:
                deadline = time.monotonic() + 20
                while not connects(reservation.port):
                    assert server.poll() is None, (tmp_path / "log").read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
            finally:
                server.kill()


def test_a_connection_is_refused_until_the_server_listens() -> None:
    with (
        ports.reserve() as reservation,
        contextlib.closing(socket.socket()) as client,
        pytest.raises(ConnectionRefusedError),
    ):
        client.connect((ports.HOST, reservation.port))


def test_launchers_side_by_side_never_get_the_same_port() -> None:
    code = (
        "import json, sys\nfrom launcher.platforms.local import ports\n"
        "held = [ports.reserve() for _ in range(300)]\n"
        "print(json.dumps([one.port for one in held]), flush=True)\nsys.stdin.read()\n"
    )
    with contextlib.ExitStack() as stack:
        others = [
            stack.enter_context(
                subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            for _ in range(2)
        ]
        taken = [port for other in others for port in json.loads(other.stdout.readline())]  # type: ignore[union-attr]
        mine = [stack.enter_context(ports.reserve()).port for _ in range(300)]
        assert len({*taken, *mine}) == 900
        for other in others:
            assert other.stdin is not None
            other.stdin.close()


def test_the_kernel_gives_a_reserved_port_to_nobody_who_takes_any() -> None:
    with contextlib.ExitStack() as stack:
        held = {stack.enter_context(ports.reserve()).port for _ in range(500)}
        for number in range(500):
            other = stack.enter_context(contextlib.closing(socket.socket()))
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, number % 2)
            other.bind((ports.HOST, 0))
            assert other.getsockname()[1] not in held


def test_a_port_that_is_served_is_neither_free_nor_reservable() -> None:
    with contextlib.closing(socket.create_server((ports.HOST, 0))) as server:
        port = server.getsockname()[1]
        assert not ports.is_free(port)
        with pytest.raises(OSError, match=os.strerror(98)):
            ports.reserve(port)
    assert ports.is_free(port)


def test_a_reservation_ends_with_its_block() -> None:
    with ports.reserve() as reservation:
        pass
    with contextlib.closing(socket.socket()) as other:
        other.bind((ports.HOST, reservation.port))
