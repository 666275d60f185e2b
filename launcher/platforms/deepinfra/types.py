"""What DeepInfra's API says (its OpenAPI document, DeepApi 0.1.0), as far as the launcher reads it.

What the document calls required may be missing all the same where nothing depends on it; what is null counts as
missing, and unknown fields are ignored.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeAlias

from msgspec import Struct

from launcher.platforms.deepinfra.names import Ours, parse
from launcher.platforms.deepinfra.reading import moment


class Answer(Struct, kw_only=True):
    """A part of an answer."""


class Status(StrEnum):
    """Status of a deployment."""

    INITIALIZING = "initializing"
    DOWNLOADING = "downloading"
    DEPLOYING = "deploying"
    RUNNING = "running"
    DEPLOYED = "deployed"
    """An older word for running."""
    STOPPED = "stopped"
    FAILED = "failed"
    DELETED = "deleted"
    UNKNOWN = ""

    @classmethod
    def of(cls, text: str) -> Status:
        """The status; UNKNOWN for one that this version does not know."""
        return next((status for status in cls if status.value == text), cls.UNKNOWN)


class Instances(Answer):
    """How many there are. Only running ones are billed; pending ones wait for GPUs."""

    running: int = 0
    pending: int = 0


class Config(Answer):
    """What a deployment was made with. The weights, which may hold a token, are not read."""

    gpu: str = ""
    num_gpus: int = 1


class Settings(Answer):
    """How many instances are wanted."""

    min_instances: int = 1
    max_instances: int = 1


class Deployment(Answer):
    """One deployment, of any type."""

    deploy_id: str
    model_name: str
    status: str = ""
    type: str = ""
    """`llm` where GPUs are rented; others cost nothing per hour."""
    fail_reason: str = ""
    created_at: str = ""
    instances: Instances | None = None
    config: Config | None = None
    settings: Settings | None = None

    @property
    def state(self) -> Status:
        """Its status."""
        return Status.of(self.status)

    @property
    def ours(self) -> Ours | None:
        """What its name says, if it is ours."""
        return parse(self.model_name) if self.type in ("llm", "") else None

    @property
    def rents(self) -> bool:
        """Whether GPUs are rented for it; of one that does not say so its name tells."""
        return self.type == "llm" or self.ours is not None

    @property
    def created(self) -> float | None:
        """When it was created, in seconds since 1970; None if that cannot be read."""
        found = moment(self.created_at)
        return float(found) if found is not None else None

    @property
    def gpu_config(self) -> str:
        """One instance in the words of the price list: 2xA100-80GB."""
        return f"{self.config.num_gpus}x{self.config.gpu}" if self.config is not None else ""

    @property
    def is_up(self) -> bool:
        """Whether the service calls it running, with or without instances."""
        return self.state in (Status.RUNNING, Status.DEPLOYED)

    @property
    def serves(self) -> bool:
        """Whether it can answer, if need be by an instance that the first request starts."""
        starts_by_request = self.settings is not None and self.settings.min_instances == 0
        return self.is_up and (self.instances is None or self.instances.running >= 1 or starts_by_request)

    @property
    def stands_still(self) -> bool:
        """Whether it has no instances and will get none by itself."""
        return self.state in (Status.STOPPED, Status.FAILED, Status.DELETED)

    @property
    def billed_instances(self) -> int:
        """Instances that cost now; those that are wanted, where the service does not say which run."""
        if self.stands_still:
            return 0
        return self.instances.running if self.instances is not None else (self.settings or Settings()).min_instances

    @property
    def gpus_held(self) -> int:
        """GPUs that count against the account's limit: those of running instances and of those that wait."""
        if self.stands_still or self.config is None:
            return 0
        least = (self.settings or Settings()).min_instances
        there = self.instances.running + self.instances.pending if self.instances is not None else 0
        return self.config.num_gpus * max(least, there)


class Me(Answer):
    """Whose key it is."""

    uid: str
    display_name: str | None = None
    name: str | None = None
    is_team_account: bool = False
    team_display_name: str | None = None

    @property
    def owner(self) -> str:
        """The name that stands before those of its models."""
        team = self.team_display_name if self.is_team_account else None
        return team or self.display_name or self.name or self.uid


class Offer(Answer):
    """A configuration of GPUs that an instance can have, and the price of one instance."""

    gpu_config: str
    usd_per_hour: float
    available: bool


class Offers(Answer):
    """All configurations."""

    gpus: list[Any]
    """Each an Offer, if it can be read."""


class GpuLimit(Answer):
    """Most GPUs that the account may hold, by type."""

    limits: dict[str, Any]


class Rent(Answer):
    """The meter: seconds by deployment, over all of its instances."""

    id_to_duration: dict[str, Any] = {}


class Counts(Answer):
    """What is counted of a deployment (`/stats`). Times are milliseconds, amounts cents."""

    requests: int | None = None
    errors: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_amount: int | None = None
    avg_time: float | None = None
    avg95_time: float | None = None


class TokenCounts(Answer):
    """What is counted of an LLM (`/stats2`). Times are milliseconds, amounts cents."""

    requests: int | None = None
    errors: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    avg_ttft_ms: float | None = None
    total_amount_cents: int | None = None


class DetailedCounts(Answer):
    """What `/stats2` answers."""

    llm: TokenCounts | None = None


LogEntry: TypeAlias = tuple[str, str]
"""Seconds since 1970, to the nanosecond, empty where the service gives nothing that can be read; and one line."""


class Log(Answer):
    """Lines, oldest first."""

    entries: list[Any] = []


class PodLogs(Answer):
    """Lines of each instance, oldest first."""

    entries: dict[str, list[Any]] = {}
