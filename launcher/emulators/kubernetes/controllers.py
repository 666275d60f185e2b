"""The controllers: what they find wanted and not there they make, what nobody owns they delete."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import socket
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from launcher.emulators.common.clock import Clock
from launcher.emulators.kubernetes.errors import ApiError
from launcher.emulators.kubernetes.kinds import (
    CLAIMS,
    CRON_JOBS,
    DEPLOYMENTS,
    JOBS,
    LEADER_WORKER_SETS,
    NODES,
    PODS,
    REPLICA_SETS,
    Kind,
)
from launcher.emulators.kubernetes.placing import liked, unfit
from launcher.emulators.kubernetes.quantities import number, requested, shown
from launcher.emulators.kubernetes.selectors import Json
from launcher.emulators.kubernetes.store import Store, owned_by, owner, seconds, stamp

LETTERS = string.ascii_lowercase + string.digits
OVER = ("Succeeded", "Failed")
_FIRST_GROUP = 0x7F610000
"""127.97.0.0: addresses of leaders of groups, which name servers would tell."""
FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"


def name_taking(prefix: str, dice: random.Random) -> str:
    """A name with a suffix."""
    return f"{prefix}-{''.join(dice.choices(LETTERS, k=5))}"


def is_leaving(thing: Json) -> bool:
    """Whether its deletion has begun."""
    return bool(thing["metadata"].get("deletionTimestamp"))


def phase(pod: Json) -> str:
    """Its phase."""
    return str((pod.get("status") or {}).get("phase", "Pending"))


def is_ready(pod: Json) -> bool:
    """Whether it is Ready."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def condition(type_: str, status: bool, reason: str, message: str, now: str) -> Json:
    """A condition of a status."""
    return {
        "type": type_,
        "status": "True" if status else "False",
        "reason": reason,
        "message": message,
        "lastTransitionTime": now,
        "lastUpdateTime": now,
    }


