"""The plan of a further attempt of a task: the same, under names that nothing of the attempts before it can hold."""

from __future__ import annotations

import dataclasses
from typing import Any

from launcher.plan import deepinfra
from launcher.plan.model import TaskPlan
from launcher.plan.names import endpoint_name, resource_name


def attempt(task: TaskPlan, number: int, invocation: str) -> TaskPlan:
    """Attempt `number` of a task, counted from 1, the first being the plan's own."""
    if number == 1:
        return task
    job_name = resource_name("eval", task.name, task.index, invocation, attempt=number)
    job = dataclasses.replace(task.job, name=job_name, request=_renamed(task.job.request, job_name))
    endpoint = task.endpoint
    if endpoint is not None:
        name = endpoint_name(endpoint.server.type, task.name, task.index, invocation, attempt=number)
        endpoint = dataclasses.replace(endpoint, name=name, request=_renamed(endpoint.request, name))
    return dataclasses.replace(task, job=job, endpoint=endpoint)


def _renamed(request: dict[str, Any] | None, name: str) -> dict[str, Any] | None:
    """The request with another name, wherever it has one."""
    if request is None:
        return None
    if "model_name" in request:
        return {**request, "model_name": deepinfra.model_name(name)}
    metadata = {key: name if key in ("id", "name") else value for key, value in request["metadata"].items()}
    return {**request, "metadata": metadata}
