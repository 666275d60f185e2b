"""Typed keys of `pricing`: what a platform's resources cost, as far as the person knows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from launcher.config.fields import key

UsdPerReplicaHour = Annotated[float, Meta(ge=0, extra={"unit": "USD per hour and replica"})]


@dataclass(frozen=True, kw_only=True)
class Pricing:
    """What the platform's resource shapes cost."""

    usd_per_hour: dict[str, UsdPerReplicaHour] = key(
        factory=dict,
        doc="price of one replica of each resource shape in USD per hour, for example {gpu.1xh100: 1.0}; "
        "a shape without one counts with execution.usd_per_gpu_hour",
    )

    def of(self, shape: str | None) -> float | None:
        """Price of one replica of a shape in USD per hour; None where it is not known. Case does not count."""
        return {name.lower(): price for name, price in self.usd_per_hour.items()}.get((shape or "").lower())
