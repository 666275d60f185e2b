"""Servers and jobs as processes of this machine, each under its supervisor."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

from launcher.config.fields import Reference
from launcher.deployments.spec import ServerSpec
from launcher.errors import PlatformError
from launcher.plan.model import EndpointPlan, JobPlan, TaskPlan
from launcher.platforms.local import logfiles, ports
from launcher.platforms.local.invocation import PYTHON, Invocation, fill, fill_text
from launcher.platforms.local.machine import Gpu, visible_devices
from launcher.platforms.local.supervised import Command, Kind, Mark, Supervised
from launcher.platforms.local.unit import Unit

PREPARE_POLL = 0.05


class ProcessRuntime:
    """Starts servers and jobs as processes."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._inherited = invocation.remember_inherited()

    async def prepare(self) -> None:
        """Run each distinct `prepare` command once. Raises PlatformError with its last lines if one fails."""
        servers = [task.endpoint.server for task in self._invocation.plan.served if task.endpoint is not None]
        for argv in dict.fromkeys(argv for server in servers for argv in server.prepare):
            await self._prepare(fill(argv, {"python": PYTHON}), servers)

    async def _prepare(self, argv: tuple[str, ...], servers: Iterable[ServerSpec]) -> None:
        log = self._invocation.folder / "prepare.log"
        env = {name: value for server in servers for name, value in self._server_env(server, {}).items()}
        unit = self._supervise("prepare", "prepare", argv, self._inherited | env, log)
        try:
            while not unit.is_over:  # noqa: ASYNC110 - its end arrives through a pipe of another process
                await asyncio.sleep(PREPARE_POLL)
        finally:
            unit.close()
        ending = unit.look()
        if ending is None or ending.exit_code != 0:
            said = "\n".join(logfiles.tail(log, 10))
            raise PlatformError(f"`{' '.join(argv)}` {ending.detail if ending else 'did not end'}; see {log}\n{said}")

    async def start_endpoint(self, task: TaskPlan, spec: EndpointPlan, gpus: tuple[Gpu, ...]) -> tuple[Unit, str]:
        """Start a server; returns it and its base URL. Raises PlatformError if its port is taken."""
        server = spec.server
        with _reserve(server) as reservation:
            values = self._values(reservation.port)
            env = self._inherited | self._defaults(server, gpus) | self._server_env(server, values)
            log = self._invocation.endpoint_log(task)
            unit = self._supervise("endpoint", spec.name, fill(server.command, values), env, log, reservation, gpus)
        return unit, f"http://{ports.HOST}:{reservation.port}"

    async def start_job(self, task: TaskPlan, spec: JobPlan, url: str) -> Unit:
        """Start a job beside the launcher."""
        invocation = self._invocation
        output, work = invocation.output(task).resolve(), invocation.work(task).resolve()
        invocation.write_job(task, url=url, output_dir=str(output), work_dir=str(work))
        argv = (PYTHON, str(work / "runner.py"), str(work / "job.json"))
        env = self._inherited | {"CUDA_VISIBLE_DEVICES": ""} | invocation.job_env(task)
        return self._supervise("job", spec.name, argv, env, invocation.job_log(task))

    async def refresh(self) -> None:
        """Nothing to ask: each supervisor tells by itself."""

    async def close(self) -> None:
        """Nothing is held besides the units."""

    def _values(self, port: int) -> dict[str, str]:
        return {"port": str(port), "host": ports.HOST, "threads": str(self._invocation.threads), "python": PYTHON}

    def _defaults(self, server: ServerSpec, gpus: tuple[Gpu, ...]) -> dict[str, str]:
        devices = {"PYTHONUNBUFFERED": "1", **visible_devices(gpus)}
        return devices if server.gpus else {**devices, "OMP_NUM_THREADS": str(self._invocation.threads)}

    def _server_env(self, server: ServerSpec, values: dict[str, str]) -> dict[str, str]:
        secret = self._invocation.secrets.resolve_env(server.env)
        plain = {name for name, value in server.env.items() if not isinstance(value, Reference)}
        return {name: fill_text(value, values) if name in plain else value for name, value in secret.items()}

    def _supervise(
        self,
        kind: Kind,
        name: str,
        argv: tuple[str, ...],
        env: dict[str, str],
        log: Path,
        reservation: ports.Reservation | None = None,
        gpus: tuple[Gpu, ...] = (),
    ) -> Supervised:
        command = Command(
            argv=argv,
            env=env,
            cwd=Path.cwd(),
            log=log.resolve(),
            grace=self._invocation.execution.stop_grace,
            secrets=tuple(self._invocation.secrets.forms()),
        )
        mark = Mark(invocation=self._invocation.plan.invocation, name=name, kind=kind)
        return Supervised(mark, command, reservation, self._invocation.gpu_locks.descriptors(gpus))


def has_free_port(server: ServerSpec) -> bool:
    """Whether a server listens on any port it is told; otherwise on `server.port` alone."""
    texts = (*server.command, *(value for value in server.env.values() if isinstance(value, str)))
    return any("{port}" in text for text in texts)


def _reserve(server: ServerSpec) -> ports.Reservation:
    port = 0 if has_free_port(server) else server.port
    try:
        return ports.reserve(port)
    except OSError as error:
        raise PlatformError(f"port {port} cannot be used: {os.strerror(error.errno or 0)}") from error
