"""Servers as containers; jobs as containers where they have an image, else as processes beside the launcher.

Each invocation has a network of its own. A server's port is published on 127.0.0.1; the engine picks the host port. A
reaper process removes everything of the invocation when the launcher dies (reaper.py). Values of secrets are in a
container's environment, which everybody who may use the engine can read (`docker inspect`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from docker.errors import APIError, ImageNotFound, NotFound
from docker.types import DeviceRequest, Mount

from launcher.config.fields import Reference
from launcher.deployments.spec import ServerSpec
from launcher.errors import PlatformError
from launcher.plan.addressing import with_auxiliary
from launcher.plan.model import EndpointPlan, JobPlan, TaskPlan
from launcher.plan.model import Mount as PlannedMount
from launcher.platforms.local.docker import engine, reaper
from launcher.platforms.local.docker.unit import Container
from launcher.platforms.local.invocation import Invocation, fill, fill_text
from launcher.platforms.local.machine import GIB, Gpu
from launcher.platforms.local.process import ProcessRuntime
from launcher.platforms.local.unit import Unit

T = TypeVar("T")
CACHE_VOLUME = "nv-eval-model-cache"
WORK, OUTPUT = "/nv-eval/work", "/nv-eval/output"
"""Where a job finds its files and leaves its results."""
ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 - inside a container; the port is published on 127.0.0.1 alone
INIT_PROGRAMS = ("docker-init", "catatonit", "container-init")
"""Without such an init process a server that does not handle SIGTERM would use up its grace time at every end."""
CLOSING_PASSES = 20
PASS_PAUSE = 0.25


class DockerRuntime:
    """Starts servers and jobs as containers."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._host = engine.address(invocation.execution.docker.host)
        self._client = engine.connect(self._host)
        self._id = invocation.plan.invocation
        self._network = f"nv-eval-{self._id}"
        self._workers = ThreadPoolExecutor(max_workers=16, thread_name_prefix="docker")
        self._pulls: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._containers: dict[str, Container] = {}
        self._inside: dict[str, str] = {}
        """URLs of servers in the network of the invocation, by those that are published on this machine."""
        self._processes = ProcessRuntime(invocation)
        self._has_init = True
        self._reaper: subprocess.Popen[bytes] | None = None

    async def prepare(self) -> None:
        """Start the reaper, then make the network."""
        self._reaper = reaper.start(self._host, self._id, self._invocation.gpu_locks.descriptors())
        mark = engine.labels(self._id, self._network, "network")
        await self._ask(lambda: self._client.networks.create(self._network, driver="bridge", labels=mark))

    async def start_endpoint(
        self, task: TaskPlan, spec: EndpointPlan, gpus: tuple[Gpu, ...]
    ) -> tuple[Unit, str | None]:
        """Start a server. Its URL is None if it ended before the engine could tell its port."""
        server = spec.server
        image = await self._image(task, "endpoint", server.image)
        unit = await self._run(
            spec.name,
            "endpoint",
            self._invocation.endpoint_log(task),
            {
                "image": image,
                "entrypoint": list(fill(server.command, self._values(server))) or None,
                "environment": self._server_env(server),
                "network": self._network,
                "ports": {f"{server.port}/tcp": ("127.0.0.1", None)},
                "mounts": [*map(_bind, spec.mounts), *self._model_cache(server)],
                **_limits(server),
                **_devices(gpus),
            },
        )
        published = await self._ask(lambda: self._published(unit.id, server.port))
        if published is not None:
            self._inside[published] = f"http://{spec.name}:{server.port}"
        return unit, published

    async def start_job(self, task: TaskPlan, spec: JobPlan, url: str) -> Unit:
        """Start a job: in a container if it has an image, else beside the launcher."""
        if spec.image is None:
            return await self._processes.start_job(task, spec, url)
        image = await self._image(task, "job", spec.image)
        invocation = self._invocation
        task, inside, network = self._addressed(task, url)
        invocation.write_job(task, url=inside, output_dir=OUTPUT, work_dir=WORK)
        folders = ((invocation.work(task), WORK), (invocation.output(task), OUTPUT))
        return await self._run(
            spec.name,
            "job",
            invocation.job_log(task),
            {
                "image": image,
                "entrypoint": ["python3", f"{WORK}/runner.py", f"{WORK}/job.json"],
                "environment": _home() | invocation.job_env(task),
                "working_dir": WORK,
                "user": f"{os.getuid()}:{os.getgid()}",
                "mounts": [
                    *(Mount(path, str(folder.resolve()), type="bind") for folder, path in folders),
                    *map(_bind, spec.mounts),
                ],
                **network,
            },
        )

    def _addressed(self, task: TaskPlan, url: str) -> tuple[TaskPlan, str, dict[str, Any]]:
        """A task and the URL of its endpoint as its container addresses them, and the network from which it does.

        Servers of ours have names in a network of their own. If one that exists anyway is on loopback, it is the
        machine's own network, in which those of ours are reached by their published ports.
        """
        auxiliary = {name: target.url or "" for name, target in task.auxiliary.items()}
        if any(_is_loopback(one) for one in (url, *auxiliary.values()) if one not in self._inside):
            return task, url, {"network_mode": "host"}
        inside = {name: (self._inside.get(one, one), None) for name, one in auxiliary.items()}
        return with_auxiliary(task, inside), self._inside.get(url, url), {"network": self._network}

    async def refresh(self) -> None:
        """Look at all containers of the invocation in one request."""
        known = dict(self._containers)
        if known:
            await self._ask(lambda: self._look(known))

    async def close(self) -> None:
        """Remove what is left of the invocation, the network last, and send the reaper home."""
        await asyncio.to_thread(self._workers.shutdown)
        left = await asyncio.to_thread(self._remove_all)
        self._client.close()
        if left:
            raise PlatformError(f"the engine at {self._host} still has containers or the network of {self._id}")
        for container in self._containers.values():
            container.take(None)
        if self._reaper is not None:
            await asyncio.to_thread(reaper.dismiss, self._reaper)

    def _remove_all(self) -> bool:
        """Whether something is left after some tries."""
        for _ in range(CLOSING_PASSES):
            with contextlib.suppress(*engine.ENGINE_ERRORS):
                engine.remove_all(self._client, self._id)
                if not engine.exists(self._client, self._id):
                    return False
            time.sleep(PASS_PAUSE)
        return True

    def _look(self, known: dict[str, Container]) -> None:
        seen = {container["Id"]: container for container in engine.listed(self._client, self._id)}
        for id_, container in known.items():
            if not container.is_over:
                container.take(seen.get(id_))

    async def _run(self, name: str, kind: str, log: Path, settings: dict[str, Any]) -> Container:
        id_ = await self._start(name, kind, settings)
        invocation = self._invocation
        unit = Container(
            self._client,
            id_,
            log,
            secrets=invocation.secrets.forms(),
            grace=invocation.execution.stop_grace,
            workers=self._workers,
        )
        self._containers[id_] = unit
        return unit

    async def _start(self, name: str, kind: str, settings: dict[str, Any]) -> str:
        """A started container; without an init process where the engine has none to put in."""
        id_ = await self._ask(lambda: self._create(name, kind, settings | {"init": self._has_init}))
        try:
            await self._ask(lambda: self._client.api.start(id_))
        except PlatformError as error:
            await self._ask(lambda: engine.remove(self._client, id_))
            if not self._has_init or not any(program in str(error) for program in INIT_PROGRAMS):
                raise
            self._has_init = False
            return await self._start(name, kind, settings)
        return id_

    def _create(self, name: str, kind: str, settings: dict[str, Any]) -> str:
        """A container of this name; one of ours that a lost answer left is taken over."""
        mark = engine.labels(self._id, name, kind)
        try:
            return str(self._client.containers.create(name=name, labels=mark, detach=True, **settings).id)
        except APIError as error:
            if error.status_code != 409:
                raise
        existing = self._client.containers.get(name)
        if existing.labels.get(engine.INVOCATION) != self._id:
            raise PlatformError(f"a container named {name} exists and is not of this invocation; remove it first")
        return str(existing.id)

    def _published(self, id_: str, port: int) -> str | None:
        bindings = self._client.api.inspect_container(id_)["NetworkSettings"]["Ports"].get(f"{port}/tcp")
        return f"http://127.0.0.1:{bindings[0]['HostPort']}" if bindings else None

    async def _image(self, task: TaskPlan, role: str, name: str | None) -> str:
        """Have the image here, as the pull policy says, and write down which one it is."""
        if name is None:
            raise PlatformError(f"task {task.key}: the {role} has no image; set execution.runtime=process")
        async with self._pulls[name]:
            found = await self._ask(lambda: self._pull(name))
        record = self._invocation.task_folder(task) / "image.json"
        known = json.loads(record.read_text()) if record.exists() else {}
        known[role] = {"image": name, "id": found.id, "digests": found.attrs.get("RepoDigests", [])}
        record.write_text(json.dumps(known, indent=1))
        return str(found.id)

    def _pull(self, name: str) -> Any:
        policy = self._invocation.execution.docker.pull
        if policy != "always":
            with contextlib.suppress(ImageNotFound):
                return self._client.images.get(name)
        if policy == "never":
            raise PlatformError(f"image {name} is not on this machine and execution.docker.pull is never")
        try:
            return self._client.images.pull(name)
        except NotFound as error:
            raise PlatformError(
                f"image {name} does not exist or needs a login: {engine.explain(error)}; try `docker login`"
            ) from error

    def _values(self, server: ServerSpec) -> dict[str, str]:
        threads = str(self._invocation.threads)
        return {"port": str(server.port), "host": ALL_ADDRESSES, "threads": threads, "python": "python3"}

    def _server_env(self, server: ServerSpec) -> dict[str, str]:
        resolved = self._invocation.secrets.resolve_env(server.env)
        values = self._values(server)
        filled = {
            name: value if isinstance(server.env[name], Reference) else fill_text(value, values)
            for name, value in resolved.items()
        }
        if server.gpus:
            return filled
        return {"NVIDIA_VISIBLE_DEVICES": "void", "OMP_NUM_THREADS": values["threads"], **filled}

    def _model_cache(self, server: ServerSpec) -> list[Mount]:
        if server.cache_path is None:
            return []
        source = self._invocation.execution.docker.model_cache or CACHE_VOLUME
        if "/" not in source:
            return [Mount(server.cache_path, source, type="volume")]
        folder = Path(source).expanduser().resolve()
        folder.mkdir(parents=True, exist_ok=True)
        return [Mount(server.cache_path, str(folder), type="bind")]

    async def _ask(self, call: Callable[[], T]) -> T:
        """Ask the engine without blocking the loop. Raises PlatformError with what it said."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._workers, call)
        except engine.ENGINE_ERRORS as error:
            raise PlatformError(f"docker: {engine.explain(error)}") from error


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _bind(mount: PlannedMount) -> Mount:
    return Mount(mount.path, mount.source, type="bind", read_only=mount.read_only)


def _home() -> dict[str, str]:
    """A home that a user unknown to the image can write to."""
    return {} if os.getuid() == 0 else {"HOME": WORK}


def _limits(server: ServerSpec) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if server.memory_gib is not None:
        found |= {"mem_limit": int(server.memory_gib * GIB), "memswap_limit": int(server.memory_gib * GIB)}
    if server.cpus is not None:
        found["nano_cpus"] = int(server.cpus * 1e9)
    if server.shared_memory_mib is not None:
        found["shm_size"] = f"{server.shared_memory_mib}m"
    return found


def _devices(gpus: tuple[Gpu, ...]) -> dict[str, Any]:
    if not gpus:
        return {}
    return {"device_requests": [DeviceRequest(device_ids=[gpu.visible for gpu in gpus], capabilities=[["gpu"]])]}
