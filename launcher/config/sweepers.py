"""Sweepers of Hydra's plugins: which one a request chooses, what its settings say, and how it is made.

Nothing of a plugin is imported before a request chooses it, but for what Hydra itself reads of all that are installed.
"""

from __future__ import annotations

import logging
import re
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep, ValueType
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from launcher.config import wording
from launcher.config.compose import Request, compose, config_name, group_options, hydra_for, plain_overrides
from launcher.config.grid import parsed
from launcher.errors import ConfigError

GROUP = wording.SWEEPER
DEFAULT = "basic"
"""Hydra's own, which runs all combinations: what is done without any."""
_TRIALS = ("n_trials", "budget", "max_trials")
"""Keys of these sweepers that bound how many points they ask for."""
_AT_ONCE = ("n_jobs", "num_workers", "max_batch_size")
_SEEDS = ("seed", "random_seed")
_SPACES = ("params", "parametrization")
"""Keys under which they take the search space from a config: texts in Hydra's grammar by key."""
_MOST_VALUES = 50
"""Of a key, those that are planned beforehand."""
_LOCK = threading.Lock()
_PASSWORD = re.compile(r"://[^/@\s:$]*:[^/@\s$]+@")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A sweeper and what it is given. `base` asks for what all points have in common."""

    name: str
    base: Request
    arguments: tuple[str, ...]
    """Overrides with several values, which it searches."""
    settings: tuple[str, ...]
    """Overrides of its own keys."""


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What the settings of a sweeper say. None: nothing."""

    most: int | None
    """Points that it asks for at most."""
    at_once: int | None
    """Points that it asks for at a time."""
    directions: tuple[str, ...]
    """`minimize` or `maximize` for each objective, as far as it is said."""
    unseeded: tuple[str, ...]
    """Keys of seeds that are not set."""
    keeps_trials: str | None
    """Key that makes it keep its trials in a place of its own."""
    space: tuple[str, ...]
    """All that it searches, as overrides."""


def chosen(request: Request) -> Choice | None:
    """The sweeper that a request or its config chooses, unless it is Hydra's own.

    Raises ConfigError for settings of none.
    """
    own = tuple(text for text in request.overrides if is_of_sweeper(text))
    rest = [text for text in request.overrides if text not in own]
    fixed = tuple(text for text in rest if not parsed(text).is_sweep_override())
    base = replace(request, overrides=fixed)
    names = [_value(text) for text in own if _key(text) == GROUP]
    if names[-1:] == [DEFAULT]:
        raise ConfigError(f"command line: {GROUP}={DEFAULT}: is what a sweep does anyway; leave it out")
    name = names[-1] if names else compose(base).choices.get(GROUP)
    if name in (None, DEFAULT):
        if own:
            raise ConfigError(f"command line: {_key(own[0])}: no sweeper is chosen; add {GROUP}=NAME")
        return None
    _refuse_passwords(own)
    with hydra_for(replace(request, overrides=())) as hydra:
        arguments = tuple(_argument(hydra, text) for text in rest if text not in fixed)
    return Choice(name=str(name), base=base, arguments=arguments, settings=own)


def _refuse_passwords(overrides: Sequence[str]) -> None:
    """They would be kept with the sweep."""
    for text in overrides:
        if _PASSWORD.search(text):
            raise ConfigError(
                f"command line: {_key(text)}: holds a password, which would be kept; write ${{oc.env:NAME}}"
            )


def is_of_sweeper(override: str) -> bool:
    """Whether an override is about Hydra's sweeper."""
    key = _key(override)
    return key == GROUP or key.startswith((f"{GROUP}/", "hydra.sweeper."))


def _key(override: str) -> str:
    return override.partition("=")[0].strip().lstrip("+~").partition("@")[0]


def _value(override: str) -> str:
    return override.partition("=")[2].strip().strip("'\"")


def _argument(hydra: Hydra, text: str) -> str:
    """An argument as sweepers can read it: they do not know the options of a group that a glob stands for."""
    found = parsed(text, hydra)
    key = found.get_key_element()
    if found.value_type is not ValueType.GLOB_CHOICE_SWEEP:
        return f"{key}={text.partition('=')[2]}"
    values = list(found.sweep_string_iterator())
    if not values:
        raise ConfigError(f"command line: {key}: {_value(text)} gives no value at all")
    return f"{key}=choice({','.join(values)})"


# --- settings -----------------------------------------------------------------------------------------------------


