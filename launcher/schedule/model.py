"""What a schedule is, and what became of each of its times."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal


class Via(StrEnum):
    """What calls `nv-eval schedule fire` when it is time."""

    SYSTEMD = "systemd"
    CRONTAB = "crontab"
    SLURM = "slurm"
    KUBERNETES = "kubernetes"
    SERVE = "serve"


class Outcome(StrEnum):
    """How a time of a schedule ended."""

    SCORED = "scored"
    FAILED = "failed"
    STOPPED = "stopped"
    KILLED = "killed"
    """The process that ran it is gone and did not say how the run ended."""
    OVERLAP = "skipped overlap"
    BUDGET = "skipped budget"
    MISSED = "missed"
    """Nothing called when it was time: the machine was off, or its timer did not go off."""
    PAUSED = "paused"


class Verdict(StrEnum):
    """What the gate said of a run that is complete."""

    FIRST = "first"
    """There was no run before it to compare it with: it is what the next one is compared with."""
    GO = "GO"
    NO_GO = "NO-GO"
    INCONCLUSIVE = "INCONCLUSIVE"
    UNDECIDED = "undecided"
    """The runs could not be compared; `detail` says why."""


GOOD = (Verdict.FIRST, Verdict.GO)


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """What to run: the config that `nv-eval run` would be given. `yes` accepts a worst case beyond its limits.

    `multirun`: as a sweep; a config with points in its section `sweep` is one anyway. `skip_done` as there.
    """

    config_name: str = "default"
    overrides: tuple[str, ...] = ()
    config_dir: str | None = None
    config_path: str | None = None
    yes: bool = False
    multirun: bool = False
    skip_done: bool | None = None


class Origin(StrEnum):
    """Kind of place that a watch looks at."""

    FOLDER = "folder"
    REPO = "repo"
    COMMAND = "command"


@dataclass(frozen=True, kw_only=True)
class WatchSpec:
    """What to look at, and what to run for each checkpoint there. `settle` in seconds; see launcher.schedule.sources.

    `run` has placeholders in its overrides: `{checkpoint}`, `{name}`, `{step}`.
    """

    origin: Origin
    source: str
    run: RunSpec
    pattern: str | None = None
    marker: str | None = None
    settle: float = 30.0
    every_commit: bool = False
    newest_first: bool = False
    retry: bool = False


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A schedule as it was added.

    `cron`: five fields, in the time zone `timezone`. `cwd`: the folder that relative paths of the run begin at.
    `jitter`, `grace`: seconds; a time that is called later than `grace` was missed. `budget_day`, `budget_month`: USD.
    `gate`: path of a policy. `notify`: names of variables with Apprise addresses. `watch`: not `run`, but what is new.
    """

    name: str
    cron: str
    timezone: str
    run: RunSpec
    via: Via
    cwd: str
    env_file: str | None = None
    jitter: float = 0.0
    grace: float = 900.0
    catch_up: Literal["once", "none"] = "once"
    allow_overlap: bool = False
    budget_day: float | None = None
    budget_month: float | None = None
    gate: str | None = None
    notify: tuple[str, ...] = ()
    watch: WatchSpec | None = None


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A definition and where it stands. `handled`: all times up to it are decided; seconds since 1970."""

    definition: Definition
    created: float
    handled: float
    paused: bool = False

    @property
    def name(self) -> str:
        """Its name."""
        return self.definition.name


@dataclass(frozen=True, kw_only=True)
class Fire:
    """One time of a schedule and what became of it, or `count` of them in a row that were missed for one reason.

    `due` (the last of them), `first_due`, `started`, `ended` in seconds since 1970; `due` is None for `run-now`.
    `outcome` is None while it runs. `worst_usd`: the most it could cost; `usd`: what it did.
    """

    id: int
    schedule: str
    due: float | None
    outcome: Outcome | None
    first_due: float | None = None
    count: int = 1
    started: float | None = None
    ended: float | None = None
    invocation: str = ""
    exit_code: int | None = None
    detail: str = ""
    worst_usd: float | None = None
    usd: float | None = None
    verdict: Verdict | None = None
    baseline: str = ""
    """The invocation that the gate compared it with."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Something to evaluate. `identity` tells it from every other one, also from a later state of the same path."""

    identity: str
    path: str
    name: str
    step: int | None = None
    order: float = 0.0
    """The greater, the newer: time of its last change in seconds since 1970, or its place in a list."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A checkpoint that a watch has begun with. `outcome` is None while it is evaluated."""

    checkpoint: Checkpoint
    invocation: str
    outcome: Outcome | None
    exit_code: int | None = None
    started: float = 0.0
    detail: str = field(default="")
