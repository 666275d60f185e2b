"""Batch jobs of one invocation on Slurm: options of sbatch and the script, frozen in the plan."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from launcher.config.deployment import AnyDeployment
from launcher.config.execution import Slurm
from launcher.config.fields import Reference
from launcher.config.schema import Config
from launcher.deployments.spec import ServerSpec
from launcher.errors import ConfigError
from launcher.harnesses.spec import HarnessJob
from launcher.plan.model import EndpointPlan, JobPlan
from launcher.plan.slurm import wrappers

MARK = "nv-eval:"
"""How the comment of every job of ours begins; the invocation follows, and what the job holds."""
KEY = "NV_EVAL_SLURM_KEY"
"""Stands in a plan for the key of an endpoint of ours; the batch job makes it."""
WATCHED = "watched"
"""In the request of an endpoint whose batch job asks it whether it answers, and keeps what it says for the launcher."""
SLACK = 120.0
"""Seconds that a batch job lives beyond all time-outs of its task, so that these come first."""
OURS = (
    "job-name", "J", "comment", "chdir", "D", "output", "o", "error", "e", "open-mode", "time", "t", "signal",
    "requeue", "no-requeue", "parsable", "wait", "W", "wrap", "array", "a", "export", "export-file",
)  # fmt: skip
"""Options of sbatch that the launcher sets itself."""


def refuse(config: Config) -> None:
    """Raises ConfigError for what no batch job can do."""
    slurm = config.execution
    if not isinstance(slurm, Slurm):
        return
    problems = list(_problems(slurm, config.deployment))
    if slurm.start_jobs == "all_ready" and slurm.topology == "together":
        problems.append(
            "execution.start_jobs: all_ready: a batch job that holds an endpoint and its evaluation waits for no "
            "other; set topology: separate, or leave it out"
        )
    if problems:
        raise ConfigError(problems)


def _problems(slurm: Slurm, deployment: AnyDeployment) -> Iterator[str]:
    yield from _name_problems(slurm)
    if getattr(deployment, "sharing", None) == "shared" and slurm.topology == "together":
        yield "deployment.sharing: shared: an endpoint in a task's own batch job cannot be; set topology: separate"
    for option in slurm.options:
        name = option.partition("=")[0].lstrip("-")
        if not option.startswith("-") or any(character.isspace() for character in option.partition("=")[0]):
            yield f"execution.options: {option!r}: write --name or --name=value"
        elif name in OURS:
            yield f"execution.options: --{name} is set by the launcher; leave it out"
    if slurm.times.limit is not None and slurm.times.limit < 60:
        yield "execution.times.limit: Slurm counts in minutes; the least is 60"
    if slurm.times.limit is not None and slurm.times.warning > slurm.times.limit / 2:
        yield "execution.times.warning: is more than half of times.limit, so that nothing would get done"
    for mount in slurm.container.mounts:
        if len(mount.split(":")) not in (2, 3):
            yield f"execution.container.mounts: {mount!r}: write SOURCE:TARGET or SOURCE:TARGET:ro"


def _name_problems(slurm: Slurm) -> Iterator[str]:
    if slurm.hostname is not None and not _HOST.fullmatch(slurm.hostname):
        yield f"execution.hostname: {slurm.hostname!r}: write HOST, USER@HOST, or a name of ~/.ssh/config"
    words = {
        **{name: getattr(slurm, name) for name in ("account", "partition", "qos", "constraint", "reservation")},
        **{name: getattr(slurm, name) for name in ("gpu_type", "mail")},
        **{f"job.{name}": getattr(slurm.job, name) for name in ("partition", "qos", "constraint")},
    }
    for name, word in words.items():
        if word is not None and not re.fullmatch(r"[^\s\x00-\x1f]+", word):
            yield f"execution.{name}: {word!r}: is no name, as it holds spaces"
    lines = [slurm.work_dir, slurm.python, *slurm.prologue, *slurm.container.mounts, *slurm.container.options]
    for line in lines:
        if any(character in line for character in "\0\r\n"):
            yield f"execution: {line!r}: holds a line break; write one line for each"


def refuse_server(slurm: Slurm, server: ServerSpec) -> None:
    """Raises ConfigError for a server that this execution cannot run."""
    in_container = slurm.container.runtime != "none"
    if in_container and server.image is None:
        raise ConfigError(
            f"deployment.type: {server.type} runs only as a program; set execution.container.runtime: none"
        )
    if not in_container and not server.command:
        raise ConfigError(
            f"deployment.type: {server.type} runs only from its image; set execution.container.runtime to pyxis or "
            "apptainer"
        )
    _geometry(slurm, server)


def storage(slurm: Slurm, invocation: str) -> str:
    """The folder of one invocation, as the cluster's nodes see it; a leading ~ is the home there."""
    return f"{slurm.work_dir.rstrip('/')}/{invocation}"


