"""What a sweep's supervisor costs, on the benchmark's timer jobs and virtual clock, for fewer points than its 200."""

from __future__ import annotations

from pathlib import Path

from benchmarks.sweep import listed, measure


def test_many_points_end_about_when_list_scheduling_would_and_ask_no_more_than_a_run_alone(tmp_path: Path) -> None:
    found = measure(10, tmp_path, slots=4)
    assert found.exit_code == 0
    assert found.over_bound <= 1.1
    assert found.looks_over_single <= 1.5
    assert found.cpu_seconds <= 60 * 10 / 200 + 3, "of 60 s for 200 points; starting Python's libraries once"


def test_list_scheduling_gives_the_longest_to_the_place_that_is_free_first() -> None:
    assert listed([3, 3, 2, 2, 2], 2) == 7
