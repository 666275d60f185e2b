"""Where a key was set: the file and line, or the command line. Used only to word an error."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml
from hydra.core.override_parser.types import Override
from hydra.types import RunMode

from launcher.config.compose import (
    Request,
    config_name,
    hydra_for,
    parse_overrides,
    plain_overrides,
    search_folders,
    shorten,
)

Steps = tuple[str | int, ...]


@dataclass(frozen=True)
class Source:
    """One YAML file of a composition and the key below which its content lands."""

    path: Path
    package: Steps


def steps(key: str) -> Steps:
    """`evaluation.tasks[0].name` as ('evaluation', 'tasks', 0, 'name')."""
    parts = re.findall(r"[^.\[\]]+|\[\d+\]", key)
    return tuple(int(part[1:-1]) if part.startswith("[") else part for part in parts)


def where(request: Request, key: str) -> str:
    """A prefix for an error about `key`: `file:line: `, `command line: `, or nothing where it was never set."""
    wanted = steps(key)
    for override in reversed(parse_overrides(request.overrides)):
        if _sets(override, wanted):
            return "command line: "
    for source in reversed(_sources(request)):
        line = _line(source, wanted)
        if line is not None:
            return f"{shorten(source.path)}:{line}: "
    return ""


def main_file(request: Request) -> str:
    """The file of the config that was asked for, for errors about what it lacks."""
    path = _find(request, config_name(request.name))
    return f"{shorten(path)}: " if path else ""


def _sets(override: Override, wanted: Steps) -> bool:
    parts = tuple(int(part) if part.isdigit() else part for part in steps(override.key_or_group))
    return parts == wanted[: len(parts)] or (parts[: len(wanted)] == wanted and len(wanted) > 0)


def _sources(request: Request) -> list[Source]:
    with hydra_for(request) as hydra:
        overrides = plain_overrides(hydra, request.overrides)
        loader = hydra.config_loader
        parsed = loader.compute_defaults_list(config_name(request.name), overrides, RunMode.RUN).defaults
        found = []
        for entry in parsed:
            path = _find(request, entry.config_path) if entry.config_path else None
            if path is not None:
                found.append(Source(path, steps(entry.package or "")))
        return found


def _find(request: Request, config_path: str) -> Path | None:
    for folder in search_folders(request):
        path = folder / f"{config_path}.yaml"
        if path.is_file():
            return path
    return None


def _line(source: Source, wanted: Steps) -> int | None:
    """Line, from 1, at which `source` sets `wanted`."""
    if wanted[: len(source.package)] != source.package:
        return None
    node = yaml.compose(source.path.read_text(), Loader=yaml.SafeLoader)
    line = None
    for step in wanted[len(source.package) :]:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(step)), None)
            if pair is None:
                return None
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            return line
    return line