def endpoint_key(server: ServerSpec | None, own: Reference | None) -> Reference | None:
    """The key that calls an endpoint: the person's own, else the batch job's, where the server can have one."""
    if own is not None or server is None or not server.key_env:
        return own
    return Reference(env=KEY)


def endpoint(
    slurm: Slurm,
    server: ServerSpec,
    *,
    name: str,
    invocation: str,
    start_timeout: float,
    health_timeout: float,
    job_timeout: float,
    job_image: str | None,
    key: Reference | None,
    further: float = 0.0,
    evaluates: bool = True,
) -> EndpointPlan:
    """One endpoint; with `topology: together` its batch job evaluates, too. Raises ConfigError.

    `further`: seconds that its evaluation may wait for auxiliary endpoints; `evaluates`: false for one that no task has
    for itself.
    """
    refuse_server(slurm, server)
    together = slurm.topology == "together" and evaluates
    need = start_timeout + health_timeout + job_timeout + further
    nodes, gpus, _ = _geometry(slurm, server)
    options = [
        *_common(slurm, name, invocation, "together" if together else "endpoint", need),
        *_placement(slurm, slurm.partition, slurm.qos, slurm.constraint),
        *_size(slurm, server, nodes, gpus),
        *slurm.options,
    ]
    settings = {"kind": "together" if together else "endpoint", **_server_settings(slurm, server, nodes, key)}
    is_asked = not evaluates or slurm.start_jobs == "all_ready"
    if together or is_asked:
        settings |= _client_settings(slurm, job_image or slurm.container.job_image)
    return EndpointPlan(
        name=name,
        server=server,
        start_timeout=start_timeout,
        health_timeout=health_timeout,
        replicas=slurm.instances,
        request={**_request(options, script(slurm, need, settings)), **({WATCHED: True} if is_asked else {})},
        evaluates=together,
    )


def job(
    slurm: Slurm,
    run: HarnessJob,
    *,
    name: str,
    invocation: str,
    start_timeout: float,
    health_timeout: float,
    timeout: float,
    image: str | None,
    has_endpoint: bool,
    further: float = 0.0,
) -> JobPlan:
    """One evaluation: a batch job of its own, or a part of its endpoint's. Raises ConfigError."""
    image = image or slurm.container.job_image
    if image is not None and slurm.container.runtime == "none":
        raise ConfigError("image: execution.container.runtime is none, so that jobs run in no image")
    need = start_timeout + health_timeout + timeout + further
    request: dict[str, Any] | None = None
    if not (has_endpoint and slurm.topology == "together"):
        own = slurm.job
        options = [
            *_common(slurm, name, invocation, "job", need),
            *_placement(
                slurm, own.partition or slurm.partition, own.qos or slurm.qos, own.constraint or slurm.constraint
            ),
            "--nodes=1",
            "--ntasks-per-node=1",
            f"--cpus-per-task={own.cpus}",
            *_memory(own.memory_gib),
            *slurm.options,
        ]
        request = _request(options, script(slurm, need, {"kind": "job", **_client_settings(slurm, image)}))
    return JobPlan(
        name=name, run=run, timeout=timeout, image=image, request=request, queue_timeout=queue_timeout(slurm, need)
    )


def queue_timeout(slurm: Slurm, need: float) -> float:
    """Seconds that what needs so many may wait for its turn, and for further ones after it was requeued."""
    return slurm.times.queue + _total(slurm, need)


