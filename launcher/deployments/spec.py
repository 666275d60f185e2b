"""What a deployment turns its typed keys into: one ServerSpec, the same for every platform."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from launcher.config.evaluation import EndpointType
from launcher.config.fields import Env

Loglikelihood: TypeAlias = Literal["yes", "no", "probe"]


@dataclass(frozen=True, kw_only=True)
class Health:
    """How a server is asked whether it is up.

    `path` is the health path (None: not asked). `interval` is the least time between two questions in seconds:
    some servers compute a token for each.
    """

    path: str | None = "/health"
    interval: float = 0.25


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """A model on the platform's storage: `path` on `volume` (None: the execution's), mounted at `mount_path`."""

    path: str
    mount_path: str
    volume: str | None = None


@dataclass(frozen=True, kw_only=True)
class Template:
    """A spec that the platform renders when it is asked. What the ServerSpec says itself goes before it.

    `run` is what it is rendered with; `port` takes the place of its own.
    """

    id: str
    visibility: Literal["public", "private"]
    run: str | dict[str, Any] | None = None
    port: int | None = None

    def __str__(self) -> str:
        return f"{self.visibility}/{self.id}"


@dataclass(frozen=True, kw_only=True)
class Photon:
    """A packaged model that the platform knows by its id."""

    id: str
    namespace: Literal["public", "private"]

    def __str__(self) -> str:
        return f"{self.namespace}/{self.id}"


@dataclass(frozen=True, kw_only=True)
class ServerSpec:
    """One model server: what is run, what it needs, and how it answers.

    `command` is the whole argument list; empty means the image's own entry point. A platform replaces `{port}` and
    `{host}` (what to bind) and `{threads}` (CPU threads for this server) in command and env. `image` is None where
    the server runs only as a process, and where `template` or `photon` say what runs. `prepare` are argument lists run
    once per machine before the first server starts (process runtime), for example to fetch weights.
    """

    type: str
    model_id: str
    served_name: str
    command: tuple[str, ...]
    image: str | None = None
    env: Env = field(default_factory=dict)
    port: int = 8000
    revision: str | None = None
    gpus: int = 0
    cpus: float | None = None
    memory_gib: float | None = None
    shared_memory_mib: int | None = None
    cache_path: str | None = None
    """Folder inside the container where the server keeps downloaded models."""
    health: Health = field(default_factory=Health)
    endpoint_types: tuple[EndpointType, ...] = ("completions", "chat")
    loglikelihood: Loglikelihood = "probe"
    loglikelihood_note: str = ""
    """Why log-likelihoods do not come back, and what to use instead; for `loglikelihood="no"`."""
    remote_tokenizer: bool = False
    """The server has /tokenizer_info, /tokenize and /detokenize, so that the client needs no tokenizer."""
    single_prompt: bool = False
    """A request holds one prompt, as text: no batches, no lists of tokens."""
    named_later: bool = False
    """The name that requests give as model is known when the endpoint exists, and the server does not list it."""
    key_env: str = ""
    """Variable that makes it ask its callers for a key; empty where there is none."""
    max_length: int | None = None
    """Longest prompt plus answer in tokens, where it is known."""
    prepare: tuple[tuple[str, ...], ...] = ()
    requires: tuple[str, ...] = ()
    """Python modules that the launcher's interpreter must be able to import (process runtime)."""
    extra: str | None = None
    """Extra of this package that installs them."""
    files: dict[str, str] = field(default_factory=dict)
    """Files of this machine that the server reads (process runtime): key of `deployment` to path."""
    stored_model: StoredModel | None = None
    template: Template | None = None
    photon: Photon | None = None
