"""Composition with Hydra: config groups, files and command-line overrides to one untyped tree."""

from __future__ import annotations

import re
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.defaults_list import create_defaults_list
from hydra._internal.hydra import Hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from launcher.config import wording
from launcher.config.describe import show
from launcher.config.files import CheckedRepository, find, shorten
from launcher.errors import ConfigError, nearest

DEFAULT_NAME = "default"
_LOCK = threading.RLock()
"""Held while Hydra is initialised, which is once for all of a process."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Which config is wanted, as the command line or the Python API says it.

    `config_dir` is added in front of the search path; `config_path` replaces the packaged configs as its main folder
    (these stay available behind it). Relative folders are relative to the working directory.
    """

    name: str = DEFAULT_NAME
    overrides: tuple[str, ...] = ()
    config_dir: str | None = None
    config_path: str | None = None


@dataclass(frozen=True, kw_only=True)
class Composition:
    """A composed tree and where it comes from: its files in the order they are merged, and each group's option.

    `overrides` are those of the request as Hydra takes them.
    """

    tree: DictConfig
    overrides: Sequence[str]
    files: Sequence[ResultDefault]
    choices: Mapping[str, str | None]


def packaged_configs() -> Path:
    """The folder of the config groups: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def search_folders(request: Request) -> list[Path]:
    """Folders in which configs are looked up, the first wins."""
    named = [request.config_dir, request.config_path]
    return [Path(folder).resolve() for folder in named if folder] + [packaged_configs()]


class _SearchPath(SearchPathPlugin):
    """Adds the folder of `--config-dir` in front of Hydra's search path and the packaged configs behind it."""

    front: Path | None = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.front is not None:
            search_path.prepend("command-line", f"file://{self.front}")
        search_path.append("nv-eval", f"file://{packaged_configs()}")


@contextmanager
def hydra_for(request: Request) -> Iterator[Hydra]:
    """Hydra, initialised with the search path of `request`. Raises ConfigError if a folder does not exist."""
    for option, folder in (("--config-dir", request.config_dir), ("--config-path", request.config_path)):
        if folder and not Path(folder).is_dir():
            raise ConfigError(f"{option} {folder}: {_no_folder(Path(folder))}")
    main = Path(request.config_path).resolve() if request.config_path else packaged_configs()
    with _LOCK:
        _SearchPath.front = Path(request.config_dir).resolve() if request.config_dir else None
        _plugins().register(_SearchPath)
        with initialize_config_dir(str(main), job_name="nv-eval", version_base="1.3"):
            hydra = cast(Hydra, GlobalHydra.instance().hydra)
            loader = _loader(hydra)
            loader.repository = CheckedRepository(loader.config_search_path)
            yield hydra


def _plugins() -> Plugins:
    """Hydra's plugins, which it imports all at once. Raises ConfigError for one that was made for another Python."""
    try:
        return Plugins.instance()
    except Exception as error:  # a plugin's own code; Hydra only bears with an ImportError
        frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
        name = next((name for name in reversed(frames) if name.startswith("hydra_plugins.")), "a plugin of Hydra")
        text = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ConfigError(f"{name}: cannot be imported: {text}; upgrade this plugin of Hydra, or remove it") from None


def _no_folder(path: Path) -> str:
    if path.is_file():
        return f"is a file; write --config-dir {path.parent} --config-name {path.stem}"
    return "no such folder"


def _loader(hydra: Hydra) -> ConfigLoaderImpl:
    return cast(ConfigLoaderImpl, hydra.config_loader)


def config_name(name: str) -> str:
    """The name Hydra knows a config by: `x.yaml` and `x` are the same."""
    return re.sub(r"\.ya?ml$", "", name)


def compose_tree(request: Request) -> DictConfig:
    """The composed, unresolved tree. Every mistake in files, names or overrides is a ConfigError of one line each."""
    return compose(request).tree


def compose(request: Request) -> Composition:
    """The composed, unresolved tree and its sources. Raises ConfigError as `compose_tree` does."""
    name = config_name(request.name)
    with hydra_for(request) as hydra, warnings.catch_warnings():
        # The only one is about a defaults list without _self_: the file itself then comes last, as people expect.
        warnings.simplefilter("ignore", UserWarning)
        overrides = plain_overrides(hydra, request.overrides)
        _check_name(hydra, request, name)
        try:
            return _compose(_loader(hydra), name, overrides)
        except (HydraException, OmegaConfBaseException, ValueError, IndexError) as error:
            raise ConfigError(wording.translate(error, _names(hydra, request))) from None


def _compose(loader: ConfigLoaderImpl, name: str, overrides: list[str], *, hydra: bool = False) -> Composition:
    """What `hydra.compose` does, without Hydra's own settings: they take four times as long as ours, for nothing.

    But for a config that chooses among them (`override hydra/sweeper: optuna`), which cannot be read without.
    """
    parsed, repository = loader._parse_overrides_and_create_caching_repo(name, overrides)
    try:
        defaults = create_defaults_list(repository, name, parsed, prepend_hydra=hydra, skip_missing=False)
    except HydraException as error:
        if not hydra and re.search(r"Could not override 'hydra/[^']+'\.\s*No match in the defaults list", str(error)):
            return _compose(loader, name, overrides, hydra=True)
        added = _with_missing_group(overrides, error)
        if added is None:
            raise
        return _compose(loader, name, added, hydra=hydra)
    tree = loader._compose_config_from_defaults_list(defaults.defaults, repository)
    OmegaConf.set_struct(tree, True)
    own = [override for override in defaults.config_overrides if not override.is_hydra_override()]
    loader._apply_overrides_to_config(own, tree)
    OmegaConf.set_struct(tree, False)
    tree.pop("hydra", None)
    choices = dict(defaults.overrides.known_choices)
    return Composition(tree=tree, overrides=overrides, files=defaults.defaults, choices=choices)