def renamed(request: dict[str, Any], name: str) -> dict[str, Any]:
    """The request under another name."""
    old = next(word for word in request["sbatch"] if word.startswith("--job-name=")).partition("=")[2]
    words = [word.replace(old, name) if word.startswith(_NAMED) else word for word in request["sbatch"]]
    return {**request, "sbatch": words}


_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:%@-]*")
"""As OpenSSH takes it; it cannot begin like an option."""
_NAMED = ("--job-name=", "--chdir=", "--output=")


def notes(slurm: Slurm, server: ServerSpec | None, key: Reference | None, *, alone: bool = False) -> list[str]:
    """What the person should know of how the config was understood. `alone`: the endpoint is no task's own."""
    found = []
    if server is not None and key is None and (slurm.topology == "separate" or alone):
        found.append(f"{server.type} takes no key: whoever is on the cluster's network can call the endpoint")
    if slurm.times.limit is not None and slurm.times.total is None:
        found.append("a task that is longer than times.limit goes on in further jobs until all its time-outs have run")
    return found


# --- options of sbatch ------------------------------------------------------------------------------------------------


def _common(slurm: Slurm, name: str, invocation: str, kind: str, need: float) -> Iterator[str]:
    folder = f"{storage(slurm, invocation)}/jobs/{name}"
    yield f"--job-name={name}"
    yield f"--comment={MARK}{invocation}:{kind}"
    yield f"--chdir={folder}"
    yield f"--output={folder.replace('%', '%%')}/batch.log"
    yield "--open-mode=append"
    yield f"--time={_minutes(slurm, need)}"
    yield f"--signal=B:USR1@{math.ceil(slurm.times.warning)}"
    yield "--no-requeue" if kind == "endpoint" else "--requeue"  # it would come back under another address
    if slurm.mail:
        yield f"--mail-user={slurm.mail}"
        yield "--mail-type=END,FAIL"


def _minutes(slurm: Slurm, need: float) -> int:
    return math.ceil((slurm.times.limit or _total(slurm, need)) / 60)


def _total(slurm: Slurm, need: float) -> float:
    """Seconds that the batch jobs of one task may run in all."""
    return slurm.times.total or max(slurm.times.limit or 0.0, need + SLACK + slurm.times.warning)


def _placement(slurm: Slurm, partition: str | None, qos: str | None, constraint: str | None) -> Iterator[str]:
    named = {
        "account": slurm.account,
        "partition": partition,
        "qos": qos,
        "constraint": constraint,
        "reservation": slurm.reservation,
    }
    yield from (f"--{name}={value}" for name, value in named.items() if value)


def _size(slurm: Slurm, server: ServerSpec, nodes: int, gpus: int) -> Iterator[str]:
    """`gpus`: those of each node."""
    yield f"--nodes={nodes}"
    yield "--ntasks-per-node=1"
    cpus = slurm.cpus or server.cpus
    if cpus:
        yield f"--cpus-per-task={math.ceil(cpus)}"
    yield from _memory(slurm.memory_gib or server.memory_gib)
    if gpus and slurm.gpu_option != "none":
        option = "--gres=gpu" if slurm.gpu_option == "gres" else "--gpus-per-node"
        parts = [part for part in (slurm.gpu_type, str(gpus)) if part]
        yield f"{option}{':' if slurm.gpu_option == 'gres' else '='}{':'.join(parts)}"
    if slurm.exclusive:
        yield "--exclusive"


def _memory(gib: float | None) -> Iterator[str]:
    if gib is not None:
        yield f"--mem={math.ceil(gib * 1024)}M"


