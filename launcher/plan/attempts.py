"""The plan of a further attempt of a task: the same, under names that nothing of the attempts before it can hold."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from launcher.plan import deepinfra, kubernetes
from launcher.plan.model import EndpointPlan, TaskPlan
from launcher.plan.names import endpoint_name, resource_name, shared_name
from launcher.plan.slurm import jobs as on_slurm


def attempt(task: TaskPlan, number: int, invocation: str, *, generation: int | None = None) -> TaskPlan:
    """Attempt `number` of a task, counted from 1, the first being the plan's own.

    `generation`: which endpoint of its run a task that shares one uses, counted from 1 as well; one of its own is
    always that of the attempt.
    """
    if number == 1 and generation in (None, 1):
        return task
    job, endpoint = task.job, task.endpoint
    if number > 1:
        name = resource_name("eval", task.name, task.index, invocation, attempt=number)
        job = dataclasses.replace(job, name=name, request=_renamed(job.request, name))
    if endpoint is not None:
        endpoint = _further(task, endpoint, invocation, generation if generation and endpoint.is_shared else number)
    return dataclasses.replace(task, job=job, endpoint=endpoint)


def _further(task: TaskPlan, endpoint: EndpointPlan, invocation: str, number: int) -> EndpointPlan:
    if number == 1:
        return endpoint
    server = endpoint.server.type
    if endpoint.is_shared:
        name = shared_name(server, invocation, generation=number)
    else:
        name = endpoint_name(server, task.name, task.index, invocation, attempt=number)
    return dataclasses.replace(endpoint, name=name, request=_renamed(endpoint.request, name))


def generation_of(name: str) -> int:
    """Which of its kind the endpoint of this name is, counted from 1."""
    further = re.search(r"-\d+r(\d+)-[^-]+$", name)
    return int(further[1]) if further else 1


def _renamed(request: dict[str, Any] | None, name: str) -> dict[str, Any] | None:
    """The request with another name, wherever it has one."""
    if request is None:
        return None
    if "sbatch" in request:
        return on_slurm.renamed(request, name)
    if "model_name" in request:
        return {**request, "model_name": deepinfra.model_name(name)}
    if "apiVersion" in request:
        return kubernetes.renamed(request, name)
    metadata = {key: name if key in ("id", "name") else value for key, value in request["metadata"].items()}
    return {**request, "metadata": metadata}
