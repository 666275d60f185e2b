"""`nv-eval gc --install` and `--uninstall`: the timer that removes what nobody needs while nobody watches."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.cli import env_file, leftovers, timers
from launcher.config.execution import Lepton
from launcher.config.places import DeepInfraAccount
from launcher.errors import PreflightError
from launcher.platforms.deepinfra import credentials as deepinfra
from launcher.platforms.lepton import credentials as lepton

if TYPE_CHECKING:
    from launcher.config.places import AnyPlace
    from launcher.orchestrator.timer import Crontab, Entry, Systemd

SCHEMA = "nv-eval.timer/1"
_PREFIXES = {"deepinfra": "DEEPINFRA_", "lepton": "LEPTON_"}
_SEEN = (*_PREFIXES.values(), "DOCKER_HOST", "SSL_CERT_")


def install(args: argparse.Namespace) -> int:
    """Show the timer, and put it in place if the person says so."""
    from launcher.orchestrator import timer

    given = env_file.read(args.env_file) if args.env_file else {}
    named, _ = leftovers.places(args)  # a wrong override is told now and not by the timer
    _refuse_blind(named or [], given)
    entry = _entry(args)
    chosen = timer.choose()
    text = chosen.text(entry)
    is_new = chosen.present() != text
    notes = [*_notes(chosen, given), f"what it does is written to {entry.log}"]
    if not args.json:
        sys.stdout.write(f"{chosen.name}{' to be written' if is_new else ', in place already'}:\n{text}")
        sys.stderr.writelines(f"nv-eval: {note}\n" for note in notes)
    wanted = is_new and (args.yes or (not args.json and timers.agrees()))
    if wanted:
        _write(chosen, entry)
    if args.json:
        _print_json(chosen.name, text, written=wanted, in_place=wanted or not is_new, notes=notes)
    elif is_new:
        sys.stdout.write(
            "Written.\n" if wanted else "Nothing was written; to write it, repeat the command with --yes\n"
        )
    return 0


def uninstall(args: argparse.Namespace) -> int:
    """Take away whatever `install` has put in place."""
    from launcher.orchestrator import timer

    found = timer.installed()
    for place in found:
        text = place.present()
        place.uninstall()
        if args.json:
            _print_json(place.name, text, written=True, in_place=False, notes=[])
        else:
            sys.stdout.write(f"Removed the {place.name}:\n{text}")
    if not found and args.json:
        _print_json("", "", written=False, in_place=False, notes=[])
    elif not found:
        sys.stdout.write("There is no timer of nv-eval gc\n")
    return 0


def _write(chosen: Systemd | Crontab, entry: Entry) -> None:
    """One timer and no second one: an earlier one of the other kind goes."""
    from launcher.orchestrator import timer

    entry.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for place in timer.installed():
        if place.name != chosen.name:
            place.uninstall()
    chosen.install(entry)


def _print_json(kind: str, text: str, *, written: bool, in_place: bool, notes: list[str]) -> None:
    facts = {"kind": kind or None, "text": text, "changed": written, "in_place": in_place, "notes": notes}
    sys.stdout.write(json.dumps({"schema": SCHEMA, "exit_code": 0, **facts}) + "\n")


def _entry(args: argparse.Namespace) -> Entry:
    from launcher.orchestrator.journal import state_folder
    from launcher.orchestrator.timer import Entry

    argv = (*timers.PROGRAM, "gc", "--yes", *_same_options(args))
    return Entry(argv=argv, every=args.every, env=timers.environment(), log=state_folder().absolute() / "gc.log")


def _same_options(args: argparse.Namespace) -> list[str]:
    """What this call says about where to look and what may go, for the timer's."""
    never = args.older_than is None or math.isinf(args.older_than)
    options = ["--older-than", "never" if never else f"{args.older_than:g}s"]
    options += ["--storage"] if args.storage else []
    options += [word for name in args.place for word in ("--place", name)]
    paths = {"--env-file": args.env_file, "--config-dir": args.config_dir, "--config-path": args.config_path}
    for option, path in paths.items():
        options += [option, timers.absolute(path)] if path else []
    options += ["--config-name", args.config_name] if args.config_name != "default" else []
    return [*options, *args.overrides, *args.override]


def _notes(chosen: Systemd | Crontab, given: dict[str, str]) -> list[str]:
    from launcher.orchestrator.timer import Systemd

    missing = timers.missing(_SEEN, given)
    notes = ["the timer has none of your shell's variables; keys that login or deepctl keep in files are found"]
    if missing:
        how = "write them as NAME=VALUE lines into a file of yours, chmod 600 it, and add --env-file FILE"
        notes.append(f"it would lack {', '.join(missing)}: {how}")
    if isinstance(chosen, Systemd) and not chosen.lingers():
        notes.append("it stops when you log out, unless you say once: loginctl enable-linger")
    return notes


def _refuse_blind(named: Sequence[AnyPlace], given: dict[str, str]) -> None:
    """Raises PreflightError for a place that was named and that the timer could never look at."""
    environment = {"HOME": str(Path.home()), **given}
    for place in named:
        _find_credentials(place, os.environ | given)
        try:
            _find_credentials(place, environment)
        except PreflightError:
            raise PreflightError(
                f"the timer could not look at {place.type}: it has none of your shell's variables; write those that "
                f"begin with {_PREFIXES[place.type]} into a file as NAME=VALUE lines, chmod 600 it, and add "
                "--env-file FILE"
            ) from None


def _find_credentials(place: AnyPlace, environment: Mapping[str, str]) -> None:
    """Raises PreflightError if these variables, and the files they lead to, do not open a place."""
    if isinstance(place, Lepton):
        lepton.find(environment, workspace=place.workspace_id)
    elif isinstance(place, DeepInfraAccount):
        deepinfra.find(environment)