def _geometry(slurm: Slurm, server: ServerSpec) -> tuple[int, int, int]:
    """Nodes, GPUs of each node, instances of each node. Raises ConfigError where they do not fit together."""
    wanted = server.gpus * slurm.instances
    nodes = slurm.nodes or (max(1, math.ceil(wanted / slurm.gpus_per_node)) if slurm.gpus_per_node else 1)
    if slurm.instances > 1 and slurm.instances % nodes:
        raise ConfigError(f"execution.instances: {slurm.instances} cannot be spread evenly over {nodes} nodes")
    if slurm.instances == 1 and nodes > 1:
        wrappers.refuse_several_nodes(server)
    if wanted % nodes:
        raise ConfigError(f"execution.nodes: {wanted} GPUs cannot be spread evenly over {nodes} nodes")
    gpus = wanted // nodes
    if slurm.gpus_per_node and gpus > slurm.gpus_per_node:
        raise ConfigError(
            f"execution.nodes: {gpus} GPUs on each of {counted_nodes(nodes)}, and gpus_per_node is "
            f"{slurm.gpus_per_node}; leave nodes out, or raise it"
        )
    return nodes, gpus, slurm.instances // nodes if slurm.instances > 1 else 1


def counted_nodes(nodes: int) -> str:
    """`1 node`, `2 nodes`."""
    return f"{nodes} node{'s' if nodes > 1 else ''}"


# --- the script -------------------------------------------------------------------------------------------------------


def script(slurm: Slurm, need: float, settings: dict[str, str | int | Sequence[str]]) -> str:
    """The whole batch script: settings of this job, the person's own lines, and what is the same in all."""
    head = {
        "total_seconds": math.ceil(_total(slurm, need)),
        "python": slurm.python,
        "runtime": slurm.container.runtime,
        **_DEFAULTS,
        **settings,
    }
    lines = "".join(f"{line}\n" for line in slurm.prologue)
    return "".join(["#!/bin/bash\n", _PROFILE, lines, *_assignments(head), "\n", _body()])


_PROFILE = "if [ -r /etc/profile ]; then . /etc/profile; fi\n"
"""What gives a node `module`. A person's own profile may ask, print or wait: the prologue is theirs."""
_DEFAULTS: dict[str, str | int | Sequence[str]] = {
    "client_python": "python3",
    "client_step": (),
    "instances": 1,
    "instance_gpus": 0,
    "node_count": 1,
    "key_variable": "",
    "health_path": "/health",
    "server": (),
    "server_env": (),
    "server_step": (),
    "server_wrapper": (),
}


def _assignments(settings: dict[str, str | int | Sequence[str]]) -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, str | int):
            yield f"{name}={shlex.quote(str(value))}\n"
        else:
            yield f"{name}=({shlex.join(value)})\n"


@cache
def _body() -> str:
    return files("launcher.plan.slurm").joinpath("batch.sh").read_text(encoding="utf-8")


def _request(options: Iterable[str], text: str) -> dict[str, Any]:
    return {"sbatch": list(options), "script": text}


def _server_settings(
    slurm: Slurm, server: ServerSpec, nodes: int, key: Reference | None
) -> dict[str, str | int | Sequence[str]]:
    container = slurm.container
    env = {name: value for name, value in server.env.items() if isinstance(value, str)}
    if container.model_cache and container.runtime == "none":
        env.setdefault("HF_HOME", container.model_cache)
    mounts = [*container.mounts]
    if container.model_cache and server.cache_path:
        mounts.append(f"{container.model_cache}:{server.cache_path}")
    step, wrapper = wrappers.in_container(container.runtime, server.image, mounts, container.options)
    command, spread = wrappers.spread(server, nodes=nodes, instances=slurm.instances)
    return {
        "instances": slurm.instances,
        "instance_gpus": server.gpus,
        "node_count": nodes,
        "key_variable": server.key_env if key is not None and key.env == KEY else "",
        "health_path": server.health.path or "/v1/models",
        "server": command,
        "server_env": [f"{name}={value}" for name, value in sorted(env.items())],
        "server_step": step,
        "server_wrapper": (*wrapper, *spread),
    }


def _client_settings(slurm: Slurm, image: str | None) -> dict[str, str | int | Sequence[str]]:
    container = slurm.container
    if image is None:
        return {"client_python": slurm.python, "client_step": ()}
    folder = re.sub(r"^~(?=/|$)", "{home}", slurm.work_dir)
    step, wrapper = wrappers.in_container(
        container.runtime, image, [*container.mounts, f"{folder}:{folder}"], container.options, workdir=True
    )
    return {"client_python": "python3", "client_step": (*step, *wrapper)}
