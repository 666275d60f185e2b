"""The parts of a plan that only Kubernetes has: the very manifests that a run sends, resolved from the config.

An endpoint's is a List of a Deployment and its Service, a job's a Job. They hold no secret: a variable that is one
names a key of the invocation's own Secret, which the platform makes, or of one that exists. `{job_script}` stands for
the job's shell script, which names the endpoint's URL. What only the cluster can tell is added when a manifest leaves:
the anchor that owns it, who asked for it, and when it expires.
"""

from __future__ import annotations

import hashlib
import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from launcher.config.execution import Kubernetes
from launcher.config.fields import Env, Reference
from launcher.config.kubernetes import KubernetesPod
from launcher.config.values import environment
from launcher.deployments.spec import ServerSpec
from launcher.errors import ConfigError
from launcher.harnesses.spec import HarnessJob
from launcher.plan.document import API_KEY_ENV
from launcher.plan.groups import geometry, group, spread
from launcher.plan.lepton import PACKAGES
from launcher.plan.model import EndpointPlan, JobPlan, Mount

MANAGED_BY = "app.kubernetes.io/managed-by"
MARK = "nv-eval"
INVOCATION, NAME, KIND, TASK, OWNER = (f"nv-eval/{word}" for word in ("invocation", "name", "kind", "task", "owner"))
"""Labels of everything of ours."""
WORKER = "worker"
"""The kind of pods that belong to an endpoint and are not asked."""
SUPERVISOR = "supervisor"
"""The kind of the Job that runs an invocation."""
EXPIRES = "nv-eval/expires"
"""Annotation: seconds since 1970 from when nobody needs it whatever happens."""
QUEUE = "kueue.x-k8s.io/queue-name"
JOB_SCRIPT = "{job_script}"
STATE = "/nv-eval-state"
"""Where the supervisor has its folder of that volume."""
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod has its service account's token."""
ACCOUNT_VARIABLE = "NV_EVAL_SERVICE_ACCOUNT"
"""Variable that tells a launcher in a pod where that is."""
FOLDER = "/nv-eval"
"""Where a job has its folder of the volume for results."""
SLACK = 300
"""Seconds beyond a job's own time-outs after which the cluster ends it."""
GRACE = 10
"""Seconds that a server or a job has to end by itself."""
_LABEL = re.compile(r"(?=.{0,63}$)([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


def anchor_name(invocation: str) -> str:
    """Name of the ConfigMap that owns everything of an invocation, and of its Secret."""
    return f"{MARK}-{invocation}"


def storage(config: Kubernetes, invocation: str) -> str:
    """The folder of one invocation on the volume for results."""
    return f"{config.storage.folder.strip('/')}/{invocation}"


def endpoint(
    config: Kubernetes,
    server: ServerSpec,
    *,
    name: str,
    invocation: str,
    start_timeout: float,
    health_timeout: float,
) -> EndpointPlan:
    """One endpoint with its manifests. Raises ConfigError for everything that no cluster would take."""
    _raise([*_problems(config), *_env_problems("deployment.envs", server.env)])
    nodes, gpus = geometry(config, server)
    labels = _labels(config, invocation, name, "endpoint")
    pod = _pod(config, config.endpoint)
    pod["containers"] = [_server(config, server, invocation, start_timeout, gpus)]
    pod["volumes"] = [volume for volume, _ in _volumes(config, server)]
    template = {"metadata": _pod_metadata(labels, config.endpoint), "spec": _without_empty(pod)}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {**labels, **_queue(config)}},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {NAME: name}},
            "strategy": {"type": "Recreate"},
            "progressDeadlineSeconds": math.ceil(start_timeout + health_timeout) + SLACK,
            "template": template,
        },
    }
    if nodes > 1:
        pod["containers"][0]["command"] = spread(server)
        deployment = group({"name": name, "labels": {**labels, **_queue(config)}}, template, nodes, {KIND: WORKER})
    served = service(service_name(name, nodes), labels, server.port)
    return EndpointPlan(
        name=name,
        server=server,
        start_timeout=start_timeout,
        health_timeout=health_timeout,
        mounts=tuple(_mounts(config, server)),
        request={"apiVersion": "v1", "kind": "List", "items": [deployment, served]},
    )


def service_name(endpoint: str, nodes: int) -> str:
    """Name of the Service of an endpoint; that of a LeaderWorkerSet's is taken by its controller."""
    return endpoint if nodes == 1 else f"http-{endpoint}"


def spans_nodes(spec: EndpointPlan) -> bool:
    """Whether an endpoint is one server over several nodes."""
    return spec.request is not None and spec.request["items"][0]["kind"] == "LeaderWorkerSet"


