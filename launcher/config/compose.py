"""Composition with Hydra: config groups, files and command-line overrides to one untyped tree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from launcher.errors import ConfigError, nearest

DEFAULT_NAME = "default"


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
            raise ConfigError(f"{option} {folder}: no such folder")
    _SearchPath.front = Path(request.config_dir).resolve() if request.config_dir else None
    Plugins.instance().register(_SearchPath)
    main = Path(request.config_path).resolve() if request.config_path else packaged_configs()
    with initialize_config_dir(str(main), job_name="nv-eval", version_base="1.3"):
        yield cast(Hydra, GlobalHydra.instance().hydra)


def config_name(name: str) -> str:
    """The name Hydra knows a config by: `x.yaml` and `x` are the same."""
    return re.sub(r"\.ya?ml$", "", name)


def compose_tree(request: Request) -> DictConfig:
    """The composed, unresolved tree. Every mistake in files, names or overrides is a ConfigError of one line each."""
    with hydra_for(request) as hydra:
        return _compose(hydra, config_name(request.name), plain_overrides(hydra, request.overrides))


def _compose(hydra: Hydra, name: str, overrides: list[str]) -> DictConfig:
    try:
        return compose(name, overrides)
    except MissingConfigException as error:
        raise ConfigError(_missing(hydra, name, error)) from None
    except ConfigCompositionException as error:
        group = re.search(r"Could not override '([^']+)'\.\s*No match in the defaults list", str(error))
        if group is None:
            raise ConfigError(_composition(error)) from None
        wanted = group.group(1).partition("@")[0]
        added = [f"+{text}" if text.partition("=")[0].partition("@")[0] == wanted else text for text in overrides]
        if added == overrides:
            raise ConfigError(_one_line(error)) from None
        return _compose(hydra, name, added)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_one_line(error)) from None
    except ValueError as error:  # YAML syntax errors reach us through OmegaConf as they are
        raise ConfigError(_one_line(error)) from None
    except Exception as error:
        if type(error).__module__.startswith("yaml"):
            raise ConfigError(_yaml_error(error)) from None
        raise


def plain_overrides(hydra: Hydra, overrides: Sequence[str]) -> list[str]:
    """Overrides as Hydra must see them.

    A value override `a.b=c` becomes `++a.b=c`: which keys exist is decided by the typed config, not by which of them a
    file happens to mention, so that no one needs to know when Hydra wants a plus.
    """
    return [_plain(hydra, override) for override in parse_overrides(overrides)]


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Overrides in Hydra's full grammar. Raises ConfigError for each that does not parse, and for sweeps."""
    parser = OverridesParser.create()
    parsed, problems = [], []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            problems.append(f"command line: {text}: {_syntax(error)}")
            continue
        if override.is_sweep_override():
            problems.append(
                f"command line: {text}: several values make a sweep, which run does not do; "
                "put one value, or brackets for a list: key=[a,b]"
            )
        parsed.append(override)
    if problems:
        raise ConfigError(problems)
    return parsed


def _plain(hydra: Hydra, override: Override) -> str:
    text = cast(str, override.input_line)
    is_change = not text.startswith(("+", "~"))
    if is_change and not is_group(hydra, override.key_or_group):
        return f"++{text}"
    return text


def is_group(hydra: Hydra, key: str) -> bool:
    """Whether a key names a config group rather than a value."""
    parent, _, name = key.rpartition("/")
    return "." not in key and name in hydra.config_loader.list_groups(parent)


def group_options(hydra: Hydra, group: str) -> list[str]:
    """Options of a config group, sorted; `''` lists the configs at the top."""
    return sorted(hydra.config_loader.get_group_options(group))


def _missing(hydra: Hydra, name: str, error: MissingConfigException) -> str:
    missing = str(error.missing_cfg_file or name)
    group, _, option = missing.rpartition("/")
    options = group_options(hydra, group)
    if not group:
        where = "--config-name" if missing == name else f"{name}.yaml"
        return f"{where} {option}: no such config{nearest(option, options)}"
    if options:
        return f"{group}={option}: no such option of {group}{nearest(option, options) or '; see: nv-eval ls'}"
    groups = hydra.config_loader.list_groups("")
    return f"{missing}: no such config group{nearest(group, groups)}"


def _composition(error: Exception) -> str:
    cause = error.__cause__
    text = _one_line(cause if isinstance(cause, OmegaConfBaseException) else error)
    return re.sub(r"\s*To append to your config use \S+", "", text)


def _syntax(error: HydraException) -> str:
    reason = _one_line(error)
    return f"not a valid override ({reason}); write key=value, and quote values with special characters"


def _yaml_error(error: Exception) -> str:
    mark: Any = getattr(error, "problem_mark", None)
    where = f"{shorten(Path(mark.name))}:{mark.line + 1}" if mark is not None else "config file"
    return f"{where}: not valid YAML: {getattr(error, 'problem', None) or _one_line(error)}"


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def shorten(path: Path) -> str:
    """A path as a person would type it: relative where it is below the working directory."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
