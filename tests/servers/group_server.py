"""A server over several nodes as SGLang is started: the first waits for all others, then answers; they wait for it."""

from __future__ import annotations

import argparse
import socket
import sys
import time


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nnodes", type=int, required=True)
    parser.add_argument("--node-rank", type=int, required=True)
    parser.add_argument("--dist-init-addr", required=True)
    args, rest = parser.parse_known_args()
    host, _, port = args.dist_init_addr.partition(":")
    if args.node_rank:
        follow(host, int(port), args.node_rank)
        return
    with socket.create_server((host, int(port))) as listener:
        members = [listener.accept()[0] for _ in range(args.nnodes - 1)]
        ranks = sorted(int(member.recv(8)) for member in members)
        print(f"all of {args.nnodes} nodes are here: 0, {', '.join(map(str, ranks))}", flush=True)
        from tests.servers import openai_server

        sys.argv = [sys.argv[0], *rest]
        openai_server.main()


def follow(host: str, port: int, rank: int) -> None:
    """Join the first, and stay as long as it is there."""
    deadline = time.monotonic() + 60
    while True:
        try:
            leader = socket.create_connection((host, port))
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    with leader:
        leader.sendall(str(rank).encode())
        print(f"rank {rank} has joined", flush=True)
        leader.recv(1)


if __name__ == "__main__":
    main()