def route(config: Kubernetes, spec: EndpointPlan, invocation: str) -> tuple[dict[str, Any], str]:
    """The HTTPRoute that leads from the Gateway to an endpoint, and the URL that it has then."""
    access = config.access
    host = str(access.hostname).replace("{name}", spec.name)
    namespace, _, gateway = str(access.gateway).rpartition("/")
    service = service_name(spec.name, 2 if spans_nodes(spec) else 1)
    parent = {"name": gateway} | ({"namespace": namespace} if namespace else {})
    manifest = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": spec.name, "labels": _labels(config, invocation, spec.name, "endpoint")},
        "spec": {
            "parentRefs": [parent],
            "hostnames": [host],
            "rules": [{"backendRefs": [{"name": service, "port": spec.server.port}]}],
        },
    }
    return manifest, f"{access.scheme}://{host}{f':{access.port}' if access.port else ''}"


def service(name: str, labels: Mapping[str, str], port: int) -> dict[str, Any]:
    """The Service of an endpoint, under a name of its own; `labels` are those of the endpoint."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": dict(labels)},
        "spec": {
            "type": "ClusterIP",
            "selector": {NAME: labels[NAME], KIND: "endpoint"},
            "ports": [{"name": "http", "port": port, "targetPort": port, "protocol": "TCP"}],
        },
    }


def job(
    config: Kubernetes,
    run: HarnessJob,
    *,
    name: str,
    invocation: str,
    task: str,
    timeout: float,
    wait: float,
    image: str | None,
    key: Reference | None,
) -> JobPlan:
    """One job with its manifest. `wait`: seconds that it may wait for its endpoint. Raises ConfigError."""
    _raise([*_problems(config), *_env_problems("evaluation.envs", run.env)])
    supervisor_env(config)
    image = image or run.image or config.job_image
    labels = {**_labels(config, invocation, name, "job"), TASK: label_of(task)}
    secrets: Env = {variable: value for variable, value in run.env.items() if isinstance(value, Reference)}
    if key is not None:
        secrets[API_KEY_ENV] = key
    pod = {**_pod(config, config.job), "restartPolicy": "Never"}
    container = {
        "name": "job",
        "image": image,
        "command": ["/bin/sh", "-c", JOB_SCRIPT],
        "env": _envs(secrets, invocation),
        "resources": _resources({}, config.job.cpus, config.job.memory_gib),
        "securityContext": config.job.container_security_context,
    }
    if config.storage.claim is not None:
        claim = {"claimName": config.storage.claim}
        pod["volumes"] = [{"name": "results", "persistentVolumeClaim": claim}]
        path = f"{storage(config, invocation)}/{label_of(task)}-{name}"
        container["volumeMounts"] = [{"name": "results", "mountPath": FOLDER, "subPath": path}]
    pod["containers"] = [_without_empty(container)]
    return JobPlan(
        name=name,
        run=run,
        timeout=timeout,
        image=image,
        packages=_packages(config, run),
        request={
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "labels": {**labels, **_queue(config)}},
            "spec": {
                "backoffLimit": 0,
                "completions": 1,
                "parallelism": 1,
                "activeDeadlineSeconds": math.ceil(timeout + wait) + SLACK,
                "ttlSecondsAfterFinished": config.job_ttl,
                "template": {"metadata": _pod_metadata(labels, config.job), "spec": _without_empty(pod)},
            },
        },
    )


def supervisor_name(invocation: str) -> str:
    """Name of the Job that runs an invocation."""
    return f"{anchor_name(invocation)}-supervisor"


def version() -> str:
    """Version of this program, which the supervisor has to have, too."""
    from launcher import __version__

    return __version__


def supervisor_env(config: Kubernetes) -> Env:
    """Variables of the supervisor's container. Raises ConfigError for a secret that is given by value."""
    return environment("execution.supervisor.envs", config.supervisor.envs)


