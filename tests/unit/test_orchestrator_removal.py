"""Removal on a virtual clock: what is gone is what later looks do not show, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from launcher.errors import PlatformError
from launcher.orchestrator.removal import ASK_AGAIN, Cleared, Removal
from launcher.platforms.base import Leftover
from tests.fakes.clock import run_virtual
from tests.fakes.platform import FakePlatform


@dataclass(kw_only=True)
class Thing:
    """Something in the account. Times are seconds of the loop's clock; `needed`: storage in use cannot be removed."""

    left: Leftover
    appears: float = 0.0
    takes: float = 1.0
    refusals: int = 0
    asked: list[float] = field(default_factory=list)
    gone_at: float | None = None


@dataclass
class Account(FakePlatform):
    """An account with these things in it."""

    things: list[Thing] = field(default_factory=list)
    breaks_at: float | None = None
    hidden_looks: frozenset[int] = frozenset()
    """Looks, counted from 0, in which the list is behind and shows nothing."""

    async def sweep(self, invocation: str = "") -> list[Leftover]:
        now = asyncio.get_running_loop().time()
        if self.breaks_at is not None and now >= self.breaks_at:
            raise PlatformError("no answer")
        self.swept += 1
        if self.swept - 1 in self.hidden_looks:
            return []
        present = [t for t in self.things if t.appears <= now and (t.gone_at is None or now < t.gone_at)]
        return [replace(t.left, age=now - t.appears) for t in present if t.left.invocation.startswith(invocation)]

    async def remove(self, leftover: Leftover) -> None:
        now = asyncio.get_running_loop().time()
        thing = next(t for t in self.things if t.left.id == leftover.id)
        thing.asked.append(now)
        if thing.refusals:
            thing.refusals -= 1
            raise PlatformError(f"not {leftover.name} now")
        if thing.gone_at is None:
            thing.gone_at = now + thing.takes


def thing(name: str, kind: str = "endpoint", invocation: str = "a1b2c3d4", **keys: object) -> Thing:
    is_record = bool(keys.pop("is_record", False))
    left = Leftover(kind=kind, name=name, invocation=invocation, id=name, is_record=is_record)  # type: ignore[arg-type]
    return Thing(left=left, **keys)  # type: ignore[arg-type]


def clear(
    account: Account, wanted: Callable[[Leftover], bool] = lambda _: True, **keys: float
) -> tuple[Cleared, float]:
    """What became of it, and how long that took."""

    async def run() -> tuple[Cleared, float]:
        cleared = await Removal(platform=account, wanted=wanted, **keys).run()  # type: ignore[arg-type]
        return cleared, asyncio.get_running_loop().time()

    return run_virtual(run())


def names(things: tuple[Leftover, ...]) -> list[str]:
    return [left.name for left in things]


def test_everything_is_asked_once_and_waited_for() -> None:
    account = Account(things=[thing("e", takes=5.0), thing("j", "job", takes=2.0)])

    cleared, seconds = clear(account)

    assert sorted(names(cleared.removed)) == ["e", "j"]
    assert (cleared.left, cleared.unknown) == ((), "")
    assert [len(thing.asked) for thing in account.things] == [1, 1]
    assert 5.0 <= seconds < 15.0


def test_only_what_is_wanted_is_touched() -> None:
    account = Account(things=[thing("mine"), thing("other", invocation="ffffffff")])

    cleared, _ = clear(account, lambda left: left.invocation == "a1b2c3d4")

    assert names(cleared.removed) == ["mine"]
    assert account.things[1].asked == []


def test_storage_and_networks_go_after_those_that_use_them() -> None:
    account = Account(things=[thing("s", "storage"), thing("n", "network"), thing("e", takes=3.0), thing("j", "job")])

    clear(account)

    storage, network, endpoint, job = account.things
    assert min(*storage.asked, *network.asked) >= max(endpoint.gone_at or 0.0, job.gone_at or 0.0)


def test_a_refusal_is_tried_again_at_the_next_look() -> None:
    account = Account(things=[thing("e", refusals=3)])

    cleared, seconds = clear(account)

    assert names(cleared.removed) == ["e"]
    assert len(account.things[0].asked) == 4
    assert seconds < 30


