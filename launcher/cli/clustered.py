"""Runs whose supervisor is in a cluster, for commands that read the journal: it is brought up to date first.

What speaks with the cluster is imported only where there is such a run: all others answer without paying for it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path

from launcher.cli.text import plain
from launcher.errors import LauncherError
from launcher.orchestrator.journal import Invocation, Journal, state_folder

TYPE_CHECKING = False  # as typing has it, which takes a third of a bare Python's time to load
if TYPE_CHECKING:
    from typing import Any

PAUSE = 2.0


def laptop() -> Any:
    """`launcher.clustered.laptop`."""
    return import_module("launcher.clustered.laptop")


def refresh(journal: Journal, invocations: Iterable[Invocation]) -> None:
    """Have the journal say of these runs what the cluster says; one that cannot be asked is told of."""
    for invocation in invocations:
        if journal.is_handed_over(invocation.id):
            try:
                laptop().look(journal, invocation)
            except LauncherError as error:
                sys.stderr.write(plain(f"nv-eval: {invocation.id}: {error}; this is what was last known\n"))


def refresh_named(journal: Journal, words: Iterable[str]) -> None:
    """The same for all runs whose id begins with one of these words."""
    wanted = tuple(words)
    refresh(journal, [one for one in journal.invocations() if one.id.startswith(wanted)])


def bring_home(words: Sequence[str]) -> None:
    """The same for those of these words that are no folders, all runs without any; no journal is made for it."""
    named = [word for word in words if not Path(word).exists()]
    path = state_folder() / "journal.db"
    if path.is_file() and (named or not words):
        journal = Journal(path)
        refresh_named(journal, named or [""])
        journal.close()


def pause(journal: Journal, invocation: Invocation, otherwise: float) -> float:
    """Seconds between two looks: a cluster is not asked as often as a file is read."""
    return max(otherwise, PAUSE) if journal.is_handed_over(invocation.id) else otherwise


def fetch_logs(journal: Journal, invocation: Invocation) -> None:
    """Have the output of a run that was handed over in its folder, as it is now."""
    refresh(journal, [invocation])
    if journal.is_handed_over(invocation.id):
        try:
            laptop().fetch_logs(journal, invocation)
        except LauncherError as error:
            sys.stderr.write(plain(f"nv-eval: {invocation.id}: {error}; this is what came last\n"))
