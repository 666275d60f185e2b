"""Emulated clouds as a story sees them: what an invocation made there, and whether others were left alone."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from launcher.emulators.common.front import RequestRecord
from launcher.emulators.deepinfra import DeepInfraEmulator
from launcher.emulators.kubernetes import KubernetesEmulator, Made
from launcher.emulators.lepton import Item, LeptonEmulator, Script
from launcher.emulators.lepton.job import FINISHED
from launcher.plan import kubernetes
from launcher.plan.deepinfra import model_name
from launcher.platforms.deepinfra.names import expiring
from tests.chaos.scenes import Scene, written
from tests.e2e.lepton import TOKEN, job_output
from tests.fakes.slurm import FakeConfig, FakeFaults, FakeSlurm
from tests.fakes.slurm.commands import OVER, element_of

INVOCATION = "c4a05123"
BYSTANDER = "somebody-elses"
"""An endpoint without our mark: nobody may touch it."""
NEIGHBOUR = expiring(model_name("nv-eval-t0-0-b0b0b0b0"), 365 * 86_400.0, time.time())
"""A deployment of another invocation, wanted for a year: only its own launcher may touch it."""
NEIGHBOURS = "b0b0b0b0"
"""Another invocation, in a cluster."""
CLUSTER_TOKEN = "loopback-admin"
PATIENCE = 8.0
"""Seconds in which a cluster removes what has lost its owner."""
_KINDS = {"Deployment": "endpoint", "Job": "job"}
_CHANGES = ("POST", "PATCH", "DELETE")


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One endpoint or job that was made. Times are seconds since 1970."""

    kind: str
    name: str
    """Its name in the plan."""
    state: str
    gone: bool
    made: float
    over: float
    """From when its end was asked for, or it had ended; infinite if neither."""

    @property
    def task(self) -> str:
        """`container-t1-1r2-ID` and `container-t1-1-ID` are of one task."""
        return self.name.partition(f"-{INVOCATION}")[0].split("-")[-2]


class Cloud(Protocol):
    """One emulator of a story. Everything in it is simulated."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables by which a launcher finds it."""
        ...

    def made(self) -> list[Thing]:
        """Everything that the invocation ever made."""
        ...

    def others_live(self) -> bool:
        """Whether what belongs to others is untouched."""
        ...

    def changes(self) -> list[str]:
        """Requests that made or changed something, those of others left out."""
        ...

    def also_left(self) -> list[str]:
        """What exists of the invocation beside endpoints and jobs."""
        ...


@dataclass(frozen=True)
class LeptonCloud:
    """A Lepton workspace."""

    emulator: LeptonEmulator

    @property
    def environment(self) -> Mapping[str, str]:
        """Workspace, token and address."""
        return {
            "LEPTON_WORKSPACE_ID": self.emulator.config.workspace,
            "LEPTON_WORKSPACE_TOKEN": TOKEN,
            "LEPTON_WORKSPACE_URL": self.emulator.url,
        }

    def made(self) -> list[Thing]:
        """Endpoints and jobs."""
        snapshot = self.emulator.state()
        found = [item for item in (*snapshot.endpoints, *snapshot.jobs) if INVOCATION in item.name]
        return [self._thing(item) for item in found]

    def _thing(self, item: Item) -> Thing:
        over = [when for when, state in item.states if state in ("Deleting", *FINISHED)]
        return Thing(
            kind=item.kind,
            name=item.name,
            state=item.state,
            gone=item.gone,
            made=item.states[0][0],
            over=min(over, default=float("inf")),
        )

    def others_live(self) -> bool:
        """The bystander."""
        return any(item.name == BYSTANDER and not item.gone for item in self.emulator.state().endpoints)

    def changes(self) -> list[str]:
        """All but the bystander's creation."""
        return _changes(self.emulator.requests, others=1)

    def also_left(self) -> list[str]:
        """Nothing."""
        return []

    def settle_others(self) -> None:
        """Make what belongs to others."""
        shape = {"resource_shape": "gpu.1xh100"}
        spec: dict[str, Any] = {"container": {"image": "sim/server"}, "resource_requirement": shape}
        path = "deployments"
        if self.emulator.config.new_deployment_api:
            path, spec = "endpoints", {"components": [{"image": "sim/server", **shape}]}
        body = {"metadata": {"id": BYSTANDER, "name": BYSTANDER}, "spec": spec}
        _post(f"{self.emulator.url}/{path}", TOKEN, body)


