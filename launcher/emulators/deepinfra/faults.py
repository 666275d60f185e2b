"""What goes wrong at DeepInfra: faults of deployments, and of routes.

Of a fault, `resource` is the name of the deployment without its owner; `route` is `METHOD /path`: `POST /deploy/llm`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from launcher.emulators.common import faults
from launcher.emulators.common.faults import (
    Fault,
    LateEffect,
    LateListing,
    LoseAnswer,
    RouteFault,
    SlowAnswer,
    SlowDelete,
)
from launcher.emulators.deepinfra.errors import Shape


@dataclass(frozen=True, kw_only=True)
class NoCapacity(Fault):
    """The deployment stays initializing, its instances pending, for so many seconds; by default for ever."""

    seconds: float = math.inf


@dataclass(frozen=True, kw_only=True)
class StuckDownload(Fault):
    """The deployment stays downloading for so many seconds; by default for ever."""

    seconds: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Fails(Fault):
    """The deployment fails, so many seconds after it got the status `at`."""

    at: Literal["initializing", "downloading", "deploying", "running"] = "deploying"
    seconds: float = 0.0
    reason: str = "Initialization failed"


@dataclass(frozen=True, kw_only=True)
class Stops(Fault):
    """The deployment stops by itself after it has run for so many seconds."""

    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Refuse(faults.Refuse):
    """Answer with this status, in this shape, and do nothing."""

    shape: Shape = Shape.ERROR


@dataclass(frozen=True, kw_only=True)
class FalseRefusal(RouteFault):
    """Answer with this status, and do what was asked nevertheless, so many seconds later."""

    status: int = 503
    seconds: float = 1.0
    message: str = "try again later"


KINDS: dict[str, type[Fault]] = {
    "no_capacity": NoCapacity,
    "stuck_download": StuckDownload,
    "fails": Fails,
    "stops": Stops,
    "slow_delete": SlowDelete,
    "late_listing": LateListing,
    "refuse": Refuse,
    "false_refusal": FalseRefusal,
    "lose_answer": LoseAnswer,
    "slow_answer": SlowAnswer,
    "late_effect": LateEffect,
}
"""How a config file calls them."""
