"""The engine: how it is reached, what marks our containers, and how all of one invocation is removed."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from launcher.errors import PlatformError
from launcher.platforms.base import Leftover

INVOCATION = "nv-eval.invocation"
NAME = "nv-eval.name"
KIND = "nv-eval.kind"
SOCKET = "/var/run/docker.sock"
TIMEOUT = 60.0
"""Seconds the engine has for one answer, or for the next piece of a long one."""
ENGINE_ERRORS = (DockerException, RequestException)


def address(configured: str | None) -> str:
    """Where the engine listens: configured, else DOCKER_HOST, else the usual socket of Docker, else podman's."""
    if given := configured or os.environ.get("DOCKER_HOST"):
        return given
    podman = Path(os.environ.get("XDG_RUNTIME_DIR", "/run")) / "podman" / "podman.sock"
    return f"unix://{podman if podman.exists() and not Path(SOCKET).exists() else SOCKET}"


def connect(host: str) -> docker.DockerClient:
    """A client of the engine. Raises PlatformError if none answers."""
    scheme, _, path = host.partition("://")
    if scheme == "unix" and not Path(path).is_socket():
        raise PlatformError(f"no Docker or podman answers at {host}: there is no such socket")
    try:
        return docker.DockerClient(base_url=host, timeout=TIMEOUT, max_pool_size=32)
    except ENGINE_ERRORS as error:
        raise PlatformError(f"no Docker or podman answers at {host}: {explain(error)}") from error


def explain(error: Exception) -> str:
    """What the engine said, in one line."""
    text = error.explanation if isinstance(error, APIError) and error.explanation else error
    return " ".join(str(text).split())[:300]


def labels(invocation: str, name: str, kind: str) -> dict[str, str]:
    """The mark of one thing."""
    return {INVOCATION: invocation, NAME: name, KIND: kind}


def listed(client: docker.DockerClient, invocation: str | None = None) -> list[dict[str, Any]]:
    """Our containers, of one invocation or of all, as the engine lists them, in one request."""
    label = INVOCATION if invocation is None else f"{INVOCATION}={invocation}"
    found: list[dict[str, Any]] = client.api.containers(all=True, filters={"label": label})
    return found


def remove_all(client: docker.DockerClient, invocation: str) -> int:
    """Kill and remove every container of an invocation, then its network; returns how many were found."""
    found = listed(client, invocation)
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(lambda container: remove(client, container["Id"]), found))
    for network in client.networks.list(filters={"label": f"{INVOCATION}={invocation}"}):
        with suppress(APIError):  # a container that is being removed still uses it: the next pass gets it
            network.remove()
    return len(found)


def remove(client: docker.DockerClient, container: str) -> None:
    """Kill and remove one container with its anonymous volumes; one that is gone or going is no error."""
    try:
        client.api.remove_container(container, force=True, v=True)
    except NotFound:
        return
    except APIError as error:
        if error.status_code != 409:
            raise


def sweep(host: str) -> list[Leftover]:
    """Our containers of every invocation; none where no engine answers."""
    try:
        client = connect(host)
    except PlatformError:
        return []
    try:
        return [_leftover(container) for container in listed(client)]
    except ENGINE_ERRORS as error:
        raise PlatformError(f"the engine at {host} does not list its containers: {explain(error)}") from error
    finally:
        client.close()


def _leftover(container: dict[str, Any]) -> Leftover:
    mark: dict[str, str] = container["Labels"]
    return Leftover(
        kind="job" if mark.get(KIND) == "job" else "endpoint",
        name=mark.get(NAME, ""),
        invocation=mark[INVOCATION],
        id=container["Id"],
        age=max(0.0, time.time() - container["Created"]),
    )


def exists(client: docker.DockerClient, invocation: str) -> bool:
    """Whether a container or a network of an invocation exists."""
    networks = client.networks.list(filters={"label": f"{INVOCATION}={invocation}"})
    return bool(networks or listed(client, invocation))