@dataclass(frozen=True)
class DeepInfraCloud:
    """A DeepInfra account."""

    emulator: DeepInfraEmulator

    @property
    def environment(self) -> Mapping[str, str]:
        """Key and address."""
        return {"DEEPINFRA_API_KEY": self.emulator.key, "DEEPINFRA_BASE_URL": self.emulator.url}

    def made(self) -> list[Thing]:
        """Deployments; their names without owner and expiry."""
        items = [item for item in self.emulator.state().deployments if INVOCATION in item.name]
        asked = {request.path: request.time for request in reversed(self.emulator.requests) if _took(request)}
        return [
            Thing(
                kind="endpoint",
                name=item.name.partition("/")[2].rpartition("-x")[0],
                state=item.status,
                gone=item.gone,
                made=item.states[0][0],
                over=asked.get(f"/deploy/{item.id}", float("inf")),
            )
            for item in items
        ]

    def others_live(self) -> bool:
        """The bystander and the neighbour."""
        alive = {item.name.partition("/")[2] for item in self.emulator.state().alive}
        return {BYSTANDER, NEIGHBOUR} <= alive

    def changes(self) -> list[str]:
        """All but the creations of others."""
        return _changes(self.emulator.requests, others=2)

    def also_left(self) -> list[str]:
        """Nothing."""
        return []

    def settle_others(self) -> None:
        """Make what belongs to others."""
        for name in (BYSTANDER, NEIGHBOUR):
            body = {"model_name": name, "gpu": "H100-80GB", "base_model": "somebody/elses"}
            _post(f"{self.emulator.url}/deploy/llm", self.emulator.key, body)


@dataclass(frozen=True)
class KubernetesCloud:
    """A cluster."""

    emulator: KubernetesEmulator

    @property
    def environment(self) -> Mapping[str, str]:
        """The kubeconfig."""
        return {"KUBECONFIG": str(self.emulator.kubeconfig)}

    def made(self) -> list[Thing]:
        """Deployments and Jobs."""
        found = [made for made in self.emulator.made() if INVOCATION in made.name and made.kind in _KINDS]
        return [self._thing(made) for made in found]

    def _thing(self, made: Made) -> Thing:
        state = "Deleting" if made.over < math.inf else "Active"
        kind = _KINDS[made.kind]
        return Thing(kind=kind, name=made.name, state=state, gone=made.gone, made=made.made, over=made.over)

    def others_live(self) -> bool:
        """The bystander, the neighbour and its anchor."""
        alive = {made.name for made in self.emulator.made() if not made.gone and made.over == math.inf}
        return {BYSTANDER, "neighbour", kubernetes.anchor_name(NEIGHBOURS)} <= alive

    def changes(self) -> list[str]:
        """All but the creations of others."""
        return _changes(self.emulator.requests, others=3)

    def also_left(self) -> list[str]:
        """Pods, Services, Secrets, the anchor: the cluster removes them after their owner, by and by."""
        deadline = time.monotonic() + PATIENCE
        while True:
            left = [text for text in self.emulator.left() if INVOCATION in text]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.05)

    def settle_others(self) -> None:
        """Make what belongs to others."""
        ours = {kubernetes.MANAGED_BY: kubernetes.MARK, kubernetes.INVOCATION: NEIGHBOURS}
        wanted = {kubernetes.EXPIRES: str(round(time.time() + 365 * 86_400.0))}
        anchor = {
            "metadata": {
                "name": kubernetes.anchor_name(NEIGHBOURS),
                "labels": {**ours, kubernetes.KIND: "anchor"},
                "annotations": wanted,
            },
        }
        _post(f"{self.emulator.url}/api/v1/namespaces/default/configmaps", CLUSTER_TOKEN, anchor)
        for name, labels in ((BYSTANDER, {}), ("neighbour", ours)):
            pod = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "sim/other"}]}}
            spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": pod}
            body = {"metadata": {"name": name, "labels": labels}, "spec": spec}
            _post(f"{self.emulator.url}/apis/apps/v1/namespaces/default/deployments", CLUSTER_TOKEN, body)


