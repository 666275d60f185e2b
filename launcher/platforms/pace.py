"""When to ask the control plane again: often at first, ever more rarely in a run that lasts.

Two things are weighed: what a change that is noticed late costs (idle GPUs, a longer run), and that a hundred tasks
take few requests however long they run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How often one kind of question is asked: the interval is `shortest` plus a share of the run's time so far.

    Times are seconds.
    """

    shortest: float
    share: float
    longest: float

    def interval(self, elapsed: float) -> float:
        """Time between two questions, so long after the beginning of the run."""
        return min(self.shortest + elapsed * self.share, self.longest)


LISTS = Rate(shortest=0.3, share=0.025, longest=40.0)
"""The lists of endpoints and of jobs, on which the run depends."""
FEW_PLACES = Rate(shortest=0.3, share=0.0125, longest=40.0)
"""The same where tasks wait for each other's places: what is noticed late is paid once for each task in a row."""
EXTRAS = Rate(shortest=2.0, share=0.03, longest=30.0)
"""Why endpoints are not ready and how far jobs are, which is only shown."""
LAST = Rate(shortest=0.3, share=0.2, longest=10.0)
"""The lists while the run waits for nothing but the end of what was deleted, from the moment of the last request."""
LOOKS = Rate(shortest=0.2, share=0.01, longest=1.0)
"""Looks of the orchestrator, of which most are answered from the lists before."""
TAIL, TAIL_SLOWER = 0.1, 0.5
"""When no more than this share of a fleet is left, the run waits for the last of it, and is told twice as soon."""
FEW, MANY_SLOWER = 6, 8.0
"""Up to so many, all are asked about each time that extras are due; of more only one, and so much more rarely."""


class Pace:
    """Decides when one kind of question is due. Times are seconds of the loop's clock."""

    def __init__(self, now: float, rate: Rate = LISTS) -> None:
        self._begun = now
        self._rate = rate
        self._asked = -math.inf

    def count_from(self, begun: float) -> None:
        """What is watched began then: where places are few, tasks follow each other, and a run may last for days."""
        self._begun = begun

    def is_due(self, now: float, *, slower: float = 1.0, leaving_since: float | None = None) -> bool:
        """Whether to ask now.

        `slower`: nothing urgent is expected to change, so that the interval may be longer. `leaving_since`: since then
        the run waits for nothing else.
        """
        return self._asked <= self.fresh_after(now, slower=slower, leaving_since=leaving_since)

    def fresh_after(self, now: float, *, slower: float = 1.0, leaving_since: float | None = None) -> float:
        """The moment after which an answer must have been asked for to be new enough now."""
        interval = self._rate.interval(now - self._begun) * slower
        if leaving_since is not None:
            interval = min(interval, LAST.interval(now - leaving_since))
        return now - interval

    def asked(self, now: float) -> None:
        """The question was asked."""
        self._asked = now


def in_the_tail(left: int, planned: int) -> float:
    """How much rarer than usual to ask when so many jobs of those that were planned have not ended."""
    return TAIL_SLOWER if 0 < left <= planned * TAIL else 1.0


def share_of(waiting: int) -> tuple[int, float]:
    """Of so many endpoints or jobs, how many are asked about when extras are due, and how much rarer that is."""
    return (waiting, 1.0) if waiting <= FEW else (1, MANY_SLOWER)
