"""The exporters that are there, and what keeps those that a config asks for from working."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from launcher.config.export import OPTIONS, Export, chosen, installed, with_others
from launcher.decoding import convert
from launcher.errors import ConfigError, LauncherError, MissingExtra, PreflightError, nearest
from launcher.results.exporters.base import Exporter
from launcher.results.model import BROKEN


@dataclass(frozen=True, kw_only=True)
class Known:
    """One exporter for a list. `missing`: what has to be installed first, empty if nothing; `problem`: it is broken."""

    name: str
    summary: str
    package: str
    extra: str
    missing: tuple[str, ...] = ()
    problem: str = ""


def make(name: str, options: Any) -> Exporter:
    """The exporter with its keys. Raises ConfigError for an unknown name, PreflightError for one that is broken."""
    found = installed()
    if name not in found:
        raise ConfigError(f"{name}: no such exporter{nearest(name, found)}")
    try:
        made: Exporter = _class(found[name])(options)
    except LauncherError:
        raise
    except Exception as error:  # another package's code, with keys that it alone knows
        raise PreflightError(f"export.{name}: {type(error).__name__}: {error}") from error
    return made


def _class(entry: EntryPoint) -> type[Any]:
    """What an entry point names. Raises PreflightError if it cannot be imported."""
    try:
        found: type[Any] = entry.load()
    except Exception as error:  # whatever another package does when it is imported
        package = entry.dist.name if entry.dist else entry.value
        raise PreflightError(
            f"export.{entry.name}: {package} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return found


def problems(export: Export) -> list[str]:
    """What keeps the exporters that a config asks for from working, without asking anyone; one line each."""
    return [problem for name, options in chosen(export).items() for problem in _problems(name, options)]


def _problems(name: str, options: Any) -> list[str]:
    try:
        exporter = make(name, options)
        missing = _missing(exporter)
        if missing:
            return [_how_to_install(name, exporter, missing[0])]
        return list(exporter.problems())
    except PreflightError as error:
        return list(error.problems)
    except ConfigError as error:
        return [f"export.others: {problem}" for problem in error.problems]
    except Exception as error:  # another package's code
        return [f"export.{name}: {type(error).__name__}: {error}"]


def _how_to_install(name: str, exporter: Exporter, module: str) -> str:
    if exporter.extra:
        return str(MissingExtra(f"{module}, which export.{name} needs,", exporter.extra))
    return f"export.{name}: Python module {module} is not installed"


def _missing(exporter: type[Exporter] | Exporter) -> list[str]:
    return [module for module in exporter.modules if not _is_there(module)]


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False


def known() -> list[Known]:
    """All exporters of all packages, ours first."""
    found = installed()
    names = [*(name for name in OPTIONS if name in found), *sorted(name for name in found if name not in OPTIONS)]
    return [_known(found[name]) for name in names]


def _known(entry: EntryPoint) -> Known:
    package = entry.dist.name if entry.dist else ""
    try:
        cls = _class(entry)
    except PreflightError as error:
        return Known(name=entry.name, summary="", package=package, extra="", problem=str(error))
    extra = str(getattr(cls, "extra", ""))
    summary = str(getattr(cls, "summary", ""))
    return Known(name=entry.name, summary=summary, package=package, extra=extra, missing=tuple(_missing(cls)))


def with_keys(export: Mapping[str, Any], names: Sequence[str], keys: Mapping[str, Mapping[str, Any]]) -> Export:
    """The keys of `export` for the named exporters alone, with those of `keys` set.

    Raises ConfigError, a line for each key that does not exist or has a wrong value.
    """
    from launcher.config.validate import problems_in

    tree: dict[str, Any] = {name: export[name] for name in ("timeout",) if name in export}
    others: Mapping[str, Any] = export.get("others") or {}
    for name in names:
        before = (export.get(name) if name in OPTIONS else others.get(name)) or {}
        tree[name] = {**before, **keys.get(name, {})}
    tree = with_others(tree)
    found = problems_in(tree, Export)
    if found:
        raise ConfigError([f"{problem.key}: {problem.message}" for problem in found])
    return convert(tree, Export)


def wanted(
    folder: Path, names: Sequence[str], keys: Mapping[str, Mapping[str, Any]], *, timeout: float | None = None
) -> Export:
    """What an invocation is to be exported to: the named exporters, else those of its own config.

    Raises ConfigError as `with_keys` does and where none is named, PreflightError for one that cannot work.
    """
    own = {**_own(folder), **({} if timeout is None else {"timeout": timeout})}
    named = list(all_of(names)) or [name for name in (*OPTIONS, *(own.get("others") or {})) if _is_chosen(own, name)]
    if not named:
        raise ConfigError(f"{folder.name}: its config exports to nothing; name a place with --to{nearest('', OPTIONS)}")
    strange = [name for name in keys if name not in named]
    if strange:
        raise ConfigError(f"{strange[0]}: has keys, and nothing is exported to it; add --to {strange[0]}")
    export = with_keys(own, named, keys)
    found = problems(export)
    if found:
        raise PreflightError(found)
    return export


def _is_chosen(own: Mapping[str, Any], name: str) -> bool:
    return own.get(name) is not None or name in (own.get("others") or {})


def _own(folder: Path) -> Mapping[str, Any]:
    """`export` of the config that an invocation ran with; empty where its plan cannot be read any more."""
    try:
        plan = msgspec.json.decode((folder / "plan.json").read_bytes())
        found = plan["config"]["export"]
    except (OSError, *BROKEN, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def all_of(names: Sequence[str]) -> Iterator[str]:
    """Names without doubles. Raises ConfigError for one that no package brings."""
    found = installed()
    for name in dict.fromkeys(names):
        if name not in found:
            raise ConfigError(f"--to {name}: no such exporter{nearest(name, found)}; see: nv-eval ls exporters")
        yield name