def test_a_removal_without_effect_is_asked_for_again() -> None:
    account = Account(things=[thing("e", takes=3 * ASK_AGAIN)])

    clear(account)

    assert len(account.things[0].asked) > 1
    assert all(b - a >= ASK_AGAIN for a, b in zip(account.things[0].asked, account.things[0].asked[1:], strict=False))


def test_what_is_left_at_the_end_of_the_time_is_named_with_what_the_platform_said() -> None:
    account = Account(things=[thing("slow", takes=10_000), thing("no", refusals=10_000), thing("yes")])

    cleared, seconds = clear(account, timeout=60.0)

    assert names(cleared.removed) == ["yes"]
    assert sorted(names(cleared.left)) == ["no", "slow"]
    assert cleared.refusals == ("not no now",)
    assert 60 <= seconds < 70


def test_a_platform_that_stops_answering_is_unknown_and_nothing_counts_as_gone_that_was_there() -> None:
    account = Account(things=[thing("e", takes=100.0)], breaks_at=5.0)

    cleared, _ = clear(account)

    assert cleared.unknown == "no answer"
    assert names(cleared.left) == ["e"]
    assert cleared.removed == ()


def test_one_empty_look_is_not_believed_where_there_was_something() -> None:
    account = Account(things=[thing("e", takes=60.0)], hidden_looks=frozenset({1}))

    cleared, seconds = clear(account)

    assert names(cleared.removed) == ["e"]
    assert seconds >= 60


def test_a_look_at_an_empty_account_is_enough() -> None:
    account = Account()

    cleared, seconds = clear(account, grace=30.0)

    assert cleared == Cleared(platform="fake")
    assert (account.swept, seconds) == (1, 0.0)


def test_what_a_dying_launcher_had_asked_for_may_come_late_and_goes_too() -> None:
    by_its_last_sign = Account(things=[thing("late", appears=8.0)])
    by_a_sibling = Account(things=[thing("e"), thing("late", appears=20.0)])

    first, _ = clear(by_its_last_sign, grace=30.0, last_sign=2.0)
    second, _ = clear(by_a_sibling, grace=30.0)

    assert names(first.removed) == ["late"]
    assert sorted(names(second.removed)) == ["e", "late"]


def test_nobody_waits_for_the_launcher_of_last_week() -> None:
    cleared, seconds = clear(Account(), grace=30.0, last_sign=600_000.0)

    assert (cleared.removed, seconds) == ((), 0.0)


def test_a_record_is_asked_to_go_and_not_waited_for() -> None:
    account = Account(things=[thing("j", "job", is_record=True, takes=100_000), thing("s", "storage")])

    cleared, seconds = clear(account)

    assert account.things[0].asked
    assert names(cleared.removed) == ["s"]
    assert cleared.left == ()
    assert seconds < 15


def test_the_last_thing_that_a_meter_told_counts() -> None:
    silent = Account(things=[thing("e", takes=30.0), thing("j", "job")])
    told = iter([1.5, 2.0, 0.0, None])
    seen = silent.sweep

    async def sweep(invocation: str = "") -> list[Leftover]:
        usd = next(told, None)
        return [replace(left, usd=usd) if left.kind == "endpoint" else left for left in await seen(invocation)]

    silent.sweep = sweep  # type: ignore[method-assign]
    cleared, _ = clear(silent)

    assert {left.name: left.usd for left in cleared.removed} == {"e": 2.0, "j": None}
    assert cleared.usd == 2.0


def test_who_waits_for_a_grace_is_told_so_once() -> None:
    said: list[str] = []
    waits = Removal(
        platform=Account(), wanted=lambda _: True, invocation="a1b2c3d4", grace=30.0, last_sign=2.0, say=said.append
    )
    run_virtual(waits.run())
    assert len(said) == 1 and said[0].startswith("a1b2c3d4: ")
    assert said[0].endswith("looking again for 28 s: what was asked for last may still appear")
    asked_long_ago = Removal(platform=Account(), wanted=lambda _: True, grace=30.0, last_sign=600.0, say=said.append)
    run_virtual(asked_long_ago.run())
    assert len(said) == 1
