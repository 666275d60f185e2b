"""Answers that are not quite what the service's document says: nulls, odd rows, time stamps of several kinds.

What can be read is read: one odd row must not hide the deployments beside it, which cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

import msgspec

from launcher.decoding import convert
from launcher.platforms.http import Document

T = TypeVar("T")

_NANOSECOND = Decimal("1e-9")
_LATEST = 10**12
"""Seconds since 1970 that are no time any more."""


def decode(document: Document, answer: Any) -> Any:
    """A JSON document as a type; what is null counts as not there. Raises msgspec.DecodeError."""
    found = _without_nulls(msgspec.json.decode(document))
    return convert(found, answer, strict=False)


def rows(listed: Iterable[Any], kind: type[T]) -> list[T]:
    """The rows of a list that are of a kind; others are left out."""
    found: list[T] = []
    for row in listed:
        with suppress(msgspec.ValidationError):
            found.append(convert(row, kind, strict=False))
    return found


def values(mapping: Mapping[str, Any], kind: type[T]) -> dict[str, T]:
    """The values of a mapping that are of a kind; others are left out."""
    return {name: value for name, given in mapping.items() for value in rows([given], kind)}


def moment(text: str) -> Decimal | None:
    """Seconds since 1970 of a number, or of a date and time in ISO 8601, of UTC where it says no zone; else None."""
    with suppress(InvalidOperation):
        number = Decimal(text)
        return number.quantize(_NANOSECOND) if number.is_finite() and 0 <= number < _LATEST else None
    try:
        date = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return Decimal(repr(date.replace(tzinfo=date.tzinfo or UTC).timestamp()))


def _without_nulls(value: Any) -> Any:
    """Of lists nothing is left out: their places may mean something."""
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value
