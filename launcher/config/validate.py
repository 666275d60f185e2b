"""From an untyped tree to typed dataclasses. Problems carry their key; load adds the file."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

import msgspec

from launcher.config.deployment import DEPLOYMENTS
from launcher.config.describe import expected, show
from launcher.config.evaluation import Generation, Settings
from launcher.config.execution import EXECUTIONS
from launcher.config.export import with_others
from launcher.config.problems import Invalid, Problem
from launcher.config.schema import Auxiliary, Config
from launcher.config.sweep import Sweep
from launcher.decoding import convert
from launcher.errors import nearest

T = TypeVar("T")
Tree = dict[str, Any]

_CHOICES: dict[str, Mapping[str, type[Any]]] = {"execution": EXECUTIONS, "deployment": DEPLOYMENTS}
"""Sections whose `type` says which dataclass they have."""
_OTHER_NAMES = {
    "do_sample": "generation.temperature",
    "stop": "generation.until",
    "seed": "seed",
    **dict.fromkeys(("max_gen_toks", "max_tokens", "max_new_tokens", "max_completion_tokens"), "max_gen_tokens"),
}
"""Parameters of generation by names that others give them: the setting of each."""
_AUXILIARY_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LONGEST_NAME = 40
"""Characters of a text that is worth repeating in a hint."""
_LARGEST = 2**63 - 1
"""Whole number that every format a config is written to can hold."""


def validate(tree: Any) -> Config:
    """The typed config. Raises Invalid with everything that is wrong."""
    if not isinstance(tree, dict):
        raise Invalid([Problem("", "expected a mapping of keys to values")])
    tree = _normalise(tree)
    unwritable = list(_unwritable(tree, ""))
    if unwritable:
        raise Invalid(unwritable)
    execution = _choose(tree, "execution", EXECUTIONS, "local")
    deployment = _choose(tree, "deployment", DEPLOYMENTS, "smollm")
    sections = {field.name: _section(field, execution, deployment) for field in dataclasses.fields(Config)}
    problems = [_unknown_section(str(name), sections) for name in tree if name not in sections]
    for name, cls in sections.items():
        problems += _problems(tree.get(name, {}), cls, name) if name != "auxiliary" else []
    auxiliary = _auxiliary(tree, problems)
    if problems:
        raise Invalid(problems)
    plain = {name: cls for name, cls in sections.items() if name != "auxiliary"}
    config = Config(auxiliary=auxiliary, **{name: convert(tree.get(name, {}), cls) for name, cls in plain.items()})
    problems = [problem for key, settings in _layers(config) for problem in _bad_settings(key, settings)]
    problems += _unknown_auxiliary(config)
    if problems:
        raise Invalid(problems)
    return config


def sweep_section(tree: Any) -> Sweep:
    """The typed section `sweep` by itself: the rest may lack what only its points give. Raises Invalid."""
    problems = _problems(tree, Sweep, "sweep")
    if problems:
        raise Invalid(problems)
    return convert(tree, Sweep)


def _normalise(tree: Tree) -> Tree:
    """Allow a task to be just its name, and exporters of other packages to stand beside ours."""
    export = tree.get("export")
    if isinstance(export, dict):
        tree = {**tree, "export": with_others(export)}
    evaluation = tree.get("evaluation")
    if isinstance(evaluation, dict) and isinstance(evaluation.get("tasks"), list):
        tasks = [{"name": task} if isinstance(task, str) else task for task in evaluation["tasks"]]
        return {**tree, "evaluation": {**evaluation, "tasks": tasks}}
    return tree


def _unwritable(value: Any, key: str) -> Iterator[Problem]:
    """Values that JSON, YAML or a process argument cannot hold."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _unwritable(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _unwritable(item, f"{key}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield Problem(key, f"expected a finite number, got {value}")
    elif isinstance(value, int) and abs(value) > _LARGEST:
        yield Problem(key, "the number is too large")
    elif isinstance(value, str) and ("\0" in value or not _is_unicode(value)):
        yield Problem(key, "holds a character that text cannot have")
    elif isinstance(value, bytes):
        yield Problem(key, "expected text or a number, got binary data")


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _choose(tree: Tree, section: str, choices: Mapping[str, type[T]], default: str, *, above: str = "") -> type[T]:
    """The dataclass that a section's `type` names; the default's where the section is left out.

    `above`: the key that the section lies below, for one that does not lie at the top; it has no default then.
    """
    values, key = tree.get(section, {}), f"{above}.{section}" if above else section
    if not isinstance(values, dict):
        raise Invalid([Problem(key, expected(Config, values))])
    has_default = not above and (section == "execution" or not values)
    chosen = values.get("type", default if has_default else "???")
    if chosen == "???":
        where = "set it" if above else f"add `- {section}: NAME` to defaults"
        raise Invalid([Problem(f"{key}.type", f"is missing; {where}; valid: {', '.join(choices)}", absent=True)])
    if not isinstance(chosen, str):
        raise Invalid([Problem(f"{key}.type", expected(str, chosen))])
    if chosen not in choices:
        raise Invalid([Problem(f"{key}.type", f"{show(chosen)} is no {section}{nearest(chosen, choices)}")])
    return choices[chosen]


