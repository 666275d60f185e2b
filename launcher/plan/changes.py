"""What differs between the config of an invocation and the one it is to be resumed with, and whether that may be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_OPERATIONAL = re.compile(
    r"limits\..*|export\..*|notify\..*|pricing\..*"
    r"|execution\.(output_dir|start_jobs|stop_grace|usd_per_.*|job_ttl|memory_gib|cpus|gpus|autoscale\..*"
    r"|times\..*|account|partition|qos|reservation|exclusive|gpu_option|job\..*|mail|options(\.\d+)?)"
    r"|(auxiliary\.\w+\.)?deployment\.(start_timeout|health_timeout)"
    r"|evaluation\.(tasks\.\d+\.)?(timeout|request_timeout|max_retries|concurrency|expected_duration|response_cache|cluster_by)"
)
"""Keys that change how a run goes and not what it measures."""


@dataclass(frozen=True)
class Change:
    """One key with its value before and after."""

    key: str
    before: Any
    after: Any

    @property
    def is_operational(self) -> bool:
        """Whether scores from before and after it can stand in one table."""
        return _OPERATIONAL.fullmatch(self.key) is not None

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.before)} -> {_shown(self.after)}"


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """All keys whose values differ between two resolved configs, in their order."""
    return list(_differences("", before, after))


def measured(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of a resolved config that decide what is measured, by their path; keys without a value are left out."""
    leaves = (leaf for name, section in config.items() for leaf in _leaves(name, section))
    return {name: value for name, value in leaves if value is not None and _OPERATIONAL.fullmatch(name) is None}


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Keys that hold no further ones."""
    if isinstance(value, Mapping) or _is_list(value):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _leaves(f"{name}.{key}", item)
    else:
        yield name, value


def _differences(prefix: str, before: Any, after: Any) -> Iterator[Change]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in [*before, *(name for name in after if name not in before)]:
            yield from _differences(f"{prefix}.{name}" if prefix else name, before.get(name), after.get(name))
    elif _is_list(before) and _is_list(after) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _differences(f"{prefix}.{index}", old, new)
    elif before != after and not (_is_list(before) and _is_list(after) and list(before) == list(after)):
        yield Change(prefix, before, after)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _shown(value: Any) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
