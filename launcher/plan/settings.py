"""Settings of one task: the task's own win over evaluation's, which win over the harness's defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import reduce
from typing import Any, TypeVar

from launcher.config.evaluation import Generation, Settings

T = TypeVar("T", Settings, Generation)


def effective(*layers: Settings) -> Settings:
    """One Settings from several, later ones winning. Mappings are merged key by key, all else is replaced."""
    return _merged(Settings, layers)


def is_set(settings: Settings, name: str) -> bool:
    """Whether a layer says anything about a setting."""
    value = getattr(settings, name)
    return bool(value.arguments()) if isinstance(value, Generation) else value is not None


def _merged(cls: type[T], layers: Sequence[T]) -> T:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        found = [value for layer in layers if (value := getattr(layer, field.name)) is not None]
        if found:
            values[field.name] = reduce(_over, found)
    return cls(**values)


def _over(before: Any, later: Any) -> Any:
    if isinstance(later, Generation):
        return _merged(Generation, (before, later))
    return {**before, **later} if isinstance(before, dict) else later
