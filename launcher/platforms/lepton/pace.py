"""When to ask the control plane again: often at first, ever more rarely in a run that lasts."""

from __future__ import annotations

import math

SHARE = 0.02
"""A change is noticed after at most this share of the time the run has taken."""
SHORTEST = 0.3
LONGEST = 15.0
EXTRAS = 2
"""Endpoints that are asked why they are not ready, and jobs how far they are, each time that is due."""
EXTRAS_SHORTEST = 2.0


class Pace:
    """Decides when one kind of question is due. Times are seconds of the loop's clock."""

    def __init__(self, now: float, *, shortest: float = SHORTEST) -> None:
        self._begun = now
        self._shortest = shortest
        self._asked = -math.inf
        self._hurried = False

    def interval(self, now: float) -> float:
        """Time between two questions."""
        return min(max((now - self._begun) * SHARE, self._shortest), LONGEST)

    def is_due(self, now: float, *, slower: float = 1.0) -> bool:
        """Whether to ask now. `slower`: nothing is expected to change, so that the interval may be longer."""
        interval = self._shortest if self._hurried else self.interval(now) * slower
        return now - self._asked >= interval

    def asked(self, now: float) -> None:
        """The question was asked."""
        self._asked = now
        self._hurried = False

    def hurry(self) -> None:
        """The run waits for an answer: ask soon."""
        self._hurried = True
