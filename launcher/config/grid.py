"""From the words of a sweep to its points: each the overrides that make one config of it. Nothing is composed here.

Choices, ranges and globs are Hydra's: its parser reads them and its iterators enumerate them.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString, RangeSweep
from hydra.errors import HydraException

from launcher.config import wording
from launcher.config.sweep import Sweep
from launcher.errors import ConfigError

_PLAIN = re.compile(r"[A-Za-z_/][\w./:@-]*")
"""Text that Hydra's grammar takes for itself without quotes."""
_NO_TEXT = re.compile(r"null|true|false|nan|inf", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point: its place in the sweep, counted from 1, and what it sets. `fixed` are the overrides of all points."""

    number: int
    sets: tuple[tuple[str, str], ...]
    """Keys with their values, both as they stand in overrides."""
    fixed: tuple[str, ...] = ()

    @property
    def overrides(self) -> tuple[str, ...]:
        """Everything that makes its config of the base's; the section `sweep` itself is no part of it."""
        return (*self.fixed, *(f"{name}={value}" for name, value in self.sets))

    @property
    def words(self) -> str:
        """What it sets, for people."""
        return " ".join(f"{name}={value}" for name, value in self.sets) or "the config as it is"


def is_sweep(override: str) -> bool:
    """Whether an override gives several values. Raises ConfigError if it cannot be read."""
    return _parsed(OverridesParser.create(), override, "command line").is_sweep_override()


def parsed(override: str, hydra: Hydra | None = None) -> Override:
    """An override of the command line as Hydra reads it; `hydra` is needed to enumerate a glob. Raises ConfigError."""
    parser = OverridesParser.create(config_loader=hydra.config_loader if hydra else None)
    return _parsed(parser, override, "command line")


def points(hydra: Hydra, overrides: Sequence[str], sweep: Sweep) -> list[Point]:
    """All points of a sweep, in order: those of the section, each with every combination of the command line.

    Raises ConfigError for a grid that has an empty or endless choice, more points than allowed, none at all, or two
    that set the same.
    """
    parser = OverridesParser.create(config_loader=hydra.config_loader)
    line = [(text, _parsed(parser, text, "command line")) for text in overrides]
    fixed = tuple(text for text, parsed in line if not parsed.is_sweep_override())
    chosen = [_axis(parsed, "command line") for _, parsed in line if parsed.is_sweep_override()]
    blocks = [*_grids(parser, sweep), *_singles(sweep)] or [[]]
    count = sum(_size(block) for block in blocks) * _size(chosen)
    if count > sweep.max_points:
        raise ConfigError(f"sweep: {count:,} points are more than sweep.max_points allows ({sweep.max_points:,})")
    made = [pairs for block in blocks for pairs in itertools.product(*block, *chosen)]
    kept = [pairs for pairs in made if not _is_excluded(pairs, sweep.exclude)]
    if not kept:
        raise ConfigError(f"sweep.exclude: leaves none of {len(made)} points")
    _refuse_twins(kept)
    return [Point(number=number, sets=pairs, fixed=fixed) for number, pairs in enumerate(kept, 1)]


Axis = list[tuple[str, str]]
"""One key with each of its values."""


def _size(axes: Iterable[Axis]) -> int:
    return math.prod(len(axis) for axis in axes)


def _parsed(parser: OverridesParser, text: str, where: str) -> Override:
    key, equals, value = text.partition("=")
    if equals and re.search(r"^\s*(choice\(\s*\))\s*$|^\s*,|,\s*,|,\s*$", value) and not re.search(r"[\[{'\"]", value):
        raise ConfigError(f"{where}: {key}: a choice is empty in {value!r}; write every value, as a,b")
    try:
        parsed = parser.parse_override(re.sub(r"\[(\d+)\]", r".\1", key) + equals + value)
    except (HydraException, ValueError, RecursionError) as error:
        problem = wording.syntax(text, error)
        raise ConfigError(problem if where == "command line" else _elsewhere(problem, where)) from None
    parsed.config_loader = parser.config_loader  # a glob asks it for the options
    return parsed


def _elsewhere(problem: str, where: str) -> str:
    return f"{where}: {problem.removeprefix('command line: ')}"


def _axis(override: Override, where: str) -> Axis:
    """The values of one key. Raises ConfigError if there are none, or no end of them."""
    name = override.get_key_element()
    if not override.is_discrete_sweep():
        raise ConfigError(f"{where}: {name}: an interval has no end of values; write range(from,to,step), or values")
    _refuse_endless(override, f"{where}: {name}")
    try:
        values = list(override.sweep_string_iterator())
    except (HydraException, ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"{where}: {name}: {str(error).splitlines()[0]}") from None
    if not values:
        raise ConfigError(f"{where}: {name}: {_text(override)} gives no value at all")
    return [(name, value) for value in values]


def _refuse_endless(override: Override, where: str) -> None:
    """A range is enumerated only if it ends: a step of nothing, or in the wrong direction, does not."""
    found = override._value
    if not isinstance(found, RangeSweep):
        return
    start, stop, step = (float(number) for number in (found.start or 0, found.stop or 0, found.step))
    if step == 0:
        raise ConfigError(f"{where}: {_text(override)} has a step of 0")
    if (stop - start) / step > _MOST_OF_A_RANGE:
        raise ConfigError(f"{where}: {_text(override)} has more than {_MOST_OF_A_RANGE:,} values")


_MOST_OF_A_RANGE = 1_000_000


def _text(override: Override) -> str:
    return (override.input_line or "").partition("=")[2]


def _grids(parser: OverridesParser, sweep: Sweep) -> Iterator[list[Axis]]:
    for name, grid in sweep.grids.items():
        if not grid:
            raise ConfigError(f"sweep.grids.{name}: is empty; give keys with lists of values")
        yield [_from_config(parser, f"sweep.grids.{name}", key, values) for key, values in grid.items()]


def _from_config(parser: OverridesParser, where: str, key: str, values: Any) -> Axis:
    """An axis as a config gives it: a list, a text in Hydra's grammar, or a single value."""
    if isinstance(values, list):
        if not values:
            raise ConfigError(f"{where}: {key}: the list of values is empty")
        return [(key, as_override(value)) for value in values]
    if isinstance(values, str):
        override = _parsed(parser, f"{key}={values}", where)
        if override.is_sweep_override():
            return _axis(override, where)
    return [(key, as_override(values))]


def _singles(sweep: Sweep) -> Iterator[list[Axis]]:
    for index, point in enumerate(sweep.points):
        if not point:
            raise ConfigError(f"sweep.points[{index}]: is empty; give keys with a value each")
        yield [[(key, as_override(value))] for key, value in point.items()]


def as_override(value: Any) -> str:
    """A value of a config as it stands in an override."""
    if isinstance(value, str):
        is_plain = (_PLAIN.fullmatch(value) and not _NO_TEXT.fullmatch(value)) or value.startswith("${")
        return value if is_plain else "'" + re.sub(r"(\\*)'", r"\1\1\\'", value) + "'"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{as_override(name)}:{as_override(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(as_override, value)) + "]"
    return {None: "null", True: "true", False: "false"}.get(value, str(value)) if _is_word(value) else str(value)


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _is_excluded(pairs: Iterable[tuple[str, str]], excluded: Iterable[Mapping[str, Any]]) -> bool:
    has = {_bare(name): _value(text) for name, text in pairs}
    return any(
        rule
        and all(_bare(name) in has and has[_bare(name)] == _value(as_override(want)) for name, want in rule.items())
        for rule in excluded
    )


def _bare(name: str) -> str:
    return name.lstrip("+~")


def _value(text: str) -> Any:
    """What a text means as the value of an override."""
    try:
        found = OverridesParser.create().parse_override(f"key={text}").value()
    except (HydraException, ValueError):
        return text
    return cast(QuotedString, found).text if isinstance(found, QuotedString) else found


def _refuse_twins(made: Sequence[tuple[tuple[str, str], ...]]) -> None:
    seen: dict[tuple[tuple[str, str], ...], int] = {}
    for number, pairs in enumerate(made, 1):
        first = seen.setdefault(tuple(sorted(pairs)), number)
        if first != number:
            words = " ".join(f"{name}={value}" for name, value in pairs)
            raise ConfigError(f"sweep: points {first} and {number} are the same: {words}; leave one out")