def _auxiliary(tree: Tree, problems: list[Problem]) -> dict[str, Auxiliary]:
    """The auxiliary endpoints by name; what is wrong with them goes to `problems`."""
    values = tree.get("auxiliary", {})
    if not isinstance(values, dict):
        problems.append(Problem("auxiliary", f"expected a mapping of names to endpoints, got {show(values)}"))
        return {}
    found = {str(name): _one_auxiliary(name, one, problems) for name, one in values.items()}
    return {name: made for name, made in found.items() if made is not None}


def _one_auxiliary(name: Any, values: Any, problems: list[Problem]) -> Auxiliary | None:
    key = f"auxiliary.{name}"
    if not isinstance(name, str) or not _AUXILIARY_NAME.fullmatch(name):
        problems.append(
            Problem(
                key,
                f"{show(name)} cannot be its name, which becomes part of variables; use lower-case letters, digits "
                "and underscores, a letter first",
            )
        )
        return None
    if not isinstance(values, dict):
        problems.append(Problem(key, f"expected a mapping with deployment and target, got {show(values)}"))
        return None
    if "deployment" not in values:
        problems.append(_missing(f"{key}.deployment"))
        return None
    try:
        deployment = _choose(values, "deployment", DEPLOYMENTS, "smollm", above=key)
    except Invalid as invalid:
        problems += invalid.problems
        return None
    annotations = {**hints(Auxiliary), "deployment": deployment}
    wrong = [
        Problem(f"{key}.{part}", f"unknown key{nearest(str(part), annotations)}")
        for part in values
        if part not in annotations
    ]
    for part, annotation in annotations.items():
        wrong += _problems(values[part], annotation, f"{key}.{part}") if part in values else []
    problems += wrong
    if wrong:
        return None
    return Auxiliary(**{part: convert(value, annotations[part]) for part, value in values.items()})


def _unknown_auxiliary(config: Config) -> Iterator[Problem]:
    """Names of auxiliary endpoints that nothing defines."""
    for key, settings in _layers(config):
        for i, name in enumerate(settings.auxiliary or ()):
            if name not in config.auxiliary:
                hint = nearest(name, config.auxiliary) or "; `auxiliary` defines none of this name"
                yield Problem(f"{key}.auxiliary[{i}]", f"{show(name)} is no auxiliary endpoint{hint}")


def _section(field: dataclasses.Field[Any], execution: type[Any], deployment: type[Any]) -> type[Any]:
    chosen: dict[str, type[Any]] = {"execution": execution, "deployment": deployment}
    return chosen.get(field.name) or typing.cast("type[Any]", hints(Config)[field.name])


def _unknown_section(name: str, sections: Mapping[str, type[Any]]) -> Problem:
    """A key at the top that does not exist; it may have lost the section it belongs to."""
    homes = [f"{section}.{name}" for section, cls in sections.items() if dataclass_of(cls) and name in hints(cls)]
    hint = f"; did you mean {' or '.join(homes)}?" if homes and len(homes) < 3 else nearest(name, sections)
    return Problem(name, f"unknown key{hint}")


def _problems(value: Any, annotation: Any, key: str) -> list[Problem]:
    """Everything that is wrong with `value`, which should be of type `annotation`, and below it."""
    if value == "???":
        return [_missing(key)]
    found = list(_below(value, annotation, key))
    if found:
        return found
    try:
        convert(value, annotation)
    except msgspec.ValidationError:
        return [Problem(key, f"{expected(annotation, value)}{_brackets(value, annotation, key)}")]
    return []


def _brackets(value: Any, annotation: Any, key: str) -> str:
    """How to write the list that a single text was meant to be."""
    if not isinstance(value, str) or _item_type(annotation, list) is None or len(value) > _LONGEST_NAME:
        return ""
    return f"; write [{value}], on the command line '{key}=[{value}]'"


