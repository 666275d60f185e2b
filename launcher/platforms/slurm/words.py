"""States and reasons of Slurm in words for people. slurm.schedmd.com/job_reason_codes.html"""

from __future__ import annotations

WAITS = {
    "Resources": "waits for free nodes",
    "Priority": "waits behind jobs of higher priority",
    "BeginTime": "waits for its start time; after a requeue Slurm lets about two minutes pass",
    "Dependency": "waits for another job",
    "Reservation": "waits for its reservation to begin",
    "ReqNodeNotAvail": "the nodes that it needs are down, drained or reserved",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition is inactive",
    "Licenses": "waits for a license",
    "QOSGrpGRES": "the GPUs of its quality of service are all in use",
    "QOSMaxGRESPerUser": "you use as many GPUs as its quality of service allows",
    "QOSMaxJobsPerUserLimit": "you run as many jobs as its quality of service allows",
    "AssocGrpGRES": "the GPUs of its account are all in use",
    "AssocGrpGRESMinutes": "the GPU time of its account is used up or reserved",
    "AssocGrpCPUMinutesLimit": "the CPU time of its account is used up or reserved",
    "AssocMaxJobsLimit": "its account runs as many jobs as it may",
    "NodeDown": "a node that it needs is down",
    "Cleaning": "its last run is being cleaned up",
}
"""Reasons for which a job waits, and may start later."""
NEVER = {
    "DependencyNeverSatisfied": "it depends on a job that can never end as it should; cancel it",
    "BadConstraints": "no node has what it asks for; check gpu_type, constraint, cpus and memory_gib of execution",
    "PartitionNodeLimit": "it asks for more nodes than its partition gives; lower execution.nodes",
    "PartitionConfig": "it asks for more than its partition gives; check partition, nodes and times.limit of execution",
    "PartitionTimeLimit": "its time limit is above the partition's; lower execution.times.limit",
    "InvalidAccount": "its account is not valid; set execution.account",
    "InvalidQOS": "its quality of service is not valid; set execution.qos",
    "AccountNotAllowed": "its account may not use the partition; set execution.account or partition",
    "QOSNotAllowed": "its quality of service is not allowed there; set execution.qos or partition",
    "QOSMaxWallDurationPerJobLimit": "its time limit is above that of its quality of service; lower times.limit",
    "AssocMaxWallDurationPerJobLimit": "its time limit is above that of its account; lower times.limit",
    "QOSMaxGRESPerJob": "it asks for more GPUs than its quality of service gives one job",
    "AssocMaxGRESPerJob": "it asks for more GPUs than its account gives one job",
    "QOSMinGRES": "it asks for fewer GPUs than its quality of service wants",
    "JobHeldAdmin": "an administrator holds it; ask them",
    "JobHeldUser": "somebody holds it: scontrol release",
    "JobHoldMaxRequeue": "it was requeued as often as the cluster allows, so Slurm holds it; look at its nodes",
    "launch_failed_requeued_held": "it could not be started on its nodes, so Slurm holds it; look at its batch.log",
    "launch failed requeued held": "it could not be started on its nodes, so Slurm holds it; look at its batch.log",
}
"""Reasons for which a job that waits will wait for ever, unless somebody does something."""
ENDS = {
    "TIMEOUT": "Slurm ended it at its time limit; raise execution.times.limit",
    "DEADLINE": "Slurm ended it at its deadline",
    "OUT_OF_MEMORY": "it ran out of memory; raise execution.memory_gib",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not boot",
    "PREEMPTED": "it gave its place to a job of higher priority",
    "CANCELLED": "it was cancelled from outside (scancel)",
    "REVOKED": "it was moved to another cluster of the federation",
    "FAILED": "it failed",
    "COMPLETED": "it ended",
}


def waiting(state: str, reason: str) -> tuple[str, bool]:
    """Why a job waits, and whether it waits for nothing."""
    if state in ("REQUEUE_HOLD", "SPECIAL_EXIT"):
        return f"{state}: Slurm holds it after a requeue; look at its batch.log, then scontrol release", True
    if state == "SUSPENDED":
        return "SUSPENDED: other jobs have its nodes for a while", False
    known = NEVER.get(reason)
    if known is not None:
        return f"{reason}: {known}", True
    return (f"{reason}: {WAITS[reason]}" if reason in WAITS else reason or state.lower()), False


def ended(job: str, state: str) -> str:
    """How a job ended."""
    return f"Slurm job {job}: {state}: {ENDS.get(state, 'it ended')}"


REFUSALS = {
    "Requested node configuration is not available": (
        "no node has what it asks for; check the parallel sizes of deployment, and gpus_per_node, gpu_type, cpus and "
        "memory_gib of execution"
    ),
    "Invalid partition name": "there is no such partition; set execution.partition to one that sinfo lists",
    "Invalid account": "account and partition do not go together; set execution.account",
    "Invalid qos": "there is no such quality of service; set execution.qos",
    "Invalid feature": "no node has this feature; check execution.constraint",
    "Requested reservation": "there is no such reservation, or it is not yours; check execution.reservation",
    "time limit": "the time limit is too long; lower execution.times.limit",
    "Invalid generic resource": "the cluster has no such GPUs; check execution.gpu_type and gpu_option",
    "More processors requested": "no node has so many CPU cores; lower execution.cpus",
    "Memory specification": "no node has so much memory; lower execution.memory_gib",
}


def refused(said: str) -> str:
    """What sbatch said, with what to do where that is known."""
    line = next((line for line in reversed(said.splitlines()) if line.strip()), "sbatch failed")
    line = line.strip().removeprefix("sbatch: error: ").removeprefix("Batch job submission failed: ")
    line = line.removeprefix("allocation failure: ")
    advice = next((advice for words, advice in REFUSALS.items() if words.lower() in line.lower()), "")
    return f"Slurm refuses it: {line}{f'; {advice}' if advice else ''}"
