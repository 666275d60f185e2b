"""What of everything that carries our mark nobody needs any more, and why."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum

from launcher.config.places import AnyPlace
from launcher.config.pricing import Pricing
from launcher.errors import PlatformError, PreflightError
from launcher.orchestrator.journal import Fact, Journal, RunState
from launcher.orchestrator.removal import Cleared, Removal, opened
from launcher.orchestrator.unfinished import Look, look, settle
from launcher.platforms.base import Leftover, Platform


class Why(StrEnum):
    """Why something is garbage, or why it is not."""

    RUN_ENDED = "run_ended"
    LAUNCHER_GONE = "launcher_gone"
    EXPIRED = "expired"
    OLD = "old"
    RUNNING = "running"
    NOT_EXPIRED = "not_expired"
    YOUNG = "young"
    AGE_UNKNOWN = "age_unknown"
    STORAGE = "storage"
    STORAGE_UNKNOWN = "storage_unknown"
    RECORD = "record"


GARBAGE = frozenset({Why.RUN_ENDED, Why.LAUNCHER_GONE, Why.EXPIRED, Why.OLD})

WORDS = {
    Why.RUN_ENDED: "its run has ended",
    Why.LAUNCHER_GONE: "its launcher is gone",
    Why.EXPIRED: "it has expired",
    Why.OLD: "not in this machine's journal, and old",
    Why.RUNNING: "its launcher is alive",
    Why.NOT_EXPIRED: "it is wanted until it expires",
    Why.YOUNG: "not in this machine's journal, and young: it may be somebody's run",
    Why.AGE_UNKNOWN: "not in this machine's journal, and of unknown age",
    Why.STORAGE: "storage is kept; --storage removes it",
    Why.STORAGE_UNKNOWN: "storage of a run that this machine's journal does not know; nv-eval cleanup ID removes it",
    Why.RECORD: "the platform's record of an ended job: it costs nothing",
}


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What decides. `older_than` in seconds; infinite: what this machine's journal does not know never gets old."""

    runs: Mapping[str, RunState] = field(default_factory=dict)
    """State of the invocations that this machine's journal knows."""
    kept: Set[str] = frozenset()
    """Those whose endpoint a person made to use until it expires."""
    hung: Set[str] = frozenset()
    """Those whose launcher lives and has shown no sign of it for the time of its lease."""
    older_than: float = 86_400.0
    storage: bool = False

    def judge(self, left: Leftover) -> Why:
        """What is to be said of one thing."""
        run = self.runs.get(left.invocation)
        if self._is_overdue(left):
            return Why.EXPIRED
        if left.launcher_alive or run is RunState.RUNNING:
            return Why.RUNNING
        if left.is_record:
            return Why.RECORD
        if left.kind == "storage" and (not self.storage or run in (None, RunState.UNKNOWN)):
            return Why.STORAGE if not self.storage else Why.STORAGE_UNKNOWN
        return self._by_expiry(left, run) or self._by_run(left, run) or self._by_age(left)

    def _is_overdue(self, left: Leftover) -> bool:
        """Whether it has expired and its launcher, which should have ended it, hangs."""
        has_expired = left.expiry_is_ours and left.expires_in is not None and left.expires_in <= 0
        return has_expired and left.invocation in self.hung

    def _by_expiry(self, left: Leftover, run: RunState | None) -> Why | None:
        """What carries its expiry is wanted until then, unless its run is known to have ended.

        An endpoint that a person made to use is not ended by the death of its keeper, but by the word of the person.
        """
        if not left.expiry_is_ours or left.expires_in is None:
            return None
        if left.expires_in <= 0:
            return Why.EXPIRED
        has_ended = run is RunState.FINISHED or (run is RunState.INTERRUPTED and left.invocation not in self.kept)
        return None if has_ended else Why.NOT_EXPIRED

    def _by_run(self, left: Leftover, run: RunState | None) -> Why | None:
        if run is RunState.FINISHED:
            return Why.RUN_ENDED
        return Why.LAUNCHER_GONE if run is RunState.INTERRUPTED or left.launcher_alive is False else None

    def _by_age(self, left: Leftover) -> Why:
        if left.age is None and self.older_than > 0:
            return Why.AGE_UNKNOWN
        return Why.OLD if (left.age or 0.0) >= self.older_than else Why.YOUNG

    def is_garbage(self, left: Leftover) -> bool:
        """Whether it may go."""
        return self.judge(left) in GARBAGE