@dataclass(frozen=True, kw_only=True)
class Controllers:
    """All of them. `admit` may refuse a pod, `delete` begins a deletion, `tell` writes an event."""

    store: Store
    clock: Clock
    dice: random.Random
    admit: Callable[[Kind, Json], None]
    delete: Callable[[Kind, Json, str], None]
    tell: Callable[[Kind, Json, str, str], None]

    def step(self) -> None:
        """One look at everything."""
        pods = self.store.all(PODS)
        by_owner: dict[str, list[Json]] = {}
        for pod in (*pods, *self.store.all(REPLICA_SETS)):
            for reference in pod["metadata"].get("ownerReferences") or ():
                by_owner.setdefault(reference["uid"], []).append(pod)
        for deployment in self.store.all(DEPLOYMENTS):
            self._deployment(deployment, by_owner.get(deployment["metadata"]["uid"], []))
        for group in self.store.all(LEADER_WORKER_SETS):
            self._group(group, by_owner.get(group["metadata"]["uid"], []))
        for replicas in self.store.all(REPLICA_SETS):
            self._replicas(replicas, by_owner.get(replicas["metadata"]["uid"], []))
        for timed in self.store.all(CRON_JOBS):
            self._timed(timed)
        for job in self.store.all(JOBS):
            self._job(job, by_owner.get(job["metadata"]["uid"], []))
        self._schedule()

    # --- deployments --------------------------------------------------------------------------------------------------

    def _deployment(self, deployment: Json, owned: list[Json]) -> None:
        spec, metadata = deployment["spec"], deployment["metadata"]
        if is_leaving(deployment):
            return
        template = json.dumps(spec["template"], sort_keys=True)
        digest = hashlib.sha256(template.encode()).hexdigest()[:10]
        current = next((one for one in owned if one["metadata"]["labels"].get("pod-template-hash") == digest), None)
        for old in owned:
            if old is not current and old["spec"]["replicas"]:
                self.store.amend(REPLICA_SETS, old, spec={**old["spec"], "replicas": 0})
        if current is None:
            if any((old.get("status") or {}).get("replicas") for old in owned) and _recreates(spec):
                return
            current = self.store.create(REPLICA_SETS, self._new_replicas(deployment, digest))
        elif current["spec"]["replicas"] != spec.get("replicas", 1):
            current = self.store.amend(
                REPLICA_SETS, current, spec={**current["spec"], "replicas": spec.get("replicas", 1)}
            )
        known = current.get("status") or {}
        self._say_deployment(deployment, metadata["generation"], known)

    def _new_replicas(self, deployment: Json, digest: str) -> Json:
        spec, metadata = copy.deepcopy(deployment["spec"]), deployment["metadata"]
        labels = {**(spec["template"]["metadata"].get("labels") or {}), "pod-template-hash": digest}
        template = {**spec["template"], "metadata": {**spec["template"]["metadata"], "labels": labels}}
        chosen = {**spec["selector"].get("matchLabels", {}), "pod-template-hash": digest}
        return {
            "metadata": {
                "name": f"{metadata['name']}-{digest}",
                "namespace": metadata["namespace"],
                "labels": labels,
                "ownerReferences": [owner(DEPLOYMENTS, deployment)],
            },
            "spec": {"replicas": spec.get("replicas", 1), "selector": {"matchLabels": chosen}, "template": template},
        }

    def _say_deployment(self, deployment: Json, generation: int, known: Json) -> None:
        wanted, ready = deployment["spec"].get("replicas", 1), known.get("readyReplicas", 0)
        now = _since(deployment, "Available", ready >= wanted, self.store.now())
        available = ("MinimumReplicasAvailable", "MinimumReplicasUnavailable")[ready < wanted]
        conditions = [condition("Available", ready >= wanted, available, "", now)]
        conditions += [c for c in known.get("conditions", []) if c["type"] == "ReplicaFailure"]
        status = {
            "observedGeneration": generation,
            "replicas": known.get("replicas", 0),
            "updatedReplicas": known.get("replicas", 0),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, wanted - ready),
            "conditions": conditions,
        }
        if deployment.get("status") != status:
            self.store.amend(DEPLOYMENTS, deployment, status=status)

    def _replicas(self, replicas: Json, pods: list[Json]) -> None:
        if is_leaving(replicas):
            return
        alive = [pod for pod in pods if not is_leaving(pod) and phase(pod) not in OVER]
        wanted, failure = replicas["spec"]["replicas"], ""
        for _ in range(wanted - len(alive)):
            failure = self._add_pod(REPLICA_SETS, replicas, replicas["spec"]["template"], {})
            if failure:
                break
        for pod in alive[wanted:]:
            self.delete(PODS, pod, "")
        ready = sum(is_ready(pod) for pod in alive)
        status: Json = {"replicas": len(pods), "readyReplicas": ready, "availableReplicas": ready}
        if failure:
            since = _since(replicas, "ReplicaFailure", True, self.store.now())
            status["conditions"] = [condition("ReplicaFailure", True, "FailedCreate", failure, since)]
        if replicas.get("status") != status:
            self.store.amend(REPLICA_SETS, replicas, status=status)

    def _add_pod(self, kind: Kind, parent: Json, template: Json, labels: Json, name: str = "") -> str:
        """Why it cannot be made; empty if it was."""
        metadata = copy.deepcopy(template.get("metadata") or {})
        name = name or name_taking(parent["metadata"]["name"], self.dice)
        pod = {
            "metadata": {
                **metadata,
                "name": name,
                "namespace": parent["metadata"]["namespace"],
                "labels": {**(metadata.get("labels") or {}), **labels},
                "ownerReferences": [owner(kind, parent)],
            },
            "spec": copy.deepcopy(template["spec"]),
            "status": {"phase": "Pending"},
        }
        try:
            self.admit(PODS, pod)
        except ApiError as error:
            self.tell(kind, parent, "FailedCreate", f"Error creating: {error.message}")
            return error.message
        self.store.create(PODS, pod)
        return ""

    # --- groups -------------------------------------------------------------------------------------------------------

    def _group(self, group: Json, pods: list[Json]) -> None:
        """A LeaderWorkerSet: for each replica a leader, and workers once it is there."""
        if is_leaving(group):
            return
        spec, name = group["spec"], group["metadata"]["name"]
        template, wanted = spec["leaderWorkerTemplate"], spec.get("replicas", 1)
        found = {pod["metadata"]["name"]: pod for pod in pods}
        for place in range(wanted):
            for index in range(template.get("size", 1)):
                leader = f"{name}-{place}"
                pod = f"{leader}-{index}" if index else leader
                if pod in found and phase(found[pod]) in OVER and not is_leaving(found[pod]):
                    self.delete(PODS, found[pod], "")
                elif pod not in found and (not index or leader in found):
                    kind = "leaderTemplate" if not index and "leaderTemplate" in template else "workerTemplate"
                    self._add_member(group, template, kind, pod, (place, index))
        ready = [one for one in found.values() if is_ready(one)]
        groups = len(ready) // max(1, template.get("size", 1))
        status = {"replicas": wanted, "readyReplicas": groups, "updatedReplicas": wanted}
        since = _since(group, "Available", groups >= wanted, self.store.now())
        reason = "AllGroupsReady" if groups >= wanted else "GroupsProgressing"
        told: Json = {**status, "conditions": [condition("Available", groups >= wanted, reason, "", since)]}
        if group.get("status") != told:
            self.store.amend(LEADER_WORKER_SETS, group, status=told)

    def _add_member(self, group: Json, template: Json, kind: str, name: str, place: tuple[int, int]) -> None:
        group_index, index = place
        pod = copy.deepcopy(template[kind])
        address = socket.inet_ntoa(
            (_FIRST_GROUP + int(group["metadata"]["uid"][:4], 16) + group_index).to_bytes(4, "big")
        )
        known = {"LWS_LEADER_ADDRESS": address, "LWS_GROUP_SIZE": template.get("size", 1), "LWS_WORKER_INDEX": index}
        told = [{"name": variable, "value": str(value)} for variable, value in known.items()]
        for container in pod["spec"]["containers"]:
            container["env"] = [*told, *container.get("env", ())]
        mark = "leaderworkerset.sigs.k8s.io"
        labels = {f"{mark}/name": group["metadata"]["name"], f"{mark}/group-index": str(group_index)}
        labels[f"{mark}/worker-index"] = str(index)
        self._add_pod(LEADER_WORKER_SETS, group, pod, labels, name)

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def _job(self, job: Json, pods: list[Json]) -> None:
        status = copy.deepcopy(job.get("status") or {})
        ended = [c for c in status.get("conditions", []) if c["type"] in ("Complete", "Failed")]
        if ended:
            self._expire(job, status)
            return
        if is_leaving(job) or job["spec"].get("suspend"):
            return
        status.setdefault("startTime", self.store.now())
        dead = [pod for pod in pods if phase(pod) == "Failed" or (is_leaving(pod) and phase(pod) != "Succeeded")]
        done = [pod for pod in pods if phase(pod) == "Succeeded"]
        active = [pod for pod in pods if pod not in dead and pod not in done]
        status["failed"] = max(len(dead), status.get("failed", 0))
        status |= {"succeeded": len(done), "active": len(active), "ready": sum(map(is_ready, active))}
        why = self._why_failed(job, status)
        now = self.store.now()
        if done:
            done_now = condition(
                "Complete", True, "CompletionsReached", "Reached expected number of succeeded pods", now
            )
            status |= {"conditions": [done_now], "completionTime": now, "active": 0}
        elif why is not None:
            for pod in active:
                self.delete(PODS, pod, "")
            status |= {"conditions": [condition("Failed", True, *why, now)], "active": 0}
            self.tell(JOBS, job, *why)
        elif not active:
            labels = {"job-name": job["metadata"]["name"], "batch.kubernetes.io/job-name": job["metadata"]["name"]}
            self._add_pod(JOBS, job, job["spec"]["template"], labels)
        if done or why is not None:
            self.store.note_end(job)
        if job.get("status") != status:
            self.store.amend(JOBS, job, status=status)

    def _timed(self, timed: Json) -> None:
        """A CronJob: the Job of its last time that was due, and no more ended ones than it keeps."""
        spec, status = timed["spec"], copy.deepcopy(timed.get("status") or {})
        own = [job for job in self.store.all(JOBS, timed["metadata"]["namespace"]) if _is_of(job, timed)]
        active = [job for job in own if not _ended(job)]
        status["active"] = [{"kind": "Job", "name": job["metadata"]["name"]} for job in active]
        since = status.get("lastScheduleTime") or timed["metadata"]["creationTimestamp"]
        due = last_due(spec["schedule"], spec.get("timeZone"), seconds(since), self.clock.now())
        late = spec.get("startingDeadlineSeconds")
        if due is not None and not spec.get("suspend") and not is_leaving(timed):
            is_too_late = late is not None and self.clock.now() > due + late
            waits = bool(active) and spec.get("concurrencyPolicy") == "Forbid"
            if not is_too_late and not waits:
                for job in active if spec.get("concurrencyPolicy") == "Replace" else ():
                    self.delete(JOBS, job, "Background")
                self._begin_timed(timed, due)
                status["lastScheduleTime"] = stamp(due)
        for ending, kept in (("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit")):
            done = [job for job in own if _ended(job) == ending and not is_leaving(job)]
            done.sort(key=lambda job: str(job["metadata"]["creationTimestamp"]), reverse=True)
            for job in done[spec.get(kept, 3 if ending == "Complete" else 1) :]:
                self.delete(JOBS, job, "Background")
        if timed.get("status") != status:
            self.store.amend(CRON_JOBS, timed, status=status)

    def _begin_timed(self, timed: Json, due: float) -> None:
        template, metadata = copy.deepcopy(timed["spec"]["jobTemplate"]), timed["metadata"]
        name = f"{metadata['name']}-{int(due // 60)}"
        if self.store.find(JOBS, metadata["namespace"], name) is None:
            own = {"name": name, "namespace": metadata["namespace"], "ownerReferences": [owner(CRON_JOBS, timed)]}
            spec = template["spec"]
            spec["template"].setdefault("metadata", {}).setdefault("labels", {})
            self.store.create(JOBS, {"metadata": {**(template.get("metadata") or {}), **own}, "spec": spec})

    def _why_failed(self, job: Json, status: Json) -> tuple[str, str] | None:
        limit = job["spec"].get("activeDeadlineSeconds")
        if limit is not None and self.clock.now() >= seconds(status["startTime"]) + limit:
            return "DeadlineExceeded", "Job was active longer than specified deadline"
        if status["failed"] > job["spec"].get("backoffLimit", 6):
            return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        return None

    def _expire(self, job: Json, status: Json) -> None:
        kept, ended = job["spec"].get("ttlSecondsAfterFinished"), status["conditions"][-1]["lastTransitionTime"]
        if kept is not None and self.clock.now() >= seconds(ended) + kept and not is_leaving(job):
            self.delete(JOBS, job, "Foreground")

    # --- scheduling ---------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        waiting = [p for p in self.store.all(PODS) if not p["spec"].get("nodeName") and not is_leaving(p)]
        waiting = [pod for pod in waiting if phase(pod) not in OVER]
        if not waiting:
            return
        nodes = self.store.all(NODES)
        free = {node["metadata"]["name"]: _free(node, self.store.all(PODS)) for node in nodes}
        for pod in waiting:
            asked = requested(pod)
            chosen, why = self._place(pod, nodes, free, asked)
            if chosen is not None:
                for name, amount in asked.items():
                    free[chosen][name] -= amount
                bound = {"phase": "Pending", "conditions": [_scheduled(self.store.now(), "")]}
                self.store.amend(PODS, pod, spec={**pod["spec"], "nodeName": chosen}, status=bound)
            elif _message(pod) != why:
                status = {"phase": "Pending", "conditions": [_scheduled(self.store.now(), why)]}
                self.store.amend(PODS, pod, status=status)
                self.tell(PODS, pod, "FailedScheduling", why)

    def _place(
        self, pod: Json, nodes: list[Json], free: dict[str, dict[str, float]], asked: dict[str, float]
    ) -> tuple[str | None, str]:
        """The node, or why there is none."""
        namespace = pod["metadata"]["namespace"]
        for volume in pod["spec"].get("volumes", ()):
            claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            if claim is not None and self.store.find(CLAIMS, namespace, claim) is None:
                return None, f'0/{len(nodes)} nodes are available: persistentvolumeclaim "{claim}" not found.'
        reasons: dict[str, int] = {}
        for node in sorted(nodes, key=lambda node: -liked(pod, node)):
            room, why = free[node["metadata"]["name"]], unfit(pod, node)
            short = [f"Insufficient {name}" for name, amount in asked.items() if amount > room.get(name, 0.0)]
            if not why and not short:
                return str(node["metadata"]["name"]), ""
            for reason in [why] if why else short:
                reasons[reason] = reasons.get(reason, 0) + 1
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        return None, f"0/{len(nodes)} nodes are available: {told}."