@dataclass(frozen=True)
class SlurmCloud:
    """A Slurm cluster, whose nodes and login node have the launcher's home."""

    cluster: FakeSlurm
    home: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """Where its commands are."""
        return self.cluster.environment

    def made(self) -> list[Thing]:
        """Batch jobs: each is an endpoint, with its evaluation."""
        return [self._thing(job) for job in self.cluster.jobs() if INVOCATION in job["name"]]

    def _thing(self, job: dict[str, Any]) -> Thing:
        over = [when for when in (job["asked"], job["ended"]) if when is not None]
        return Thing(
            kind="endpoint",
            name=element_of(job)[0],
            state=job["state"],
            gone=job["state"] in OVER,
            made=job["submitted"],
            over=min(over, default=math.inf),
        )

    def others_live(self) -> bool:
        """Nobody asked for the end of the bystander's job."""
        return [job["asked"] for job in self.cluster.jobs() if job["name"] == BYSTANDER] == [None]

    def changes(self) -> list[str]:
        """Submissions."""
        return [thing.name for thing in self.made()]

    def also_left(self) -> list[str]:
        """Files with secrets: no job needs them any more."""
        alive = {thing.name for thing in self.made() if not thing.gone}
        files = self.home.glob(f"nv-eval/{INVOCATION}/jobs/*/*.secrets")
        return [f"{path.parent.name}/{path.name}" for path in files if path.parent.name not in alive]

    def settle_others(self) -> None:
        """Make what belongs to others."""
        folder = self.home.parent
        script = folder / "other.sh"
        script.write_text("#!/bin/sh\n")
        options = (f"--job-name={BYSTANDER}", f"--chdir={folder}", f"--output={folder}/other.log", str(script))
        subprocess.run(["sbatch", *options], env={**os.environ, **self.environment}, check=True, capture_output=True)


def batch_config(scene: Scene, config: FakeConfig) -> FakeConfig:
    """With what the tasks of a scene score."""
    events = [line for line in job_output().splitlines() if line.startswith('@nv-eval {"event"')]
    results = {task: written(task) for task in scene.scores}
    return dataclasses.replace(config, events="".join(f"{line}\n" for line in events), results=results)


@contextmanager
def clouds(scene: Scene, folder: Path) -> Iterator[tuple[Cloud, ...]]:
    """Running clouds for a scene below a folder, in which others have something already; faults begin after that."""
    with ExitStack() as stack:
        if scene.slurm is not None:
            config = batch_config(scene, scene.slurm)
            quiet_one = dataclasses.replace(config, faults=FakeFaults())
            batch = SlurmCloud(stack.enter_context(FakeSlurm(folder / "slurm", quiet_one)), folder / "home")
            batch.settle_others()
            batch.cluster.configure(config)
            yield (batch,)
            return
        if scene.kubernetes is not None:
            calm = dataclasses.replace(scene.kubernetes, faults=())
            pods = {"sim/server": scene.server, "sim/job": scene.job, "sim/other": lambda _: Script()}
            cluster = KubernetesCloud(stack.enter_context(KubernetesEmulator(calm, simulations=pods)))
            cluster.settle_others()
            cluster.emulator.inject(*scene.kubernetes.faults)
            yield (cluster,)
            return
        quiet = dataclasses.replace(scene.config, faults=())
        simulations = {"sim/*": scene.server, "python*": scene.job}
        lepton = LeptonCloud(stack.enter_context(LeptonEmulator(quiet, simulations=simulations)))
        lepton.settle_others()
        lepton.emulator.inject(*scene.config.faults)
        if scene.deepinfra is None:
            yield (lepton,)
            return
        still = dataclasses.replace(scene.deepinfra, faults=())
        account = DeepInfraCloud(stack.enter_context(DeepInfraEmulator(still, simulations={"*": scene.instance})))
        account.settle_others()
        account.emulator.inject(*scene.deepinfra.faults)
        yield (lepton, account)


def _took(request: RequestRecord) -> bool:
    return request.method == "DELETE" and request.status == 200


def _changes(requests: tuple[RequestRecord, ...], *, others: int) -> list[str]:
    return [f"{r.method} {r.path}" for r in requests if r.method in _CHANGES][others:]


def _post(url: str, token: str, body: Mapping[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    urllib.request.urlopen(request, timeout=10).close()
