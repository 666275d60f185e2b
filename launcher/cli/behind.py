"""The run behind `--`: arguments of `nv-eval run` that another command keeps for later."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from launcher.errors import ConfigError

if TYPE_CHECKING:
    from launcher.schedule.model import RunSpec

_OF_A_PERSON = ("dry_run", "detach", "json", "cfg", "info", "verbose")
"""Options of `nv-eval run` for a person who looks on."""


def run_spec(command: str, words: Sequence[str]) -> RunSpec:
    """What to run later. Raises ConfigError for anything but a run in the foreground."""
    from launcher.cli import timers
    from launcher.schedule.model import RunSpec

    if not words or words[0] != "run":
        raise ConfigError(
            f"nv-eval {command}: what is to run stands behind --; for example: -- run evaluation.limit=100"
        )
    args = _parsed(words)
    odd = [name for name in _OF_A_PERSON if getattr(args, name, None)]
    if odd:
        raise ConfigError(f"nv-eval {command}: -- run --{odd[0].replace('_', '-')}: has no meaning for a later run")
    folders = [timers.absolute(path) if path else None for path in (args.config_dir, args.config_path)]
    return RunSpec(
        config_name=args.config_name,
        overrides=(*args.overrides, *args.override),
        config_dir=folders[0],
        config_path=folders[1],
        yes=args.yes,
        multirun=args.multirun,
        skip_done=True if args.skip_done else None,
    )


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    from launcher.cli.main import parse

    return parse(words)