def _traits(choice: Choice, node: Any) -> Traits:
    leaves = dict(_leaves(node))
    name = {path: path.rpartition(".")[2] for path in leaves}
    numbers = {name[path]: value for path, value in leaves.items() if isinstance(value, int)}
    storage = next((path for path in leaves if name[path] == "storage" and leaves[path] is not None), None)
    return Traits(
        most=next((int(numbers[key]) for key in _TRIALS if key in numbers), None),
        at_once=next((int(numbers[key]) for key in _AT_ONCE if key in numbers), None),
        directions=tuple(_directions(leaves)),
        unseeded=tuple(
            f"hydra.sweeper.{path}" for path in leaves if name[path] in _SEEDS and leaves[path] in (None, "???")
        ),
        keeps_trials=f"hydra.sweeper.{storage}" if storage else None,
        space=(*choice.arguments, *_space(node, choice)),
    )


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Values by their paths, but for search spaces, whose keys are those of the config."""
    if not isinstance(node, Mapping):
        yield path, node
        return
    for key, value in node.items():
        if key not in _SPACES:
            yield from _leaves(value, f"{path}.{key}" if path else str(key))


def _directions(leaves: Mapping[str, Any]) -> Iterator[str]:
    for path, value in leaves.items():
        key = path.rpartition(".")[2]
        if key == "direction":
            yield from (one.name if isinstance(one, Enum) else str(one) for one in _listed(value))
        elif key in ("maximize", "minimize") and isinstance(value, bool) and "early_stop" not in path:
            yield "maximize" if value == (key == "maximize") else "minimize"


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _space(node: Any, choice: Choice) -> Iterator[str]:
    """The search space of the config, but for keys that the command line has."""
    given = {_key(text) for text in (*choice.arguments, *choice.base.overrides)}
    for key in _SPACES:
        found = node.get(key) if isinstance(node, Mapping) else None
        for name, value in (found or {}).items():
            if isinstance(value, str) and _key(str(name)) not in given:
                yield f"{name}={value}"


def seeded(choice: Choice, keys: Sequence[str]) -> Choice:
    """The choice with seeds drawn for keys that have none, so that it can be asked again."""
    drawn = tuple(f"{key}={secrets.randbelow(2**31)}" for key in keys)
    return replace(choice, settings=(*choice.settings, *drawn))


def axes(space: Sequence[str]) -> list[list[tuple[str, str]]]:
    """For each key that is searched the values that stand for all: every choice, the ends of ranges and intervals."""
    return [axis for text in space if (axis := _axis(text))]


def _axis(text: str) -> list[tuple[str, str]]:
    try:
        override = parsed(text)
    except ConfigError:
        return []
    name, value = override.get_key_element(), override._value
    if isinstance(value, ChoiceSweep):
        return [(name, one) for one in override.sweep_string_iterator()][:_MOST_VALUES]
    if isinstance(value, RangeSweep):
        return [(name, one) for one in _ends(value)]
    if isinstance(value, IntervalSweep):
        return [(name, str(value.start)), (name, str(value.end))]
    return []


def _ends(value: RangeSweep) -> list[str]:
    """The first and the last value of a range, whose end is no part of it."""
    start, stop, step = value.start or 0, value.stop or 0, value.step
    count = int(-(-(stop - start) // step)) if step else 0
    return [str(start), str(start + (count - 1) * step)] if count > 1 else [str(start)] if count == 1 else []


# --- the sweeper --------------------------------------------------------------------------------------------------

Ask = Callable[[Sequence[Sequence[str]]], Sequence[JobReturn]]
"""Runs a batch of points, given by their overrides."""


@dataclass(frozen=True, kw_only=True)
class Composed:
    """A sweeper with its settings. `config` has Hydra's own part, `context` is what a plugin composes by."""

    choice: Choice
    config: DictConfig
    context: HydraContext

    def traits(self) -> Traits:
        """What the settings say."""
        return _traits(self.choice, self._settings())

    def _settings(self) -> Any:
        return OmegaConf.to_container(self.config.hydra.sweeper, resolve=False)

    def make(self, folder: str, ask: Ask) -> Sweeper:
        """The sweeper, which asks for points by `ask` and writes into `folder`.

        Raises ConfigError if it cannot be made.
        """
        with open_dict(self.config):
            self.config.hydra.sweep.dir = folder
        try:
            with _launching_by(ask) as plugins:
                return plugins.instantiate_sweeper(
                    config=self.config, hydra_context=self.context, task_function=_nothing
                )
        except Exception as error:  # a plugin's own code
            raise ConfigError(f"{GROUP}={self.choice.name}: cannot be made: {in_a_line(error)}") from None

    def arguments(self) -> list[str]:
        """What it is called with: what it searches, and values that are fixed of what its config searches."""
        node = self._settings()
        spaces = [node.get(key) or {} for key in _SPACES] if isinstance(node, Mapping) else []
        names = {_key(str(name)) for space in spaces for name in space}
        return [*self.choice.arguments, *(text for text in self.choice.base.overrides if _key(text) in names)]