@dataclass
class Collector:
    """The garbage collector: what lost its owners goes, what waits for its dependents goes after them."""

    store: Store
    clock: Clock
    delete: Callable[[Kind, Json, str], None]
    resync: float = 0.0
    _seen: int = -1
    _missed: dict[str, float] | None = None

    def step(self) -> None:
        """Look at all owners, if anything has changed."""
        if self._seen == self.store.version and not self._missed:
            return
        self._seen = self.store.version
        everything = [*self.store.everything()]
        alive = {thing["metadata"]["uid"] for _, thing in everything}
        missed: dict[str, float] = {}
        for kind, thing in everything:
            references = thing["metadata"].get("ownerReferences") or []
            if references and not any(one["uid"] in alive for one in references) and not is_leaving(thing):
                uid = thing["metadata"]["uid"]
                missed[uid] = (self._missed or {}).get(uid, self.clock.now())
                if self.clock.now() >= missed[uid] + self.resync:
                    self.delete(kind, thing, "Background")
        self._missed = missed
        for kind, thing in everything:
            waits_for = [f for f in (FOREGROUND, ORPHAN) if f in (thing["metadata"].get("finalizers") or [])]
            if is_leaving(thing) and waits_for:
                self._finish(kind, thing, waits_for[0], everything)

    def _finish(self, kind: Kind, thing: Json, finalizer: str, everything: Iterable[tuple[Kind, Json]]) -> None:
        uid = thing["metadata"]["uid"]
        dependents = [(k, one) for k, one in everything if owned_by(one, uid)]
        if finalizer == ORPHAN:
            for dependent_kind, one in dependents:
                kept = [r for r in one["metadata"]["ownerReferences"] if r["uid"] != uid]
                self.store.amend(dependent_kind, one, metadata={**one["metadata"], "ownerReferences": kept})
            dependents = []
        for dependent_kind, one in dependents:
            if not is_leaving(one) and self.store.find(
                dependent_kind, one["metadata"].get("namespace", ""), one["metadata"]["name"]
            ):
                self.delete(dependent_kind, one, "Foreground")
        now = self.store.find(kind, thing["metadata"].get("namespace", ""), thing["metadata"]["name"])
        if not dependents and now is not None:
            kept = [f for f in now["metadata"]["finalizers"] if f != finalizer]
            self.store.amend(kind, now, metadata={**now["metadata"], "finalizers": kept})


