"""Faults by configuration: what goes wrong in the cluster. `resource` is the `nv-eval/name` of a pod, else its name."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.emulators.common.faults import Fault, LateEffect, LoseAnswer, Refuse, RouteFault, SlowAnswer, SlowDelete


@dataclass(frozen=True, kw_only=True)
class PullError(Fault):
    """The image of the pod cannot be pulled."""

    message: str = "manifest unknown"


@dataclass(frozen=True, kw_only=True)
class Crash(Fault):
    """The container ends with this exit code right after its start. `reason` as a container's state has it."""

    exit_code: int = 1
    reason: str = "Error"
    message: str = "cannot start"


@dataclass(frozen=True, kw_only=True)
class Evict(Fault):
    """The node runs out of something so many seconds after the container's start, and the pod fails."""

    seconds: float = 0.0
    message: str = "The node was low on resource: memory."


@dataclass(frozen=True, kw_only=True)
class Deny(RouteFault):
    """An admission webhook refuses a creation."""

    webhook: str = "policy.example.com"
    message: str = "GPUs are reserved for another team"


KINDS: dict[str, type[Fault]] = {
    "pull_error": PullError,
    "crash": Crash,
    "evict": Evict,
    "deny": Deny,
    "slow_delete": SlowDelete,
    "refuse": Refuse,
    "lose_answer": LoseAnswer,
    "slow_answer": SlowAnswer,
    "late_effect": LateEffect,
}
"""How a config file calls them."""
