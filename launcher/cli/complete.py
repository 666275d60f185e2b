"""Shell completion, by argcomplete's protocol: options, override words, configs, invocations and tasks.

`nv-eval completion SHELL` prints the line that turns it on. A mistake in what is on the line already never is an
error here: there is then less to offer.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TextIO

from argcomplete.completers import DirectoriesCompleter, SuppressCompleter
from argcomplete.finders import CompletionFinder

from launcher.errors import LauncherError

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

    from launcher.cli.keys import Key
    from launcher.config import Request

Completer = Callable[[str, argparse.Namespace], Iterable[str]]

_MARKS = ("++", "+", "~")
"""What Hydra allows in front of a key, the longest first."""
_TASK_LIST = "evaluation.tasks=["


def autocomplete(
    parser: argparse.ArgumentParser, *, output: TextIO | None = None, leave: Callable[[int], object] = os._exit
) -> None:
    """Print the completions of the line in the environment and exit; does nothing if none is asked for.

    They go to `output`, by default to the file or descriptor that the shell's half waits for.
    """
    for sub in _commands(parser):
        for action in sub._actions:
            completer = _completer(action.dest)
            if completer is not None:
                action.completer = completer  # type: ignore[attr-defined]  # argcomplete's own way to attach one
    _Finder()(
        parser,
        always_complete_options=False,
        default_completer=SuppressCompleter(),
        output_stream=output,
        exit_method=leave,
    )


def _commands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """All sub-commands, and their actions."""
    choices = parser._subparsers._group_actions[0].choices if parser._subparsers else None
    found: list[argparse.ArgumentParser] = list(choices.values()) if isinstance(choices, dict) else []
    return [parser for sub in found for parser in (sub, *_commands(sub))]


class _Finder(CompletionFinder):
    """Offers overrides also behind options, where argparse takes no further positional arguments."""

    def collect_completions(
        self, active_parsers: list[Any], parsed_args: argparse.Namespace, cword_prefix: str
    ) -> list[str]:
        found: list[str] = super().collect_completions(active_parsers, parsed_args, cword_prefix)
        actions = {action.dest: action for action in active_parsers[-1]._actions}
        wants_value = any(action.option_strings for action in active_parsers[-1].active_actions)
        if found or wants_value or "overrides" not in actions or cword_prefix.startswith("-"):
            return found
        return list(actions["overrides"].completer(cword_prefix, parsed_args))


def _overrides_or_ids(prefix: str, args: argparse.Namespace) -> Iterable[str]:
    """`resume` takes both in one place."""
    ids = _invocations(prefix, args) if getattr(args, "command", None) == "resume" else []
    return [*ids, *_overrides(prefix, args)]


def _completer(argument: str) -> Any:
    """What completes an argument, in the form argcomplete calls it."""
    if argument in ("config_dir", "config_path", "include_path"):
        return DirectoriesCompleter()
    known: dict[str, Completer] = {
        "overrides": _overrides_or_ids,
        "override": _overrides,
        "config_name": _config_names,
        "package": _packages,
        "execution": _executions,
        "deployment": _deployments,
        "invocation": _invocations_or_endpoints,
        "invocations": _invocations_or_endpoints,
        "task": _tasks_of_invocation,
        "pattern": _listed_tasks,
        "to": _exporters,
    }
    return None if argument not in known else _safe(known[argument])


def _safe(completer: Completer) -> Callable[..., list[str]]:
    def complete(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
        try:
            return [word for word in completer(prefix, parsed_args) if word.startswith(prefix)]
        except LauncherError:
            return []

    return complete


def _overrides(prefix: str, args: argparse.Namespace) -> Iterable[str]:
    """Words in Hydra's grammar: config groups, keys, and after the `=` their options or values."""
    mark = next((mark for mark in _MARKS if prefix.startswith(mark)), "")
    bare = prefix.removeprefix(mark)
    if bare.startswith(_TASK_LIST):
        words: Iterable[str] = _task_list(bare)
    elif "=" in bare:
        words = _values(bare.partition("=")[0], args)
    else:
        words = _names(args)
    return (f"{mark}{word}" for word in words)


def _task_list(bare: str) -> Iterable[str]:
    before = bare[: max(bare.rfind("["), bare.rfind(",")) + 1]
    return (f"{before}{name}" for name in _task_names(bare.removeprefix(before)))


def _names(args: argparse.Namespace) -> list[str]:
    return [f"{group}=" for group in _with_hydra(args, _groups)] + [f"{path}=" for path in _keys(args)]


