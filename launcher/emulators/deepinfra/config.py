"""What an emulator pretends to be: an account with its key, GPUs and prices, the models there are, and faults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from launcher.emulators.common import configfile
from launcher.emulators.common.clock import After
from launcher.emulators.common.faults import Fault
from launcher.emulators.common.rehearsal import SHOWN
from launcher.emulators.deepinfra.faults import KINDS
from launcher.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A type of GPU that is offered. `usd_per_hour` of one GPU; `limit`: GPUs of it that the account may use."""

    type: str
    usd_per_hour: float
    available: bool = True
    limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Repo:
    """Repositories of Hugging Face that exist. `revisions`: those it has; None: any."""

    pattern: str = "*"
    gated: bool = False
    revisions: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Server:
    """How models run on this machine. The first entry whose pattern matches the image or the weights is used.

    In `argv` and `env`, `{port}` is the port to listen on, `{model}` the name that requests will have, `{weights}` the
    repository or base model; a word `{args}` becomes all of `extra_args`.
    """

    pattern: str = "*"
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """When states advance, and how processes are watched. Seconds throughout."""

    initializing: After = field(default_factory=After)
    downloading: After = field(default_factory=After)
    deploying: After = field(default_factory=After)
    """At least; the server must be ready too."""
    tick: float = 0.05
    """Between two looks at all processes."""
    restart_delay: float = 1.0
    """Before an instance that ended is replaced."""
    stop_grace: float = 2.0
    """Between SIGTERM and SIGKILL."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One emulated account. Models for which no server is named answer by themselves, without a process."""

    owner: str = "nv-eval-tester"
    keys: tuple[str, ...] = ("di-loopbackkey0001",)
    unauthorized: Literal["error", "detail", "forbidden"] = "error"
    """How a wrong key is refused: 401 in one of two shapes, or 403."""
    gpus: tuple[Gpu, ...] = (
        Gpu(type="L4-24GB", usd_per_hour=0.5),
        Gpu(type="A100-80GB", usd_per_hour=0.89),
        Gpu(type="H100-80GB", usd_per_hour=1.79),
        Gpu(type="H200-141GB", usd_per_hour=2.69),
        Gpu(type="B200-180GB", usd_per_hour=3.69),
    )
    gpu_counts: tuple[int, ...] = (1, 2, 4, 8)
    """Sizes of instances for which `gpu_availability` has a line."""
    gpu_limit: int = 4
    """GPUs of all deployments together."""
    over_limit: Literal["refuse", "pending"] = "refuse"
    """What happens to a deployment beyond the limit: 409, or its instances stay pending."""
    has_payment: bool = True
    """Without: 402."""
    repos: tuple[Repo, ...] = (Repo(),)
    """The first whose pattern matches counts; none: it does not exist."""
    hf_tokens: tuple[str, ...] = ()
    """Tokens that open gated repositories; empty: every token does."""
    base_models: tuple[str, ...] = ("*",)
    """Patterns of public models."""
    checks_weights: Literal["late", "at_once"] = "late"
    """When weights that cannot be had are noticed: the deployment fails while it downloads, or 422."""
    legacy: tuple[str, ...] = ("meta-llama/Meta-Llama-3-8B-Instruct",)
    """Rows of the type legacy in the list: they cost nothing per hour."""
    deleted_details: Literal["deleted", "404"] = "deleted"
    """What the details of a deleted deployment are."""
    rate_limit: int = 200
    """Requests in flight per model; 429 beyond."""
    servers: tuple[Server, ...] = ()
    inherit: tuple[str, ...] = SHOWN
    """Variables of the emulator's own environment that servers see; they see no other."""
    timing: Timing = field(default_factory=Timing)
    faults: tuple[Fault, ...] = ()
    seed: int = 0
    root: str | None = None
    """Folder of logs, without characters that a shell minds; None: a temporary one."""

    def gpu(self, type_: str) -> Gpu | None:
        """What is known of a type of GPU, if it is offered."""
        return next((gpu for gpu in self.gpus if gpu.type == type_), None)

    def repo(self, name: str) -> Repo | None:
        """What is known of a repository, if it exists."""
        return next((repo for repo in self.repos if fnmatchcase(name, repo.pattern)), None)

    def has_base_model(self, name: str) -> bool:
        """Whether a public model of this name exists."""
        return any(fnmatchcase(name, pattern) for pattern in self.base_models)


def load(path: Path) -> Config:
    """Read a YAML file of Config's keys. `faults` is a list of mappings with `kind` and that fault's keys.

    Raises ConfigError for a file that cannot be read, a key that does not exist or a wrong type.
    """
    return configfile.load(path, Config, KINDS, _check)


def _check(document: Mapping[str, Any]) -> None:
    if document.get("keys") == []:
        raise ConfigError("keys: names none; leave it out for the built-in one")
