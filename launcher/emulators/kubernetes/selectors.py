"""Label and field selectors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from launcher.emulators.kubernetes.errors import ApiError

Json = dict[str, Any]
Selector = Callable[[Json], bool]
_SET = re.compile(r"^(\S+)\s+(in|notin)\s*\(([^)]*)\)$")
_PARTS = re.compile(r",(?![^(]*\))")


def selector(labels: str, fields: str) -> Selector:
    """Whether an object is selected. Raises ApiError 400 for text that is no selector."""
    tests = [_label_test(part.strip()) for part in _PARTS.split(labels) if part.strip()]
    wanted = [_field_test(part.strip()) for part in fields.split(",") if part.strip()]

    def selects(thing: Json) -> bool:
        found = thing["metadata"].get("labels") or {}
        return all(test(found) for test in tests) and all(test(thing) for test in wanted)

    return selects


def matches(wanted: Json, labels: Json) -> bool:
    """Whether a `selector` of a spec, with `matchLabels` or flat, selects these labels."""
    flat = wanted.get("matchLabels", {}) if "matchLabels" in wanted or "matchExpressions" in wanted else wanted
    return bool(flat) and all(labels.get(name) == value for name, value in flat.items())


def _label_test(text: str) -> Callable[[Json], bool]:
    if (found := _SET.match(text)) is not None:
        name, word, listed = found[1], found[2], {value.strip() for value in found[3].split(",")}
        return lambda labels: (labels.get(name) in listed) is (word == "in")
    for sign in ("!=", "==", "="):
        name, given, value = text.partition(sign)
        if given:
            name, value = name.strip(), value.strip()
            return lambda labels: (labels.get(name) == value) is (sign != "!=")
    if " " in text:
        raise ApiError(400, "BadRequest", f"unable to parse requirement: {text}")
    if text.startswith("!"):
        return lambda labels: text[1:] not in labels
    return lambda labels: text in labels


def _field_test(text: str) -> Selector:
    path, sign, value = re.split(r"(!=|==|=)", text, maxsplit=1)
    return lambda thing: (_field(thing, path) == value) is (sign != "!=")


def _field(thing: Any, path: str) -> str:
    for part in path.split("."):
        thing = thing.get(part) if isinstance(thing, dict) else None
    return "" if thing is None else str(thing)
