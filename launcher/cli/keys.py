"""The keys of the typed config as people read them: what completion, `nv-eval init` and the documentation share."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from msgspec import Meta

from launcher.config import fields as building_blocks
from launcher.config.evaluation import Task
from launcher.config.schema import DEPLOYMENTS, EXECUTIONS, Config
from launcher.config.validate import dataclass_of, hints

REQUIRED = dataclasses.MISSING
"""`Key.default` of a key that has none."""

_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", dict: "mapping", Any: "any value"}
_ARGUMENTS = "list of text, or one text split as a shell would"
_ENV_VALUE = "text, number or reference"
_SIGNS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key: its dotted path, its type in words, and what its dataclass says of it.

    `choices` are its valid values where there are few. `default` is REQUIRED where there is none.
    """

    path: str
    type: str
    doc: str
    default: Any
    unit: str = ""
    choices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def default_text(self) -> str:
        """The default as YAML on one line; `null` where there is none, `???` where a value is required."""
        return "???" if self.default is REQUIRED else as_yaml(self.default)


def as_yaml(value: Any) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def keys_of(cls: type[Any], path: str) -> list[Key]:
    """The keys of a dataclass that lies at `path`, nested ones included, in the order they are defined."""
    return list(_keys(cls, path))


def sections(execution: str | None = None, deployment: str | None = None) -> dict[str, list[type[Any]]]:
    """The top-level keys and the dataclasses that may lie there; without a name, those of all types."""
    types = {field.name: hints(Config)[field.name] for field in dataclasses.fields(Config)}
    found = {name: [cls] for name, cls in types.items() if name != "auxiliary"}  # its keys begin with names of yours
    found["execution"] = [EXECUTIONS[execution]] if execution else list(EXECUTIONS.values())
    found["deployment"] = [DEPLOYMENTS[deployment]] if deployment else list(DEPLOYMENTS.values())
    return found


def config_keys(execution: str | None = None, deployment: str | None = None) -> dict[str, Key]:
    """All keys of a config by their path."""
    found: dict[str, Key] = {}
    for name, classes in sections(execution, deployment).items():
        for cls in classes:
            found |= {key.path: key for key in keys_of(cls, name)}
    return found


def summary(cls: type[Any]) -> str:
    """The first line of a class's documentation, without its full stop."""
    return (cls.__doc__ or "").strip().splitlines()[0].rstrip(".")


def _keys(cls: type[Any], path: str) -> Iterator[Key]:
    annotations = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        annotation = annotations[field.name]
        inner = dataclass_of(_without_none(annotation))
        if inner is not None:
            yield from _keys(inner, f"{path}.{field.name}")
        else:
            yield _key(field, annotation, f"{path}.{field.name}")


def _key(field: dataclasses.Field[Any], annotation: Any, path: str) -> Key:
    default = REQUIRED if field.default_factory is dataclasses.MISSING else field.default_factory()
    return Key(
        path=path,
        type=type_text(annotation),
        doc=field.metadata["doc"],
        default=default if field.default is dataclasses.MISSING else field.default,
        unit=_unit(annotation),
        choices=_choices(annotation),
    )


def type_text(annotation: Any) -> str:
    """A type in words; `None` among its options is left out, as the default says it."""
    known = {building_blocks.Arguments: _ARGUMENTS, building_blocks.EnvValue: _ENV_VALUE, Task: "task"}
    plain = _without_none(annotation)
    if plain in known:
        return known[plain]
    describe: Callable[..., str] = _TEXTS.get(typing.get_origin(plain), _plain)
    return describe(plain, *typing.get_args(plain))


def _plain(annotation: Any, *_: Any) -> str:
    return _NAMES.get(annotation) or summary(annotation)


def _union(_: Any, *options: Any) -> str:
    return " or ".join(type_text(option) for option in options)


_TEXTS: dict[Any, Callable[..., str]] = {
    typing.Annotated: lambda _, inner, meta: f"{type_text(inner)}{_bounds(meta)}",
    typing.Literal: lambda _, *values: ", ".join(f"`{value}`" for value in values),
    typing.Union: _union,
    types.UnionType: _union,
    list: lambda _, item: f"list of {type_text(item)}",
    dict: lambda _, name, value: f"mapping of {type_text(name)} to {type_text(value)}",
}
"""How a type with arguments is put into words, by its origin."""


def _without_none(annotation: Any) -> Any:
    if typing.get_origin(annotation) not in (types.UnionType, typing.Union):
        return annotation
    options = [option for option in typing.get_args(annotation) if option is not types.NoneType]
    return typing.Union[tuple(options)] if len(options) > 1 else options[0]  # noqa: UP007 - built at run time


def _bounds(meta: Meta) -> str:
    found = [f"{word} {bound:.12g}" for name, word in _SIGNS.items() if (bound := getattr(meta, name)) is not None]
    return f", {', '.join(found)}" if found else ""


def _unit(annotation: Any) -> str:
    plain = _without_none(annotation)
    if typing.get_origin(plain) is not typing.Annotated:
        return ""
    return str((plain.__metadata__[0].extra or {}).get("unit", ""))


def _choices(annotation: Any) -> tuple[str, ...]:
    plain = _without_none(annotation)
    if plain is bool:
        return ("true", "false")
    if typing.get_origin(plain) is typing.Literal:
        return tuple(str(value) for value in typing.get_args(plain))
    if typing.get_origin(plain) in (types.UnionType, typing.Union):
        return tuple(value for option in typing.get_args(plain) for value in _choices(option))
    return ()
