"""The ways to evaluate. A harness is imported only when a task names it."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from launcher.errors import ConfigError, nearest

if TYPE_CHECKING:
    from launcher.harnesses.spec import Harness

_CLASSES = {
    "lm_eval": ("launcher.harnesses.lm_eval", "LmEval"),
    "nemo_evaluator": ("launcher.harnesses.nemo_evaluator", "NemoEvaluator"),
    "command": ("launcher.harnesses.command", "CommandHarness"),
}

HARNESSES: tuple[str, ...] = tuple(_CLASSES)
"""Names that `evaluation.harness` may have."""
_INTERNAL = {"none": ("launcher.harnesses.none", "NoHarness")}
"""Named by plans, never by configs."""


def setting_defaults() -> dict[str, dict[str, Any]]:
    """What harnesses set where a config does not: setting, then harness, to the value."""
    found: dict[str, dict[str, Any]] = {}
    for harness in HARNESSES:
        defaults = load_harness(harness).defaults
        for field in fields(defaults):
            value = getattr(defaults, field.name)
            if isinstance(value, bool | int | float):
                found.setdefault(field.name, {})[harness] = value
    return found


@cache
def load_harness(name: str) -> Harness:
    """The harness of that name. Raises ConfigError for an unknown one."""
    found = _CLASSES.get(name) or _INTERNAL.get(name)
    if found is None:
        raise ConfigError(f"no harness {name!r}{nearest(name, HARNESSES)}")
    module, attribute = found
    return cast("Harness", getattr(import_module(module), attribute)())
