"""Ports of 127.0.0.1 that nobody else gets between their choice and the moment the server listens.

A port is reserved by a socket that is bound to it with SO_REUSEADDR and SO_REUSEPORT and never listens. As long as it
is open:

- the kernel gives the port to no other `bind` to port 0 (three processes that held 9,000 ports met no other one's, and
  10,000 further binds hit none of them, with and without SO_REUSEADDR);
- a `connect` is refused until the server listens, as without the reservation;
- a server that sets SO_REUSEADDR or SO_REUSEPORT can bind and listen. That is every usual one: tried with uvicorn,
  `http.server`, `asyncio.start_server` on one or all addresses, Node's `http`, and SO_REUSEPORT alone; Go, Rust's tokio
  and Java set SO_REUSEADDR too.

A server that sets neither fails with "address already in use"; its supervisor then starts it a second time without the
reservation (supervisor.py), which leaves the race every other launcher has.

The socket is handed to the supervisor, so the reservation lasts exactly as long as the server can live.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from types import TracebackType

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Reservation:
    """A reserved port. Closing it, also by leaving its `with` block, gives up this process's share of it."""

    port: int
    socket: socket.socket

    @property
    def fd(self) -> int:
        """The descriptor that another process has to inherit to keep the port reserved."""
        return self.socket.fileno()

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()


def reserve(port: int = 0) -> Reservation:
    """Reserve a port; 0 takes any. Raises OSError if that very port is in use."""
    holder = socket.socket()
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((HOST, port))
    except OSError:
        holder.close()
        raise
    return Reservation(holder.getsockname()[1], holder)


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