def _with_missing_group(overrides: list[str], error: HydraException) -> list[str] | None:
    """Overrides with a plus in front of the group that the config's defaults do not have; None for another error."""
    group = re.search(r"Could not override '([^']+)'\.\s*No match in the defaults list", str(error))
    if group is None:
        return None
    added = [f"+{text}" if text.partition("=")[0] == group.group(1) else text for text in overrides]
    return added if added != overrides else None


def _names(hydra: Hydra, request: Request) -> wording.Names:
    return wording.Names(
        file=lambda name: find(search_folders(request), name),
        groups=groups(hydra),
        options=lambda group: group_options(hydra, group),
        overrides=request.overrides,
    )


def _check_name(hydra: Hydra, request: Request, name: str) -> None:
    """Refuse a config that does not exist, with what was probably meant."""
    if name and _loader(hydra).repository.config_exists(name):
        return
    path = Path(f"{name}.yaml")
    if any((folder / path).is_dir() for folder in search_folders(request)):
        raise ConfigError(f"--config-name {request.name}: {path} is a folder; a config is a file")
    if path.is_file():
        hint = f"; the file is found with --config-dir {path.parent} --config-name {path.stem}"
    elif "/" in name:
        hint = "; it is a name, not a path; give the folder by --config-dir"
    else:
        hint = nearest(name, group_options(hydra, ""))
    raise ConfigError(f"--config-name {request.name or repr('')}: no such config{hint}")


def plain_overrides(hydra: Hydra, overrides: Sequence[str]) -> list[str]:
    """Overrides as Hydra must see them.

    A value override `a.b=c` or `+a.b=c` becomes `++a.b=c`: which keys exist is decided by the typed config, not by
    which of them a file happens to mention, so that no one needs to know when Hydra wants a plus.
    """
    parsed = parse_overrides(overrides)
    problems = [problem for override in parsed if (problem := _bad_choice(hydra, override))]
    if problems:
        raise ConfigError(problems)
    return [_plain(hydra, override) for override in parsed]


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Overrides in Hydra's full grammar, and with `a[0]` as well as `a.0` in keys.

    Raises ConfigError for each that does not parse, and for sweeps.
    """
    parser = OverridesParser.create()
    parsed, problems = [], []
    for text in overrides:
        key, equals, value = text.partition("=")
        if not key.strip("+~"):
            problems.append(wording.syntax(text, ValueError()))
            continue
        try:
            override = parser.parse_override(re.sub(r"\[(\d+)\]", r".\1", key) + equals + value)
        except (HydraException, ValueError, RecursionError) as error:
            problems.append(wording.syntax(text, error))
            continue
        if re.match(r"[+~]*hydra[/.]sweeper\b", key):
            problems.append(f"command line: {key}: a sweeper chooses the points of a sweep; add -m to run it")
        elif override.is_hydra_override() and override.get_key_element().lstrip("+~") != "hydra.searchpath":
            problems.append(f"command line: {key}: Hydra's own settings have no effect here, but for hydra.searchpath")
        if override.is_sweep_override():
            problems.append(
                f"command line: {key}: several values make a sweep; add -m to run it, "
                "give one value, or a list in brackets: [a,b]"
            )
        parsed.append(override)
    if problems:
        raise ConfigError(problems)
    return parsed


def _bad_choice(hydra: Hydra, override: Override) -> str | None:
    """What is wrong with the option given for a config group, if it can be no option's name."""
    value = override.value()
    if not is_group(hydra, override.key_or_group) or isinstance(value, str | list | dict):
        return None
    if override.is_delete() and value is None:
        return None
    options = ", ".join(group_options(hydra, override.key_or_group))
    return f"command line: {override.key_or_group}: takes the name of an option, got {show(value)}; valid: {options}"


def _plain(hydra: Hydra, override: Override) -> str:
    text = cast(str, override.input_line)
    if override.is_delete() or override.is_hydra_override():
        return text
    if is_group(hydra, override.key_or_group) and not isinstance(override.value(), dict):
        return text.removeprefix("+") if override.is_force_add() else text
    return f"++{text.lstrip('+')}"


def is_group(hydra: Hydra, key: str) -> bool:
    """Whether a key names a config group rather than a value."""
    return "." not in key and bool(_loader(hydra).repository.group_exists(key))


def groups(hydra: Hydra) -> list[str]:
    """The config groups, sorted."""
    return [name for name in hydra.config_loader.list_groups("") if name != "hydra"]


def group_options(hydra: Hydra, group: str) -> list[str]:
    """Options of a config group, sorted; `''` lists the configs at the top."""
    options = _loader(hydra).repository.get_group_options(group, ObjectType.CONFIG)
    return sorted(name for name in options if not name.startswith("_"))


__all__ = [
    "Composition",
    "Request",
    "compose",
    "compose_tree",
    "config_name",
    "find",
    "group_options",
    "groups",
    "hydra_for",
    "is_group",
    "packaged_configs",
    "parse_overrides",
    "plain_overrides",
    "search_folders",
    "shorten",
]
