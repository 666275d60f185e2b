"""Reading config files for Hydra, so that a broken one is named with its line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

from launcher.errors import ConfigError


def find(folders: Iterable[Path], name: str) -> Path | None:
    """The file of a config in the first of `folders` that has it."""
    paths = (folder / f"{name}.yaml" for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def shorten(path: Path) -> str:
    """A path as a person would type it: relative where it is below the working directory."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def steps(key: str) -> tuple[str, ...]:
    """`evaluation.tasks[0].name` as ('evaluation', 'tasks', '0', 'name')."""
    return tuple(re.findall(r"[^.\[\]]+", key))


def line_of(path: Path, wanted: Sequence[str]) -> int | None:
    """Line, from 1, at which a file sets `wanted`, or the text or list that it is a part of."""
    node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    line = None
    for step in wanted:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == step), None)
            if pair is None:
                return None
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and step.isdecimal() and int(step) < len(node.value):
            node = node.value[int(step)]
            line = node.start_mark.line + 1
        else:
            return line
    return line


class CheckedRepository(ConfigRepository):
    """Hydra's way to find configs, with files read by `_CheckedFiles`."""

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """Open the folders of the search path."""
        super().initialize_sources(config_search_path)
        self.sources = [
            _CheckedFiles(source.provider, source.path) if source.scheme() == "file" else source
            for source in self.sources
        ]


class _CheckedFiles(FileConfigSource):
    def load_config(self, config_path: str) -> ConfigResult:
        """One file. Raises ConfigError, with file and line, where it is not a mapping in valid YAML."""
        path = Path(self.path) / self._normalize_file_name(config_path)
        try:
            result = super().load_config(config_path)
        except (yaml.YAMLError, OmegaConfBaseException, ValueError, OSError, RecursionError) as error:
            raise ConfigError(_broken(path, error)) from None
        if not isinstance(result.config, DictConfig):
            raise ConfigError(f"{shorten(path)}: holds a list; a config is a mapping of keys to values")
        return result


def _broken(path: Path, error: Exception) -> str:
    file = shorten(path)
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        return f"{file}:{mark.line + 1 if mark else 1}: not valid YAML: {_yaml_problem(error)}"
    if isinstance(error, yaml.reader.ReaderError):
        return f"{file}:{_line(path, error.position)}: holds a character that YAML does not allow"
    if isinstance(error, UnicodeDecodeError):
        return f"{file}:{_line(path, error.start)}: is not text in UTF-8"
    if isinstance(error, OmegaConfBaseException):
        return f"{file}{_at(path, str(error.full_key or ''))}{_value_problem(error)}"
    if isinstance(error, OSError):
        return f"{file}: cannot be read: {error.strerror}"
    return f"{file}: cannot be read: {'nested too deeply' if isinstance(error, RecursionError) else _first_line(error)}"


def _yaml_problem(error: yaml.MarkedYAMLError) -> str:
    problem = str(error.problem or error.context)
    if "'\\t'" in problem:
        return "indented with a tab; use spaces"
    return problem.replace("'<stream end>'", "the end of the file")


def _at(path: Path, key: str) -> str:
    line = line_of(path, steps(key))
    return (f":{line}" if line else "") + (f": {key}: " if key else ": ")


def _value_problem(error: OmegaConfBaseException) -> str:
    if isinstance(error, GrammarParseError):
        return "is no valid interpolation; write ${KEY} or ${oc.env:NAME}"
    return _first_line(error)


def _line(path: Path, position: int) -> int:
    return path.read_bytes()[:position].count(b"\n") + 1


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
