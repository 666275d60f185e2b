"""What an emulated cluster pretends to be: its nodes, namespaces, users, images and faults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from launcher.emulators.common import configfile
from launcher.emulators.common.faults import Fault
from launcher.emulators.common.rehearsal import SHOWN
from launcher.emulators.kubernetes.faults import KINDS
from launcher.emulators.lepton.config import Image

GPU = "nvidia.com/gpu"


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node and what pods can have of it. `memory_gib` in GiB."""

    name: str = "node-1"
    cpus: float = 64.0
    memory_gib: float = 512.0
    gpus: int = 8
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, str], ...] = ()
    """As in a node's spec: `key`, `value`, `effect`."""


@dataclass(frozen=True, kw_only=True)
class User:
    """Somebody with a token. Without `admin` it may do what roles of the cluster say."""

    token: str = "loopback-admin"  # noqa: S105  of an emulator
    name: str = "admin"
    admin: bool = True


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds throughout."""

    tick: float = 0.05
    """Between two looks at everything."""
    pull: float = 0.0
    """From the binding of a pod to the start of its container."""
    restart_delay: float = 1.0
    """Before the first restart of a crashed container; doubles each time up to five minutes."""
    resync: float = 0.0
    """Between the deletion of an owner and that of what it owned, at least."""
    bookmark: float = 5.0
    """Between two bookmarks of a watch."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One emulated cluster."""

    version: str = "v1.37.1"
    nodes: tuple[Node, ...] = (Node(name="node-1"), Node(name="node-2"))
    namespaces: tuple[str, ...] = ("default", "kube-system")
    users: tuple[User, ...] = (User(),)
    claims: tuple[str, ...] = ("results", "models")
    """Claims of volumes in the namespace default."""
    extensions: tuple[str, ...] = ()
    """Groups that are installed beside those that every cluster has: `leaderworkerset.x-k8s.io` and
    `gateway.networking.k8s.io`."""
    gateways: tuple[str, ...] = ()
    """Gateways of the namespace default; each listens on a port of this machine."""
    quota: Mapping[str, str] = field(default_factory=dict)
    """What the namespace default may use in all: `requests.nvidia.com/gpu: "4"`, `pods: "10"`."""
    images: tuple[Image, ...] = ()
    """How containers of some images run on this machine."""
    inherit: tuple[str, ...] = SHOWN
    """Variables of the emulator's own environment that containers see; they see no other."""
    timing: Timing = field(default_factory=Timing)
    faults: tuple[Fault, ...] = ()
    seed: int = 0
    root: str | None = None
    """Folder of volumes and logs, without characters that a shell minds; None: a temporary one."""

    def image(self, name: str) -> Image:
        """How containers of this image run."""
        return next((image for image in self.images if fnmatchcase(name, image.pattern)), Image())


def load(path: Path) -> Config:
    """Read a YAML file of Config's keys. `faults` is a list of mappings with `kind` and that fault's keys.

    Raises ConfigError for a file that cannot be read, a key that does not exist or a wrong type.
    """
    return configfile.load(path, Config, KINDS, _check)


def _check(_document: Mapping[str, Any]) -> None:
    return
