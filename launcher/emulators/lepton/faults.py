"""Faults by configuration: what goes wrong, where, how often. The same seed gives the same faults."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from launcher.emulators.common.clock import After
from launcher.emulators.common.faults import Fault, LateEffect, LateListing, LoseAnswer, Refuse, SlowAnswer, SlowDelete


@dataclass(frozen=True, kw_only=True)
class StartFault(Fault):
    """Hits one start of one replica; a restart of it is the next occasion."""


@dataclass(frozen=True, kw_only=True)
class SlowStart(StartFault):
    """The node takes this long to be there."""

    after: After = field(default_factory=After)


@dataclass(frozen=True, kw_only=True)
class NoCapacity(StartFault):
    """No node, or with `queueing` no quota, for so many seconds; by default for ever."""

    seconds: float = math.inf
    queueing: bool = False


@dataclass(frozen=True, kw_only=True)
class BadConfig(StartFault):
    """The replica never starts, with this readiness issue. A job fails."""

    reason: Literal["ConfigError", "SystemError"] = "ConfigError"
    message: str = "failed to pull image: unauthorized"


@dataclass(frozen=True, kw_only=True)
class Crash(StartFault):
    """The container ends with this exit code right after its start, whatever its command is."""

    exit_code: int = 1
    message: str = "cannot start"


@dataclass(frozen=True, kw_only=True)
class ErrorState(StartFault):
    """The endpoint goes to the state Error."""


@dataclass(frozen=True, kw_only=True)
class HoldName(Fault):
    """For so many seconds after an endpoint is gone its name cannot be used again: 409."""

    seconds: float = 5.0


@dataclass(frozen=True, kw_only=True)
class DelayLogs(Fault):
    """Lines come to the collected logs so many seconds after they were written."""

    seconds: float = 5.0


KINDS: dict[str, type[Fault]] = {
    "slow_start": SlowStart,
    "no_capacity": NoCapacity,
    "bad_config": BadConfig,
    "crash": Crash,
    "error_state": ErrorState,
    "slow_delete": SlowDelete,
    "hold_name": HoldName,
    "late_listing": LateListing,
    "delay_logs": DelayLogs,
    "refuse": Refuse,
    "lose_answer": LoseAnswer,
    "slow_answer": SlowAnswer,
    "late_effect": LateEffect,
}
"""How a config file calls them."""