def over_quota(quota: Json, pod: Json, pods: list[Json]) -> str | None:
    """Why one more pod is too much, in the words of an API server."""
    asked = {"pods": 1.0, **{f"requests.{name}": amount for name, amount in requested(pod).items()}}
    for name, limit in quota["spec"]["hard"].items():
        counted = [p for p in pods if phase(p) not in OVER]
        used = sum(1.0 if name == "pods" else requested(p).get(name.removeprefix("requests."), 0.0) for p in counted)
        wanted = asked.get(name, 0.0)
        if wanted and used + wanted > number(limit):
            told = f"requested: {name}={shown(wanted)}, used: {name}={shown(used)}, limited: {name}={limit}"
            return f"exceeded quota: {quota['metadata']['name']}, {told}"
    return None


def last_due(schedule: str, zone: str | None, since: float, now: float) -> float | None:
    """The last time of a schedule after `since` and not after `now`, in seconds since 1970; None if there is none."""
    from cronsim import CronSim

    began = datetime.fromtimestamp(since, ZoneInfo(zone or "UTC"))
    due = None
    for moment in CronSim(schedule, began):
        if moment.timestamp() > now:
            break
        due = moment.timestamp()
    return due


def _is_of(job: Json, timed: Json) -> bool:
    return owned_by(job, timed["metadata"]["uid"])


