"""The parts of a plan that only Lepton has: the very requests that a run sends, resolved from the config.

A request is in the shape of the legacy family (launcher/platforms/lepton/families.py brings it into the other) and
holds no secret: `${oc.env:NAME}` stands where a value goes, node groups may stand by name, and `{job_script}` stands
for the job's shell script, which names the endpoint's URL. All three are filled in when the request leaves. So is what
a template of the workspace renders (launcher/platforms/lepton/sources.py): here is only what goes before it.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from launcher.config.execution import Lepton
from launcher.config.fields import Env, Reference
from launcher.config.lepton import LeptonAccess, LeptonAutoscale, LeptonEndpoint, LeptonMount, LeptonStorage
from launcher.config.pricing import Pricing
from launcher.deployments.spec import ServerSpec
from launcher.errors import ConfigError
from launcher.harnesses.spec import HarnessJob
from launcher.plan.document import API_KEY_ENV
from launcher.plan.model import EndpointPlan, JobPlan, Mount, shape_gpus

T = TypeVar("T")

ENDPOINT_TOKEN = "NV_EVAL_ENDPOINT_TOKEN"  # noqa: S105 - the name of a variable
"""Stands for the token that the platform makes for the endpoints of one invocation."""
INVOCATION = "NV_EVAL_INVOCATION"
"""Variable of every endpoint and job of ours: tells whose it is."""
EXPIRES = "NV_EVAL_EXPIRES"
"""Variable of an endpoint that is wanted for itself: seconds since 1970 until when."""
JOB_SCRIPT = "{job_script}"
WORKSPACE_TOKEN = "WORKSPACE_TOKEN"  # noqa: S105 - the service's name for the workspace's own token
START_SLACK = 300
"""Seconds that an endpoint may take to get ready beyond the plan's own time-outs before the platform ends it."""
IDLE_SLACK = 1800
"""Seconds without a request beyond the time an endpoint may wait for its job: benchmarks also load and score."""
PACKAGES = {
    "lm_eval": "lm-eval[api]>=0.4.13,<0.5",
    "transformers": "transformers",
    "tiktoken": "tiktoken",
    "lucebench": "lucebench==0.3.3",
}
"""What pip installs for a module that a job needs."""

_RESERVED_PATHS = frozenset(
    f"/{path}"
    for path in (
        *("", "bin", "boot", "dev", "etc", "lib", "lib64", "media", "opt", "proc", "run", "sbin", "srv", "sys", "usr"),
        *("usr/bin", "usr/lib", "usr/local", "usr/sbin", "var", "sys/fs/cgroup", "sys/kernel/security"),
        *("proc/sys", "proc/bus"),
    )
)
"""Folders of the system that nothing may be mounted over; folders below them are fine."""
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,34}[a-z0-9])?")


def endpoint_key(lepton: Lepton, own: Reference | None) -> Reference | None:
    """The key that calls an endpoint of ours: the person's own, else one that the platform makes, or none."""
    if own is not None or lepton.access.mode == "public":
        return own
    return Reference(env=ENDPOINT_TOKEN)


def storage(lepton: Lepton, invocation: str) -> str:
    """The folder of one invocation, as its jobs see it."""
    return f"{lepton.storage.workspace.rstrip('/')}/{invocation}"


def endpoint(
    lepton: Lepton,
    pricing: Pricing,
    server: ServerSpec,
    *,
    name: str,
    invocation: str,
    start_timeout: float,
    health_timeout: float,
    key: Reference | None,
    idle: float | None = None,
) -> EndpointPlan:
    """One endpoint with its request. Raises ConfigError for everything that the service would refuse.

    `idle`: seconds that it may have to wait for a request, where that is longer than it takes to start.
    """
    mounts = [*_cache_mounts(lepton, server), *_model_mounts(server, lepton.storage)]
    mounts += [_mount(mount, lepton.storage) for mount in lepton.endpoint.mounts]
    _raise(_endpoint_problems(lepton, server, name, mounts))
    return EndpointPlan(
        name=name,
        server=server,
        start_timeout=start_timeout,
        health_timeout=health_timeout,
        shape=lepton.resource_shape,
        node_group=lepton.node_group,
        mounts=tuple(_as_mount(mount) for mount in mounts),
        replicas=_most_replicas(lepton.endpoint),
        usd_per_hour=pricing.of(lepton.resource_shape),
        request={
            "metadata": {"id": name, "name": name, "visibility": lepton.endpoint.visibility},
            "spec": {
                **_source(server),
                "resource_requirement": _resources(lepton, server),
                "auto_scaler": _auto_scaler(lepton.autoscale, start_timeout + health_timeout, idle or 0.0),
                **_access(lepton.access, key),
                "envs": [*_envs(server.env), {"name": INVOCATION, "value": invocation}],
                "mounts": mounts,
                "image_pull_secrets": list(lepton.image_pull_secrets),
                **_options(lepton.endpoint, start_timeout),
            },
        },
    )


