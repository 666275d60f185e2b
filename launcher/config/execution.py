"""Typed keys of `execution`: one dataclass per place that runs things."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from launcher.config.fields import Count, Gibibytes, Name, NonNegative, Seconds, UsdPerHour, key
from launcher.config.kubernetes import KubernetesAccess, KubernetesPod, KubernetesStorage, KubernetesSupervisor
from launcher.config.lepton import (
    LeptonAccess,
    LeptonAutoscale,
    LeptonEndpoint,
    LeptonStorage,
    SecondsKept,
)
from launcher.config.slurm import SlurmContainer, SlurmJob, SlurmTimes


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Keys that every execution has."""

    type: str = key(doc="where things run; chosen by the config group `execution`")
    output_dir: str = key("./results", "folder for results; each invocation gets a sub-folder of its own")
    start_jobs: Literal["as_ready", "all_ready"] = key(
        "as_ready", "start each job with its own endpoint, or wait until all endpoints answer"
    )
    usd_per_gpu_hour: UsdPerHour | None = key(None, "price used for the cost shown; default: GPU-hours only")


@dataclass(frozen=True, kw_only=True)
class Docker:
    """Keys of the docker runtime."""

    host: str | None = key(None, "socket of Docker or podman; default: DOCKER_HOST, else the usual socket")
    pull: Literal["missing", "always", "never"] = key("missing", "when to pull images")
    model_cache: str | None = key(
        None, "folder or volume mounted as the servers' model cache; default: a volume shared by all invocations"
    )


@dataclass(frozen=True, kw_only=True)
class Local(Execution):
    """This machine."""

    type: Literal["local"] = key("local", "this machine")
    runtime: Literal["process", "docker"] = key("process", "run servers as processes or in containers")
    gpus: Literal["auto"] | list[NonNegative] = key("auto", "GPU numbers to hand out; auto: all that are found")
    cpus: Count | None = key(None, "CPU cores divided among the servers; default: those this process may use")
    memory_gib: Gibibytes | None = key(
        None, "memory divided among the servers; default: what is available at the start"
    )
    stop_grace: Seconds = key(10.0, "time a server has to end by itself before it is killed")
    docker: Docker = key(factory=Docker, doc="settings of the docker runtime")


@dataclass(frozen=True, kw_only=True)
class Lepton(Execution):
    """NVIDIA DGX Cloud Lepton."""

    type: Literal["lepton"] = key("lepton", "NVIDIA DGX Cloud Lepton")
    workspace_id: str | None = key(None, "id of the workspace; default: LEPTON_WORKSPACE_ID, else the one logged in to")
    node_group: str | None = key(None, "node group of the endpoints, by name or id")
    resource_shape: str | None = key(None, "resource shape of an endpoint, for example gpu.1xh100")
    endpoint: LeptonEndpoint = key(factory=LeptonEndpoint, doc="options of the dedicated endpoints")
    access: LeptonAccess = key(factory=LeptonAccess, doc="who may call an endpoint")
    autoscale: LeptonAutoscale = key(factory=LeptonAutoscale, doc="when replicas are added and removed")
    job_node_group: str | None = key(None, "node group of the jobs, by name or id; default: node_group")
    job_resource_shape: str = key("cpu.small", "resource shape of an evaluation job")
    job_image: str = key("python:3.11-slim", "image of evaluation jobs whose task names none")
    job_packages: list[str] | None = key(
        None, "packages that pip installs in a job whose image lacks the harness; default: those of the harness"
    )
    job_ttl: SecondsKept = key(259_200, "time a finished job is kept, should it not be removed")
    image_pull_secrets: list[Name] = key(
        factory=list, doc="the workspace's credentials of image registries, for endpoints and jobs"
    )
    storage: LeptonStorage = key(factory=LeptonStorage, doc="storage of this invocation")