def _ended(job: Json) -> str:
    """Complete or Failed; empty while it has not ended."""
    conditions = (job.get("status") or {}).get("conditions") or []
    return next((str(c["type"]) for c in conditions if c["type"] in ("Complete", "Failed")), "")


def _recreates(spec: Json) -> bool:
    return bool((spec.get("strategy") or {}).get("type") == "Recreate")


def _since(thing: Json, type_: str, status: bool, now: str) -> str:
    word = "True" if status else "False"
    found = (thing.get("status") or {}).get("conditions", [])
    return next((str(c["lastTransitionTime"]) for c in found if c["type"] == type_ and c["status"] == word), now)


def _free(node: Json, pods: list[Json]) -> dict[str, float]:
    free = {name: number(amount) for name, amount in node["status"]["allocatable"].items()}
    for pod in pods:
        if pod["spec"].get("nodeName") == node["metadata"]["name"] and phase(pod) not in OVER:
            for name, amount in requested(pod).items():
                free[name] = free.get(name, 0.0) - amount
    return free


def _scheduled(now: str, why: str) -> Json:
    found = {"type": "PodScheduled", "status": "False" if why else "True", "lastTransitionTime": now}
    return {**found, "reason": "Unschedulable", "message": why} if why else found


def _message(pod: Json) -> str:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return next((str(c.get("message", "")) for c in conditions if c["type"] == "PodScheduled"), "")