def supervisor(config: Kubernetes, invocation: str, secrets: Iterable[Reference], *, life: str, yes: bool) -> Any:
    """The Job that runs an invocation, with its state on the volume. `secrets` become variables of their own names.

    `life` tells this one from others that ran the same invocation. Raises ConfigError.
    """
    own = config.supervisor
    packages = own.packages if own.packages is not None else [f"nv-eval-launcher[kubernetes]=={version()}"]
    options = " --yes" if yes else ""
    command = f"python3 -m launcher.cli.main supervise {invocation} --in-cluster{options}"
    install = f"python3 -m pip install --quiet --disable-pip-version-check {shlex.join(packages)}"
    env: Env = {one.env: one for one in secrets if one.env is not None}
    env |= supervisor_env(config) | {"NV_EVAL_HOME": STATE, "NV_EVAL_LIFE": life, ACCOUNT_VARIABLE: ACCOUNT}
    container = {
        "name": "supervisor",
        "command": [
            "/bin/sh",
            "-c",
            f"python3 -c 'import launcher' 2>/dev/null || {install} || exit 1\nexec {command}",
        ],
        "env": _envs(env, invocation),
        "resources": _resources({}, own.cpus, own.memory_gib),
        "securityContext": own.container_security_context,
    }
    name = supervisor_name(invocation)
    labels = _labels(config, invocation, name, SUPERVISOR)
    pod = {**_pod(config, own), "automountServiceAccountToken": True, "restartPolicy": "Never"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "backoffLimit": own.restarts,
            "completions": 1,
            "parallelism": 1,
            "template": {
                "metadata": _pod_metadata(labels, own),
                "spec": _on_state(config, pod, container, invocation, read_only=False),
            },
        },
    }


def reader(config: Kubernetes, invocation: str, command: str, number: int) -> dict[str, Any]:
    """A pod that prints something of the supervisor's state, and ends."""
    name = f"{anchor_name(invocation)}-home-{number}"
    container = {"name": "home", "command": ["/bin/sh", "-c", command]}
    pod = {**_pod(config, config.supervisor), "restartPolicy": "Never", "activeDeadlineSeconds": SLACK}
    del pod["serviceAccountName"]
    labels = _labels(config, invocation, name, "fetch")
    spec = _on_state(config, pod, container, invocation, read_only=True)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def _on_state(
    config: Kubernetes, pod: dict[str, Any], container: dict[str, Any], invocation: str, *, read_only: bool
) -> dict[str, Any]:
    """The pod with its container, which has the supervisor's folder of the volume."""
    mount = {"name": "state", "mountPath": STATE, "subPath": f"{storage(config, invocation)}/{SUPERVISOR}"}
    container = {"image": config.supervisor.image, **container, "volumeMounts": [mount | {"readOnly": read_only}]}
    claim = {"name": "state", "persistentVolumeClaim": {"claimName": config.storage.claim}}
    return _without_empty({**pod, "volumes": [claim], "containers": [_without_empty(container)]})


def notes(config: Kubernetes, server: ServerSpec | None) -> list[str]:
    """What the person should know of how the config was understood."""
    found = []
    if server is not None and server.gpus and config.queue is None and not config.endpoint.node_selector:
        found.append("pods go to any node that has GPUs free; execution.endpoint.node_selector chooses among them")
    if config.storage.claim is None:
        found.append("results come home by the jobs' logs only, up to 8 MiB; execution.storage.claim names a volume")
    return found


def renamed(request: dict[str, Any], name: str) -> dict[str, Any]:
    """The manifests under another name, wherever they have one."""
    first = request["items"][0] if request["kind"] == "List" else request
    old = first["metadata"]["name"]
    found: dict[str, Any] = _replaced(request, old, name)
    return found


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(inner, old, new) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, old, new) for inner in value]
    if isinstance(value, str) and (value == old or value.endswith(f"-{old}")):
        return value.removesuffix(old) + new
    return value


def label_of(text: str) -> str:
    """A text as the value of a label: with a hash where something had to go."""
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "_", text)[:50].strip("-_.")
    return slug if slug == text else f"{slug or 'x'}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


# --- parts of a manifest ----------------------------------------------------------------------------------------------


def _labels(config: Kubernetes, invocation: str, name: str, kind: str) -> dict[str, str]:
    return {**config.labels, MANAGED_BY: MARK, INVOCATION: invocation, NAME: name, KIND: kind}


def _queue(config: Kubernetes) -> dict[str, str]:
    return {} if config.queue is None else {QUEUE: config.queue}


def _pod_metadata(labels: dict[str, str], pod: KubernetesPod) -> dict[str, Any]:
    return _without_empty({"labels": labels, "annotations": pod.annotations})


def _pod(config: Kubernetes, pod: KubernetesPod) -> dict[str, Any]:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE,
        "serviceAccountName": pod.service_account,
        "nodeSelector": pod.node_selector,
        "tolerations": pod.tolerations,
        "affinity": pod.affinity,
        "priorityClassName": pod.priority_class,
        "runtimeClassName": pod.runtime_class,
        "securityContext": pod.security_context,
        "imagePullSecrets": [{"name": name} for name in config.image_pull_secrets],
    }