@contextmanager
def _launching_by(ask: Ask) -> Iterator[Plugins]:
    """Hydra's plugins, of which every sweeper that is made within gets a launcher that asks.

    Hydra finds launchers by their names in its own packages, where there is none of another program.
    """

    def launcher(**_: Any) -> Launcher:
        return _Asking(ask)

    plugins = Plugins.instance()
    with _LOCK:
        vars(plugins)["instantiate_launcher"] = launcher
        try:
            yield plugins
        finally:
            del vars(plugins)["instantiate_launcher"]


def _nothing(_config: Any) -> None:
    """What Hydra would run of a point."""


def in_a_line(error: BaseException) -> str:
    """What an error of a plugin says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__ if lines and lines[0].startswith("Error ") else None
    lines = [line.partition(", set env var HYDRA_FULL_ERROR")[0] for line in lines]
    said = f"{lines[0]} {in_a_line(cause)}" if cause is not None else "; ".join(lines[:2])
    return said if isinstance(error, HydraException | ConfigError) else f"{type(error).__name__}: {said}".rstrip(": ")


def composed(choice: Choice) -> Composed:
    """A sweeper with its settings. Raises ConfigError if it is not installed, or has no such settings."""
    with hydra_for(choice.base) as hydra:
        options = group_options(hydra, GROUP)
        if choice.name not in options:
            raise ConfigError(wording.no_sweeper("command line: ", choice.name, options))
        name = config_name(choice.base.name)
        overrides = [*plain_overrides(hydra, choice.base.overrides), *choice.settings]
        try:
            found = _load(hydra, name, overrides)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise ConfigError(_wrong(choice, error)) from None
        context = HydraContext(config_loader=_Trusting(hydra.config_loader), callbacks=Callbacks())  # type: ignore[arg-type]
        return Composed(choice=choice, config=found, context=context)


def _load(hydra: Hydra, name: str, overrides: Sequence[str]) -> DictConfig:
    try:
        return hydra.config_loader.load_configuration(name, list(overrides), RunMode.MULTIRUN, from_shell=False)
    except HydraException as error:
        group = re.search(r"Could not override '([^']+)'\.\s*No match in the defaults list", str(error))
        added = [f"+{text}" if group and text.partition("=")[0] == group[1] else text for text in overrides]
        if added == list(overrides):
            raise
        return _load(hydra, name, added)


def _wrong(choice: Choice, error: Exception) -> str:
    cause = error.__cause__ or error
    key = re.search(r"Could not override '([^']+)'", str(error)) or re.search(r"full_key: (\S+)", str(cause))
    where = key[1] if key else GROUP
    missing = re.search(r"Key '([^']+)' (?:is )?not in '", f"{error}\n{cause}")
    if missing:
        return f"command line: {where}: {choice.name} has no such key"
    group = re.search(r"Could not find '([^']+)'", str(error))
    if group:
        return f"command line: {group[1]}: no such option"
    text = next((line for line in str(cause).splitlines() if line.strip()), type(error).__name__)
    return f"command line: {where}: {text}" if key else wording.syntax(GROUP, error) if not text else f"{GROUP}: {text}"


class _Trusting:
    """Composes nothing for a sweeper that checks its batches first: each is planned as soon as it is asked for."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:  # noqa: ARG002
        """The config as it is."""
        return master_config


class _Asking(Launcher):
    """What a sweeper knows as Hydra's launcher."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Nothing to do."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:  # noqa: ARG002
        """Run a batch of points."""
        return self._ask(job_overrides)


class _Return(JobReturn):
    """What a point gave. Reading that of a failed one raises, as with Hydra's own, but prints nothing."""

    @property
    def return_value(self) -> Any:
        if self.status is JobStatus.COMPLETED:
            return self._return_value
        raise self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


def returned(overrides: Sequence[str], value: float | list[float] | Exception) -> JobReturn:
    """What a sweeper is told of a point: the value of its objective, or why it has none."""
    found = _Return(overrides=list(overrides))
    found.status = JobStatus.FAILED if isinstance(value, Exception) else JobStatus.COMPLETED
    found._return_value = value
    return found


def quieten() -> None:
    """Let libraries of sweepers say no more than warnings: what they do is told by the sweep."""
    for name in wording.PUBLISHED_SWEEPERS:
        if name in sys.modules:
            logging.getLogger(name).setLevel(logging.WARNING)
