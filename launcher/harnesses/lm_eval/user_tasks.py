"""Task definitions in a user's own folder, read as lm-eval reads them but without running any of their code."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from launcher.errors import ConfigError

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_IGNORED_FOLDERS = {"__pycache__", ".ipynb_checkpoints"}


class _Loader(_BASE):  # type: ignore[misc]
    """Reads `!function` and any other tag as its text."""


def _as_text(loader: Any, _suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    return None


yaml.add_multi_constructor("!", _as_text, Loader=_Loader)


@dataclass(frozen=True)
class UserFolder:
    """What a folder defines: configs by name, tags with their tasks, and files that are no valid YAML."""

    path: str
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    tags: dict[str, list[str]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self.configs.keys() | self.tags.keys())


@cache
def read_folder(path: str) -> UserFolder:
    """Everything that a folder defines. Raises ConfigError if there is no such folder."""
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ConfigError(f"evaluation.include_path: {path}: no such folder")
    found = UserFolder(str(root.resolve()))
    for file in sorted(root.glob("**/*.yaml"), key=Path.as_posix):
        if not _IGNORED_FOLDERS.intersection(file.parts):
            _read_into(found, file)
    return found


def _read_into(found: UserFolder, file: Path) -> None:
    try:
        config = _load(file, ())
    except (OSError, ValueError, yaml.YAMLError) as error:
        found.broken.append(f"{file}: {str(error).splitlines()[0]}")
        return
    name = config.get("group") if "group" in config and "class" not in config else config.get("task")
    if not isinstance(name, str) or name in found.configs:
        return
    found.configs[name] = config
    if "group" not in config:
        for tag in _as_list(config.get("tag")):
            found.tags.setdefault(tag, []).append(name)


def _load(file: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """One file with everything it includes; its own keys win."""
    file = file.resolve()
    if file in seen:
        raise ValueError("includes itself")
    with file.open("rb") as stream:
        config = yaml.load(stream, Loader=_Loader)  # noqa: S506  derived from the safe loader
    if not isinstance(config, dict):
        raise ValueError("is not a mapping")  # noqa: TRY004  broken content, not a programming error
    merged: dict[str, Any] = {}
    for included in _as_list(config.pop("include", None)):
        parent = _load(file.parent / included, (*seen, file))
        parent.pop("task_list", None)
        merged |= parent
    return merged | config


def _as_list(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]
