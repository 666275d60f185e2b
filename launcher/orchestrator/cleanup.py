"""Removing all of one invocation: with the journal that knows it, or from any machine that has the credentials."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from launcher import errors
from launcher.config.execution import EXECUTIONS, AnyExecution
from launcher.config.places import AnyPlace
from launcher.config.pricing import Pricing
from launcher.decoding import convert, decode
from launcher.errors import LauncherError, LeaseHeld, NotFound, PlatformError, PreflightError
from launcher.orchestrator.journal import HEARTBEAT, Fact, Invocation, Journal, RunState, refuse_impossible
from launcher.orchestrator.removal import Cleared, Removal, opened
from launcher.plan.model import Plan
from launcher.platforms import RENTED, places_of, within_reach
from launcher.platforms.base import Leftover, Platform, identified
from launcher.platforms.pair import BOTH
from launcher.platforms.secrets import Secrets, search, unsearched

SHORTEST_PREFIX = 4
"""Characters of an id that the journal does not know: a workspace is shared, and a slip would hit somebody else's."""


class Outcome(StrEnum):
    """How the removal of one invocation ended."""

    REMOVED = "removed"
    NOTHING_LEFT = "nothing_left"
    LEFT = "left"
    """Something is still there."""
    UNKNOWN = "unknown"
    """A platform could not be asked, so that nobody knows what is there."""
    RUNNING = "running"
    """Its launcher is alive: nothing was done."""
    AMBIGUOUS = "ambiguous"
    """The prefix fits several invocations, or is too short: nothing was done."""


EXIT_CODES = {
    Outcome.LEFT: errors.Leftover.exit_code,
    Outcome.UNKNOWN: errors.PlatformError.exit_code,
    Outcome.RUNNING: errors.LeaseHeld.exit_code,
    Outcome.AMBIGUOUS: errors.NotFound.exit_code,
}
"""Of several invocations the first that fits decides; without any it is 0."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What to remove, and how. Times are seconds.

    `places`: where to look; None: where the journal says, else everywhere that this machine has credentials for.
    `grace`: how long after the last creation more may appear; None: as the platform says.
    """

    places: Sequence[AnyPlace] | None = None
    keep_storage: bool = False
    force: bool = False
    timeout: float = 300.0
    grace: float | None = None
    pricing: Pricing | None = None
    """Prices of what is found, for the person."""
    say: Callable[[str], None] = lambda _: None
    """Told what is waited for."""


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What became of one invocation. `message` says why nothing was done, where nothing was."""

    invocation: str
    outcome: Outcome
    message: str = ""
    places: tuple[Cleared, ...] = ()
    notes: tuple[str, ...] = ()
    """Places that were not looked at, each with the reason."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What was asked for: an invocation that the journal knows, or a word that may be one's id."""

    word: str
    known: Invocation | None = None
    state: RunState | None = None
    last_sign: float | None = None
    """Seconds since its launcher's last sign of life."""
    places: Sequence[AnyPlace] = ()
    """Where it can have left something, as its plan says; empty if nothing has kept that."""
    place: str = ""
    """Where it last ran, if the journal knows; of two places both."""


def find(journal: Journal | None, word: str) -> Target:
    """What the journal says of an id or a prefix of it. Raises NotFound if it fits several, or cannot be one."""
    refuse_impossible(word)
    fitting = [found for found in (journal.invocations() if journal else ()) if found.id.startswith(word)]
    exact = [found for found in fitting if found.id == word]
    if len(exact or fitting) > 1:
        raise NotFound(f"{word}: fits several invocations: {', '.join(found.id for found in fitting[:5])}")
    if journal is None or not fitting:
        return Target(word=word)
    known = (exact or fitting)[0]
    return Target(
        word=known.id,
        known=known,
        state=journal.state(known),
        last_sign=last_sign(journal, known),
        places=places_left_by(journal, known),
    )


def last_sign(journal: Journal, invocation: Invocation) -> float:
    """Seconds since the last sign of life of an invocation's launcher."""
    beat = journal.live(invocation.id)
    last_facts = [fact.time for fact in journal.facts(invocation.id)[-1:]]
    last = max([invocation.created, *last_facts, *([beat[0]] if beat else [])])
    return max(0.0, time.time() - last)


