"""The emulated workspace: everything that exists in it, and the rules for creating and deleting."""

from __future__ import annotations

import random
import secrets as random_secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Literal

from launcher.emulators.common.clock import Clock, milliseconds
from launcher.emulators.common.faults import FaultBook, LateListing
from launcher.emulators.common.logbook import LogBook
from launcher.emulators.lepton import validation
from launcher.emulators.lepton.config import Config, Shape
from launcher.emulators.lepton.container import Translator
from launcher.emulators.lepton.endpoint import Endpoint
from launcher.emulators.lepton.errors import ApiError, Code, not_found
from launcher.emulators.lepton.faults import DelayLogs, HoldName
from launcher.emulators.lepton.history import History
from launcher.emulators.lepton.job import FINISHED, ID_LETTERS, Job, JobState
from launcher.emulators.lepton.ledger import Ledger
from launcher.emulators.lepton.replica import Machine, Replica
from launcher.emulators.lepton.simulated import Simulation, serve
from launcher.emulators.lepton.wire import EndpointSpec, JobSpec, Json, Metadata, PullSecret, SecretItem, read

OWNER = "me@example.com"
"""Who creates everything."""
DEFAULT_PORT = 8080
"""Of a legacy endpoint that names none."""

Kind = Literal["endpoint", "job"]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One endpoint or job, present or gone. `states` holds (seconds since 1970, state), oldest first."""

    kind: Kind
    name: str
    id: str
    states: tuple[tuple[float, str], ...]
    spec: Json
    gone: bool

    @property
    def state(self) -> str:
        """The last state it had."""
        return self.states[-1][1]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything that was ever created, in order of creation, and the names of the secrets there are."""

    endpoints: tuple[Item, ...]
    jobs: tuple[Item, ...]
    secrets: tuple[str, ...]

    @property
    def alive(self) -> tuple[Item, ...]:
        """What can still cost money: endpoints that are not gone, jobs that have not ended."""
        ended = {*FINISHED, JobState.ARCHIVED, JobState.STOPPED}
        jobs = [job for job in self.jobs if not job.gone and job.state not in ended]
        return (*(endpoint for endpoint in self.endpoints if not endpoint.gone), *jobs)


