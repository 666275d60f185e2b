"""The engine: how it is reached, what marks our containers, and how all of one invocation is removed."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import docker
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from launcher.errors import PlatformError
from launcher.platforms.base import Leftover, ResourceState
from launcher.platforms.local.launchers import Launcher

INVOCATION = "nv-eval.invocation"
NAME = "nv-eval.name"
KIND = "nv-eval.kind"
LAUNCHER = "nv-eval.launcher"
SOCKET = "/var/run/docker.sock"
TIMEOUT = 60.0
"""Seconds the engine has for one answer, or for the next piece of a long one."""
ENGINE_ERRORS = (DockerException, RequestException)
_STATES = {
    "created": ResourceState.PENDING,
    "running": ResourceState.RUNNING,
    "restarting": ResourceState.RUNNING,
    "paused": ResourceState.RUNNING,
    "removing": ResourceState.RUNNING,
    "exited": ResourceState.FAILED,
    "dead": ResourceState.FAILED,
}
"""Whether one that has exited did well, its list does not tell."""


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
    return {INVOCATION: invocation, NAME: name, KIND: kind, LAUNCHER: str(Launcher.own())}


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


def is_named(configured: str | None) -> bool:
    """Whether somebody said where the engine is."""
    return bool(configured or os.environ.get("DOCKER_HOST"))


def is_expected(configured: str | None) -> bool:
    """Whether an engine should be there: somebody named one, or there is a socket that this user may use."""
    scheme, _, path = address(configured).partition("://")
    return is_named(configured) or (scheme == "unix" and Path(path).is_socket() and os.access(path, os.W_OK))


def sweep(host: str) -> list[Leftover]:
    """Our containers, networks and volumes of every invocation. Raises PlatformError if the engine cannot be asked."""
    client = connect(host)
    try:
        return [
            *map(_container, listed(client)),
            *(_other("network", network.attrs, network.id) for network in _marked(client.networks)),
            *(_other("storage", volume.attrs, volume.id) for volume in _marked(client.volumes)),
        ]
    except ENGINE_ERRORS as error:
        raise PlatformError(f"the engine at {host} does not list what it has: {explain(error)}") from error
    finally:
        client.close()


def _marked(collection: Any) -> Iterable[Any]:
    found: Iterable[Any] = collection.list(filters={"label": INVOCATION})
    return found


def _container(container: dict[str, Any]) -> Leftover:
    mark: dict[str, str] = container["Labels"]
    state = str(container.get("State", ""))
    return Leftover(
        kind="job" if mark.get(KIND) == "job" else "endpoint",
        name=mark.get(NAME, ""),
        invocation=mark[INVOCATION],
        id=f"container:{container['Id']}",
        state=_STATES.get(state, ResourceState.UNKNOWN),
        said=state,
        age=max(0.0, time.time() - container["Created"]),
        usd_per_hour=0.0,
        launcher_alive=_launcher_alive(mark),
        launcher=mark.get(LAUNCHER, ""),
    )


def _other(kind: Literal["network", "storage"], attributes: dict[str, Any], id_: str) -> Leftover:
    mark: dict[str, str] = attributes["Labels"]
    return Leftover(
        kind=kind,
        name=mark.get(NAME, ""),
        invocation=mark[INVOCATION],
        id=f"{kind}:{id_}",
        state=ResourceState.RUNNING,
        age=_age(attributes.get("Created") or attributes.get("CreatedAt") or ""),
        usd_per_hour=0.0,
        launcher_alive=_launcher_alive(mark),
        launcher=mark.get(LAUNCHER, ""),
    )


def _launcher_alive(mark: dict[str, str]) -> bool | None:
    launcher = Launcher.parse(mark.get(LAUNCHER, ""))
    return launcher.is_alive if launcher is not None else None


def _age(created: str) -> float | None:
    """Seconds since a time stamp of the engine, which has nanoseconds that Python does not read."""
    try:
        moment = datetime.fromisoformat(re.sub(r"\.\d+", "", created))
    except ValueError:
        return None
    return max(0.0, time.time() - moment.timestamp())


def remove_left(host: str, leftover: Leftover) -> None:
    """Remove one thing that `sweep` found; one that is gone is no error. Raises PlatformError."""
    kind, _, id_ = leftover.id.partition(":")
    client = connect(host)
    try:
        if kind == "container":
            remove(client, id_)
        elif kind == "network":
            client.networks.get(id_).remove()
        else:
            client.volumes.get(id_).remove(force=True)
    except NotFound:
        return
    except ENGINE_ERRORS as error:
        raise PlatformError(f"the engine at {host} does not remove {leftover.name}: {explain(error)}") from error
    finally:
        client.close()


def exists(client: docker.DockerClient, invocation: str) -> bool:
    """Whether a container or a network of an invocation exists."""
    networks = client.networks.list(filters={"label": f"{INVOCATION}={invocation}"})
    return bool(networks or listed(client, invocation))
