"""Kubernetes in the contract suite: an emulated cluster whose pods are processes, or a real one that is named.

NV_EVAL_TEST_KUBECONFIG names the kubeconfig of a real cluster, NV_EVAL_TEST_KUBE_IMAGE an image there with Python and
with the test server in /srv/openai_server.py, or where NV_EVAL_TEST_KUBE_SERVER says.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.config.execution import Kubernetes
from launcher.emulators.kubernetes import Config, KubernetesEmulator, Timing
from launcher.plan import kubernetes
from launcher.plan.model import EndpointPlan, JobPlan, TaskPlan
from launcher.platforms.base import Resource, ResourceState
from launcher.platforms.kubernetes.platform import KubernetesPlatform
from tests.contract.bench import Ability, Bench

LACKS = {
    Ability.LAUNCHERS: "nothing in a cluster says which machine asked for it",
    Ability.GPUS: "the cluster chooses the GPUs",
    Ability.ENDS: "a Deployment starts a server that died again, for ever",
}


class Driven(KubernetesPlatform):
    """Kubernetes as the orchestrator drives it: a job begins when its endpoint is ready."""

    async def create_endpoint(self, task: TaskPlan, spec: EndpointPlan) -> Resource:
        """The endpoint, once it is ready or has failed."""
        found = made = await super().create_endpoint(task, spec)
        while found.state is ResourceState.PENDING and not found.fatal:
            await asyncio.sleep(0.05)
            found = (await self.observe()).endpoints.get(made.name, found)
        return found

    async def submit_job(self, task: TaskPlan, spec: JobPlan, url: str) -> Resource:
        """The job, once its pod runs."""
        found = made = await super().submit_job(task, spec, url)
        while found.state is ResourceState.PENDING:
            await asyncio.sleep(0.05)
            found = (await self.observe()).jobs.get(made.name, found)
        return made


@contextmanager
def clustered_bench(script: Path) -> Iterator[Bench]:
    """A bench in an emulated cluster of its own. `script` is the test server."""
    pytest.importorskip("kubernetes", reason="pip install 'nv-eval-launcher[kubernetes]'")
    with KubernetesEmulator(Config(timing=Timing(tick=0.02))) as emulator:
        server = (sys.executable, str(script), "--port", "{port}")
        yield bench_at(emulator.kubeconfig, server, "test/server:1", None)


@contextmanager
def real_bench(_script: Path) -> Iterator[Bench]:
    """A bench in the cluster that NV_EVAL_TEST_KUBECONFIG names; addresses of services must be reachable from here."""
    image = os.environ["NV_EVAL_TEST_KUBE_IMAGE"]
    there = os.environ.get("NV_EVAL_TEST_KUBE_SERVER", "/srv/openai_server.py")
    server = ("python3", there, "--host", "{host}", "--port", "{port}")
    yield bench_at(Path(os.environ["NV_EVAL_TEST_KUBECONFIG"]), server, image, image)


def bench_at(kubeconfig: Path, server: tuple[str, ...], image: str, job_image: str | None) -> Bench:
    """A bench in a cluster."""
    execution = Kubernetes(kubeconfig=str(kubeconfig))

    def adapt(task: TaskPlan) -> TaskPlan:
        """The same with the manifests of endpoint and job."""
        assert task.endpoint is not None
        invocation = task.job.name.rpartition("-")[2]
        command = tuple(w.replace("{port}", "8000").replace("{host}", "0.0.0.0") for w in task.endpoint.server.command)
        endpoint = kubernetes.endpoint(
            execution,
            replace(task.endpoint.server, command=command),
            name=task.endpoint.name,
            invocation=invocation,
            start_timeout=60.0,
            health_timeout=60.0,
        )
        job = kubernetes.job(
            execution,
            task.job.run,
            name=task.job.name,
            invocation=invocation,
            task=task.key,
            timeout=60.0,
            wait=120.0,
            image=job_image,
            key=None,
        )
        return replace(task, endpoint=endpoint, job=job)

    return Bench(
        make=lambda: Driven(execution),
        server=server,
        image=image,
        adapt=adapt,
        lacks=LACKS,
        service="Kubernetes",
        execution=execution,
        job_pace=4.0,
        limit=20.0,
    )
