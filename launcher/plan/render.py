"""The plan in words: what the dry run prints for people."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from textwrap import shorten
from typing import Any

from launcher.config.execution import Slurm
from launcher.config.export import chosen
from launcher.config.fields import Env
from launcher.config.values import environment
from launcher.deployments.spec import ServerSpec
from launcher.plan.describe import requests, scoring
from launcher.plan.model import EndpointPlan, Plan, TaskPlan
from launcher.plan.words import counted, duration, money

__all__ = ["Check", "duration", "money", "render"]

_SAID_ELSEWHERE = ("container", "envs", "mounts", "completions", "parallelism", "image_pull_secrets")
Check = tuple[str, str, str]
"""State (ok, note, problem, skipped), name and message of one preflight check."""


def render(plan: Plan, checks: Iterable[Check] = (), *, verbose: bool = False) -> str:
    """The plan as text. `verbose` does not shorten commands and lists every check."""
    parts = [_head(plan)]
    in_containers = _runtime(plan) not in ("process", "none")
    parts += [_task(task, in_containers=in_containers, verbose=verbose) for task in plan.tasks]
    parts += [_auxiliary(one, plan, in_containers=in_containers, verbose=verbose) for one in plan.auxiliary]
    checks = list(checks)
    parts.append(_foot(plan, [message for state, _, message in checks if state == "problem"]))
    parts.append(_checks(checks, verbose=verbose))
    return "\n".join(part for part in parts if part) + "\n"


def _runtime(plan: Plan) -> str:
    """What servers run in, as the execution calls it."""
    execution = plan.execution_config()
    if isinstance(execution, Slurm):
        return execution.container.runtime
    return getattr(execution, "runtime", "container")


def _head(plan: Plan) -> str:
    endpoints = len(plan.endpoints)
    made = f"{counted(endpoints, 'endpoint')} and " if endpoints else ""
    lines = [
        f"Plan of invocation {plan.invocation}: {made}{counted(len(plan.tasks), 'job')} on {plan.execution}",
        f"  results   {plan.output_dir}/{plan.invocation}",
    ]
    if plan.execution != "local":
        lines.append(f"  storage   {plan.storage}")
    limits = {
        "endpoints at once": plan.max_parallel_endpoints,
        "GPUs at once": plan.max_gpus,
        "duration": duration(plan.max_duration) if plan.max_duration else None,
    }
    set_limits = [f"{name} {value}" for name, value in limits.items() if value is not None]
    if set_limits:
        lines.append(f"  limits    {', '.join(set_limits)}")
    if exporters := chosen(plan.export_config()):
        lines.append(f"  exports   to {', '.join(exporters)} when the run is over")
    if plan.start_jobs == "all_ready":
        lines.append("  jobs      start when all endpoints answer")
    return "\n".join(lines) + "\n"


def _task(task: TaskPlan, *, in_containers: bool, verbose: bool) -> str:
    lines = [f"{task.index + 1}. {task.key} ({task.harness})"]
    if task.endpoint and task.endpoint.is_shared and task.index > 0:
        lines.append(f"   endpoint  {task.endpoint.name}: shared, see task 1")
    elif task.endpoint:
        lines += _endpoint(task.endpoint, in_containers=in_containers, verbose=verbose)
    else:
        lines.append(f"   endpoint  {task.target.url} (exists)")
    probe = " and prompt log-probabilities" if task.target.needs_loglikelihood else ""
    lines.append(f"   model     {task.target.model} on {task.target.endpoint_type}; one token{probe} asked for first")
    lines += [f"   auxiliary {', '.join(task.auxiliary)}"] if task.auxiliary else []
    lines += _job(task, verbose=verbose)
    return "\n".join(lines) + "\n"


def _auxiliary(one: TaskPlan, plan: Plan, *, in_containers: bool, verbose: bool) -> str:
    users = ", ".join(task.key for task in plan.tasks if one.key in task.auxiliary)
    lines = [f"{one.key} (auxiliary, for {users})"]
    if one.endpoint is not None:
        lines += _endpoint(one.endpoint, in_containers=in_containers, verbose=verbose)
    else:
        lines.append(f"   endpoint  {one.target.url} (exists)")
    lines.append(f"   model     {one.target.model} on {one.target.endpoint_type}; one token asked for first")
    return "\n".join(lines) + "\n"


def _endpoint(endpoint: EndpointPlan, *, in_containers: bool, verbose: bool) -> list[str]:
    server = endpoint.server
    needs = ["shared by all tasks"] if endpoint.is_shared else []
    needs += [_gpus(endpoint)]
    needs += [f"{server.memory_gib:g} GiB memory"] if server.memory_gib else []
    needs += [f"{server.shared_memory_mib} MiB /dev/shm"] if server.shared_memory_mib and in_containers else []
    needs += [f"shape {endpoint.shape}"] if endpoint.shape else []
    needs += [f"up to {endpoint.replicas} replicas"] if endpoint.replicas > 1 else []
    needs += [f"node group {endpoint.node_group}"] if endpoint.node_group else []
    lines = [f"   endpoint  {endpoint.name}: {', '.join(needs)}"]
    lines += [f"   template  {server.template}{_with(server.template.run)}"] if server.template else []
    lines += [f"   photon    {server.photon}"] if server.photon else []
    if server.image and in_containers:
        lines.append(f"   image     {server.image}")
    command = shlex.join(server.command) if server.command else f"(the {_owner(server)}'s own)"
    lines.append(f"   command   {command if verbose else shorten(command, 160)}")
    lines += _env(server.env)
    lines += [f"   mount     {mount.source} at {mount.path}" for mount in endpoint.mounts]
    lines += _request(endpoint.request, verbose=verbose)
    first = server.health.path or ("the service says so" if server.named_later else "no health path")
    lines.append(
        f"   ready     {first} within {duration(endpoint.start_timeout)}, "
        f"a completion within {duration(endpoint.health_timeout)} more"
    )
    if endpoint.lifetime is not None:
        lines.append(f"   expires   {duration(endpoint.lifetime)} after its creation, by its name")
    return lines


def _gpus(endpoint: EndpointPlan) -> str:
    if not endpoint.gpus_known:
        return "GPUs not known"
    return counted(endpoint.gpus_per_replica, "GPU") if endpoint.gpus_per_replica else "CPU only"


def _owner(server: ServerSpec) -> str:
    """Who brings a command that the plan does not have."""
    if server.named_later:
        return "service"
    return "template" if server.template else "photon" if server.photon else "image"


def _with(run: str | dict[str, Any] | None) -> str:
    return "" if run is None else f", rendered with {shorten(json.dumps(run), 160)}"


def _request(request: dict[str, Any] | None, *, verbose: bool) -> list[str]:
    """The request as it will be sent; without `verbose` only what the other lines do not say, shortened."""
    if request is None:
        return []
    if "sbatch" in request:
        return _batch_job(request, verbose=verbose)
    spec = request.get("spec", request)
    text = json.dumps(request if verbose else {n: v for n, v in spec.items() if n not in _SAID_ELSEWHERE})
    return [f"   request   {text if verbose else shorten(text, 400)}"]


def _batch_job(request: dict[str, Any], *, verbose: bool) -> list[str]:
    """A batch job of Slurm: the options of sbatch and, with `verbose`, the script."""
    options, lines = shlex.join(request["sbatch"]), request["script"].splitlines()
    if not verbose:
        return [f"   sbatch    {shorten(options, 400)}", f"   script    {counted(len(lines), 'line')}; -v shows them"]
    return [f"   sbatch    {options}", "   script", *(f"      {line}".rstrip() for line in lines)]


def _env(env: Env) -> list[str]:
    return [f"   env       {name}={value}" for name, value in sorted(env.items())]


def _job(task: TaskPlan, *, verbose: bool) -> list[str]:
    job = task.job
    where = f"image {job.image}" if job.image else _beside(task)
    shape = f", shape {job.shape}" if job.shape else ""
    lines = [f"   job       {job.name}: {where}{shape}, at most {duration(job.timeout)}"]
    lines += [f"   mount     {mount.source} at {mount.path}" for mount in job.mounts]
    lines += [f"   installs  {', '.join(job.packages)}, where the image lacks it"] if job.packages else []
    lines += _request(job.request, verbose=verbose)
    if verbose:
        lines.append(f"   runs      {shlex.join(job.run.argv)}")
    lines += _env(environment("evaluation.envs", task.settings.envs))
    rows = {
        "settings": scoring(task.settings),
        "requests": requests(task.settings),
        "tokenizer": [job.run.tokenizer] if job.run.tokenizer else [],
    }
    return lines + [f"   {name:<9} {', '.join(words)}" for name, words in rows.items() if words]


def _beside(task: TaskPlan) -> str:
    """Where a job runs that has no image."""
    batch_jobs = [
        request for request in (task.job.request, task.endpoint.request if task.endpoint else None) if request
    ]
    if not any("sbatch" in request for request in batch_jobs):
        return "a process beside the launcher"
    return "a batch job of its own" if task.job.request else "in the batch job of its endpoint"


def _foot(plan: Plan, problems: list[str]) -> str:
    """The costs and the notes, less those that a problem tells again."""
    notes = [note for note in plan.notes if not any(note.partition(":")[0] in problem for problem in problems)]
    return "\n".join([_worst_case(plan), *(f"Note: {note}." for note in notes)])


def _worst_case(plan: Plan) -> str:
    worst = plan.worst_case
    hours = f"{worst.gpu_hours:g} GPU-hours" if worst.gpu_hours else "no GPU time"
    if any(not endpoint.gpus_known for endpoint in plan.endpoints):
        hours = "GPU time not known"
    has_shapes = any(endpoint.shape for endpoint in plan.endpoints)
    if not (worst.usd or worst.gpu_hours or (has_shapes and worst.usd is None)):
        return f"Worst case: {hours}."
    key = "pricing.usd_per_hour" if has_shapes else "execution.usd_per_gpu_hour"
    unknown = f"no price set ({key})"
    if any(endpoint.is_metered for endpoint in plan.endpoints):
        unknown = "at the price that the service tells"
    price = money(worst.usd) if worst.usd is not None else unknown
    return f"Worst case, if every time-out runs to its end: {hours}, {price}."


def _checks(checks: list[Check], *, verbose: bool) -> str:
    lines = [f"Problem: {message or name}" for state, name, message in checks if state == "problem"]
    lines += [f"Found: {message}" for state, _, message in checks if state == "note"]
    lines += [f"Not checked: {name}: {message}" for state, name, message in checks if state == "skipped"]
    fine = [name for state, name, _ in checks if state == "ok"]
    if fine and verbose:
        lines += [f"Checked: {name}" for name in fine]
    elif fine:
        lines.append(f"Checked: {', '.join(fine)}.")
    lines.append("Dry run: nothing was created, nothing was written.")
    return "\n".join(lines)