def job(
    lepton: Lepton,
    pricing: Pricing,
    run: HarnessJob,
    *,
    name: str,
    invocation: str,
    timeout: float,
    image: str | None,
    key: Reference | None,
) -> JobPlan:
    """One job with its request. Raises ConfigError for everything that the service would refuse."""
    image = image or run.image or lepton.job_image
    mounts = list(_storage_mounts(lepton.storage))
    _raise([*_name_problems(name), *_env_problems("evaluation.envs", run.env), *_storage_problems(lepton.storage)])
    secrets: Env = {variable: value for variable, value in run.env.items() if isinstance(value, Reference)}
    if key is not None:
        secrets[API_KEY_ENV] = key
    spec = {
        "resource_shape": lepton.job_resource_shape,
        "affinity": _affinity(lepton.job_node_group or lepton.node_group),
        "container": {"image": image, "command": ["/bin/bash", "-c", JOB_SCRIPT]},
        "completions": 1,
        "parallelism": 1,
        "max_failure_retry": 0,
        "max_job_failure_retry": 0,
        "envs": [*_envs(secrets), {"name": INVOCATION, "value": invocation}],
        "mounts": mounts,
        "image_pull_secrets": list(lepton.image_pull_secrets),
        "ttl_seconds_after_finished": lepton.job_ttl,
        "log": {"enable_collection": True},
        "queue_config": _queue(lepton.endpoint),
    }
    return JobPlan(
        name=name,
        run=run,
        timeout=timeout,
        shape=lepton.job_resource_shape,
        image=image,
        mounts=tuple(_as_mount(mount) for mount in mounts),
        packages=_packages(lepton, run),
        usd_per_hour=pricing.of(lepton.job_resource_shape),
        request={
            "metadata": {"id": name, "visibility": lepton.endpoint.visibility},
            "spec": _without_none(spec),
        },
    )


def notes(lepton: Lepton, pricing: Pricing, server: ServerSpec | None) -> list[str]:
    """What the person should know of how the config was understood."""
    return [] if server is None else [*_choice_notes(lepton, server), *_cost_notes(lepton, pricing)]


def _choice_notes(lepton: Lepton, server: ServerSpec) -> Iterator[str]:
    if lepton.node_group is None:
        yield "execution.node_group is not set: a run needs one that the workspace offers"
    if lepton.resource_shape is None and server.template is None:
        yield "execution.resource_shape is not set: a run needs one that the workspace offers"
    elif lepton.resource_shape is None:
        yield (
            "the resource shape is the template's own; set execution.resource_shape to choose it and to see its price "
            "and its GPU time, which is not known"
        )
    elif not server.gpus and shape_gpus(lepton.resource_shape) is None:
        yield f"the name of shape {lepton.resource_shape} does not tell its GPUs: GPU time is not known"
    values = sorted(str(value.env) for value in server.env.values() if isinstance(value, Reference) and value.env)
    if values:
        yield (
            f"the value of {', '.join(values)} goes to the workspace, where its members can read it; to avoid "
            "that, store it there as a secret and write {secret: NAME}"
        )
    if lepton.endpoint.require_approval:
        yield "each replica waits until a person approves it in the dashboard"


def _cost_notes(lepton: Lepton, pricing: Pricing) -> Iterator[str]:
    shapes = dict.fromkeys(shape for shape in (lepton.resource_shape, lepton.job_resource_shape) if shape)
    unpriced = [shape for shape in shapes if pricing.usd_per_hour and pricing.of(shape) is None]
    if unpriced:
        yield f"pricing.usd_per_hour has no price of {', '.join(unpriced)}"
    most = _most_replicas(lepton.endpoint)
    if most > lepton.endpoint.min_replicas:
        yield f"costs are those of {most} replicas of each endpoint, the most that autoscaling makes"


def on_volume(config: LeptonStorage, folder: str) -> str:
    """Where a folder, as jobs see it, lies on the volume."""
    return posixpath.normpath(posixpath.join(config.path, posixpath.relpath(folder, config.mount_path)))


# --- the endpoint's request -------------------------------------------------------------------------------------------


def _source(server: ServerSpec) -> dict[str, Any]:
    """What runs: a photon, or a container; with a template only what takes the place of the template's own."""
    if server.photon is not None:
        return {"photon_id": server.photon.id, "photon_namespace": server.photon.namespace}
    port = server.template.port if server.template is not None else server.port
    parts = {
        "image": server.image,
        "command": list(server.command) or None,
        "ports": None if port is None else [{"container_port": port, "protocol": "TCP"}],
    }
    return {"container": _without_none(parts)}


