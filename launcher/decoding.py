"""Documents and trees to types, by msgspec, from any thread.

msgspec learns a type when it is used first. Two threads that do so at once end the process with a segmentation fault
(0.22.0), and with it a supervisor; so one learns after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_learning = threading.RLock()
_known: set[Any] = set()


def convert(value: Any, kind: type[T], *, strict: bool = True) -> T:
    """A tree as a type. Raises msgspec.ValidationError."""
    return _once(kind, lambda: msgspec.convert(value, kind, strict=strict))


def decode(document: bytes | bytearray | str, kind: type[T], *, strict: bool = True) -> T:
    """A JSON document as a type. Raises msgspec.DecodeError."""
    return _once(kind, lambda: msgspec.json.decode(document, type=kind, strict=strict))


def decode_yaml(document: bytes | str, kind: type[T]) -> T:
    """A YAML document as a type. Raises msgspec.DecodeError."""
    return _once(kind, lambda: msgspec.yaml.decode(document, type=kind))


def _once(kind: Any, read: Callable[[], T]) -> T:
    if kind in _known:
        return read()
    with _learning:
        try:
            return read()
        finally:
            _known.add(kind)
