"""Progress and results read back from a job's log."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.errors import PlatformError
from launcher.platforms.base import Progress, RunnerEnd
from launcher.platforms.progress import ProgressReader, results_from_log
from launcher.runner.client import Ended, Ending
from launcher.runner.output import Report

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..")
)


def log_of(results: dict[str, bytes]) -> str:
    """What the runner prints for these results."""
    with redirect_stdout(io.StringIO()) as log:
        report = Report(())
        report.phase("evaluating", "t")
        report.line("some output")
        report.progress(4, 16, "Requesting API")
        report.flush()
        report.phase("verifying", "")
        report.end(Ended(Ending.COMPLETED, ""), {"results": sorted(results)})
        report.results(results)
    return log.getvalue()


@given(st.dictionaries(NAMES, st.binary(max_size=2000), max_size=4))
def test_results_come_home_as_they_were(results: dict[str, bytes]) -> None:
    assert results_from_log(log_of(results)) == results


def test_results_survive_carriage_returns_and_text_around_them() -> None:
    log = "booting\n" + log_of({"a/results.json": b"{}" * 500}) + "bye"
    assert results_from_log(log.replace("\n", "\r\n")) == {"a/results.json": b"{}" * 500}


@given(st.integers(0, 10**6))
def test_a_log_cut_anywhere_gives_all_results_or_an_error(cut: int) -> None:
    results = {"one.json": bytes(range(256)) * 3, "two.json": b"{}"}
    log = log_of(results)
    end = log.index('"event": "end"')
    kept = log[: end + cut % (len(log) - end)]
    if "\n" not in kept[end:]:
        return
    try:
        assert results_from_log(kept) == results
    except PlatformError as error:
        assert "cut off" in str(error)


def test_damaged_results_are_refused() -> None:
    log = log_of({"results.json": b'{"acc": 0.5}'})
    other = log_of({"results.json": b'{"acc": 0.9}'})
    header = next(line for line in log.split("\n") if "begin" in line)
    block = other.split("\n")[-3]
    with pytest.raises(PlatformError, match=r"damaged: results\.json"):
        results_from_log(f"{header}\n{block}\n@nv-eval-results-end\n")
    with pytest.raises(PlatformError, match="cannot be read"):
        results_from_log(f"{header}\nnot base64 at all!\n@nv-eval-results-end\n")


def test_a_name_outside_the_folder_is_refused() -> None:
    for name in ("../results.json", "/etc/results.json"):
        with pytest.raises(PlatformError, match="outside their folder"):
            results_from_log(log_of({name: b"{}"}))


@given(st.lists(st.integers(0, 600), max_size=20))
def test_progress_does_not_depend_on_how_the_log_is_cut(cuts: list[int]) -> None:
    log = log_of({})
    edges = [0, *sorted(min(cut, len(log)) for cut in cuts), len(log)]
    reader = ProgressReader()
    for start, stop in pairwise(edges):
        reader.feed(log[start:stop])
    assert reader.progress == Progress(phase="ended", done=4, total=16)
    assert reader.end == RunnerEnd(reason="completed", data={"results": []})


def test_progress_is_known_while_the_job_runs() -> None:
    reader = ProgressReader()
    reader.feed('@nv-eval {"event": "phase", "phase": "evaluating", "detail": "t"}\nnoise\n@nv-eval {"ev')
    assert reader.progress == Progress(phase="evaluating", detail="t")
    reader.feed('ent": "progress", "done": 1, "total": 2, "detail": ""}\n@nv-eval not json\n')
    assert reader.progress == Progress(phase="evaluating", done=1, total=2)
    assert reader.end is None