def places_left_by(journal: Journal, invocation: Invocation) -> list[AnyPlace]:
    """Where an invocation can have left something, with the keys that it was planned with; empty if nobody knows."""
    plan = _plan_of(journal, invocation)
    if plan is None:
        return []
    try:
        execution: AnyExecution = convert(plan.config["execution"], EXECUTIONS[plan.execution])
    except (msgspec.ValidationError, KeyError):
        return []
    return places_of(execution, plan.deployment)


def _plan_of(journal: Journal, invocation: Invocation) -> _Plan | None:
    try:
        document = journal.plan(invocation.id)
    except NotFound:
        path = Path(invocation.folder) / "plan.json"
        if not path.is_file():
            return None
        document = path.read_bytes()
    try:
        return decode(document, _Plan)
    except msgspec.DecodeError:
        return None


def _search(journal: Journal, invocation: Invocation) -> None:
    """Take secrets out of what jobs have left whose launcher was killed, where the journal knows what they knew."""
    with contextlib.suppress(NotFound, msgspec.DecodeError):
        plan = decode(journal.plan(invocation.id), Plan)
        search(Secrets(), plan, unsearched(plan, Path(invocation.folder)))


class _Plan(msgspec.Struct):
    """As much of a plan as is needed here."""

    execution: str
    deployment: str = ""
    config: dict[str, object] = msgspec.field(default_factory=dict)


async def cleanup(target: Target, wish: Wish, journal: Journal | None = None) -> Cleaned:
    """Remove everything of an invocation and wait until it is gone; the journal that knows it learns of that."""
    if journal is None or target.known is None:
        return await _cleanup(target, wish)
    try:
        async with held(journal, target.word, force=wish.force):
            alive = target.state if wish.force else None  # with the lease in hand nobody else runs it
            place = journal.place(target.word)
            cleaned = await _cleanup(dataclasses.replace(target, state=alive, place=place), wish)
            is_gone = cleaned.outcome in (Outcome.REMOVED, Outcome.NOTHING_LEFT)
            if is_gone:
                await asyncio.to_thread(_search, journal, target.known)
            if is_gone and not _left_out(target, wish):
                with contextlib.suppress(LauncherError):  # what is gone is gone, whoever knows
                    journal.record(target.word, Fact.CLEANED)
            return cleaned
    except LeaseHeld:
        return _running(target.word)


@asynccontextmanager
async def held(journal: Journal, invocation: str, *, force: bool) -> AsyncIterator[None]:
    """Within, nobody else runs the invocation. Raises LeaseHeld if somebody does, unless `force`.

    A journal that cannot be written keeps nothing from being removed.
    """
    if not force:
        try:
            journal.take_lease(invocation)
        except LeaseHeld:
            raise
        except LauncherError:
            force = True

    async def beat() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            journal.keep_lease(invocation)

    beating = None if force else asyncio.create_task(beat())
    try:
        yield
    finally:
        if beating is not None:
            beating.cancel()
            journal.give_up_lease(invocation)


async def _cleanup(target: Target, wish: Wish) -> Cleaned:
    if target.state is RunState.RUNNING and not wish.force:
        return _running(target.word)
    where, notes = _where(target, wish)
    try:
        async with opened(where, wish.pricing) as platforms:
            found = None if target.known else await _identify(target.word, platforms)
            if found is not None and found.launcher_alive and not wish.force:
                return _running(found.invocation)
            elsewhere = await _elsewhere(target, platforms)
            if elsewhere:
                return Cleaned(invocation=target.word, outcome=Outcome.UNKNOWN, message=elsewhere)
            invocation = found.invocation if found else target.word
            reachable = found.platforms if found else platforms
            places = [*(found.places if found else ()), *await _clear(reachable, invocation, target, wish)]
    except NotFound as error:
        return Cleaned(invocation=target.word, outcome=Outcome.AMBIGUOUS, message=str(error))
    except PreflightError as error:
        return Cleaned(invocation=target.word, outcome=Outcome.UNKNOWN, message=str(error))
    return Cleaned(invocation=invocation, outcome=_outcome(places), places=tuple(places), notes=tuple(notes))