def _below(value: Any, annotation: Any, key: str) -> Iterator[Problem]:
    cls = _dataclass_in(annotation)
    if isinstance(value, dict):
        if cls is not None:
            yield from _in_dataclass(value, cls, key)
        elif (item_type := _item_type(annotation, dict)) is not None:
            for name, item in value.items():
                yield from _in_mapping(name, item, item_type, key)
    elif isinstance(value, list) and (item_type := _item_type(annotation, list)) is not None:
        for i, item in enumerate(value):
            yield from _problems(item, item_type, f"{key}[{i}]")


def _in_dataclass(value: Tree, cls: type[Any], key: str) -> Iterator[Problem]:
    types_of = hints(cls)
    for name, item in value.items():
        if name in types_of:
            yield from _problems(item, types_of[name], f"{key}.{name}")
        else:
            yield Problem(f"{key}.{name}", _unknown_key(key, str(name), value, types_of))
    for field in dataclasses.fields(cls):
        if field.name not in value and not _has_default(field):
            yield _missing(f"{key}.{field.name}")


def _in_mapping(name: Any, item: Any, item_type: Any, key: str) -> Iterator[Problem]:
    if isinstance(name, str):
        yield from _problems(item, item_type, f"{key}.{name}")
    else:
        yield Problem(f"{key}.{name}", "expected text as key; put it in quotes")


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _missing(key: str) -> Problem:
    return Problem(key, f"is missing; set it in the file, or on the command line: {key}=VALUE", absent=True)


def _unknown_key(section: str, name: str, values: Tree, valid: Iterable[str]) -> str:
    """What to say of a key that does not exist: in the sections with types, which other types have it."""
    choices = _CHOICES.get("deployment" if section.endswith(".deployment") else section, {})
    have = [kind for kind, cls in choices.items() if name in hints(cls)]
    if have:
        default = "local" if section == "execution" else "smollm"
        verb = "has" if len(have) == 1 else "have"
        return f"unknown key of {section.rpartition('.')[2]} {values.get('type', default)}; {', '.join(have)} {verb} it"
    if section.endswith(".generation") and name in _OTHER_NAMES:
        return f"unknown key; use {_OTHER_NAMES[name]}"
    return f"unknown key{nearest(name, valid)}"


def _layers(config: Config) -> Iterator[tuple[str, Settings]]:
    yield "evaluation", config.evaluation
    for i, task in enumerate(config.evaluation.tasks):
        yield f"evaluation.tasks[{i}]", task


def _bad_settings(key: str, settings: Settings) -> Iterator[Problem]:
    """What no single type can say."""
    limit = settings.limit
    if limit is not None and not (0 < limit < 1 or (limit >= 1 and float(limit).is_integer())):
        yield Problem(f"{key}.limit", f"expected a whole number of samples, or a share between 0 and 1, got {limit:g}")
    typed = {field.name: f"generation.{field.name}" for field in dataclasses.fields(Generation)}
    for name in settings.generation.extra or {}:
        if own := (typed | _OTHER_NAMES).get(name):
            yield Problem(f"{key}.generation.extra.{name}", f"use {own} instead")


def problems_in(tree: Tree, cls: type[Any]) -> list[Problem]:
    """Everything that is wrong with the tree of another document than a config, which should be of the dataclass."""
    found = [*_unwritable(tree, ""), *_in_dataclass(tree, cls, "")]
    return [dataclasses.replace(problem, key=problem.key.lstrip(".")) for problem in found]


def hints(cls: Any) -> dict[str, Any]:
    """Field names of a dataclass with their evaluated annotations."""
    return _hints(cls)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def dataclass_of(annotation: Any) -> type[Any] | None:
    """The one dataclass an annotation stands for; None for anything else, unions included."""
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return annotation
    return None


def _options(annotation: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    return typing.get_args(annotation) if is_union else (annotation,)


def _dataclass_in(annotation: Any) -> type[Any] | None:
    """The dataclass that a mapping must be, if an annotation allows one."""
    return next((cls for option in _options(annotation) if (cls := dataclass_of(option))), None)


def _item_type(annotation: Any, container: type[Any]) -> Any:
    """The type of the items of a list or mapping, if an annotation allows one."""
    for option in _options(annotation):
        if typing.get_origin(option) is container:
            return typing.get_args(option)[-1]
    return None


__all__ = ["dataclass_of", "hints", "problems_in", "validate"]
