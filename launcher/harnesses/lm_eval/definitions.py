"""What the config of a task or group says, once it is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Member:
    """A task or group that a group lists; the rest where the group overrides it or defines the task itself."""

    name: str
    output_type: str | None = None
    num_fewshot: int | None = None


def output_type_of(config: dict[str, Any]) -> str:
    """lm-eval's output type of a task's config; generation where it says nothing."""
    return str(config.get("output_type") or "generate_until")


def group_members(config: dict[str, Any]) -> Iterator[Member]:
    """Members of a group's config, and those of groups written inside it."""
    override, shots = config.get("output_type"), config.get("num_fewshot")
    members = config.get("task")
    for item in members if isinstance(members, list) else []:
        if not isinstance(item, dict):
            yield Member(str(item), override, shots)
        elif isinstance(item.get("task"), list):
            yield from group_members({"output_type": override, "num_fewshot": shots} | item)
        else:
            name = str(item.get("task") or item.get("group") or "")
            yield Member(name, item.get("output_type") or override, item.get("num_fewshot", shots))
