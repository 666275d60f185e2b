"""The emulated cluster: what exists, who may do what, and what time does to it."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import random
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from launcher.emulators.common.clock import Clock
from launcher.emulators.common.faults import FaultBook, SlowDelete
from launcher.emulators.kubernetes.accounts import Accounts
from launcher.emulators.kubernetes.config import GPU, Config, User
from launcher.emulators.kubernetes.controllers import (
    FOREGROUND,
    ORPHAN,
    OVER,
    Collector,
    Controllers,
    condition,
    is_leaving,
    over_quota,
    phase,
)
from launcher.emulators.kubernetes.errors import forbidden
from launcher.emulators.kubernetes.kinds import (
    ACCOUNTS,
    BINDINGS,
    CLAIMS,
    EVENTS,
    GATEWAYS,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    QUOTAS,
    ROLES,
    SERVICES,
    Kind,
)
from launcher.emulators.kubernetes.network import Network
from launcher.emulators.kubernetes.quantities import requested, shown
from launcher.emulators.kubernetes.running import Machine, RunningPod, Simulation
from launcher.emulators.kubernetes.selectors import Json
from launcher.emulators.kubernetes.store import Store, seconds

FINALIZERS = {"Foreground": (FOREGROUND,), "Orphan": (ORPHAN,)}


@dataclass
class Cluster:
    """One cluster. Nothing here waits; `tick` makes time pass for everything in it."""

    config: Config
    clock: Clock
    root: Path
    simulations: Mapping[str, Simulation]
    pods: dict[str, RunningPod] = field(default_factory=dict)
    """Those that are bound to a node, by uid."""
    ever: list[tuple[Kind, Json]] = field(default_factory=list)
    """Everything that was ever created through the API, as it was created."""
    tokens: dict[str, User] = field(default_factory=dict)
    api: Callable[[], int] = lambda: 0
    """Port of the API server."""
    _slow: dict[str, float] = field(default_factory=dict)
    _logs: dict[str, RunningPod] = field(default_factory=dict)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def __post_init__(self) -> None:
        config = self.config
        self.faults = FaultBook(config.faults, config.seed, self.clock.now)
        self.store = Store(self.clock)
        self.tokens |= {user.token: user for user in config.users}
        self._dice = random.Random(config.seed)  # noqa: S311 - repeatable on purpose
        self.accounts = Accounts(self.root, self._spawn, self.add_account, self.api)
        self.machine = Machine(
            config=config,
            clock=self.clock,
            faults=self.faults,
            store=self.store,
            root=self.root,
            owner=f"kubernetes-{secrets.token_hex(4)}",
            simulation=self._simulation,
            spawn=self._spawn,
            accounts=self.accounts,
        )
        self.network = Network(self.store, self.pods, self._spawn)
        self._controllers = Controllers(
            store=self.store,
            clock=self.clock,
            dice=self._dice,
            admit=self.admit,
            delete=self.begin_deletion,
            tell=self.tell,
        )
        self._collector = Collector(self.store, self.clock, self.begin_deletion, config.timing.resync)
        self._furnish()

    def _furnish(self) -> None:
        for name in self.config.namespaces:
            self.store.create(NAMESPACES, {"metadata": {"name": name}, "status": {"phase": "Active"}})
            self.store.create(ACCOUNTS, {"metadata": {"name": "default", "namespace": name}})
        for claim in self.config.claims:
            spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "100Gi"}}}
            metadata = {"name": claim, "namespace": "default"}
            self.store.create(CLAIMS, {"metadata": metadata, "spec": spec, "status": {"phase": "Bound"}})
        for name in self.config.gateways:
            port = self.network.open_gateway(name)
            gateway: Json = {"metadata": {"name": name, "namespace": "default"}}
            listener = {"name": "http", "port": port, "protocol": "HTTP"}
            gateway["spec"] = {"gatewayClassName": "emulated", "listeners": [listener]}
            self.store.create(GATEWAYS, gateway)
        for node in self.config.nodes:
            room = {"cpu": shown(node.cpus), "memory": f"{node.memory_gib:g}Gi", "pods": "1000"}
            room |= {GPU: str(node.gpus)} if node.gpus else {}
            labels = {"kubernetes.io/hostname": node.name, **node.labels}
            status = {"capacity": room, "allocatable": room, "conditions": [condition("Ready", True, "", "", "")]}
            made = {"metadata": {"name": node.name, "labels": labels}, "status": status}
            self.store.create(NODES, {**made, "spec": {"taints": [dict(taint) for taint in node.taints]}})
        if self.config.quota:
            metadata = {"name": "team", "namespace": "default"}
            self.store.create(QUOTAS, {"metadata": metadata, "spec": {"hard": dict(self.config.quota)}})

    # --- time ---------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let time pass."""
        self._controllers.step()
        self._kubelets()
        self._collector.step()
        self._free_slow()
        self.network.step()

    def _kubelets(self) -> None:
        for pod in self.store.all(PODS):
            uid = pod["metadata"]["uid"]
            running = self.pods.get(uid)
            if running is None and pod["spec"].get("nodeName") and phase(pod) not in OVER:
                running = RunningPod(self.machine, copy.deepcopy(pod), self.clock.now())
                running._starts_at = self.clock.now() + self.config.timing.pull
                self.pods[uid] = self._logs[uid] = running
            if running is not None:
                self._tend(pod, running)
        present = {pod["metadata"]["uid"] for pod in self.store.all(PODS)}
        for uid, running in [*self.pods.items()]:
            if uid not in present:
                running.stop(0)
                running.step()
                if not running.is_alive:
                    del self.pods[uid]

    def _tend(self, pod: Json, running: RunningPod) -> None:
        waiting = running.waiting
        running.step()
        if is_leaving(pod):
            running.stop(pod["metadata"].get("deletionGracePeriodSeconds", 30))
            if not running.is_alive and not pod["metadata"].get("finalizers"):
                self.store.remove(PODS, pod)
                return
        status = running.status()
        if pod.get("status") != status and phase(pod) not in OVER:
            self.store.amend(PODS, pod, status=status)
        if running.waiting != waiting and running.waiting[1]:
            self.tell(PODS, pod, "Failed" if "Image" in running.waiting[0] else "BackOff", running.waiting[1])

    def kill(self) -> None:
        """Ask for the end of every process at once."""
        for running in self.pods.values():
            running.kill()

    def has_processes(self) -> bool:
        """Whether any process may be alive."""
        for running in self.pods.values():
            running.watch()
        return any(running.is_alive for running in self.pods.values())

    def close(self) -> None:
        """Let go of every process that is left."""
        for running in self.pods.values():
            running.close()

    def _spawn(self, work: Callable[[], Any]) -> None:
        task = asyncio.ensure_future(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _simulation(self, image: str) -> Simulation | None:
        return next((make for pattern, make in self.simulations.items() if fnmatchcase(image, pattern)), None)

    # --- what the API does --------------------------------------------------------------------------------------------

    def admit(self, kind: Kind, thing: Json) -> None:
        """Raises ApiError for a pod that no quota has room for, or whose service account does not exist."""
        if kind is not PODS:
            return
        namespace = thing["metadata"]["namespace"]
        account = thing["spec"].get("serviceAccountName") or "default"
        if self.store.find(ACCOUNTS, namespace, account) is None:
            lacking = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
            raise forbidden("pods", thing["metadata"]["name"], lacking)
        for quota in self.store.all(QUOTAS, namespace):
            why = over_quota(quota, thing, self.store.all(PODS, namespace))
            if why is not None:
                raise forbidden("pods", thing["metadata"]["name"], why)

    def create(self, kind: Kind, thing: Json) -> Json:
        """A new object, with what a cluster adds to it. Raises ApiError."""
        thing = copy.deepcopy(thing)
        if kind is SERVICES:
            self.network.give_address(thing)
        if kind is PODS:
            thing.setdefault("status", {"phase": "Pending"})
            self.admit(kind, thing)
        if kind is JOBS:
            self._select_own_pods(thing)
        made = self.store.create(kind, thing)
        if kind is JOBS:
            uid = made["metadata"]["uid"]
            spec = copy.deepcopy(made["spec"])
            spec.setdefault("selector", {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}})
            spec["template"].setdefault("metadata", {}).setdefault("labels", {})[
                "batch.kubernetes.io/controller-uid"
            ] = uid
            made = self.store.amend(kind, made, spec=spec)
        self.ever.append((kind, made))
        return made

    def _select_own_pods(self, job: Json) -> None:
        job["spec"].setdefault("backoffLimit", 6)
        job["spec"].setdefault("completions", 1)
        job["spec"].setdefault("parallelism", 1)

    def begin_deletion(self, kind: Kind, thing: Json, policy: str, grace: int | None = None) -> None:
        """Ask for the end of an object; `policy` is Foreground, Background, Orphan, or empty for the kind's own."""
        found = self.store.find(kind, thing["metadata"].get("namespace", ""), thing["metadata"]["name"])
        if found is None:
            return
        uid = found["metadata"]["uid"]
        policy = policy or ("Orphan" if kind is JOBS else "Background")
        if kind is PODS and found["spec"].get("nodeName") and uid in self.pods and not self.pods[uid].is_over:
            wanted = found["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
            self.store.mark_leaving(kind, found, grace=wanted)
            return
        slow = self.faults.pick(SlowDelete, found["metadata"]["name"]) if uid not in self._slow else None
        if slow is not None:
            self._slow[uid] = self.clock.now() + slow.after.seconds
            self.store.mark_leaving(kind, found, finalizers=("emulator/slow", *FINALIZERS.get(policy, ())))
        elif FINALIZERS.get(policy) or found["metadata"].get("finalizers"):
            self.store.mark_leaving(kind, found, finalizers=FINALIZERS.get(policy, ()))
        else:
            self.store.remove(kind, found)

    def _free_slow(self) -> None:
        due = {uid for uid, when in self._slow.items() if self.clock.now() >= when}
        for kind, thing in [*self.store.everything()] if due else []:
            finalizers = thing["metadata"].get("finalizers") or []
            if thing["metadata"]["uid"] in due and "emulator/slow" in finalizers:
                kept = [one for one in finalizers if one != "emulator/slow"]
                self.store.amend(kind, thing, metadata={**thing["metadata"], "finalizers": kept})
        for uid in due:
            self._slow[uid] = float("inf")

    def logs_of(self, uid: str) -> RunningPod | None:
        """The pod whose log is asked for."""
        return self._logs.get(uid)

    def tell(self, kind: Kind, thing: Json, reason: str, message: str) -> None:
        """Write a warning about something; what was said before is counted."""
        metadata, now = thing["metadata"], self.store.now()
        digest = hashlib.sha256(f"{metadata['uid']}{reason}{message}".encode()).hexdigest()[:16]
        name = f"{metadata['name']}.{digest}"
        known = self.store.find(EVENTS, metadata.get("namespace", "default"), name)
        if known is not None:
            self.store.amend(EVENTS, known, count=known["count"] + 1, lastTimestamp=now)  # type: ignore[arg-type]
            return
        about = {
            "kind": kind.kind,
            "apiVersion": kind.api_version,
            "name": metadata["name"],
            "namespace": metadata.get("namespace", "default"),
            "uid": metadata["uid"],
        }
        event = {
            "metadata": {"name": name, "namespace": about["namespace"]},
            "involvedObject": about,
            "reason": reason,
            "message": message,
            "type": "Warning",
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": "emulator"},
        }
        self.store.create(EVENTS, event)

    # --- who may do what ----------------------------------------------------------------------------------------------

    def may(self, user: User, verb: str, group: str, resource: str, namespace: str, name: str = "") -> bool:
        """Whether the roles of the cluster let somebody do something."""
        if user.admin:
            return True
        for binding in self.store.all(BINDINGS, namespace) if namespace else []:
            if not any(_is_subject(subject, user.name) for subject in binding.get("subjects") or ()):
                continue
            role = self.store.find(ROLES, namespace, binding["roleRef"]["name"])
            if role is not None and any(_allows(r, verb, group, resource, name) for r in role.get("rules") or ()):
                return True
        return False

    # --- what a person or a cloud does to it --------------------------------------------------------------------------

    def lose_node(self, name: str) -> None:
        """A node dies and is taken out of the cluster: its processes are gone, its pods fail and are removed."""
        node = self.store.get(NODES, "", name)
        self.store.remove(NODES, node)
        for pod in self.store.all(PODS):
            if pod["spec"].get("nodeName") != name:
                continue
            running = self.pods.get(pod["metadata"]["uid"])
            if running is not None:
                running.stop(0)
                running.kill()
            status = copy.deepcopy(pod.get("status") or {})
            lost = condition(
                "DisruptionTarget", True, "DeletionByPodGC", "PodGC: node no longer exists", self.store.now()
            )
            status["phase"] = "Failed" if phase(pod) not in OVER else phase(pod)
            status["conditions"] = [*status.get("conditions", []), lost]
            gone = self.store.amend(PODS, pod, status=status)
            self.store.remove(PODS, gone)

    def add_account(self, name: str, namespace: str) -> str:
        """A service account, if there is none, and a token of it."""
        if self.store.find(ACCOUNTS, namespace, name) is None:
            self.store.create(ACCOUNTS, {"metadata": {"name": name, "namespace": namespace}})
        token = f"loopback-{name}-{secrets.token_hex(4)}"
        self.tokens[token] = User(token=token, name=f"system:serviceaccount:{namespace}:{name}", admin=False)
        return token

    def used(self) -> dict[str, float]:
        """What all pods that may run request together."""
        found: dict[str, float] = {}
        for pod in self.store.all(PODS):
            if phase(pod) not in OVER:
                for name, amount in requested(pod).items():
                    found[name] = found.get(name, 0.0) + amount
        return found

    def age(self, thing: Json) -> float:
        """Seconds since its creation."""
        return max(0.0, self.clock.now() - seconds(thing["metadata"]["creationTimestamp"]))


def _is_subject(subject: Json, name: str) -> bool:
    if subject["kind"] == "ServiceAccount":
        return name == f"system:serviceaccount:{subject.get('namespace', 'default')}:{subject['name']}"
    return bool(subject["kind"] == "User" and subject["name"] == name)


def _allows(rule: Json, verb: str, group: str, resource: str, name: str) -> bool:
    named = rule.get("resourceNames")
    return (
        bool({verb, "*"} & set(rule["verbs"]))
        and bool({group, "*"} & set(rule.get("apiGroups") or ()))
        and bool({resource, "*"} & set(rule.get("resources") or ()))
        and (not named or name in named)
    )
