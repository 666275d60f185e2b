"""Typed keys of `execution: slurm` that are groups of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from launcher.config.fields import Count, Gibibytes, Name, Seconds, key


@dataclass(frozen=True, kw_only=True)
class SlurmJob:
    """Where evaluation jobs go with `topology: separate`, and jobs of endpoints that exist already."""

    partition: Name | None = key(None, "partition of these jobs, for example one without GPUs; default: partition")
    qos: Name | None = key(None, "quality of service of these jobs; default: qos")
    constraint: Name | None = key(None, "features that their nodes need; default: constraint")
    cpus: Count = key(2, "CPU cores of such a job")
    memory_gib: Gibibytes | None = key(None, "memory of such a job; default: the cluster's own")


@dataclass(frozen=True, kw_only=True)
class SlurmContainer:
    """How the server runs."""

    runtime: Literal["none", "pyxis", "apptainer"] = key(
        "none", "run servers as programs of the node, or in containers by Pyxis or Apptainer"
    )
    mounts: list[Name] = key(factory=list, doc="folders of the cluster inside containers, as SOURCE:TARGET[:ro]")
    model_cache: Name | None = key(
        None, "folder of the cluster where servers keep models; default: that of the image, or ~/.cache/huggingface"
    )
    job_image: Name | None = key(None, "image of evaluation jobs whose task names none; default: a program of the node")
    options: list[Name] = key(factory=list, doc="further options of srun (pyxis) or apptainer exec, one a line")


@dataclass(frozen=True, kw_only=True)
class SlurmTimes:
    """How long things may take on the cluster."""

    limit: Seconds | None = key(
        None, "time limit of one batch job, rounded up to minutes; default: all time-outs of its task together"
    )
    total: Seconds | None = key(
        None,
        "time limit of a task over all batch jobs that continue it; default: limit, or all its time-outs if longer",
    )
    warning: Seconds = key(60.0, "how long before its time limit a batch job is warned, to stop and be continued")
    queue: Seconds = key(604_800.0, "how long a task may wait for its nodes before it is given up")