async def _elsewhere(target: Target, platforms: list[Platform]) -> str:
    """Why nothing found here says anything of an invocation that ran in another place; empty if it ran here.

    A platform that cannot be asked where it is cannot be asked for anything else either, which is told later.
    """
    ran = target.place.split(BOTH) if target.place else []
    found = await asyncio.gather(*map(identified, platforms if ran else ()), return_exceptions=True)
    here = [place for place in found if isinstance(place, str) and place]
    missing = [place for place in ran if place not in here]
    strange = [place for place in here if place not in ran]
    if not missing or not strange:
        return ""
    like_it = next((place for place in strange if place.split()[0] == missing[0].split()[0]), strange[0])
    return f"{target.word}: has run in {missing[0]}, and the credentials here lead to {like_it}"


def _running(invocation: str) -> Cleaned:
    message = f"{invocation}: its launcher is alive; end it first: nv-eval stop {invocation} (or add --force)"
    return Cleaned(invocation=invocation, outcome=Outcome.RUNNING, message=message)


def _where(target: Target, wish: Wish) -> tuple[Sequence[AnyPlace], list[str]]:
    if wish.places is None:
        return (target.places, []) if target.places else within_reach()
    left_out = [f"{kind} was not looked at, and {target.word} ran there too" for kind in _left_out(target, wish)]
    return _named(target, wish.places), left_out


def _named(target: Target, places: Sequence[AnyPlace]) -> list[AnyPlace]:
    """The places that were named; what it has rented is looked at in any case: it costs money and has no other keys."""
    return [*places, *(place for place in target.places if place in RENTED.values() and place not in places)]


def _left_out(target: Target, wish: Wish) -> list[str]:
    """Places where the invocation ran and where nobody is to look."""
    named = target.places if wish.places is None else _named(target, wish.places)
    return [place.type for place in target.places if place.type not in {other.type for other in named}]


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Which invocation a word means, by what the platforms show, and which of them could be asked."""

    invocation: str
    launcher_alive: bool
    platforms: list[Platform]
    places: list[Cleared]
    """Those that could not be asked."""


async def _identify(word: str, platforms: list[Platform]) -> _Found:
    """Raises NotFound if the word may mean several, or is too short to be trusted."""
    if len(word) < SHORTEST_PREFIX:
        raise NotFound(f"{word}: not in this machine's journal; give at least {SHORTEST_PREFIX} characters of the id")
    answers = await asyncio.gather(*(_look(platform, word) for platform in platforms))
    seen = [left for answer in answers if not isinstance(answer, str) for left in answer]
    ids = sorted({left.invocation for left in seen})
    if len(ids) > 1 and word not in ids:
        raise NotFound(f"{word}: fits several invocations: {', '.join(ids[:5])}")
    invocation = ids[0] if len(ids) == 1 else word
    pairs = list(zip(platforms, answers, strict=True))
    return _Found(
        invocation=invocation,
        launcher_alive=any(left.launcher_alive for left in seen if left.invocation == invocation),
        platforms=[platform for platform, answer in pairs if not isinstance(answer, str)],
        places=[Cleared(platform=p.name, unknown=answer) for p, answer in pairs if isinstance(answer, str)],
    )


async def _look(platform: Platform, invocation: str) -> list[Leftover] | str:
    """What is there, or why nobody knows."""
    try:
        return await platform.sweep(invocation)
    except (PlatformError, PreflightError) as error:
        return str(error)


async def _clear(platforms: list[Platform], invocation: str, target: Target, wish: Wish) -> list[Cleared]:
    def wanted(left: Leftover) -> bool:
        return left.invocation == invocation and not (wish.keep_storage and left.kind == "storage")

    return await asyncio.gather(
        *(
            Removal(
                platform=platform,
                wanted=wanted,
                invocation=invocation,
                timeout=wish.timeout,
                grace=platform.create_grace if wish.grace is None else wish.grace,
                last_sign=target.last_sign,
                say=wish.say,
            ).run()
            for platform in platforms
        )
    )


def _outcome(places: Sequence[Cleared]) -> Outcome:
    if any(place.unknown for place in places):
        return Outcome.UNKNOWN
    if any(place.left for place in places):
        return Outcome.LEFT
    return Outcome.REMOVED if any(place.removed for place in places) else Outcome.NOTHING_LEFT
