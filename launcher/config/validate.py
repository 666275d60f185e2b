"""From an untyped tree to typed dataclasses. Problems carry their key; load adds the file."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import msgspec

from launcher.config.deployment import DEPLOYMENTS, AnyDeployment
from launcher.config.execution import EXECUTIONS, AnyExecution
from launcher.config.schema import Config
from launcher.errors import nearest

T = TypeVar("T")
Tree = dict[str, Any]

_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
    "any": "a value",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: the key it is about and what to say. `absent`: the key was not set at all."""

    key: str
    message: str
    absent: bool = False


class Invalid(Exception):
    """The tree does not fit the schema; `problems` says where."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{p.key}: {p.message}" for p in problems))


def validate(tree: Tree) -> Config:
    """The typed config. Raises Invalid with every unknown and missing key, else with the first wrong value."""
    tree = _normalise(tree)
    execution = _choose(tree, "execution", EXECUTIONS, "local")
    deployment = _choose(tree, "deployment", DEPLOYMENTS, None if tree.get("deployment") else "smollm")
    sections = {field.name: _section(field, execution, deployment) for field in dataclasses.fields(Config)}
    problems = _unknown(tree, sections) + _missing(tree)
    if problems:
        raise Invalid(problems)
    values = {name: _convert(tree.get(name) or {}, cls, name) for name, cls in sections.items()}
    return Config(**values)


def _normalise(tree: Tree) -> Tree:
    """Allow a task to be just its name."""
    evaluation = tree.get("evaluation")
    if isinstance(evaluation, dict) and isinstance(evaluation.get("tasks"), list):
        tasks = [{"name": task} if isinstance(task, str) else task for task in evaluation["tasks"]]
        return {**tree, "evaluation": {**evaluation, "tasks": tasks}}
    return tree


def _choose(tree: Tree, section: str, choices: dict[str, type[T]], default: str | None) -> type[T]:
    values = tree.get(section) or {}
    if not isinstance(values, dict):
        raise Invalid([Problem(section, f"expected a mapping, got {values!r}")])
    chosen = values.get("type", default)
    if chosen is None or chosen == "???":
        hint = f"add `- {section}: NAME` to defaults; valid: {', '.join(choices)}"
        raise Invalid([Problem(f"{section}.type", f"is missing; {hint}", absent=True)])
    if chosen not in choices:
        raise Invalid([Problem(f"{section}.type", f"{chosen!r} is no {section}{nearest(str(chosen), choices)}")])
    return choices[chosen]


def _section(field: dataclasses.Field[Any], execution: type[Any], deployment: type[Any]) -> type[Any]:
    chosen: dict[str, type[Any]] = {"execution": execution, "deployment": deployment}
    return chosen.get(field.name) or typing.cast("type[Any]", hints(Config)[field.name])


def _unknown(tree: Tree, sections: dict[str, type[Any]]) -> list[Problem]:
    problems = [_unknown_key(name, name, sections) for name in tree if name not in sections]
    for name, cls in sections.items():
        problems += _unknown_below(tree.get(name), cls, name)
    return problems


def _unknown_key(key: str, name: str, valid: typing.Iterable[str]) -> Problem:
    return Problem(key, f"unknown key{nearest(str(name), valid)}")


def _unknown_below(value: Any, annotation: Any, key: str) -> list[Problem]:
    """Unknown keys below `value`, which should be of type `annotation`; wrong types are left to the conversion."""
    cls = dataclass_of(annotation)
    if cls is not None and isinstance(value, dict):
        fields = hints(cls)
        found = []
        for name, item in value.items():
            inner = f"{key}.{name}"
            if name in fields:
                found += _unknown_below(item, fields[name], inner)
            else:
                found.append(_unknown_key(inner, name, fields))
        return found
    item_type = _item_type(annotation)
    if item_type is not None and isinstance(value, list):
        return [p for i, item in enumerate(value) for p in _unknown_below(item, item_type, f"{key}[{i}]")]
    return []


@cache
def hints(cls: type[Any]) -> dict[str, Any]:
    """Field names of a dataclass with their evaluated annotations."""
    return typing.get_type_hints(cls, include_extras=True)


def dataclass_of(annotation: Any) -> type[Any] | None:
    """The one dataclass an annotation stands for; None for anything else, unions of several included."""
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return annotation
    return None


def _item_type(annotation: Any) -> Any:
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    for option in options:
        if typing.get_origin(option) is list:
            return typing.get_args(option)[0]
    return None


def _missing(value: Any, key: str = "") -> list[Problem]:
    if isinstance(value, dict):
        return [p for name, item in value.items() for p in _missing(item, f"{key}.{name}" if key else str(name))]
    if isinstance(value, list):
        return [p for i, item in enumerate(value) for p in _missing(item, f"{key}[{i}]")]
    return [Problem(key, _is_missing(key), absent=True)] if value == "???" else []


def _is_missing(key: str) -> str:
    return f"is missing; set it in the file, or on the command line: {key}=VALUE"


def _convert(tree: Any, cls: type[T], section: str) -> T:
    try:
        return msgspec.convert(tree, cls)
    except msgspec.ValidationError as error:
        raise Invalid([_problem(str(error), section, tree)]) from None


def _problem(text: str, section: str, tree: Any) -> Problem:
    message, _, path = text.partition(" - at `$")
    key = section + path.rstrip("`")
    required = re.search(r"missing required field `(\w+)`", message)
    if required:
        key = f"{key}.{required.group(1)}"
        return Problem(key, _is_missing(key), absent=True)
    value = _value_at(tree, path.rstrip("`"))
    return Problem(key.replace("[...]", ""), f"{_plain(message, key, section)}, got {value}")


def _plain(message: str, key: str, section: str) -> str:
    """msgspec's wording in words for people."""
    if message.startswith("Invalid enum value"):
        return "not a valid value" + _valid_values(key)
    bound = re.match(r"Expected `(\w+)` ([<>]=?) (\S+)$", message)
    if bound:
        signs = {">=": "at least", "<=": "at most", ">": "above", "<": "below"}
        return f"expected {_NAMES.get(bound.group(1), bound.group(1))} {signs[bound.group(2)]} {bound.group(3)}"
    expected = re.match(r"Expected `([^`]+)`", message)
    if expected is None:
        return message
    options = [_NAMES.get(option.strip(), option.strip()) for option in expected.group(1).split("|")]
    return "expected " + " or ".join(option for option in dict.fromkeys(options) if option != "nothing")