@dataclass(frozen=True, kw_only=True)
class Slurm(Execution):
    """A Slurm cluster, from its login node or over OpenSSH."""

    type: Literal["slurm"] = key("slurm", "a Slurm cluster")
    hostname: Name | None = key(
        None, "login node, as OpenSSH takes it (~/.ssh/config counts); default: Slurm's commands of this machine"
    )
    work_dir: Name = key("~/nv-eval", "folder on the cluster that all its nodes share, for jobs, logs and answers")
    topology: Literal["together", "separate"] = key("together", "endpoint and evaluation in one batch job, or in two")
    account: Name | None = key(None, "account that is charged; default: yours")
    partition: Name | None = key(None, "partition; default: the cluster's own")
    qos: Name | None = key(None, "quality of service")
    constraint: Name | None = key(None, "features that nodes need")
    reservation: Name | None = key(None, "reservation to run in")
    exclusive: bool = key(False, "whole nodes, shared with nobody")
    nodes: Count | None = key(
        None, "nodes of one endpoint; default: as many as its GPUs need, one without gpus_per_node"
    )
    gpus_per_node: Count | None = key(None, "GPUs of a node, where an endpoint may need several nodes")
    gpu_option: Literal["gres", "gpus", "none"] = key(
        "gres", "how GPUs are asked for: --gres=gpu:N, --gpus-per-node=N, or not at all where whole nodes are given"
    )
    gpu_type: Name | None = key(None, "type of the GPUs as the cluster names it, for example h100")
    instances: Count = key(1, "servers of one endpoint behind one address; each has the GPUs of the deployment")
    cpus: Count | None = key(
        None, "CPU cores of each node of an endpoint; default: the deployment's, else the cluster's"
    )
    memory_gib: Gibibytes | None = key(
        None, "memory of each node of an endpoint; default: the deployment's, else the cluster's"
    )
    arrays: bool = key(True, "tasks whose requests are equal are submitted together, as one job array")
    times: SlurmTimes = key(factory=SlurmTimes, doc="time limits")
    job: SlurmJob = key(factory=SlurmJob, doc="evaluation jobs that have no endpoint in them")
    container: SlurmContainer = key(factory=SlurmContainer, doc="containers")
    python: Name = key("python3", "Python of the nodes, with the harness and with what servers of ours need")
    prologue: list[Name] = key(factory=list, doc="shell lines that a batch job runs first: module load, activate")
    mail: Name | None = key(None, "address that Slurm writes to when a job ends or fails")
    options: list[Name] = key(factory=list, doc="further options of sbatch, each as --name or --name=value")


@dataclass(frozen=True, kw_only=True)
class Kubernetes(Execution):
    """A Kubernetes cluster."""

    type: Literal["kubernetes"] = key("kubernetes", "a Kubernetes cluster")
    context: str | None = key(None, "context of the kubeconfig; default: its current one, inside a pod its own cluster")
    kubeconfig: str | None = key(None, "file; default: KUBECONFIG, else ~/.kube/config")
    namespace: Name | None = key(None, "namespace; default: that of the context")
    gpu_resource: Name = key("nvidia.com/gpu", "how the cluster calls a GPU")
    gpus_per_node: Count | None = key(
        None, "GPUs of a node; an endpoint that needs more gets several nodes, by a LeaderWorkerSet"
    )
    nodes: Count | None = key(None, "nodes of one endpoint; default: as many as gpus_per_node makes of its GPUs")
    labels: dict[str, str] = key(factory=dict, doc="labels of everything that is created, beside those of nv-eval")
    queue: Name | None = key(None, "local queue of Kueue that endpoints and jobs wait in")
    image_pull_secrets: list[Name] = key(factory=list, doc="secrets with the credentials of image registries")
    endpoint: KubernetesPod = key(factory=KubernetesPod, doc="pods of the endpoints")
    job: KubernetesPod = key(factory=KubernetesPod, doc="pods of the evaluation jobs")
    job_image: str = key("python:3.11-slim", "image of evaluation jobs whose task names none")
    job_packages: list[str] | None = key(
        None, "packages that pip installs in a job whose image lacks the harness; default: those of the harness"
    )
    job_ttl: SecondsKept = key(259_200, "time a finished job is kept, should it not be removed")
    storage: KubernetesStorage = key(factory=KubernetesStorage, doc="volumes")
    access: KubernetesAccess = key(factory=KubernetesAccess, doc="how people reach endpoints of nv-eval endpoints up")
    supervisor: KubernetesSupervisor = key(
        factory=KubernetesSupervisor, doc="the pod that runs everything, with --detach=cluster"
    )


AnyExecution = Local | Lepton | Kubernetes | Slurm

EXECUTIONS: dict[str, type[AnyExecution]] = {
    "local": Local,
    "lepton": Lepton,
    "kubernetes": Kubernetes,
    "slurm": Slurm,
}