def _resources(lepton: Lepton, server: ServerSpec) -> dict[str, Any]:
    return _without_none(
        {
            "resource_shape": lepton.resource_shape,
            "shared_memory_size": server.shared_memory_mib,
            "affinity": _affinity(lepton.node_group),
            "min_replicas": lepton.endpoint.min_replicas,
            "max_replicas": _most_replicas(lepton.endpoint),
        }
    )


def _affinity(node_group: str | None) -> dict[str, Any] | None:
    return {"allowed_dedicated_node_groups": [node_group]} if node_group else None


def _most_replicas(config: LeptonEndpoint) -> int:
    return config.max_replicas or config.min_replicas


def _auto_scaler(scale: LeptonAutoscale, boot: float, idle: float) -> dict[str, Any]:
    """`boot`, `idle`: seconds that an endpoint has to answer, may get no request. The guard of the costs is in it."""
    throughput = {"qpm": scale.qpm, "paths": scale.qpm_paths or None, "methods": scale.qpm_methods or None}
    return _without_none(
        {
            "scale_down": {
                "no_traffic_timeout": scale.no_traffic_timeout or math.ceil(max(boot, idle)) + IDLE_SLACK,
                "not_ready_timeout": scale.not_ready_timeout or math.ceil(boot) + START_SLACK,
            },
            "target_gpu_utilization_percentage": scale.gpu_utilization,
            "target_throughput": _without_none(throughput) if scale.qpm else None,
        }
    )


def _access(config: LeptonAccess, key: Reference | None) -> dict[str, Any]:
    if config.mode == "public":
        return {"allow_unauthenticated_access": True, "api_tokens": []}
    names = dict.fromkeys([*([key.env] if key is not None and key.env else []), *config.token_names])
    if config.mode == "workspace":
        names.pop(ENDPOINT_TOKEN, None)
    tokens: list[dict[str, Any]] = [{"value": str(Reference(env=name))} for name in names]
    if config.mode == "workspace":
        tokens.append({"value_from": {"token_name_ref": WORKSPACE_TOKEN}})
    return {"api_tokens": tokens}


def _envs(env: Env) -> list[dict[str, Any]]:
    return [_variable(name, value) for name, value in sorted(env.items())]


def _variable(name: str, value: str | Reference) -> dict[str, Any]:
    if isinstance(value, Reference) and value.secret is not None:
        return {"name": name, "value_from": {"secret_name_ref": value.secret}}
    return {"name": name, "value": str(value)}


def _options(config: LeptonEndpoint, start_timeout: float) -> dict[str, Any]:
    delay = config.initial_delay or start_timeout
    health: dict[str, Any] = {"liveness": {"initial_delay_seconds": math.ceil(delay)}}
    if config.require_approval:
        health["readiness"] = {"require_approval": True}
    return _without_none(
        {
            "health": health,
            "log": {"enable_collection": config.collect_logs},
            "metrics": None if config.pull_metrics else {"disable_pulling_from_replica": True},
            "routing_policy": {"enable_header_based_replica_routing": True} if config.header_routing else None,
            "queue_config": _queue(config),
        }
    )


def _queue(config: LeptonEndpoint) -> dict[str, Any] | None:
    return {"priority_class": config.queue_priority} if config.queue_priority else None


def _without_none(values: Mapping[str, T | None]) -> dict[str, T]:
    return {name: value for name, value in values.items() if value is not None}


# --- mounts -----------------------------------------------------------------------------------------------------------


def _cache_mounts(lepton: Lepton, server: ServerSpec) -> Iterator[dict[str, Any]]:
    config = lepton.storage
    if config.volume is None or not config.model_cache or server.cache_path is None:
        return
    if any(posixpath.normpath(mount.mount_path) == server.cache_path for mount in lepton.endpoint.mounts):
        return  # the person mounts a cache of their own
    folder = f"{config.workspace.rstrip('/')}/model-cache"
    yield {"path": on_volume(config, folder), "from": config.volume, "mount_path": server.cache_path}


def _model_mounts(server: ServerSpec, config: LeptonStorage) -> Iterator[dict[str, Any]]:
    stored = server.stored_model
    if stored is not None:
        mount = LeptonMount(path=stored.path, mount_path=stored.mount_path, volume=stored.volume, read_only=True)
        yield _mount(mount, config)


def _storage_mounts(config: LeptonStorage) -> Iterator[dict[str, Any]]:
    if config.volume is not None:
        yield {"path": config.path, "from": config.volume, "mount_path": config.mount_path}


def _mount(mount: LeptonMount, config: LeptonStorage) -> dict[str, Any]:
    made = {"path": mount.path, "from": mount.volume or config.volume, "mount_path": mount.mount_path}
    return {**made, "mount_options": {"read_only": True}} if mount.read_only else made