def _values(name: str, args: argparse.Namespace) -> list[str]:
    """Options of a config group, or values of a key."""
    options = _with_hydra(args, lambda hydra: _options(hydra, name))
    if not options:
        key = _keys(args).get(name)
        options = list(key.choices) if key else []
    return [f"{name}={option}" for option in options]


def _groups(hydra: Hydra) -> list[str]:
    return [name for name in hydra.config_loader.list_groups("") if name != "hydra"]


def _options(hydra: Hydra, name: str) -> list[str]:
    from launcher.config.compose import group_options, is_group

    return group_options(hydra, name) if is_group(hydra, name) else []


def _keys(args: argparse.Namespace) -> dict[str, Key]:
    """All keys of the typed config, for the execution and the deployment chosen on the line or in the config."""
    from launcher.cli.keys import config_keys
    from launcher.config.schema import DEPLOYMENTS, EXECUTIONS

    chosen = _chosen(args)
    execution, deployment = (str(chosen.get(name, {}).get("type")) for name in ("execution", "deployment"))
    return config_keys(
        execution if execution in EXECUTIONS else None, deployment if deployment in DEPLOYMENTS else None
    )


def _chosen(args: argparse.Namespace) -> dict[str, Any]:
    """The config as the line asks for it so far; empty where it does not compose."""
    from omegaconf import OmegaConf

    from launcher.config.compose import compose_tree

    try:
        tree = OmegaConf.to_container(compose_tree(_request(args)), throw_on_missing=False)
    except LauncherError:
        return {}
    return (
        {str(name): value for name, value in tree.items() if isinstance(value, dict)} if isinstance(tree, dict) else {}
    )


def _config_names(_prefix: str, args: argparse.Namespace) -> list[str]:
    from launcher.config.compose import group_options

    return _with_hydra(
        args, lambda hydra: [name for name in group_options(hydra, "") if not name.startswith((".", "_"))]
    )


def _with_hydra(args: argparse.Namespace, ask: Callable[[Hydra], list[str]]) -> list[str]:
    from launcher.config.compose import hydra_for

    with hydra_for(_request(args)) as hydra:
        return ask(hydra)


def _request(args: argparse.Namespace) -> Request:
    """The config that the line asks for; a line that is being typed may lack any of its arguments."""
    from launcher.config import Request

    return Request(
        name=getattr(args, "config_name", None) or "default",
        overrides=(*(getattr(args, "overrides", None) or ()), *(getattr(args, "override", None) or ())),
        config_dir=getattr(args, "config_dir", None),
        config_path=getattr(args, "config_path", None),
    )


def _packages(_prefix: str, _args: argparse.Namespace) -> Iterable[str]:
    from launcher.cli.keys import sections

    return sections()


def _executions(_prefix: str, _args: argparse.Namespace) -> Iterable[str]:
    from launcher.config.schema import EXECUTIONS

    return EXECUTIONS


def _deployments(_prefix: str, _args: argparse.Namespace) -> Iterable[str]:
    from launcher.config.schema import DEPLOYMENTS

    return DEPLOYMENTS


def _invocations(_prefix: str, _args: argparse.Namespace) -> list[str]:
    """Ids, newest first. A person who has not run anything has no journal, and completion makes none."""
    from launcher.orchestrator.journal import Journal, state_folder

    if not (state_folder() / "journal.db").is_file():
        return []
    return [invocation.id for invocation in Journal.default().invocations()]


def _invocations_or_endpoints(prefix: str, args: argparse.Namespace) -> list[str]:
    """Behind `nv-eval endpoints` only those that keep an endpoint, and there may be something of it."""
    found = _invocations(prefix, args)
    if not found or getattr(args, "command", None) != "endpoints":
        return found
    from launcher.orchestrator.endpoints import every
    from launcher.orchestrator.journal import Journal

    return [status.id for status in every(Journal.default()) if not status.is_over]


def _tasks_of_invocation(_prefix: str, args: argparse.Namespace) -> Iterable[str]:
    from launcher.orchestrator.journal import Journal

    return Journal.default().find(args.invocation).tasks if args.invocation else ()


def _exporters(_prefix: str, _args: argparse.Namespace) -> Iterable[str]:
    from launcher.config.export import installed

    return installed()


def _listed_tasks(prefix: str, args: argparse.Namespace) -> list[str]:
    return _task_names(prefix) if args.what == "tasks" else []


def _task_names(prefix: str) -> list[str]:
    from launcher.harnesses.lm_eval import search

    return [entry.name for entry in search(f"{prefix}*" if prefix else None) if entry.name.startswith(prefix)]
