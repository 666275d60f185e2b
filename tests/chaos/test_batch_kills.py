"""A launcher whose batch jobs are on a Slurm cluster, killed around each script that it runs there.

The cluster is a fake one, which the contract suite runs on as well; test_slurm_kills.py has few moments on a real one.
The long form, at every moment in every scene: python3 tasks.py chaos --clouds slurm.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.campaign import firsts
from tests.chaos.points import Point
from tests.chaos.scenes import (
    BATCHED,
    BATCHED_FORGOTTEN,
    BATCHED_QUEUED,
    BATCHED_RETRIED,
    BATCHED_SLOW,
    BATCHED_UNLUCKY,
    with_seed,
)
from tests.chaos.test_kills import check
from tests.chaos.trial import After, Story, points

pytestmark = pytest.mark.e2e
CHANGES = ("script make", "script submit", "script cancel", "script fetch", "fact intend_create", "fact endpoint")
VERBS = (After.RESUME, After.CLEANUP_HERE, After.RESUME, After.GC_HERE, After.RESUME, After.CLEANUP, After.STOP)


def test_killed_around_every_change(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    found = [point for point in firsts(points(tmp_path / "undisturbed", BATCHED)) if point.label.startswith(CHANGES)]
    assert any("submit" in point.label and point.label.endswith("sent") for point in found)
    stories = [
        Story(point=point, after=VERBS[number % len(VERBS)], scene=BATCHED, resumes=False)
        for number, point in enumerate(found)
    ]
    check(stories, tmp_path / "stories", record_property)


def test_killed_again_and_again_whatever_slurm_does(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    dice = random.Random(7)
    stories = []
    for scene, after in (
        (BATCHED_RETRIED, After.RESUME),
        (BATCHED_QUEUED, After.STOP),
        (BATCHED_FORGOTTEN, After.RESUME),
        (BATCHED_SLOW, After.RESUME),
        (BATCHED_UNLUCKY, After.RESUME),
        (BATCHED_UNLUCKY, After.CLEANUP_HERE),
    ):
        seed = dice.randrange(1_000_000)
        point = Point("", dice.randrange(40, 100))
        stories.append(Story(point=point, after=after, scene=with_seed(scene, seed), deaths=1, seed=seed))
    check(stories, tmp_path, record_property)
