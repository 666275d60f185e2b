"""The section `sweep`: which points a sweep has, and what they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from launcher.config.fields import Count, GpuHours, Seconds, Usd, key


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The points of a sweep and what bounds all of them together.

    A point is one invocation: the rest of the config with the values of the point.
    """

    grids: dict[str, dict[str, Any]] = key(
        factory=dict,
        doc="grids by name: keys with lists of values, or a text in Hydra's sweep grammar such as range(1,4); "
        "each grid gives every combination",
    )
    points: list[dict[str, Any]] = key(factory=list, doc="single points: keys with one value each, beside the grids")
    exclude: list[dict[str, Any]] = key(
        factory=list, doc="combinations that are left out: a point that has all values of one of these"
    )
    objective: str | list[str] | None = key(
        None,
        "what a sweeper of Hydra's plugins (hydra/sweeper=optuna) optimizes: the score of a task as TASK/METRIC, or "
        "TASK/METRIC/FILTER; a list for several objectives",
    )
    reuse_endpoints: bool = key(
        False, "whether one endpoint serves several tasks of equal deployments one after another before it is deleted"
    )
    on_failure: Literal["continue", "stop_new", "abort"] = key(
        "continue",
        "after a point without all its scores: go on; begin no further point; or end those that run, too",
    )
    skip_done: bool = key(
        False, "whether points whose scores an earlier sweep of this machine's journal has are left out"
    )
    max_points: Count = key(1000, "most points; a sweep with more is refused before anything is created")
    max_parallel_tasks: Count = key(16, "most tasks of all points at once; further ones wait, longest first")
    max_parallel_endpoints: Count | None = key(None, "most endpoints of all points alive at once")
    max_gpus: Count | None = key(None, "most GPUs of all points in use at once")
    max_duration: Seconds | None = key(None, "time after which the sweep is ended and torn down; scores are kept")
    max_cost_usd: Usd | None = key(
        None, "cost of all endpoints of all points at which the sweep is ended and torn down; scores are kept"
    )
    max_gpu_hours: GpuHours | None = key(
        None, "GPU time of all endpoints of all points at which the sweep is ended and torn down; scores are kept"
    )

    @property
    def has_points(self) -> bool:
        """Whether the section by itself makes a sweep."""
        return bool(self.grids or self.points)
