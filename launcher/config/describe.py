"""What a key takes, in words, beside what it got."""

from __future__ import annotations

import types
import typing
from difflib import get_close_matches
from typing import Any

from msgspec import Meta

from launcher.config.fields import Reference

_LONGEST = 60
"""Characters of a value that an error shows."""
_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    Reference: "a reference (${oc.env:NAME} or {secret: NAME})",
}


def show(value: Any) -> str:
    """A value as an error shows it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def expected(annotation: Any, value: Any) -> str:
    """Why `value` is not of the type `annotation`."""
    options = [option for option in _flat(annotation) if option is not types.NoneType]
    names = [str(name) for option in options for name in _literals(option)]
    if names and isinstance(value, str) and len(names) >= len(options):
        close = get_close_matches(value, names, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"got {show(value)}; valid: {', '.join(names)}{hint}"
    return f"expected {_joined([_words(option) for option in options])}, got {show(value)}{_hint(options, value)}"


def _hint(options: list[Any], value: Any) -> str:
    if value is None:
        return "; give it a value, or remove the key"
    if str in options and not isinstance(value, str | dict | list):
        return "; put it in quotes"
    return ""


def _flat(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return [part for option in typing.get_args(annotation) for part in _flat(option)]
    return [annotation]


def _literals(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if typing.get_origin(annotation) is typing.Literal else ()


def _joined(words: list[str]) -> str:
    unique = list(dict.fromkeys(words))
    if "a number" in unique and "a whole number" in unique:
        unique.remove("a whole number")
    return " or ".join(filter(None, [", ".join(unique[:-1]), unique[-1]]))


def _words(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return f"{_words(arguments[0])}{_bounds(arguments[1])}"
    if origin is typing.Literal:
        return _joined([str(value) for value in arguments])
    if origin is list:
        return "a list"
    return _NAMES.get(annotation, "a mapping")


def _bounds(meta: Meta) -> str:
    if meta.min_length:
        return " that is not empty"
    signs = (("of at least", meta.ge), ("above", meta.gt), ("at most", meta.le), ("below", meta.lt))
    bounds = [f"{sign} {bound:.12g}" for sign, bound in signs if bound is not None]
    return " " + " and ".join(bounds) if bounds else ""
