"""How many requests are in flight at once, found while they run: as many as make the server faster, and no more.

Part of the driver's program: standard library only, as it travels to wherever the job runs.

Work is measured in windows of some answers. While a window is faster than the best one so far, more are let in: four
times as many at first, a tenth more once that has brought nothing. A window that is no faster goes back to the number
that was best; what is maximised is work a second, since a server that batches answers slower and does more.

A refusal for overload (429, 503) says how many the server has room for: those in flight that it did not refuse. From
then on that is the number, and now and then, ever more seldom while it is in vain, one more is tried; while it is not,
two more, four more and so on. An answer that does not come at all within its time takes the number to two thirds.
Increase by addition and decrease by multiplication are those of Chiu and Jain (1989).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

FIRST, MOST = 64, 512
"""Requests in flight at the beginning, and ever."""
WORTH = 1.04
"""How much faster a window has to be for its number to count as better: less is noise."""
LEAP, STEP = 4, 0.1
"""By what factor, and by what share, more are let in."""
BACK_OFF = 2 / 3
CALM = 8
"""Windows that nothing is tried in after a number was no better, or was refused."""
SHORTEST, SHARE = 8, 4
"""A window has as many answers as are in flight, at first only a part of them, and at least SHORTEST."""
PAUSE = 0.5
"""Seconds for which a request keeps its turn that was refused although it was the only one in flight."""
OVERLOAD = (429, 503)
LONGEST_PATIENCE = 60.0
"""Seconds that a server gets at most which asks for more."""


def patience(retry_after: str | None) -> float:
    """Seconds that a server asks for in its header Retry-After; 0 where it gives none, or a date."""
    text = (retry_after or "").strip()
    return min(float(text), LONGEST_PATIENCE) if text.isascii() and text.isdecimal() else 0.0


class Pacer:
    """Lets requests in, like a semaphore. `add` tells how much work an answer was."""

    def __init__(self, first: int = FIRST, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = max(1, min(first, most))
        self.best = self.limit
        self._most = most
        self._clock = clock
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._leaps = True
        self._best_rate = 0.0
        self._calm = 0
        self._room: Room | None = None
        self._lowered = False
        self._begin()

    async def acquire(self, *, again: bool = False) -> bool:
        """Wait for a turn, as a semaphore does; `again`: before all others that wait."""
        if not self._in_flight:
            self._begin()  # time in which nothing was asked says nothing
        if self._in_flight < self.limit and not self._waiting:
            self._in_flight += 1
            return True
        turn = asyncio.get_running_loop().create_future()
        (self._waiting.appendleft if again else self._waiting.append)(turn)
        self._wake()
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.release()  # its turn is another's now
            raise
        return True

    def release(self) -> None:
        """A request is over, whatever came of it."""
        self._in_flight -= 1
        self._wake()

    def add(self, work: float) -> None:
        """An answer came that was so much work."""
        self._work += work
        self._answers += 1
        if self._answers >= max(SHORTEST, self.limit // SHARE if self._leaps else self.limit):
            self._judge()

    def refused(self) -> bool:
        """The server said that it has too much to do. To be called before the refused request is released.

        Returns whether others are in flight.
        """
        served = self._in_flight - 1
        if served < self.limit:
            self._lower(served)
        return served > 0

    def timed_out(self) -> None:
        """No answer came within its time."""
        if not self._lowered:
            self._lower(int(self.limit * BACK_OFF))

    def _lower(self, limit: int) -> None:
        room = self._room = self._room or Room()
        if not self._lowered:
            room.refused()
        self._lowered = True
        self.limit = self.best = max(1, limit)

    def _begin(self) -> None:
        self._began, self._work, self._answers = self._clock(), 0.0, 0
        self._lowered = False

    def _judge(self) -> None:
        """A window is over: what it says of its number, and which number comes next."""
        rate, lowered = self._work / max(1e-9, self._clock() - self._began), self._lowered
        self._begin()
        if self._room is None:
            self._compare(rate)
        elif not lowered and self._waiting:  # else not all turns may have been taken
            self.best = self.limit
            self._try(self.limit + self._room.more())

    def _compare(self, rate: float) -> None:
        if rate > self._best_rate * WORTH:
            self._best_rate, self.best = rate, self.limit
            self._calm = 0
            self._try(self.limit * LEAP if self._leaps else self.limit + max(1, int(self.limit * STEP)))
        elif self.limit != self.best:
            self._leaps, self._calm = False, CALM
            self._try(self.best)
        elif self._calm > 0:
            self._calm -= 1
            self._best_rate = (3 * self._best_rate + rate) / 4  # requests change in the course of a task
        else:
            self._try(self.limit + max(1, int(self.limit * STEP)))

    def _try(self, limit: int) -> None:
        self.limit = max(1, min(limit, self._most))
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._in_flight < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._in_flight += 1


class Room:
    """How many more are tried of a server that has refused some, and after how many windows."""

    def __init__(self) -> None:
        self._step, self._pause, self._calm = 0, 0, 0

    def refused(self) -> None:
        """What was tried was too many."""
        self._pause = min(CALM, 2 * self._pause + 1)
        self._step, self._calm = 0, self._pause

    def more(self) -> int:
        """How many more there may be after a window in which nothing was refused."""
        if self._calm > 0:
            self._calm -= 1
            return 0
        if self._step:
            self._pause = 0  # the last ones had room
        self._step = 2 * self._step or 1
        return self._step


class Turn:
    """The place of one request in a pacer, at each of its tries: what was refused goes before what was never asked."""

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer
        self._again = False
        self.others = False
        """Whether others were in flight when it was refused, so that there is room when one of them is answered."""

    async def acquire(self) -> bool:
        """Wait for it."""
        return await self._pacer.acquire(again=self._again)

    def release(self) -> None:
        """Give it to another."""
        self._pacer.release()

    async def refused(self) -> None:
        """The server said that it has too much to do. Returns when the turn may be given up.

        A server that takes nothing at all is asked by one in PAUSE, not by all in turn.
        """
        self._again, self.others = True, self._pacer.refused()
        if not self.others:
            await asyncio.sleep(PAUSE)

    def timed_out(self) -> None:
        """The server sent no answer in time."""
        self._again = True
        self._pacer.timed_out()
