"""A launcher whose endpoints and jobs are in a Kubernetes cluster, killed around each change that it asks for.

The long form, at every moment in every scene: python3 tasks.py chaos --clouds kubernetes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("kubernetes", reason="pip install 'nv-eval-launcher[kubernetes]'")

from tests.chaos.campaign import firsts
from tests.chaos.points import Point
from tests.chaos.scenes import (
    CLUSTERED,
    CLUSTERED_JUDGED,
    CLUSTERED_QUEUED,
    CLUSTERED_RETRIED,
    CLUSTERED_SLOW,
    CLUSTERED_STORED,
    CLUSTERED_UNLUCKY,
    with_seed,
)
from tests.chaos.test_kills import check
from tests.chaos.trial import After, Story, points

pytestmark = pytest.mark.e2e
OWN = "/namespaces/default/"
ESSENTIAL = ("/configmaps", "/secrets", "/deployments", "/services", "/jobs")
"""What a run makes; between two of them is where half of something exists."""
VERBS = (After.RESUME, After.CLEANUP, After.RESUME, After.GC, After.RESUME, After.CLEANUP_HERE, After.GC_HERE)


def changes(found: list[Point]) -> list[Point]:
    """The first moment of each kind around a request that makes or deletes something."""
    return [point for point in firsts(found) if point.label.startswith(("POST", "DELETE")) and OWN in point.label]


def test_killed_around_every_change(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """After a creation was sent nobody knows whether it happened: that is always resumed."""
    found = changes(points(tmp_path / "undisturbed", CLUSTERED))
    made = [point.label for point in found if point.label.startswith("POST")]
    assert all(any(f"{kind} sent" in label for label in made) for kind in ESSENTIAL), made
    stories = []
    for number, point in enumerate(found):
        is_sent = point.label.startswith("POST") and point.label.endswith("sent")
        after = After.RESUME if is_sent else VERBS[number % len(VERBS)]
        stories.append(Story(point=point, after=after, scene=CLUSTERED, resumes=False))
    check(stories, tmp_path / "stories", record_property)


def test_killed_again_and_again_whatever_the_cluster_does(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    dice = random.Random(6)
    stories = []
    for scene, after in (
        (CLUSTERED_RETRIED, After.RESUME),
        (CLUSTERED_QUEUED, After.RESUME),
        (CLUSTERED_JUDGED, After.STOP),
        (CLUSTERED_STORED, After.RESUME),
        (CLUSTERED_SLOW, After.CLEANUP),
        (CLUSTERED_SLOW, After.RESUME),
        (CLUSTERED_UNLUCKY, After.RESUME),
        (CLUSTERED_UNLUCKY, After.GC),
    ):
        seed = dice.randrange(1_000_000)
        point = Point("", dice.randrange(100, 200))
        stories.append(Story(point=point, after=after, scene=with_seed(scene, seed), deaths=1, seed=seed))
    check(stories, tmp_path, record_property)
