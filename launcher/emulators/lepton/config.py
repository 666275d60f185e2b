"""What an emulator pretends to be: a workspace with its tokens, node groups, shapes, images and faults."""

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
from launcher.emulators.lepton.faults import KINDS
from launcher.errors import ConfigError

H100 = "NVIDIA-H100-80GB-HBM3"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A resource shape. `memory` in MB, `usd_per_hour` of one replica."""

    id: str
    cpu: float = 16
    memory: int = 204800
    accelerators: int = 0
    accelerator_type: str = ""
    usd_per_hour: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A volume of a node group; mounts call it `node-{kind}:{name}`, or `node-local` for the kind local."""

    name: str = "lepton-shared-fs"
    kind: Literal["local", "nfs", "remote"] = "nfs"
    size_in_gb: int = 1000

    @property
    def source(self) -> str:
        """The `from` of a mount."""
        return "node-local" if self.kind == "local" else f"node-{self.kind}:{self.name}"


@dataclass(frozen=True, kw_only=True)
class NodeGroup:
    """A dedicated node group. `accelerators` that it has; None: always enough. `shapes`: ids; none named: all."""

    id: str = "h100-pool-ab12cd34"
    name: str = "h100-pool"
    shapes: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = (Volume(), Volume(name="local", kind="local"))
    accelerators: int | None = None
    quota_enabled: bool = False


@dataclass(frozen=True, kw_only=True)
class Token:
    """A workspace token. `expires_at` in seconds since 1970."""

    value: str = "nvapi-loopbacktoken0001"
    expires_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class Image:
    """How containers of some images run on this machine. The first entry that matches is used; none: the command as is.

    `prefix` goes before the command; `instead` is run in its place, also where the spec has no command; `path` are
    folders put before PATH; `env` is set unless the spec sets it. In `prefix`, `instead` and `env`, `{port}` is the
    port to listen on; in `env`, `{home}` is the process's HOME, a folder of its own.
    """

    pattern: str = "*"
    prefix: tuple[str, ...] = ()
    instead: tuple[str, ...] | None = None
    path: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SimulatedServer:
    """Endpoints of some images that run nothing: hundreds of them cost next to nothing.

    From `opens_after` seconds after their start they answer as a server of one model does, ` ok` to everything:
    health, /v1/models, completions. `model` is what it is called; None: what the command or the environment says, as
    those of vLLM, SGLang and NIM do. The first entry that matches the image is used, before `images`.
    """

    pattern: str = "*"
    model: str | None = None
    opens_after: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Template:
    """A prebuilt template. `spec` is that of a job or of an endpoint, as rendering returns it.

    In all its texts `${run}` becomes what it is rendered with, and `${run.NAME}` one of its parameters; rendering
    without them is refused.
    """

    id: str
    visibility: Literal["public", "private"] = "public"
    workload_type: Literal["job", "pod", "deployment"] = "deployment"
    spec: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """When states advance, and how containers are watched. Seconds throughout."""

    endpoint_start: After = field(default_factory=After)
    """From the creation of a replica to the start of its container."""
    endpoint_delete: After = field(default_factory=After)
    """At least, from DELETE to 404."""
    job_start: After = field(default_factory=After)
    job_delete: After = field(default_factory=After)
    tick: float = 0.05
    """Between two looks at all processes."""
    restart_delay: float = 1.0
    """Before the first restart of a crashed container; doubles each time up to a minute."""
    liveness_delay: float = 600.0
    """A port that is closed so long plus `liveness_patience` after the start gets its container killed and restarted;
    a spec's `health.liveness.initial_delay_seconds` comes first."""
    liveness_patience: float = 60.0
    stop_grace: float = 2.0
    """Between SIGTERM and SIGKILL."""
    default_ttl: float = 600.0
    """From the end of a job to its archive where the spec says nothing."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One emulated workspace."""

    workspace: str = "ws1"
    tokens: tuple[Token, ...] = (Token(),)
    foreign_tokens: tuple[str, ...] = ()
    """Valid tokens that may not use this workspace: 403."""
    state: Literal["normal", "paused", "all-pods-terminated", "terminated"] = "normal"
    new_deployment_api: bool = False
    """Serve `/endpoints` instead of `/deployments`."""
    secure_endpoint_defaults: bool = False
    shapes: tuple[Shape, ...] = (
        Shape(id="cpu.small", cpu=1, memory=4096, usd_per_hour=0.1),
        Shape(id="gpu.1xh100", accelerators=1, accelerator_type=H100, usd_per_hour=3.0),
        Shape(id="gpu.8xh100", cpu=128, memory=1638400, accelerators=8, accelerator_type=H100, usd_per_hour=24.0),
    )
    node_groups: tuple[NodeGroup, ...] = (NodeGroup(),)
    quota_accelerators: int = 1024
    quota_cpu: float = 100_000
    quota_memory: int = 1_000_000_000
    secrets: Mapping[str, str] = field(default_factory=dict)
    image_pull_secrets: tuple[str, ...] = ()
    refuse_unknown_secrets: bool = False
    """Answer 400 to a spec that names a secret which does not exist; else its replicas get a ConfigError."""
    collect_logs: bool = True
    """Collect the logs of workloads that do not say whether they want it."""
    storage_routes: bool = True
    template_routes: bool = True
    templates: tuple[Template, ...] = ()
    images: tuple[Image, ...] = ()
    simulated_servers: tuple[SimulatedServer, ...] = ()
    """Which endpoints run nothing, but answer; those that have to run are in `images`."""
    inherit: tuple[str, ...] = SHOWN
    """Variables of the emulator's own environment that containers see; they see no other."""
    timing: Timing = field(default_factory=Timing)
    faults: tuple[Fault, ...] = ()
    seed: int = 0
    root: str | None = None
    """Folder of volumes and logs, without characters that a shell minds; None: a temporary one."""

    def shape(self, id: str) -> Shape | None:
        """The shape of this id."""
        return next((shape for shape in self.shapes if shape.id == id.lower()), None)

    def node_group(self, id: str) -> NodeGroup | None:
        """The node group of this id."""
        return next((group for group in self.node_groups if group.id == id), None)

    def simulated_server(self, image: str) -> SimulatedServer | None:
        """How endpoints of this image are simulated, if they are."""
        return next((server for server in self.simulated_servers if fnmatchcase(image, server.pattern)), None)

    def image(self, name: str) -> Image:
        """How containers of this image run."""
        return next((image for image in self.images if fnmatchcase(name, image.pattern)), Image())


def load(path: Path) -> Config:
    """Read a YAML file of Config's keys. `faults` is a list of mappings with `kind` and that fault's keys.

    Raises ConfigError for a file that cannot be read, a key that does not exist or a wrong type.
    """
    return configfile.load(path, Config, KINDS, _check)


def _check(document: Mapping[str, Any]) -> None:
    if document.get("tokens") == []:
        raise ConfigError("tokens: names none; leave it out for the built-in one")
