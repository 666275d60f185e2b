"""How many requests are in flight at once, against servers on a virtual clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from launcher.harnesses.lm_eval.pacing import LONGEST_PATIENCE, Pacer, patience
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


def took(server: Server, sizes: list[float], make: Callable[[Callable[[], float]], Pacer]) -> tuple[float, Pacer]:
    """Seconds until all are answered."""

    async def run() -> tuple[float, Pacer]:
        clock = asyncio.get_running_loop().time
        server.places = asyncio.Semaphore(server.slots)
        pacer, began = make(clock), clock()

        async def one(size: float) -> None:
            answered = False
            while not answered:
                await pacer.acquire()
                try:
                    answered = await server.ask(size)
                    if answered:
                        pacer.add(size)
                    else:
                        pacer.refused()
                finally:
                    pacer.release()
                if not answered:
                    await asyncio.sleep(1.0)

        await asyncio.gather(*(one(size) for size in sizes))
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
    assert best / seconds >= 0.9
    assert 0.8 * room <= pacer.limit <= 1.1 * room
    assert server.refused < len(work) / 5


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
