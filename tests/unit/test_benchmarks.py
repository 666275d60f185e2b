"""The calculations of the benchmarks, and the page that is written from the figures that were kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as program
from benchmarks import figures, page
from benchmarks.figures import Figure, Ran
from benchmarks.fleet import BARRIER, FULL, Fleet, draw, grouped, list_schedule, slopes
from benchmarks.fleet import _told as told_of
from benchmarks.paper import bend, tasks_of_a_supervisor
from benchmarks.startup import costs_of


def fleet(tasks: int, **keys: Any) -> Fleet:
    known = {
        "mode": "",
        "bound": 10.0,
        "seconds": 11.0,
        "ratio": 1.1,
        "billed": 1.0,
        "kept": 2.0,
        "barrier": 1.5,
        "barrier_billed": 1.9,
        "requests": 6.0,
    }
    rest = {"cpu_ms": 20.0, "memory": 50.0, "job_lag": 0.1, "delete_lag": 0.2, "load": 0.0, "scored": tasks}
    return Fleet(**{"tasks": tasks, **known, **rest, **keys})


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_without_limits_the_longest_task_is_the_bound() -> None:
    assert list_schedule([3.0, 9.0, 4.0], None) == 9.0


@pytest.mark.parametrize(
    ("times", "slots", "bound"),
    [([3.0, 3.0, 3.0, 3.0], 2, 6.0), ([1.0, 2.0, 3.0], 1, 6.0), ([5.0, 1.0, 1.0, 1.0], 2, 5.0), ([4.0], 8, 4.0)],
)
def test_with_places_each_task_takes_the_one_that_is_free_first(times: list[float], slots: int, bound: float) -> None:
    assert list_schedule(times, slots) == bound


def test_a_small_fleet_is_the_beginning_of_a_large_one() -> None:
    assert draw(3, 20.0, 7) == draw(1000, 20.0, 7)[:3]
    assert math.exp(sum(map(math.log, draw(1000, 20.0, 7))) / 1000) == pytest.approx(20.0, rel=0.05)


# --- fleets -----------------------------------------------------------------------------------------------------------


def test_runs_of_the_same_fleet_are_told_as_one() -> None:
    runs = [fleet(100), fleet(3), fleet(100), fleet(100, mode="barrier")]

    assert [[one.tasks for one in alike] for alike in grouped(runs)] == [[3], [100, 100], [100]]


def test_a_fleet_with_a_barrier_stands_behind_that_without_and_before_those_of_other_kinds() -> None:
    runs = [fleet(24, mode="8 slots"), fleet(100, mode=BARRIER), fleet(1000), fleet(100)]

    told = [(alike[0].tasks, alike[0].mode) for alike in grouped(runs)]

    assert told == [(100, ""), (100, BARRIER), (1000, ""), (24, "8 slots")]


def test_what_a_barrier_costs_at_best_is_told_only_where_none_is_run() -> None:
    def names(*, best: bool) -> str:
        return " ".join(one.name for one in told_of([fleet(100)], best=best))

    assert "at best" in names(best=True) and "at best" not in names(best=False)
    run = {one.name: one for one in told_of([fleet(100, mode=BARRIER, ratio=1.6, barrier=1.5)])}
    assert run["N = 100, barrier, time over the bound"].value == 1.6
    assert run["N = 100, barrier, time over the bound"].note.endswith("1.500 at best")


def test_a_slope_is_what_one_more_task_costs_whatever_the_program_costs_alone() -> None:
    runs = [
        fleet(n, requests=6 + 150 / n, cpu_ms=25 + 900 / n, memory=50 + n * 40 / 1024, job_lag=0.2 + n * 0.0005)
        for n in (10, 100, 1000)
    ]

    lines = slopes(runs)

    assert [round(one.value, 6) for one in lines] == [6.0, 25.0, 40.0, 0.5, 0.0]
    assert [one.note for one in lines] == [
        "150 for N = 0, r2 1.000",
        "900 ms for N = 0, r2 1.000",
        "51200 KiB for N = 0, r2 1.000",
        "200 ms for N = 0, r2 1.000",
        "200 ms for N = 0",
    ]


def test_a_full_measurement_has_every_size_alone_and_with_slots() -> None:
    wanted = [*FULL.together, *FULL.alone]

    assert sorted(one.tasks for one in wanted if not one.mode) == [3, 10, 30, 100, 300, 1000]
    assert sorted(one.tasks for one in wanted if one.mode == BARRIER) == [3, 10, 30, 100, 1000]
    assert [one.slots for one in wanted if one.slots] == [8, 32]


def test_one_size_has_no_slope() -> None:
    assert slopes([fleet(10), fleet(10)]) == []


# --- scale on paper ---------------------------------------------------------------------------------------------------


def row(tasks: int, *, ms: float, ratio: float) -> dict[str, float]:
    return {"tasks": tasks, "cpu": tasks * ms / 1000, "virtual_seconds": 500 * ratio, "bound": 500.0}


def test_a_supervisor_has_as_many_tasks_as_stay_near_the_bound_between_two_sizes_on_a_straight_line() -> None:
    rows = [row(100, ms=5, ratio=1.0), row(1000, ms=5, ratio=1.05), row(3000, ms=5, ratio=1.15)]

    assert tasks_of_a_supervisor(rows) == pytest.approx(2000)
    assert tasks_of_a_supervisor(rows[:2]) == 1000


def test_the_curve_bends_where_a_task_takes_half_as_much_again_as_at_best() -> None:
    rows = [row(100, ms=9, ratio=1), row(1000, ms=6, ratio=1), row(3000, ms=8, ratio=1), row(9000, ms=9.1, ratio=1)]

    assert bend(rows) == 9000
    assert bend(rows[:3]) == 3000
    assert bend([*rows, row(30_000, ms=8, ratio=1)]) == 30_000, "it was one size, not from there on"


# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "target", "more", "met"),
    [(5.0, 5.0, False, True), (5.1, 5.0, False, False), (0.94, 0.95, True, False), (0.95, 0.95, True, True)],
)
def test_a_target_is_met_at_its_very_value(value: float, target: float, more: bool, met: bool) -> None:
    assert Figure(bench="b", name="n", value=value, target=target, more_is_better=more).meets is met


def ran(bench: str, value: float, **keys: Any) -> Ran:
    made = [Figure(bench=bench, name="n", value=value, **keys)]
    return Ran(bench=bench, figures=made, rows=[], load=(0.5, 9.0), seconds=12.3, quick=True)


def test_what_did_not_run_now_stays_and_what_did_is_beside_what_it_was() -> None:
    first = figures.document([ran("a", 2.0), ran("b", 3.0)])

    second = figures.document([ran("b", 4.0)], first)

    assert {one["bench"]: one["value"] for one in second["figures"]} == {"a": 2.0, "b": 4.0}
    assert {one["bench"]: one["before"] for one in second["figures"]} == {"a": None, "b": 3.0}
    assert set(second["taken"]) == {"a", "b"}


def test_commands_are_measured_as_processes_with_their_processor_time() -> None:
    import sys

    found = costs_of({"pass": [sys.executable, "-c", "pass"]}, {}, 1)["pass"]

    assert min(found.cpu, found.wall) > 0


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_and_its_charts_are_written_from_the_figures_that_were_kept() -> None:
    document = figures.kept()
    wanted = {name: spec for made in page.charts(document).values() for name, spec in made.items()}

    assert page.PAGE.read_text() == page.page(document), "run: python -m benchmarks.page"
    assert {path.stem for path in page.CHARTS.glob("*.svg")} == set(wanted)
    for name, spec in wanted.items():
        assert (page.CHARTS / f"{name}.svg").read_text().startswith(page.mark(spec)), "run: python -m benchmarks.page"


@pytest.mark.parametrize(("bench", "is_compared"), [("fleet", True), ("recovery", False)])
def test_a_quick_measurement_is_compared_with_a_full_one_only_where_it_does_the_same(
    bench: str, is_compared: bool
) -> None:
    full, quick = (
        Ran(bench=bench, figures=[told(bench, value)], rows=[], load=(0, 0), seconds=1, quick=quick)
        for value, quick in ((2.0, False), (3.0, True))
    )
    kept = figures.document([full])

    assert figures.document([quick], kept)["figures"][0]["before"] == (2.0 if is_compared else None)
    assert figures.document([full], kept)["figures"][0]["before"] == 2.0


def test_what_one_part_measured_is_kept_although_the_next_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_quick: bool) -> program.Result:
        raise OSError("no space")

    earlier = [
        Ran(bench=name, figures=[told(name, 2.0)], rows=[], load=(0, 0), seconds=90, quick=True) for name in "abc"
    ]
    monkeypatch.setattr(figures, "KEPT", tmp_path / "figures.json")
    figures.KEPT.write_text(json.dumps(figures.document(earlier)))
    monkeypatch.setattr(program, "BENCHES", {"a": lambda _: ([told("a", 1.0)], []), "b": fails, "c": fails})
    monkeypatch.setattr("sys.argv", ["benchmarks", "--quick", "--keep", "a", "b"])

    with pytest.raises(OSError, match="no space"):
        program.main()

    kept = {one["bench"]: (one["value"], one["before"]) for one in figures.kept()["figures"]}
    assert kept == {"a": (1.0, 2.0), "b": (2.0, None), "c": (2.0, None)}
    assert "-50 %" in capsys.readouterr().out


def test_the_help_says_how_long_each_part_took() -> None:
    times = (("startup", 7.0, True), ("fleet", 800.0, False))
    ran = [Ran(bench=name, figures=[], rows=[], load=(0, 0), seconds=took, quick=quick) for name, took, quick in times]

    text = program.durations(figures.document(ran))

    assert text == "When the kept figures were taken: startup 7 s with --quick, fleet 13 min."
    assert program.durations({}) == ""


def told(bench: str, value: float) -> Figure:
    return Figure(bench=bench, name="n", value=value)


def test_a_missed_target_is_told_with_its_reason_and_what_would_be_next() -> None:
    missed = Figure(bench="fleet", name="N = 1000, requests of a task", value=6.2, target=6.0)
    one = Ran(bench="fleet", figures=[missed], rows=[], load=(0.1, 0.2), seconds=1.0, quick=False)

    text = page.page(figures.document([one]))

    assert "0 of 1 targets are met" in text and "**missed**" in text
    assert "Six is the floor" in text and "Next: " in text


def test_a_benchmark_that_the_page_knows_nothing_of_is_shown_all_the_same() -> None:
    rows = [Figure(bench="new_things", name=f"thing {n}", value=n, unit="x") for n in (1, 2, 3)]
    one = Ran(bench="new_things", figures=rows, rows=[], load=(9.0, 12.0), seconds=1.0, quick=False)
    document = json.loads(json.dumps(figures.document([one])))

    text = page.page(document)

    assert "## New things" in text and "| thing 2 | 2.00 x |" in text
    assert "![" in text and list(page.charts(document)["new_things"]) == ["new_things"]


def test_a_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    quiet, busy = (
        Ran(bench="b", figures=[Figure(bench="b", name="n", value=1)], rows=[], load=load, seconds=1, quick=False)
        for load in ((0.2, 1.0), (7.0, 9.0))
    )

    assert "busy" not in page.page(figures.document([quiet]))
    assert "was busy" in page.page(figures.document([busy]))


def test_every_target_that_is_missed_has_been_looked_at() -> None:
    missed = [one for one in figures.kept()["figures"] if page._meets(one) is False]

    assert [one["name"] for one in missed if page.why(one)[0].startswith("Nobody")] == []
