"""Settings of one task: the task's own win over evaluation's, which win over the harness's defaults."""

from __future__ import annotations

import dataclasses
from typing import Any

from launcher.config.evaluation import Settings


def effective(*layers: Settings) -> Settings:
    """One Settings from several, later ones winning. Mappings are merged key by key, all else is replaced."""
    merged: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        for layer in layers:
            value = getattr(layer, field.name)
            if value is None:
                continue
            before = merged.get(field.name)
            merged[field.name] = {**before, **value} if isinstance(before, dict) else value
    return Settings(**merged)
