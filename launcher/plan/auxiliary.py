"""The parts of a plan that auxiliary endpoints have: judges, user simulators, reward models.

An auxiliary endpoint is planned as a task without a benchmark, so that names, requests, attempts, costs and teardown
are those of every endpoint. Tasks that use it know it by its name.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping

from launcher.config.deployment import AnyDeployment, DeepInfra, LeptonPhoton, LeptonTemplate, NoDeployment
from launcher.config.evaluation import Evaluation, Settings
from launcher.config.fields import Env
from launcher.config.schema import Auxiliary, Config, Limits
from launcher.errors import ConfigError
from launcher.harnesses.spec import HarnessJob, variable
from launcher.plan.model import TargetPlan, TaskPlan

HARNESS = "none"
"""What stands where a benchmark's harness would."""
_KEY = re.compile(r"\b(deployment|target)\.(?=\w)")


def config_of(config: Config, one: Auxiliary) -> Config:
    """The config of a run that would have nothing but this endpoint, with the rest of `config` as it is."""
    execution = config.execution
    own = {"resource_shape": one.resource_shape, "node_group": one.node_group}
    chosen = {name: value for name, value in own.items() if value is not None}
    if chosen and not hasattr(execution, "resource_shape"):
        raise ConfigError([f"{name}: only execution lepton has it; remove it" for name in chosen])
    return dataclasses.replace(
        config,
        execution=dataclasses.replace(execution, **chosen),  # type: ignore[arg-type]
        deployment=_alone(one.deployment),
        target=one.target,
        auxiliary={},
        evaluation=Evaluation(harness=HARNESS),  # type: ignore[arg-type]  # no config can name it
    )


def _alone(deployment: AnyDeployment) -> AnyDeployment:
    """A deployment without the question who shares it: all tasks that use an auxiliary endpoint do."""
    return deployment if isinstance(deployment, NoDeployment) else dataclasses.replace(deployment, sharing="dedicated")


def refuse_mixed(config: Config, one: Auxiliary) -> None:
    """Raises ConfigError for a deployment that cannot be made beside that of the evaluated model."""
    main, own = config.deployment, one.deployment
    if isinstance(own, LeptonTemplate | LeptonPhoton) or isinstance(main, LeptonTemplate | LeptonPhoton):
        both = f"{own.type} beside {main.type}"
        if not isinstance(own, NoDeployment):
            raise ConfigError(f"deployment.type: {both}: templates and photons serve all endpoints of a run or none")
    if isinstance(own, DeepInfra) and isinstance(main, DeepInfra) and own.gpu != main.gpu:
        raise ConfigError(f"deployment.gpu: {own.gpu} beside {main.gpu}: endpoints of a run are of one type of GPU")
    if isinstance(own, NoDeployment) or isinstance(own, DeepInfra) == isinstance(main, DeepInfra):
        return
    raise ConfigError(
        f"deployment.type: {own.type} beside {main.type}: endpoints of a run are all rented from DeepInfra or none; "
        "take deployment none with the URL of one that exists"
    )


def located(name: str, problem: str) -> str:
    """A problem of an auxiliary endpoint's own config, with its keys as they are in the whole config."""
    if problem.startswith(("execution.", "limits.")):
        return problem
    here = f"auxiliary.{name}"
    renamed = _KEY.sub(lambda match: f"{here}.{match[1]}.", problem)
    return renamed if renamed.startswith(here) else f"{here}.{renamed}" if _is_own(renamed) else f"{here}: {renamed}"


def _is_own(problem: str) -> bool:
    return problem.startswith(("resource_shape:", "node_group:"))


def used_by(config: Config, settings: Settings) -> list[str]:
    """Names of the auxiliary endpoints of a task: those that it names, else all."""
    return list(dict.fromkeys(config.auxiliary if settings.auxiliary is None else settings.auxiliary))


def with_keys(run: HarnessJob, used: Mapping[str, TargetPlan]) -> HarnessJob:
    """The run with the keys of auxiliary endpoints in its environment, by reference.

    Raises ConfigError for a variable of the person's own whose name is the launcher's.
    """
    for name in run.env:
        if name.startswith(variable("")):
            raise ConfigError(f"envs.{name}: is set by the launcher; choose another name")
    keys: Env = {variable(name, "API_KEY"): one.api_key for name, one in used.items() if one.api_key is not None}
    return dataclasses.replace(run, env={**run.env, **keys}) if keys else run


def needed_for(name: str, tasks: Iterable[TaskPlan], limits: Limits) -> float:
    """The longest, in seconds, that an auxiliary endpoint may be needed by one attempt of each task.

    Tasks that the limits do not let run side by side come one after the other.
    """
    users = [task for task in tasks if name in task.auxiliary]
    longest = max((task.longest for task in users), default=0.0)
    return longest * math.ceil(len(users) / _at_once(users, limits)) if users else 0.0


def boot(used: Mapping[str, TargetPlan]) -> float:
    """The longest, in seconds, that a task waits for its auxiliary endpoints once its own answers."""
    return max((target.start_timeout + target.health_timeout for target in used.values()), default=0.0)


def idle_for(name: str, tasks: Iterable[TaskPlan]) -> float:
    """The longest, in seconds, that it may get no request: a benchmark may ask its judge at the very end."""
    return max((task.longest for task in tasks if name in task.auxiliary), default=0.0)


def _at_once(users: list[TaskPlan], limits: Limits) -> int:
    """Most of these tasks that can run at the same time, at least 1."""
    bounds = [len(users)]
    helpers = max(len(task.auxiliary) for task in users)
    if limits.max_parallel_endpoints is not None and all(task.endpoint is not None for task in users):
        bounds.append(limits.max_parallel_endpoints - helpers)
    gpus = max((task.endpoint.gpus for task in users if task.endpoint), default=0)
    if limits.max_gpus is not None and gpus:
        bounds.append(limits.max_gpus // gpus)
    return max(1, min(bounds))


def refuse_names(names: Iterable[str], tasks: Iterable[TaskPlan]) -> Iterator[str]:
    """Problems of names that a task's folder has, one line each."""
    keys = {task.key.lower() for task in tasks}
    for name in names:
        if name in keys:
            yield f"auxiliary.{name}: a task has this name, and each has a folder of its own; give it another"


def beyond_limits(tasks: Iterable[TaskPlan], made: Iterable[TaskPlan], limits: Limits) -> Iterator[str]:
    """Limits that leave no room for a task and its auxiliary endpoints at the same time, one line each."""
    helpers = {one.key: one.endpoint for one in made if one.endpoint is not None}
    for task in tasks:
        endpoints = [endpoint for name in task.auxiliary if (endpoint := helpers.get(name))]
        if not endpoints:
            continue
        endpoints += [task.endpoint] if task.endpoint is not None else []
        needs = ((len(endpoints), "max_parallel_endpoints"), (sum(e.gpus for e in endpoints), "max_gpus"))
        for need, limit in needs:
            most = getattr(limits, limit)
            if most is not None and need > most:
                yield f"limits.{limit}: {task.name} needs {need} at once, with {' and '.join(task.auxiliary)}; raise it"


def unused(names: Iterable[str], tasks: Iterable[TaskPlan]) -> list[str]:
    """Those that no task uses."""
    used = {name for task in tasks for name in task.auxiliary}
    return [name for name in names if name not in used]
