"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.cli import Home, assert_nothing_left, processes_of


@pytest.fixture
def home(tmp_path: Path):
    """An empty home with a name that a shell would trip over; at the end nothing may be left that mentions it."""
    folder = tmp_path / "a home with 'quotes'"
    folder.mkdir()
    yield Home(folder)
    assert_nothing_left(str(folder))
    assert processes_of(str(folder)) == []
