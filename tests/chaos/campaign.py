"""Many deaths: which points, how many at once, and what to say in the end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.points import Point
from tests.chaos.trial import Story, Verdict, tell

AT_ONCE = 6
"""Stories at the same time: they mostly wait."""


@dataclass(frozen=True)
class Tally:
    """What came of many stories."""

    verdicts: Sequence[Verdict]

    @property
    def problems(self) -> list[str]:
        """One text for each story that ended badly."""
        return [str(verdict) for verdict in self.verdicts if verdict.problems]

    @property
    def missed(self) -> list[Point]:
        """Points that a run never came to, so that nothing died there."""
        return [verdict.story.point for verdict in self.verdicts if verdict.kills == 0]

    def __str__(self) -> str:
        points = {verdict.story.point for verdict in self.verdicts}
        kinds = {point.label for point in points}
        return (
            f"{len(points)} points of {len(kinds)} kinds, {len(self.verdicts)} invocations, "
            f"{sum(v.kills for v in self.verdicts)} kills in {sum(v.children for v in self.verdicts)} processes, "
            f"{sum(v.extra_attempts for v in self.verdicts)} further attempts: {len(self.problems)} ended badly"
        )


def firsts(points: Iterable[Point]) -> list[Point]:
    """The first point of each label."""
    found: dict[str, Point] = {}
    for point in points:
        found.setdefault(point.label, point)
    return list(found.values())


def tell_all(
    stories: Iterable[Story], folder: Path, *, at_once: int = AT_ONCE, heard: Callable[[Verdict], None] = lambda _: None
) -> Tally:
    """Let all stories happen. `heard` is called after each, in any thread. Only folders of bad ends are kept."""

    def one(number: int, story: Story) -> Verdict:
        place = folder / f"{number:04}"
        verdict = tell(story, place)
        if not verdict.problems:
            shutil.rmtree(place)
        heard(verdict)
        return verdict

    with ThreadPoolExecutor(at_once, thread_name_prefix="chaos") as pool:
        return Tally(list(pool.map(one, *zip(*enumerate(stories), strict=True))))