def _valid_values(key: str) -> str:
    name = re.sub(r"\[.*?\]", "", key).rpartition(".")[2]
    for cls in (*EXECUTIONS.values(), *DEPLOYMENTS.values(), *_plain_sections()):
        literals = _literals(hints(cls).get(name)) if name in hints(cls) else ()
        if literals and name != "type":
            return f"; valid: {', '.join(literals)}"
    return ""


def _plain_sections() -> list[type[Any]]:
    from launcher.config import execution, schema  # noqa: PLC0415 - only to word an error

    return [schema.Evaluation, schema.Task, schema.ApiEndpoint, schema.Export, schema.Limits, execution.Docker]


def _literals(annotation: Any) -> tuple[str, ...]:
    if typing.get_origin(annotation) is typing.Literal:
        return tuple(str(value) for value in typing.get_args(annotation))
    return tuple(value for part in typing.get_args(annotation) for value in _literals(part))


def _value_at(tree: Any, path: str) -> str:
    for part in re.findall(r"[^.\[\]]+|\[\d+\]|\[\.\.\.\]", path):
        if part == "[...]":
            return "a value of another kind"
        try:
            tree = tree[int(part[1:-1])] if part.startswith("[") else tree[part]
        except (KeyError, IndexError, TypeError):
            return "nothing"
    return repr(tree)


__all__ = ["AnyDeployment", "AnyExecution", "Invalid", "Problem", "dataclass_of", "hints", "validate"]
