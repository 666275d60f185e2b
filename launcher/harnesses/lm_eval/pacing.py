"""How many requests are in flight at once, found while they run: as many as make the server faster, and no more.

Part of the driver's program: standard library only, as it travels to wherever the job runs.

Work is measured in windows of some answers. While a window is faster than the best one so far, more are let in: four
times as many at first, a tenth more once that has brought nothing. A window that is no faster goes back to the number
that was best, and so does one with a refusal for overload (429, 503); where it was the best number itself that was
refused, to two thirds of it. What was refused is not tried again for a while. Increase by addition and decrease by
multiplication are those of Chiu and Jain (1989); what is maximised is work a second, since a server that batches
answers slower and does more.
"""

from __future__ import annotations

import asyncio
import time
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
        self._waiting: list[asyncio.Future[None]] = []
        self._leaps = True
        self._best_rate = 0.0
        self._calm = 0
        self._ceiling = most
        self._refused_at: int | None = None
        self._begin()

    async def acquire(self) -> bool:
        """Wait for a turn, as a semaphore does."""
        while self._in_flight >= self.limit:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except BaseException:
                if turn.done() and not turn.cancelled():
                    self._wake(1)  # its turn is another's now
                raise
        self._in_flight += 1
        return True

    def release(self) -> None:
        """A request is over, whatever came of it."""
        self._in_flight -= 1
        self._wake(self.limit - self._in_flight)

    def add(self, work: float) -> None:
        """An answer came that was so much work."""
        self._work += work
        self._answers += 1
        if self._answers >= max(SHORTEST, self.limit // SHARE if self._leaps else self.limit):
            self._judge()

    def refused(self) -> None:
        """The server said that it has too much to do."""
        if self._refused_at is not None and self._in_flight > self.limit:
            return  # one of those that were let in before the number went down
        self._refused_at = self.limit
        self._ceiling = max(1, self.limit - 1)
        self._leaps, self._calm = False, CALM
        if self.best >= self.limit:
            self.best, self._best_rate = max(1, int(self.limit * BACK_OFF)), 0.0
        self.limit = self.best

    def _begin(self) -> None:
        self._began, self._work, self._answers = self._clock(), 0.0, 0
        self._refused_at = None

    def _judge(self) -> None:
        """A window is over: what it says of its number, and which number comes next."""
        rate = self._work / max(1e-9, self._clock() - self._began)
        was_refused = self._refused_at is not None
        self._begin()
        if was_refused:
            self._best_rate = 0.0
            self._halve()
        elif rate > self._best_rate * WORTH:
            self._best_rate, self.best = rate, self.limit
            self._calm = 0
            self._try(self.limit * LEAP if self._leaps else self.limit + max(1, int(self.limit * STEP)))
        elif self.limit != self.best:
            self._leaps, self._calm = False, CALM
            self._set(self.best)
        elif self._calm > 0:
            self._calm -= 1
            self._best_rate = (3 * self._best_rate + rate) / 4  # requests change in the course of a task
        else:
            self._ceiling = self._most
            self._try(self.limit + max(1, int(self.limit * STEP)))

    def _halve(self) -> None:
        """Half way from the best number to the one that was refused."""
        self._try(self.best + (self._ceiling - self.best + 1) // 2)

    def _try(self, limit: int) -> None:
        self._set(min(limit, self._ceiling, self._most))

    def _set(self, limit: int) -> None:
        self.limit = max(1, limit)
        self._wake(self.limit - self._in_flight)

    def _wake(self, number: int) -> None:
        while number > 0 and self._waiting:
            turn = self._waiting.pop(0)
            if not turn.done():
                turn.set_result(None)
                number -= 1
