"""A task with the name that its endpoint turned out to answer to, where the plan could not know it."""

from __future__ import annotations

import dataclasses

from launcher.plan.model import TaskPlan


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
