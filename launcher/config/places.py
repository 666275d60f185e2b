"""Places that can hold something of ours: executions, and accounts that only rent endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from launcher.config.execution import AnyExecution


@dataclass(frozen=True, kw_only=True)
class DeepInfraAccount:
    """The DeepInfra account that the credentials of this machine lead to."""

    type: Literal["deepinfra"] = "deepinfra"


AnyPlace: TypeAlias = AnyExecution | DeepInfraAccount
