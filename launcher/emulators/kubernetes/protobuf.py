"""As much of protocol buffers as kubectl insists on: a review of its own rights, and the schemas in version 2.

Fields are numbered as in k8s.io/api/authorization/v1 and in gnostic's openapiv2.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from launcher.emulators.kubernetes.errors import ApiError
from launcher.emulators.kubernetes.kinds import Kind

Json = dict[str, Any]
MARK = b"k8s\0"
"""How an object in this form begins."""
_ATTRIBUTES = ("namespace", "verb", "group", "version", "resource", "subresource", "name")


def review(body: bytes) -> Json:
    """A SelfSubjectAccessReview. Raises ApiError 400 for what is none."""
    try:
        raw = _fields(body.removeprefix(MARK))[2]
        spec = _fields(_fields(raw)[2])
        found = _fields(spec[1]) if 1 in spec else {}
    except (KeyError, IndexError, ValueError):
        raise ApiError(400, "BadRequest", "the body is no SelfSubjectAccessReview") from None
    asked = {name: found[number].decode() for number, name in enumerate(_ATTRIBUTES, 1) if number in found}
    kind = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}}
    return {**kind, "spec": {"resourceAttributes": asked}}


def schemas(kinds: Sequence[Kind]) -> bytes:
    """OpenAPI version 2 of these kinds, whose fields may have any name."""
    paths = b"".join(_message(2, _text(1, _path(kind)) + _message(2, _change(kind))) for kind in kinds)
    definitions = b"".join(
        _message(1, _text(1, f"io.k8s.{kind.kind}") + _message(2, _extension(31, [_about(kind)]))) for kind in kinds
    )
    info = _text(1, "Kubernetes") + _text(2, "emulated")
    return _text(1, "2.0") + _message(2, info) + _message(8, paths) + _message(9, definitions)


def _path(kind: Kind) -> str:
    return f"{kind.path}{'/namespaces/{namespace}' if kind.namespaced else ''}/{kind.plural}/{{name}}"


def _change(kind: Kind) -> bytes:
    """What can be done at a path: patch it, with validation of fields."""
    query = _text(2, "query") + _text(4, "fieldValidation") + _text(6, "string")
    parameter = _message(1, _message(2, _message(3, query)))
    return _message(8, _message(8, parameter) + _extension(13, _about(kind)))


def _about(kind: Kind) -> Json:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def _extension(number: int, content: Any) -> bytes:
    return _message(number, _text(1, "x-kubernetes-group-version-kind") + _message(2, _text(2, json.dumps(content))))


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode())


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def _fields(content: bytes) -> dict[int, bytes]:
    """The last value of each field that has a length. Raises IndexError, ValueError for what is no message."""
    return dict(_parts(content))


def _parts(content: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place < len(content):
        key, place = _number(content, place)
        value, place = _number(content, place)
        if key & 7 == 2:
            yield key >> 3, content[place : place + value]
            place += value
        elif key & 7 != 0:
            raise ValueError(key)


def _number(content: bytes, place: int) -> tuple[int, int]:
    found = shift = 0
    while True:
        byte = content[place]
        place += 1
        found |= (byte & 127) << shift
        if byte < 128:
            return found, place
        shift += 7