def _as_mount(mount: Mapping[str, Any]) -> Mount:
    return Mount(
        source=f"{mount['from']}:{mount['path']}", path=mount["mount_path"], read_only="mount_options" in mount
    )


def _packages(lepton: Lepton, run: HarnessJob) -> tuple[str, ...]:
    if lepton.job_packages is not None:
        return tuple(lepton.job_packages)
    return tuple(PACKAGES[module] for module in run.requires if module in PACKAGES)


# --- what the service would refuse ------------------------------------------------------------------------------------


def _raise(problems: Iterable[str]) -> None:
    found = list(problems)
    if found:
        raise ConfigError(found)


def _endpoint_problems(lepton: Lepton, server: ServerSpec, name: str, mounts: list[dict[str, Any]]) -> Iterator[str]:
    yield from _name_problems(name)
    lost_model = list(_model_problems(lepton, server))
    if lost_model:
        yield from lost_model
        return
    yield from _env_problems("deployment.envs", server.env)
    yield from _storage_problems(lepton.storage)
    yield from _mount_problems(mounts)
    yield from _scale_problems(lepton.endpoint, lepton.autoscale)
    if lepton.access.mode == "public" and lepton.access.token_names:
        yield "execution.access.token_names: a public endpoint checks no token; set mode: token"


def _name_problems(name: str) -> Iterator[str]:
    if not _NAME.fullmatch(name) or name.endswith("by-lepton"):
        yield f"{name}: Lepton takes names of at most 36 lower-case letters, digits and hyphens, a letter first"


def _env_problems(key: str, env: Env) -> Iterator[str]:
    for name in sorted(env):
        if name.upper().startswith("LEPTON_"):
            yield f"{key}.{name}: Lepton sets variables that begin with LEPTON_ itself; choose another name"
        elif name == INVOCATION:
            yield f"{key}.{name}: is set by the launcher; choose another name"


def _model_problems(lepton: Lepton, server: ServerSpec) -> Iterator[str]:
    """A model of the file system that the server would not find there."""
    stored = server.stored_model
    if stored is not None and stored.volume is None and lepton.storage.volume is None:
        yield "deployment.model_volume: is missing; execution.storage has no volume that model_path could be on"
    folders = [posixpath.normpath(mount.mount_path) for mount in lepton.endpoint.mounts]
    is_path = server.type == "lepton_llm" and stored is None and server.model_id.startswith("/")
    if is_path and not any(posixpath.normpath(server.model_id).startswith(f"{folder}/") for folder in folders):
        yield (
            f"deployment.model_id: nothing is mounted at {server.model_id}; set deployment.model_path to the model's "
            "path on the volume, and model_id to its name"
        )


def _mount_problems(mounts: list[dict[str, Any]]) -> Iterator[str]:
    taken: set[str] = set()
    for mount in mounts:
        path = mount["mount_path"]
        normal = posixpath.normpath(path)
        if not path.startswith("/"):
            yield f"execution.endpoint.mounts: mount_path {path!r} must begin with /"
        elif normal in _RESERVED_PATHS or normal == "//":
            yield f"execution.endpoint.mounts: nothing may be mounted at {path}; choose a folder below it"
        elif normal in taken:
            yield f"execution.endpoint.mounts: two mounts at {path}; give each its own mount_path"
        if mount["from"] is None:
            yield f"execution.endpoint.mounts: the mount at {path} names no volume; set its volume"
        taken.add(normal)


def _storage_problems(config: LeptonStorage) -> Iterator[str]:
    if config.volume is None:
        return
    mount_path, workspace = posixpath.normpath(config.mount_path), posixpath.normpath(config.workspace)
    if not config.mount_path.startswith("/") or mount_path in _RESERVED_PATHS:
        yield f"execution.storage.mount_path: nothing may be mounted at {config.mount_path}; choose for example /shared"
    elif not workspace.startswith(f"{mount_path}/"):
        yield f"execution.storage.workspace: {config.workspace} must lie below mount_path ({config.mount_path})"


def _scale_problems(config: LeptonEndpoint, scale: LeptonAutoscale) -> Iterator[str]:
    most = _most_replicas(config)
    if most < config.min_replicas:
        yield f"execution.endpoint.max_replicas: {most} is less than min_replicas, {config.min_replicas}"
    if (scale.gpu_utilization or scale.qpm) and most <= config.min_replicas:
        yield "execution.autoscale: a target needs room; set max_replicas above min_replicas"
    if scale.qpm is None and (scale.qpm_methods or scale.qpm_paths):
        yield "execution.autoscale.qpm: is missing; qpm_methods and qpm_paths say what counts for it"
