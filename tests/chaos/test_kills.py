"""A launcher killed at every kind of moment: then resume, or cleanup from a machine without the journal.

With endpoints that are rented elsewhere: at the moments around these, and then whatever can follow.

The long form, at every moment in every scene: python3 tasks.py chaos.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.chaos.campaign import firsts, tell_all
from tests.chaos.points import Point
from tests.chaos.scenes import (
    ALL_READY,
    JUDGED,
    LEGACY,
    NEW,
    QUEUED,
    RENTED,
    RENTED_SLOW,
    RENTED_UNLUCKY,
    RETRIED,
    SLOW,
    UNLUCKY,
    Scene,
    with_seed,
)
from tests.chaos.trial import After, Story, points

pytestmark = pytest.mark.e2e
ESSENTIAL = ("fact intend_create_endpoint before", "POST /jobs sent", "fact run_ended after", "journal begin before")
RENTAL = (
    "POST /deploy/llm before",
    "POST /deploy/llm sent",
    "POST /deploy/llm answered",
    "fact endpoint_created before",
    "GET /deploy/list answered",
    "GET /deploy/{id} before",
    "DELETE /deploy/{id} before",
    "DELETE /deploy/{id} sent",
    "DELETE /deploy/{id} answered",
)
RENTED_VERBS = (After.RESUME, After.CLEANUP, After.GC, After.RESUME, After.GC_HERE, After.CLEANUP_HERE)
FILES = 4
"""One of so many kinds of moments around files is tried."""
SAMPLE = 3
"""Stories of each of the other scenes."""


def chosen(found: list[Point]) -> list[Point]:
    """The first moment of each kind around facts and requests, and of some kinds around files."""
    kinds = firsts(found)
    files = [point for point in kinds if point.label.startswith("file")]
    return [point for point in kinds if point not in files or point in files[::FILES]]


def check(stories: Iterable[Story], folder: Path, record: Callable[[str, object], None]) -> None:
    tally = tell_all(stories, folder)
    record("chaos", str(tally))
    assert not tally.problems, "\n".join(tally.problems)
    assert len(tally.missed) <= max(1, len(tally.verdicts) // 20), f"nothing died at {tally.missed}"


@pytest.mark.parametrize(
    ("scene", "first", "second"),
    [(LEGACY, After.RESUME, After.CLEANUP), (NEW, After.CLEANUP, After.RESUME)],
    ids=["legacy", "new"],
)
def test_killed_at_every_kind_of_moment(
    scene: Scene, first: After, second: After, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Of two neighbouring moments one is followed by resume, the other by cleanup; the other family has it reversed."""
    found = chosen(points(tmp_path / "undisturbed", scene))
    assert set(ESSENTIAL) <= {point.label for point in found}
    stories = [
        Story(point=point, after=(first, second)[number % 2], scene=scene, resumes=False)
        for number, point in enumerate(found)
    ]
    check(stories, tmp_path / "stories", record_property)


def test_killed_around_what_is_rented(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """The second task's deployment, when the first one's exists; `gc` comes after the weekend."""
    stories = [
        Story(point=Point(label, 2), after=RENTED_VERBS[number % len(RENTED_VERBS)], scene=RENTED, resumes=False)
        for number, label in enumerate(RENTAL)
    ]
    dice = random.Random(5)
    for scene in (RENTED_SLOW, RENTED_UNLUCKY):
        point, seed = Point("", dice.randrange(60, 150)), dice.randrange(1_000_000)
        stories.append(Story(point=point, after=After.RESUME, scene=with_seed(scene, seed), deaths=1, seed=seed))
    check(stories, tmp_path, record_property)


def test_killed_again_and_again_whatever_the_cloud_does(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    dice = random.Random(4)
    stories = []
    for scene in (RETRIED, QUEUED, ALL_READY, JUDGED, SLOW, UNLUCKY):
        for after in dice.sample(list(After), SAMPLE):
            seed = dice.randrange(1_000_000)
            point = Point("", dice.randrange(30, 150))
            stories.append(Story(point=point, after=after, scene=with_seed(scene, seed), deaths=2, seed=seed))
    check(stories, tmp_path, record_property)