class Workspace:
    """One workspace. Nothing here waits; `tick` makes time pass for everything in it."""

    def __init__(self, config: Config, clock: Clock, root: Path, simulations: Mapping[str, Simulation]) -> None:
        self.config = config
        self._simulations = simulations
        self.clock = clock
        self.faults = FaultBook(config.faults, config.seed, clock.now)
        self.secrets = {name: SecretItem(name=name, value=value) for name, value in config.secrets.items()}
        self.secret_values = dict(config.secrets)
        self.pull_secrets: dict[str, Json] = {name: _pull_secret(name) for name in config.image_pull_secrets}
        self.endpoints: dict[str, Endpoint] = {}
        self.jobs: dict[str, Job] = {}
        self.translator = Translator(config, root, self.secret_values, self.pull_secrets)
        self.ledger = Ledger(clock, lambda shape: self._shape(shape).usd_per_hour)
        self._books: dict[str, LogBook] = {}
        self._held: dict[str, float] = {}
        self._listed_from: dict[str, float] = {}
        self._created: list[Endpoint | Job] = []
        self._counted: Counter[str] | None = None
        self._dice = random.Random(config.seed)  # noqa: S311 - repeatable on purpose
        self.machine = Machine(
            config=config,
            clock=clock,
            faults=self.faults,
            translator=self.translator,
            ledger=self.ledger,
            root=root,
            owner=f"lepton-{random_secrets.token_hex(4)}",
            dice=self._dice,
            simulation=self._simulation,
            room=self._room,
        )

    def tick(self) -> None:
        """Let time pass: processes are looked at, states advance, what has ended vanishes."""
        for book in self._books.values():
            book.collect(self.clock.now())
        for endpoint in self.endpoints.values():
            endpoint.step()
        for job in self.jobs.values():
            job.step()
        self._remove_what_is_gone()
        self.forget_used()

    def kill(self) -> None:
        """Ask for the end of every process at once."""
        for replica in self._all_replicas():
            replica.kill()

    def has_processes(self) -> bool:
        """Whether any process may be alive."""
        replicas = self._all_replicas()
        for replica in replicas:
            replica.watch()
        return any(replica.is_running for replica in replicas)

    def close(self) -> None:
        """Let go of every process that is left; it ends at once."""
        for replica in self._all_replicas():
            replica.close()

    def _all_replicas(self) -> list[Replica]:
        return [replica for resource in self._created for replica in (*resource.replicas, *resource.leaving)]

    def endpoint(self, name: str) -> Endpoint:
        """An endpoint that exists, its deletion included. Raises ApiError 404."""
        if (endpoint := self.endpoints.get(name)) is None:
            raise not_found("deployment", name)
        return endpoint

    def job(self, id: str, mode: str = "alive_and_archive") -> Job:
        """A job by its id. Raises ApiError 404 where it does not exist or `mode` does not show it."""
        job = self.jobs.get(id)
        if job is None or not shows(mode, job):
            raise not_found("job", id)
        return job

    def create_endpoint(self, metadata: Metadata, document: Json) -> Endpoint:
        """A new endpoint. Raises ApiError where the name is taken or the spec is refused."""
        name = metadata.name or metadata.id or ""
        validation.check_name(name)
        validation.check_labels(metadata.labels)
        spec = self.check_endpoint(document)
        if name in self.endpoints or self._held.get(name, 0.0) > self.clock.now():
            raise ApiError(409, Code.CONFLICT, f"deployment {name} already exists")
        self._check_quota(spec.shape, spec.replicas)
        document = self._secured(document, spec)
        endpoint = Endpoint(self.machine, self._metadata(metadata, name, name), document, self._book(name, name, spec))
        self.endpoints[name] = endpoint
        self._count(endpoint)
        self._keep(endpoint, name, name)
        return endpoint

    def create_job(self, metadata: Metadata, document: Json) -> Job:
        """A new job, with an id of its own. Raises ApiError where the spec is refused."""
        name = metadata.name or metadata.id or ""
        validation.check_name(name)
        validation.check_labels(metadata.labels)
        spec = self.check_job(document)
        self._check_quota(spec.shape, min(spec.at_once, spec.replicas))
        id = f"{name}-{''.join(self._dice.choices(ID_LETTERS, k=4))}"
        job = Job(self.machine, self._metadata(metadata, name, id), document, self._book(id, name, spec))
        self.jobs[id] = job
        if _is_unfinished(job):
            self._count(job)
        self._keep(job, name, id)
        return job

    def listed_endpoints(self) -> list[Endpoint]:
        """What the list of endpoints shows."""
        return [endpoint for name, endpoint in self.endpoints.items() if self._is_listed(name)]

    def listed_jobs(self) -> list[Job]:
        """What the list of jobs shows before its filters."""
        return [job for id, job in self.jobs.items() if self._is_listed(id)]

    def check_endpoint(self, document: Json) -> EndpointSpec:
        """The spec, if it would be accepted. Raises ApiError 400."""
        spec = read(document, EndpointSpec)
        validation.check_spec(spec, self.config, self.secrets.keys(), self.pull_secrets.keys())
        validation.check_endpoint(spec)
        return spec

    def check_job(self, document: Json) -> JobSpec:
        """The spec, if it would be accepted. Raises ApiError 400."""
        spec = read(document, JobSpec)
        validation.check_spec(spec, self.config, self.secrets.keys(), self.pull_secrets.keys())
        return spec

    def add_secrets(self, items: list[SecretItem]) -> None:
        """New secrets. Raises ApiError 409 where a name is taken."""
        for item in items:
            if item.name in self.secrets:
                raise ApiError(409, Code.CONFLICT, f"secret {item.name} already exists")
        for item in items:
            self.secrets[item.name] = item
            self.secret_values[item.name] = item.value

    def delete_secret(self, name: str) -> None:
        """Remove a secret. Raises ApiError: 404, or 400 while an endpoint or job refers to it."""
        if name not in self.secrets:
            raise not_found("secret", name)
        endpoints = (endpoint.spec.envs for endpoint in self.endpoints.values())
        jobs = (job.spec.envs for job in self._unfinished_jobs())
        if any(env.secret == name for envs in (*endpoints, *jobs) for env in envs or ()):
            raise ApiError(400, Code.INVALID, f"secret {name} is in use")
        del self.secrets[name], self.secret_values[name]

    def add_pull_secret(self, document: Json) -> Json:
        """A new image pull secret, as answers show it. Raises ApiError 409 where the name is taken."""
        wanted = read(document, PullSecret)
        name = wanted.metadata.name or wanted.metadata.id or ""
        if name in self.pull_secrets:
            raise ApiError(409, Code.CONFLICT, f"image pull secret {name} already exists")
        spec = {"registry_server": wanted.spec.registry_server, "username": wanted.spec.username}
        self.pull_secrets[name] = {"metadata": {"id": name, "name": name}, "spec": spec}
        return self.pull_secrets[name]

    def log_book(self, name: str) -> LogBook | None:
        """The collected log of an endpoint (by name) or a job (by id), also of one that is gone."""
        return self._books.get(name)

    def used(self) -> Shape:
        """What all endpoints and unfinished jobs ask for, as one shape."""
        shapes = [(self._shape(id), number) for id, number in self._replicas().items()]
        return Shape(
            id="used",
            cpu=sum(shape.cpu * number for shape, number in shapes),
            memory=sum(shape.memory * number for shape, number in shapes),
            accelerators=sum(shape.accelerators * number for shape, number in shapes),
        )

    def forget_used(self) -> None:
        """Something else than a creation may have changed what is used."""
        self._counted = None

    def _replicas(self) -> Counter[str]:
        """How many there are of each shape: counted once for all creations that follow each other."""
        if self._counted is None:
            self._counted = Counter()
            for endpoint in self.endpoints.values():
                self._count(endpoint)
            for job in self._unfinished_jobs():
                self._count(job)
        return self._counted

    def _count(self, resource: Endpoint | Job) -> None:
        spec = resource.spec
        if self._counted is not None:
            number = spec.replicas if isinstance(spec, EndpointSpec) else min(spec.at_once, spec.replicas)
            self._counted[spec.shape] += number

    def snapshot(self) -> Snapshot:
        """Everything that was ever created."""
        items = [self._item(resource) for resource in self._created]
        return Snapshot(
            endpoints=tuple(item for item in items if item.kind == "endpoint"),
            jobs=tuple(item for item in items if item.kind == "job"),
            secrets=tuple(self.secrets),
        )

    def _keep(self, resource: Endpoint | Job, name: str, id: str) -> None:
        self._created.append(resource)
        late = self.faults.pick(LateListing, name)
        self._listed_from[id] = self.clock.now() + (late.seconds if late else 0.0)

    def _is_listed(self, id: str) -> bool:
        return self.clock.now() >= self._listed_from[id]

    def _unfinished_jobs(self) -> list[Job]:
        return [job for job in self.jobs.values() if _is_unfinished(job)]

    def _remove_what_is_gone(self) -> None:
        for endpoint in [endpoint for endpoint in self.endpoints.values() if endpoint.is_gone]:
            if (hold := self.faults.pick(HoldName, endpoint.name)) is not None:
                self._held[endpoint.name] = self.clock.now() + hold.seconds
            del self.endpoints[endpoint.name]
        for job in [job for job in self.jobs.values() if job.is_gone]:
            del self.jobs[job.id]

    def _secured(self, document: Json, spec: EndpointSpec) -> Json:
        """The spec with the port and the token that the server adds."""
        if not spec.runs.ports and not self.config.new_deployment_api:
            document = {**document, "container": {**document.get("container", {}), "ports": [_default_port()]}}
        if self.config.secure_endpoint_defaults and not spec.api_tokens and not spec.allow_unauthenticated_access:
            token = f"endpoint-{self._dice.randbytes(16).hex()}"
            document = {**document, "api_tokens": [{"value": token}]}
        return document

    def _check_quota(self, shape: str, replicas: int) -> None:
        used, wanted, config = self.used(), self._shape(shape), self.config
        if (
            used.accelerators + wanted.accelerators * replicas > config.quota_accelerators
            or used.cpu + wanted.cpu * replicas > config.quota_cpu
            or used.memory + wanted.memory * replicas > config.quota_memory
        ):
            raise ApiError(400, Code.VALIDATION, "resource requirement exceeds quota")

    def _room(self, shape: str, groups: list[str]) -> str | None:
        """The first of the groups with accelerators left for one more of this shape; None named: of all groups."""
        wanted = self._shape(shape).accelerators
        for group in self.config.node_groups:
            has_room = group.accelerators is None or self._used_of(group.id) + wanted <= group.accelerators
            if has_room and (not groups or group.id in groups):
                return group.id
        return None

    def _used_of(self, group: str) -> int:
        """Accelerators of a node group that are in use."""
        return sum(self._shape(one.shape).accelerators for one in self.ledger.open_charges() if one.group == group)

    def _simulation(self, image: str, kind: str) -> Simulation | None:
        """How to simulate a container: what the emulator was made with, then what the config says of servers."""
        found = next((found for pattern, found in self._simulations.items() if fnmatchcase(image, pattern)), None)
        if found is not None or kind != "endpoint":
            return found
        server = self.config.simulated_server(image)
        return partial(serve, server) if server is not None else None

    def _shape(self, id: str) -> Shape:
        return self.config.shape(id) or Shape(id=id)

    def _book(self, key: str, fault_name: str, spec: EndpointSpec | JobSpec) -> LogBook:
        if key not in self._books:
            delay = self.faults.pick(DelayLogs, fault_name)
            self._books[key] = LogBook(delay.seconds if delay else 0.0)
        wanted = spec.log.enable_collection if spec.log else None
        self._books[key].is_collected = self.config.collect_logs if wanted is None else wanted
        return self._books[key]

    def _metadata(self, given: Metadata, name: str, id: str) -> Json:
        return {
            "id": id,
            "name": name,
            "created_at": milliseconds(self.clock.now()),
            "version": 1,
            "semantic_version": "1.0",
            "created_by": OWNER,
            "owner": OWNER,
            "visibility": given.visibility or "public",
            "labels": given.labels or {},
        }

    def _item(self, resource: Endpoint | Job) -> Item:
        is_endpoint = isinstance(resource, Endpoint)
        present = self.endpoints.get(resource.name) if is_endpoint else self.jobs.get(resource.metadata["id"])
        history: History = resource.history
        return Item(
            kind="endpoint" if is_endpoint else "job",
            name=resource.name,
            id=resource.metadata["id"],
            states=tuple(history.states),
            spec=resource.document,
            gone=present is not resource,
        )


def shows(mode: str, job: Job) -> bool:
    """Whether a job_query_mode shows a job."""
    return mode == "alive_and_archive" or job.is_archived == (mode == "archive_only")


def _is_unfinished(job: Job) -> bool:
    return job.completed is None and not job.spec.stopped


def _default_port() -> Json:
    return {"container_port": DEFAULT_PORT, "protocol": "TCP"}


def _pull_secret(name: str) -> Json:
    return {"metadata": {"id": name, "name": name}, "spec": {"registry_server": "https://nvcr.io", "username": ""}}
