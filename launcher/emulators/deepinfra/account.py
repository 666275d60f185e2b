"""The emulated account: everything that exists in it, and the rules for creating and finding."""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from launcher.emulators.common.clock import Clock
from launcher.emulators.common.faults import FaultBook, LateListing
from launcher.emulators.deepinfra.config import Config, Server
from launcher.emulators.deepinfra.deployment import ACTIVE, TASK, Deployment, Status, iso
from launcher.emulators.deepinfra.errors import ApiError, not_found
from launcher.emulators.deepinfra.instance import Instance, Launch, Machine, Simulation
from launcher.emulators.deepinfra.ledger import Ledger
from launcher.emulators.deepinfra.wire import Json, LlmIn

ID_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
BY_ID = "deploy_id:"
"""Begins a model name that is a deployment's id."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One deployment, present or deleted. `states` holds (seconds since 1970, status), oldest first."""

    id: str
    name: str
    states: tuple[tuple[float, str], ...]
    document: Json

    @property
    def status(self) -> str:
        """The last status it had."""
        return self.states[-1][1]

    @property
    def gone(self) -> bool:
        """Whether it is deleted."""
        return self.status == Status.DELETED


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Every deployment that was ever created, in order of creation."""

    deployments: tuple[Item, ...]

    @property
    def alive(self) -> tuple[Item, ...]:
        """What is not deleted."""
        return tuple(item for item in self.deployments if not item.gone)


class Account:
    """One account. Nothing here waits; `tick` makes time pass for everything in it."""

    def __init__(self, config: Config, clock: Clock, root: Path, simulations: Mapping[str, Simulation]) -> None:
        self.config = config
        self.clock = clock
        self.faults = FaultBook(config.faults, config.seed, clock.now)
        self.ledger = Ledger(clock)
        self.deployments: dict[str, Deployment] = {}
        self._simulations = simulations
        self._listed_from: dict[str, float] = {}
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._dice = random.Random(config.seed)  # noqa: S311 - repeatable on purpose
        self._legacy = [self._legacy_row(name, clock.now()) for name in config.legacy]
        self._machine = Machine(
            config=config,
            clock=clock,
            faults=self.faults,
            ledger=self.ledger,
            root=root,
            owner=f"deepinfra-{secrets.token_hex(4)}",
            simulation=self._simulation,
            server=self._server,
            has_room=self._has_room,
        )

    def tick(self) -> None:
        """Let time pass."""
        now = self.clock.now()
        due = [act for time, act in self._later if time <= now]
        self._later = [(time, act) for time, act in self._later if time > now]
        for act in due:
            act()
        for deployment in list(self.deployments.values()):
            deployment.step()

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something when so much time has passed."""
        self._later.append((self.clock.now() + seconds, act))

    def kill(self) -> None:
        """Ask for the end of every process at once."""
        for instance in self._processes():
            instance.kill()

    def has_processes(self) -> bool:
        """Whether any process may be alive."""
        return any(instance.has_started and instance.look() is None for instance in self._processes())

    def close(self) -> None:
        """Let go of every process."""
        for instance in self._processes():
            instance.close()

    def create(self, asked: LlmIn) -> Deployment:
        """A new deployment. Raises ApiError: 402, 409, 422."""
        gpu = self.config.gpu(asked.gpu)
        if gpu is None:
            raise ApiError(422, f"gpu {asked.gpu} is not offered")
        if not self.config.has_payment:
            raise ApiError(402, "You need to add a payment method to deploy models")
        name = self.full_name(asked.model_name)
        self._check(asked, name)
        deployment = Deployment(
            machine=self._machine,
            id=self._id(),
            name=name,
            asked=asked,
            version=self._dice.randbytes(32).hex(),
            usd_per_hour=gpu.usd_per_hour * asked.num_gpus,
            missing=lambda: self._missing(asked),
        )
        self.deployments[deployment.id] = deployment
        late = self.faults.pick(LateListing, deployment.short_name)
        self._listed_from[deployment.id] = self.clock.now() + (late.seconds if late else 0.0)
        return deployment

    def create_legacy(self, model: str) -> str:
        """The id of a new serverless reference. Raises ApiError: 404, 409."""
        if self.config.repo(model) is None:
            raise not_found(f"model {model}")
        if any(row["model_name"] == model for row in self._legacy):
            raise ApiError(409, f"model {model} is deployed already")
        self._legacy.append(self._legacy_row(model, self.clock.now()))
        return str(self._legacy[-1]["deploy_id"])

    def deployment(self, id_: str) -> Deployment:
        """The deployment of this id, also a deleted one. Raises ApiError 404."""
        found = self.deployments.get(id_)
        if found is None:
            raise not_found(f"deployment {id_}")
        return found

    def present(self, id_: str) -> Deployment:
        """The deployment of this id. Raises ApiError 404, also where it is deleted."""
        found = self.deployment(id_)
        if found.status is Status.DELETED:
            raise not_found(f"deployment {id_}")
        return found

    def listed(self, statuses: set[str] | None) -> list[Json]:
        """Rows of the list: those of some statuses, by default all that are not deleted."""
        rows = list(self._legacy)
        for deployment in self.deployments.values():
            if self.clock.now() >= self._listed_from[deployment.id]:
                deployment.read()
                deployment.step()
                rows.append(deployment.document())
        wanted = statuses if statuses is not None else {status.value for status in Status} - {Status.DELETED.value}
        return [row for row in rows if row["status"] in wanted]

    def model(self, name: str) -> Deployment | None:
        """The deployment that a request names: `deploy_id:ID`, `OWNER/NAME` or `OWNER/NAME:VERSION`."""
        if name.startswith(BY_ID):
            return self.deployments.get(name.removeprefix(BY_ID))
        wanted, _, version = name.partition(":")
        for deployment in self._not_deleted():
            if deployment.name == wanted and version in ("", deployment.version):
                return deployment
        return None

    def full_name(self, name: str) -> str:
        """The name with its owner. Raises ApiError 422 for one that cannot be."""
        owner, slash, short = name.rpartition("/")
        if slash and owner != self.config.owner:
            message = f"Model name prefix '{owner}' must match user display name '{self.config.owner}'"
            raise ApiError(422, message)
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", short):
            raise ApiError(422, f"model_name {short!r} holds characters that a name must not have")
        return f"{self.config.owner}/{short}"

    def suggested_name(self, model: str) -> str:
        """A free name for a deployment of a model."""
        base = f"{self.config.owner}/{model.rpartition('/')[2] or 'model'}"
        taken = {deployment.name for deployment in self._not_deleted()}
        candidates = [base, *(f"{base}-{number}" for number in range(2, len(taken) + 3))]
        return next(name for name in candidates if name not in taken)

    def snapshot(self) -> Snapshot:
        """Everything that was ever created."""
        return Snapshot(
            deployments=tuple(
                Item(
                    id=deployment.id,
                    name=deployment.name,
                    states=tuple((time, status.value) for time, status in deployment.states),
                    document=deployment.document(),
                )
                for deployment in self.deployments.values()
            )
        )

    def _check(self, asked: LlmIn, name: str) -> None:
        if any(deployment.name == name for deployment in self._not_deleted()):
            raise ApiError(409, f"a deployment with the name {name} exists already")
        if asked.settings is not None and not asked.settings.is_sound:
            raise ApiError(422, "settings: min_instances must be at least 0 and at most max_instances")
        if not (asked.hf or asked.base_model or asked.container_image):
            raise ApiError(422, "one of hf, base_model and container_image is needed")
        if self.config.checks_weights == "at_once" and (reason := self._missing(asked)):
            raise ApiError(422, reason)
        least = asked.settings.min_instances if asked.settings else 1
        if self.config.over_limit == "refuse" and self._claimed() + least * asked.num_gpus > self.config.gpu_limit:
            raise ApiError(409, f"GPU limit of {self.config.gpu_limit} exceeded")

    def _missing(self, asked: LlmIn) -> str:
        """Why the weights cannot be had; empty if they can."""
        if asked.base_model and not self.config.has_base_model(asked.base_model):
            return f"base model {asked.base_model} not found"
        if asked.hf is None:
            return ""
        repo, revision, token = self.config.repo(asked.hf.repo), asked.hf.revision, asked.hf.token
        if repo is None:
            return f"Repository {asked.hf.repo} not found on Hugging Face"
        if repo.gated and (not token or (self.config.hf_tokens and token not in self.config.hf_tokens)):
            return f"Access to {asked.hf.repo} is restricted: it is a gated repository, give a token that may read it"
        if revision and repo.revisions is not None and revision not in repo.revisions:
            return f"Revision {revision} of {asked.hf.repo} not found on Hugging Face"
        return ""

    def _claimed(self) -> int:
        """GPUs of all instances that are wanted."""
        active = [deployment for deployment in self.deployments.values() if deployment.status in ACTIVE]
        return sum(deployment.wanted * deployment.asked.num_gpus for deployment in active)

    def _has_room(self, type_: str, number: int) -> bool:
        gpu = self.config.gpu(type_)
        if gpu is None or not gpu.available:
            return False
        of_type = [deployment.gpus for deployment in self.deployments.values() if deployment.asked.gpu == type_]
        used = sum(deployment.gpus for deployment in self.deployments.values())
        limit = self.config.gpu_limit if gpu.limit is None else gpu.limit
        return used + number <= self.config.gpu_limit and sum(of_type) + number <= limit

    def _not_deleted(self) -> list[Deployment]:
        return [found for found in self.deployments.values() if found.status is not Status.DELETED]

    def _processes(self) -> Iterator[Instance]:
        for deployment in self.deployments.values():
            yield from deployment.processes()

    def _simulation(self, launch: Launch) -> Simulation | None:
        return next((found for pattern, found in self._simulations.items() if _fits(launch, pattern)), None)

    def _server(self, launch: Launch) -> Server | None:
        return next((server for server in self.config.servers if _fits(launch, server.pattern)), None)

    def _id(self) -> str:
        return "".join(self._dice.choices(ID_LETTERS, k=10))

    def _legacy_row(self, name: str, now: float) -> Json:
        return {
            "type": "legacy",
            "deploy_id": self._id(),
            "model_name": name,
            "version": self._dice.randbytes(32).hex(),
            "task": TASK,
            "status": Status.RUNNING.value,
            "fail_reason": "",
            "created_at": iso(now),
            "updated_at": iso(now),
            "instances": None,
            "config": None,
            "settings": None,
        }


def _fits(launch: Launch, pattern: str) -> bool:
    return fnmatchcase(launch.image, pattern) or fnmatchcase(launch.weights, pattern)
