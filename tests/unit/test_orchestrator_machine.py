"""The short form of tests.machine; the long one: python -m tests.machine."""

from __future__ import annotations

from tests.machine.__main__ import hold


def test_whatever_happens_nothing_is_left_and_nothing_is_lost():
    assert hold(examples=20) >= 20
