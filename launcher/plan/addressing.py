"""A task with what turned out when its endpoints were made: the model's name, where auxiliary ones are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from launcher.plan.model import TaskPlan


def with_auxiliary(task: TaskPlan, found: Mapping[str, tuple[str, str | None]]) -> TaskPlan:
    """The task with URL and model of the auxiliary endpoints that exist now: by name, None for the planned model."""
    used = dict(task.auxiliary)
    for name, (url, model) in found.items():
        used[name] = dataclasses.replace(used[name], url=url, model=model or used[name].model)
    return dataclasses.replace(task, auxiliary=used)


def addressed(task: TaskPlan, model: str | None) -> TaskPlan:
    """The task with `model` in place of the name that the plan has, everywhere in its job; unchanged for None."""
    if model is None or model == task.target.model:
        return task
    planned, run = task.target.model, task.job.run

    def named(text: str) -> str:
        return text.replace(planned, model)

    run = dataclasses.replace(
        run,
        argv=tuple(map(named, run.argv)),
        files={name: named(text) for name, text in run.files.items()},
        env={name: named(value) if isinstance(value, str) else value for name, value in run.env.items()},
    )
    job = dataclasses.replace(task.job, run=run)
    return dataclasses.replace(task, target=dataclasses.replace(task.target, model=model), job=job)
