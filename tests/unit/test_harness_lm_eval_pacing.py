"""How many requests are in flight at once, against servers on a virtual clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from launcher.harnesses.lm_eval.pacing import LONGEST_PATIENCE, PAUSE, Pacer, Turn, patience
from tests.fakes.clock import run_virtual


@dataclass
class Server:
    """Serves `slots` at once, as batching servers do, and lets others wait; beyond `room` it refuses."""

    slots: int
    seconds: float = 1.0
    room: int | None = None
    refused: int = 0
    in_flight: int = 0
    most: int = 0
    places: asyncio.Semaphore = field(init=False)

    async def ask(self, size: float) -> bool:
        if self.room is not None and self.in_flight >= self.room:
            self.refused += 1
            await asyncio.sleep(0.005)
            return False
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        async with self.places:
            await asyncio.sleep(self.seconds * size)
        self.in_flight -= 1
        return True


async def asked(server: Server, pacer: Pacer, size: float) -> None:
    """One request until it is answered, as the driver asks it."""
    turn, tries = Turn(pacer), 0
    while True:
        await turn.acquire()
        try:
            if await server.ask(size):
                pacer.add(size)
                return
            await turn.refused()
        finally:
            turn.release()
        if tries or not turn.others:
            await asyncio.sleep(1.0)
        tries += 1


def took(server: Server, sizes: list[float], make: Callable[[Callable[[], float]], Pacer]) -> tuple[float, Pacer]:
    """Seconds until all are answered."""

    async def run() -> tuple[float, Pacer]:
        clock = asyncio.get_running_loop().time
        server.places = asyncio.Semaphore(server.slots)
        pacer, began = make(clock), clock()

        await asyncio.gather(*(asked(server, pacer, size) for size in sizes))
        return clock() - began, pacer

    return run_virtual(run())


class Fixed(Pacer):
    """As many as it is told."""

    def __init__(self, number: int, clock: Callable[[], float]) -> None:
        super().__init__(first=number, most=number, clock=clock)


def sizes(number: int) -> list[float]:
    """Longest first, as lm-eval asks."""
    dice = random.Random(3)
    return sorted((dice.lognormvariate(0, 0.4) for _ in range(number)), reverse=True)


@pytest.mark.parametrize(
    ("server", "number"),
    [
        (lambda: Server(slots=1, seconds=0.05), 600),
        (lambda: Server(slots=16), 2000),
        (lambda: Server(slots=64), 4000),
        (lambda: Server(slots=256), 12000),
    ],
)
def test_it_is_about_as_fast_as_the_best_fixed_number_without_being_told(server: Callable[[], Server], number: int):
    work = sizes(number)
    fixed = [took(server(), work, lambda clock, n=n: Fixed(n, clock))[0] for n in (1, 4, 16, 64, 256, 512)]  # type: ignore[misc]
    adaptive, _ = took(server(), work, lambda clock: Pacer(clock=clock))
    assert min(fixed) / adaptive >= 0.95


@pytest.mark.parametrize("room", [20, 40, 100])
def test_a_server_that_refuses_what_is_too_much_is_asked_for_what_it_takes(room: int):
    server, work = Server(slots=room, room=room), sizes(75 * room)
    seconds, pacer = took(server, work, lambda clock: Pacer(clock=clock))
    best, _ = took(Server(slots=room, room=room), work, lambda clock: Fixed(room, clock))
    assert best / seconds >= 0.95
    assert 0.95 * room <= pacer.limit <= 1.1 * room
    assert server.refused < len(work) / 10


def test_a_first_burst_that_is_refused_in_part_says_how_many_there_is_room_for():
    server = Server(slots=20, room=20)
    took(server, [1.0] * 60, lambda clock: Pacer(first=60, clock=clock))
    assert server.refused == 40


def test_a_server_that_was_away_for_a_moment_soon_gets_as_many_again():
    server = Server(slots=64, room=0)

    async def back() -> None:
        await asyncio.sleep(5)
        server.room = None

    async def both(pacer: Pacer) -> None:
        waiting = asyncio.create_task(back())
        await asyncio.gather(*(asked(server, pacer, 0.1) for _ in range(1500)))
        await waiting

    async def run() -> Pacer:
        server.places = asyncio.Semaphore(server.slots)
        pacer = Pacer(clock=asyncio.get_running_loop().time)
        await both(pacer)
        return pacer

    pacer = run_virtual(run())
    assert server.refused < 5 / PAUSE + 64, "one in a while, not all in turn"
    assert pacer.limit >= 64


def test_an_answer_that_does_not_come_lowers_the_number_once_a_window():
    pacer = Pacer(first=30)
    for _ in range(10):
        pacer.timed_out()
    assert pacer.limit == 20


def test_what_waits_longest_is_next_and_what_was_refused_before_it():
    async def run() -> list[str]:
        pacer, order = Pacer(first=1, most=1, clock=asyncio.get_running_loop().time), []

        async def one(name: str) -> None:
            turn = Turn(pacer)
            for refused in (name == "a", False):
                await turn.acquire()
                order.append(name)
                await asyncio.sleep(1)
                if refused:
                    await turn.refused()
                turn.release()
                if not refused:
                    return

        await asyncio.gather(*map(one, "abc"))
        return order

    assert run_virtual(run()) == ["a", "b", "a", "c"]


def test_never_more_than_the_most_and_never_none():
    server = Server(slots=512)
    _, pacer = took(server, [0.1] * 500, lambda clock: Pacer(most=7, clock=clock))
    assert server.most == 7
    for _ in range(50):
        pacer._begin()
        pacer.refused()
    assert pacer.limit == 1


def test_a_turn_that_was_given_up_is_anothers():
    async def run() -> list[str]:
        pacer, done = Pacer(first=1, most=1, clock=asyncio.get_running_loop().time), []

        async def one(name: str) -> None:
            await pacer.acquire()
            done.append(name)
            await asyncio.sleep(1)
            pacer.release()

        tasks = [asyncio.create_task(one(name)) for name in "abc"]
        await asyncio.sleep(0.5)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return done

    assert run_virtual(run()) == ["a", "c"]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        (" 0 ", 0),
        ("86400", LONGEST_PATIENCE),
        (None, 0),
        ("", 0),
        ("-5", 0),
        ("nan", 0),
        ("9" * 5000, LONGEST_PATIENCE),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 0),
    ],
)
def test_a_server_gets_the_patience_it_asks_for_within_bounds(header: str | None, seconds: float):
    assert patience(header) == seconds
