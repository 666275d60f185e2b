"""`nv-eval export`: send results to MLflow, W&B, a collector, files and others, now or again."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.cli.interrupting import signals_interrupt
from launcher.cli.selection import add_selection_arguments, filters
from launcher.errors import ConfigError, ExportFailed, NotFound, nearest

if TYPE_CHECKING:
    from launcher.results.exporters.sending import Sent

SCHEMA = "nv-eval.export/1"
_EPILOG = """\
keys of an exporter are set behind its name, as in the config; for example
  nv-eval export --to mlflow mlflow.tracking_uri=http://127.0.0.1:5000
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_selection_arguments(parser)
    parser.set_defaults(overrides=[])
    parser.add_argument(
        "--to",
        action="append",
        default=[],
        metavar="NAME",
        help="where to, may be given several times; see: nv-eval ls exporters; default: what the run's config names",
    )
    parser.add_argument("--again", action="store_true", help="also what the place has already, by exports.json")
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="S",
        help="seconds that an invocation's exports may take; default: its config's",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run the command. Raises ExportFailed if anything could not be sent."""
    from launcher.api import export

    words = [*args.invocations, *args.overrides]
    keys = _keys([word.removeprefix("export.") for word in words if _is_key(word)])
    found: list[Sent] = []
    with signals_interrupt():
        for folder in _folders([word for word in words if not _is_key(word)], args):
            sent = export(folder, to=args.to, keys=keys, again=args.again, timeout=args.timeout)
            found += sent
            if not args.json:
                _print(sent)
    if args.json:
        _print_json(found)
    return _verdict(found, as_json=args.json)


def _is_key(word: str) -> bool:
    return "=" in word and not Path(word).exists()


def _keys(words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Keys by exporter. Raises ConfigError for what is none."""
    from launcher.config.compose import parse_overrides
    from launcher.config.export import installed

    found: dict[str, dict[str, Any]] = {}
    for override in parse_overrides(words) if words else ():
        name, _, key = override.key_or_group.partition(".")
        if name not in installed():
            raise ConfigError(f"{override.input_line}: no such exporter{nearest(name, installed())}")
        if not key or override.is_delete():
            raise ConfigError(f"{override.input_line}: expected {name}.KEY=VALUE")
        _put(found.setdefault(name, {}), key, override.value())
    return found


def _put(tree: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split(".")
    for part in parents:
        inner = tree.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{path}: {part} has a value and keys below it")
        tree = inner
    tree[last] = _plain(value)


def _plain(value: object) -> object:
    """A value of Hydra's grammar as plain data: quoted text is text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | bool | int | float | None) else getattr(value, "text", str(value))


def _folders(words: Sequence[str], args: argparse.Namespace) -> list[Path]:
    from launcher.orchestrator.journal import Journal
    from launcher.results.select import pick

    chosen = filters(args)
    if not words and not chosen.chooses:
        newest = Journal.default().invocations(limit=1)
        if not newest:
            raise NotFound("no invocation yet; start one with: nv-eval run")
        words = [newest[0].id]
    return [one.folder for one in pick(words, chosen)]


def _print(sent: Sequence[Sent]) -> None:
    from launcher.cli.text import plain
    from launcher.results.exporters.sending import State

    for one in sent:
        if one.state is not State.FAILED:
            print(plain(one.line()), flush=True)


def _print_json(found: Sequence[Sent]) -> None:
    from msgspec import to_builtins

    print(json.dumps({"schema": SCHEMA, "exports": to_builtins(found)}))


def _verdict(found: Sequence[Sent], *, as_json: bool) -> int:
    """0, or the exit code of ExportFailed, which says what has failed where JSON has not said it already."""
    from launcher.results.exporters.sending import State

    failed = [one for one in found if one.state is State.FAILED]
    if failed and not as_json:
        raise ExportFailed("\n".join(one.line() for one in failed))
    return ExportFailed.exit_code if failed else 0
