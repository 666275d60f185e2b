"""Invocations of this machine's journal that may have left something, and what a look around says of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from launcher.errors import LauncherError, PlatformError, PreflightError
from launcher.orchestrator.cleanup import held, last_sign
from launcher.orchestrator.journal import Fact, Invocation, Journal, RunState
from launcher.platforms import RENTED
from launcher.platforms.base import Leftover, Platform, identified
from launcher.platforms.pair import BOTH

_HOW = {
    "deepinfra": "set DEEPINFRA_API_KEY",
    "lepton": "log in with: nv-eval login lepton",
    "kubernetes": "set KUBECONFIG",
}
"""How a place comes within reach."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """A place that has answered. `kind`: the name of its platform. `create_grace`: seconds, as its platform says."""

    kind: str
    place: str = ""
    """Which of its kind it is; empty where that is not known."""
    create_grace: float = 0.0


async def look(platform: Platform) -> Look:
    """What to remember of a platform that was looked at."""
    place = ""
    with contextlib.suppress(PlatformError, PreflightError):
        place = await identified(platform)
    return Look(kind=platform.name, place=place, create_grace=platform.create_grace)


@dataclass(frozen=True, kw_only=True)
class Unlooked:
    """An invocation that ran where nobody looked, so that nobody knows what it has there."""

    invocation: str
    state: RunState
    place: str
    """The place's kind: lepton, deepinfra."""
    elsewhere: str = ""
    """The place of that kind that was looked at instead, if one was."""

    def __str__(self) -> str:
        ran = f"{self.invocation} {'runs' if self.state is RunState.RUNNING else 'ran'} on {self.place}"
        if self.elsewhere:
            return f"{ran}, but not in {self.elsewhere}: it may still have something there; use its credentials"
        how = _HOW.get(self.place, f"see: nv-eval cleanup {self.invocation}")
        return f"{ran}, which was not looked at: it may still have something there; {how}"


def loose(journal: Journal) -> list[Invocation]:
    """Invocations that have begun, and neither ended with nothing left nor were cleaned up since; newest first."""
    return [found for found in journal.invocations() if _is_loose(journal, found.id)]


def _is_loose(journal: Journal, invocation: str) -> bool:
    last = journal.last(invocation, Fact.RUN_STARTED, Fact.RUN_ENDED, Fact.CLEANED)
    if last is None or last.kind is Fact.CLEANED:
        return False
    return last.kind is Fact.RUN_STARTED or bool(last.data.get("leftovers"))


def unlooked(journal: Journal, looks: Sequence[Look], silent: Set[str] = frozenset()) -> list[Unlooked]:
    """What ran elsewhere than in the places that have answered. `silent`: kinds that are told of in another way."""
    return [
        Unlooked(invocation=found.id, state=journal.state(found), place=kind, elsewhere=_other(kind, looks))
        for found in loose(journal)
        for kind in _missing(journal, found, looks)
        if kind not in silent
    ]


def _other(kind: str, looks: Iterable[Look]) -> str:
    return next((look.place for look in looks if look.kind == kind), "")


def _missing(journal: Journal, invocation: Invocation, looks: Iterable[Look]) -> list[str]:
    """The kinds of the places where an invocation ran and that nobody has looked at."""
    kinds = [invocation.execution, *([invocation.deployment] if invocation.deployment in RENTED else [])]
    ran = [place for place in journal.place(invocation.id).split(BOTH) if place]
    seen = {look.kind for look in looks if not _is_another(look.place, ran)}
    return [kind for kind in kinds if kind not in seen]


def _is_another(place: str, ran: Sequence[str]) -> bool:
    """Whether a place is of the same kind as one of those where something ran, and none of them."""
    return bool(place) and place not in ran and _first(place) in map(_first, ran)


def _first(place: str) -> str:
    """The word by which places of different kinds differ."""
    return place.split(maxsplit=1)[0]


async def settle(journal: Journal, present: Sequence[Leftover], looks: Sequence[Look]) -> None:
    """Tell the journal of every invocation of which nothing that runs is left anywhere."""
    left = {left.invocation for left in present if left.kind != "storage" and not left.is_record}
    for found in loose(journal):
        if found.id not in left and _is_over(journal, found, looks):
            with contextlib.suppress(LauncherError):  # somebody runs it again, or the journal cannot be written
                async with held(journal, found.id, force=False):
                    journal.record(found.id, Fact.CLEANED)


def _is_over(journal: Journal, invocation: Invocation, looks: Sequence[Look]) -> bool:
    """Whether nobody runs it, its places were all seen, and nothing that it asked for last may still appear."""
    grace = max((look.create_grace for look in looks), default=0.0)
    return (
        journal.state(invocation) in (RunState.INTERRUPTED, RunState.FINISHED)
        and not _missing(journal, invocation, looks)
        and last_sign(journal, invocation) >= grace
    )
