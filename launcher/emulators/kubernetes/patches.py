"""Patches: JSON, merge, strategic merge for the lists of the kinds served here, and server-side apply."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

from launcher.emulators.kubernetes.errors import ApiError

_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "imagePullSecrets": ("name",),
    "volumeMounts": ("mountPath",),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
    "ports": ("containerPort", "port"),
}
"""Lists that are merged item by item, and what tells their items apart."""
_MERGED_VALUES = ("finalizers",)


def json_patch(thing: Any, operations: Iterable[dict[str, Any]]) -> Any:
    """RFC 6902. Raises ApiError 422 for a path that is not there or a test that fails."""
    thing = copy.deepcopy(thing)
    for operation in operations:
        _operate(thing, operation)
    return thing


def _operate(thing: Any, operation: dict[str, Any]) -> None:
    path = operation.get("path", "")
    try:
        match operation["op"]:
            case "add":
                _add(thing, path, operation["value"])
            case "replace":
                parent, place = _place(thing, path)
                _ = parent[place]
                parent[place] = operation["value"]
            case "remove":
                _take(thing, path)
            case "move":
                _add(thing, path, _take(thing, operation["from"]))
            case "copy":
                parent, place = _place(thing, operation["from"])
                _add(thing, path, copy.deepcopy(parent[place]))
            case "test":
                _expect(thing, path, operation["value"])
            case _:
                _place(thing, "")  # no such operation
    except (KeyError, IndexError, ValueError, TypeError):
        message = f"the server rejected our request due to an error in our request: {path}"
        raise ApiError(422, "Invalid", message) from None


def _expect(thing: Any, path: str, value: Any) -> None:
    parent, place = _place(thing, path)
    if parent[place] != value:
        raise ValueError(path)


def _place(thing: Any, path: str, *, new: bool = False) -> tuple[Any, Any]:
    """What holds the end of a path, and under which key or index. `new`: there may be nothing yet."""
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]
    for part in parents:
        thing = thing[int(part)] if isinstance(thing, list) else thing[part]
    if not isinstance(thing, list):
        return thing, last
    index = len(thing) if last == "-" else int(last)
    if not 0 <= index < len(thing) + new:
        raise IndexError(path)
    return thing, index


def _add(thing: Any, path: str, value: Any) -> None:
    parent, place = _place(thing, path, new=True)
    if isinstance(parent, list):
        parent.insert(place, value)
    else:
        parent[place] = value


def _take(thing: Any, path: str) -> Any:
    parent, place = _place(thing, path)
    return parent.pop(place)


def merge(thing: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    found = dict(thing) if isinstance(thing, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merge(found.get(name), value)
    return found


def strategic(thing: Any, patch: Any, name: str = "") -> Any:
    """Strategic merge: as `merge`, with lists of named items merged item by item."""
    if isinstance(patch, list):
        return _merged_list(thing if isinstance(thing, list) else [], patch, name)
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get("$patch") == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != "$patch"}
    found = dict(thing) if isinstance(thing, dict) else {}
    retained = patch.get("$retainKeys")
    if retained is not None:
        found = {key: value for key, value in found.items() if key in retained}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            kept = [item for item in found.get(key.partition("/")[2], []) if item not in value]
            found[key.partition("/")[2]] = kept
        elif value is None:
            found.pop(key, None)
        elif not key.startswith("$"):
            found[key] = strategic(found.get(key), value, key)
    return found


def _key_of(name: str, items: list[Any]) -> str | None:
    keys = _KEYS.get(name, ())
    return next((key for key in keys if items and all(isinstance(i, dict) and key in i for i in items)), None)


def _merged_list(before: list[Any], patch: list[Any], name: str) -> list[Any]:
    if name in _MERGED_VALUES:
        return [*dict.fromkeys([*before, *patch])]
    items = [item for item in patch if not (isinstance(item, dict) and item.get("$patch") == "replace")]
    key = _key_of(name, items)
    if key is None or len(items) < len(patch):
        return copy.deepcopy(items)
    found = {item.get(key): item for item in before}
    for item in items:
        if item.get("$patch") == "delete":
            found.pop(item[key], None)
        else:
            found[item[key]] = strategic(found.get(item[key]), item)
    return [*found.values()]


def leaves(config: Any, name: str = "", path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every field that a manager sets, by its path; items of merged lists by their key."""
    key = _key_of(name, config) if isinstance(config, list) else None
    if isinstance(config, dict) and config:
        for inner, value in config.items():
            yield from leaves(value, inner, (*path, inner))
    elif key is not None:
        for item in config:
            yield from leaves(item, "", (*path, f"{key}={item[key]}"))
    elif path:
        yield path, config


def without(thing: Any, path: tuple[str, ...]) -> None:
    """Take a field out, in place; what is not there is not missed."""
    *parents, last = path
    for part in parents:
        thing = _step(thing, part)
        if thing is None:
            return
    if isinstance(thing, dict):
        thing.pop(last, None)
    elif isinstance(thing, list) and (item := _step(thing, last)) is not None:
        thing.remove(item)


def _step(thing: Any, part: str) -> Any:
    if isinstance(thing, dict):
        return thing.get(part)
    key, _, value = part.partition("=")
    return next((item for item in thing if str(item.get(key)) == value), None) if isinstance(thing, list) else None