def _server(config: Kubernetes, server: ServerSpec, invocation: str, start_timeout: float, each: int) -> Any:
    pod = config.endpoint
    gpus = {config.gpu_resource: str(each)} if each else {}
    period = max(1, math.ceil(server.health.interval))
    return _without_empty(
        {
            "name": "server",
            "image": server.image,
            "command": list(server.command),
            "env": _envs(server.env, invocation),
            "ports": [{"name": "http", "containerPort": server.port, "protocol": "TCP"}],
            "resources": _resources(gpus, pod.cpus or server.cpus, pod.memory_gib or server.memory_gib),
            "securityContext": pod.container_security_context,
            "startupProbe": {
                **_question(server),
                "periodSeconds": period,
                "timeoutSeconds": 5,
                "failureThreshold": max(1, math.ceil(start_timeout / period)),
            },
            "readinessProbe": {**_question(server), "periodSeconds": max(5, period), "timeoutSeconds": 5},
            "volumeMounts": [mount for _, mount in _volumes(config, server)],
        }
    )


def _question(server: ServerSpec) -> dict[str, Any]:
    if server.health.path is None:
        return {"tcpSocket": {"port": server.port}}
    return {"httpGet": {"path": server.health.path, "port": server.port}}


def _resources(limits: dict[str, str], cpus: float | None, memory: float | None) -> dict[str, Any]:
    requests = dict(limits)
    if cpus is not None:
        requests["cpu"] = f"{math.ceil(cpus * 1000)}m"
    if memory is not None:
        requests["memory"] = f"{math.ceil(memory * 1024)}Mi"
    return _without_empty({"limits": limits, "requests": requests})


def _volumes(config: Kubernetes, server: ServerSpec) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    if server.shared_memory_mib is not None:
        memory = {"medium": "Memory", "sizeLimit": f"{server.shared_memory_mib}Mi"}
        yield {"name": "shm", "emptyDir": memory}, {"name": "shm", "mountPath": "/dev/shm"}  # noqa: S108  inside a pod
    if config.storage.model_cache is not None and server.cache_path is not None:
        claim = {"claimName": config.storage.model_cache}
        yield {"name": "models", "persistentVolumeClaim": claim}, {"name": "models", "mountPath": server.cache_path}


def _mounts(config: Kubernetes, server: ServerSpec) -> Iterator[Mount]:
    for volume, mount in _volumes(config, server):
        claim = volume.get("persistentVolumeClaim")
        if claim is not None:
            yield Mount(source=claim["claimName"], path=mount["mountPath"])


def _envs(env: Env, invocation: str) -> list[dict[str, Any]]:
    return [_variable(name, value, invocation) for name, value in sorted(env.items())]


def _variable(name: str, value: str | Reference, invocation: str) -> dict[str, Any]:
    if isinstance(value, str):
        return {"name": name, "value": value}
    if value.env is not None:
        ref = {"name": anchor_name(invocation), "key": value.env}
    else:
        secret, _, key = str(value.secret).partition("/")
        ref = {"name": secret, "key": key or name}
    return {"name": name, "valueFrom": {"secretKeyRef": ref}}


def _packages(config: Kubernetes, run: HarnessJob) -> tuple[str, ...]:
    if config.job_packages is not None:
        return tuple(config.job_packages)
    return tuple(PACKAGES[module] for module in run.requires if module in PACKAGES)


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None and value not in ({}, [])}


# --- what no cluster would take ---------------------------------------------------------------------------------------


def _raise(problems: Iterable[str]) -> None:
    found = list(problems)
    if found:
        raise ConfigError(found)


def _problems(config: Kubernetes) -> Iterator[str]:
    for name, value in config.labels.items():
        if name.startswith(("nv-eval/", MANAGED_BY)):
            yield f"execution.labels.{name}: is set by the launcher; choose another name"
        elif not _LABEL.fullmatch(value):
            yield f"execution.labels.{name}: {value!r} is no label: at most 63 letters, digits, -, _ and ."
    for word in ("gateway", "hostname"):
        if config.access.by == "gateway" and getattr(config.access, word) is None:
            yield f"execution.access.{word}: is missing, and execution.access.by is gateway"
    parts = config.storage.folder.split("/")
    if config.storage.folder.startswith("/") or ".." in parts or not any(parts):
        yield f"execution.storage.folder: {config.storage.folder!r} must be a path on the volume, without .. or / first"


def _env_problems(key: str, env: Env) -> Iterator[str]:
    for name in sorted(env):
        if not _VARIABLE.fullmatch(name):
            yield f"{key}.{name}: Kubernetes takes letters, digits, -, _ and . in the name of a variable"