def runs_of(journal: Journal | None) -> dict[str, RunState]:
    """State of all invocations that a journal knows."""
    return {found.id: journal.state(found) for found in journal.invocations()} if journal else {}


def hung_of(journal: Journal | None) -> frozenset[str]:
    """The invocations of a journal whose launcher lives on this machine and shows no sign of it."""
    found = journal.invocations() if journal else []
    return frozenset(one.id for one in found if journal and journal.hangs(one))


def kept_of(journal: Journal | None) -> frozenset[str]:
    """The invocations of a journal that keep an endpoint, and evaluate nothing."""
    found = journal.invocations() if journal else []
    return frozenset(one.id for one in found if journal and journal.last(one.id, Fact.ENDPOINT_KEPT) is not None)


@dataclass(frozen=True, kw_only=True)
class Found:
    """One thing on one platform, with the verdict."""

    platform: str
    left: Leftover
    why: Why


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What there was, and what became of the garbage; `places` has no removals in a dry run."""

    found: tuple[Found, ...]
    places: tuple[Cleared, ...]
    looks: tuple[Look, ...] = ()
    """The places that have answered; empty if no journal was given."""

    @property
    def usd(self) -> float | None:
        """What all that was removed has cost by the platforms' meters; None where none has told."""
        told = [place.usd for place in self.places if place.usd is not None]
        return sum(told) if told else None

    @property
    def present(self) -> list[Leftover]:
        """What was seen and not removed."""
        gone = {(place.platform, left.kind, left.id) for place in self.places for left in place.removed}
        stayed = [one.left for one in self.found if (one.platform, one.left.kind, one.left.id) not in gone]
        return [*stayed, *(left for place in self.places for left in place.left)]


async def collect(
    places: Sequence[AnyPlace],
    rules: Rules,
    *,
    remove: bool,
    timeout: float,
    pricing: Pricing | None = None,
    journal: Journal | None = None,
) -> Collection:
    """Look everywhere; with `remove` also remove what is garbage and wait until it is gone. `timeout` in seconds.

    A `journal` learns which of its invocations have nothing left.
    Raises PreflightError for a place without credentials.
    """
    async with opened(places, pricing) as platforms:
        answers = await asyncio.gather(*(_collect(p, rules, remove=remove, timeout=timeout) for p in platforms))
        answered = [p for p, (_, place) in zip(platforms, answers, strict=True) if not place.unknown]
        looks = await asyncio.gather(*map(look, answered)) if journal else []
    collection = Collection(
        found=tuple(thing for found, _ in answers for thing in found),
        places=tuple(place for _, place in answers),
        looks=tuple(looks),
    )
    if journal is not None and remove:
        await settle(journal, collection.present, looks)
    return collection


async def _collect(platform: Platform, rules: Rules, *, remove: bool, timeout: float) -> tuple[list[Found], Cleared]:
    try:
        unseen, seen = await asyncio.gather(platform.unseen(), platform.sweep())
    except (PlatformError, PreflightError) as error:
        return [], Cleared(platform=platform.name, unknown=str(error))
    found = [Found(platform=platform.name, left=left, why=rules.judge(left)) for left in seen]
    garbage = {(thing.left.kind, thing.left.id) for thing in found if thing.why in GARBAGE}
    if not remove or not garbage:
        return found, Cleared(platform=platform.name, unseen=tuple(unseen))

    def wanted(left: Leftover) -> bool:
        return (left.kind, left.id) in garbage

    return found, await Removal(platform=platform, wanted=wanted, timeout=timeout).run()
