"""Reading an emulator's YAML file: the keys of its config, and faults by their kinds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import yaml

from launcher.decoding import convert
from launcher.emulators.common.faults import Fault
from launcher.errors import ConfigError, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def load(path: Path, type_: type[T], kinds: Mapping[str, type[Fault]], check: Callable[[Mapping[str, Any]], None]) -> T:
    """Read a YAML file of the keys of a dataclass. `faults` is a list of mappings with `kind` and that fault's keys.

    `check` may refuse the document. Raises ConfigError for a file that cannot be read, a key that does not exist or a
    wrong type.
    """
    try:
        document = convert(yaml.safe_load(path.read_text(encoding="utf-8")) or {}, dict[str, Any])
        entries = convert(document.pop("faults", ()), list[dict[str, Any]])
        faults = tuple(_fault(entry, kinds) for entry in entries)
        _check_keys(document, type_)
        check(document)
        return dataclasses.replace(convert(document, type_), faults=faults)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read it: {error.strerror}") from None
    except (yaml.YAMLError, msgspec.ValidationError, ValueError) as error:  # ValueError: no UTF-8, an impossible date
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _check_keys(document: Mapping[str, Any], type_: type[Any], where: str = "") -> None:
    names = [field.name for field in dataclasses.fields(type_)]
    for key in document:
        if key not in names:
            raise ConfigError(f"{where}unknown key {key}{nearest(key, names)}")


def _fault(entry: dict[str, Any], kinds: Mapping[str, type[Fault]]) -> Fault:
    kind = entry.pop("kind", None)
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"faults: unknown kind {kind}{nearest(str(kind), kinds)}")
    _check_keys(entry, kinds[kind], f"faults: {kind}: ")
    return convert(entry, kinds[kind])
