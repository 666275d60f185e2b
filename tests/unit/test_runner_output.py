"""What the runner makes of a harness's output."""

from __future__ import annotations

import base64
import gzip
import json
import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from launcher.runner.output import Output, Report


def passed_on(
    capsys: pytest.CaptureFixture[str], chunks: list[bytes], style: str, secrets: tuple[str, ...] = ()
) -> tuple[list[str], list[dict[str, object]], Output]:
    """The harness's lines, our events and the Output after all chunks went through a real pipe."""
    read, write = os.pipe()
    output = Output(read, style, Report(secrets))
    for chunk in chunks:
        os.write(write, chunk)
        output.pump(1)
    os.close(write)
    output.drain()
    os.close(read)
    printed = capsys.readouterr().out.split("\n")[:-1]
    events = [json.loads(line.removeprefix("@nv-eval ")) for line in printed if line.startswith("@nv-eval ")]
    return [line for line in printed if not line.startswith("@nv-eval ")], events, output


def test_bars_become_progress_and_other_lines_pass(capsys: pytest.CaptureFixture[str]) -> None:
    chunks = [
        b"loading\nRequesting API:   0%|          | 0/16 [00:00<?, ?it/s]",
        b"\rRequesting API:  25%|##5       | 4/16 [00:01<00:03,  3.5it/s]",
        b"\rRequesting API: 100%|##########| 16/16 [00:04<00:00,  3.9it/s]\nscored 16/16 items\n",
        b"Generating test split: 100 examples [00:00, 5000.00 examples/s]\n",
    ]
    lines, events, _ = passed_on(capsys, chunks, "tqdm")
    assert lines == ["loading", "scored 16/16 items"]
    assert events[-1] == {"event": "progress", "done": 16, "total": 16, "detail": "Requesting API"}


def test_progress_lines_are_taken_out_whole(capsys: pytest.CaptureFixture[str]) -> None:
    lines, events, _ = passed_on(capsys, [b"@progress 1/1", b"6\n@progress 4/16\nbye"], "lines")
    assert lines == ["bye"]
    assert [(event["done"], event["total"]) for event in events][-1] == (4, 16)


def test_an_attempt_that_goes_on_says_how_much_it_need_not_ask(capsys: pytest.CaptureFixture[str]) -> None:
    chunks = [b"Requesting API:  25%|##5       | 4/16 [00:01<00:03,  3.5it/s]", b"\n@resumed 412/1", b"000\nbye\n"]
    lines, events, _ = passed_on(capsys, chunks, "tqdm")
    assert lines == ["bye"]
    told = [event for event in events if event["event"] == "phase"]
    assert told == [{"event": "phase", "phase": "evaluating", "detail": "resumed: 412 of 1000 answers kept"}]


def test_progress_is_told_a_few_times_a_second_and_the_last_always(capsys: pytest.CaptureFixture[str]) -> None:
    _, events, _ = passed_on(capsys, [b"@progress %d/5000\n" % done for done in range(1, 5001)], "lines")
    assert events[-1]["done"] == 5000
    assert len(events) < 50


def test_without_progress_every_line_passes(capsys: pytest.CaptureFixture[str]) -> None:
    lines, events, _ = passed_on(capsys, [b"@progress 1/2\n"], "none")
    assert (lines, events) == (["@progress 1/2"], [])


@given(
    label=st.sampled_from(["", "Requesting API", "a: b", "50% done"]),
    done=st.integers(0, 10**7),
    total=st.integers(1, 10**7),
    elapsed=st.just(0.0) | st.floats(0.001, 10**6),
    width=st.sampled_from([None, 0, 120]),
    ascii_bar=st.booleans(),
)
def test_any_bar_of_tqdm_is_read(
    label: str, done: int, total: int, elapsed: float, width: int | None, ascii_bar: bool
) -> None:
    done = min(done, total)
    bar = tqdm.format_meter(done, total, elapsed, ncols=width, prefix=label and f"{label}: ", ascii=ascii_bar)
    report = Recorder()
    output = Output(-1, "tqdm", report)
    output.feed(bar.encode())
    assert (report.progressed, report.lines) == ([(done, total, label)], [])


class Recorder(Report):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(())
        self.progressed: list[tuple[int, int, str]] = []
        self.lines: list[str] = []

    def progress(self, done: int, total: int, detail: str) -> None:
        self.progressed.append((done, total, detail))

    def line(self, text: str) -> None:
        self.lines.append(text)


@given(text=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=6))
def test_lines_do_not_depend_on_how_output_is_cut_into_chunks(text: bytes, cuts: list[int]) -> None:
    whole, cut = Recorder(), Recorder()
    in_one = Output(-1, "none", whole)
    in_one.feed(text + b"\n")
    in_many = Output(-1, "none", cut)
    edges = [0, *sorted(cuts), len(text)]
    for start, stop in pairwise(edges):
        in_many.feed(text[start:stop])
    in_many.feed(b"\n")
    assert cut.lines == whole.lines


def test_secrets_are_replaced_even_where_chunks_cut_them(capsys: pytest.CaptureFixture[str]) -> None:
    lines, _, output = passed_on(capsys, [b"key is sk-can", b"ary-1 really\n"], "none", ("sk-canary-1",))
    assert lines == ["key is *** really"]
    assert output.last == "key is *** really"


def test_a_harness_cannot_speak_in_the_runners_name(capsys: pytest.CaptureFixture[str]) -> None:
    forged = b'@nv-eval {"event": "end", "reason": "completed"}\nx\r@nv-eval-results-begin a 1 0\n'
    lines, events, _ = passed_on(capsys, [forged], "none")
    assert events == []
    assert not any(line.startswith("@nv-eval") for line in lines)


def test_the_last_line_skips_what_means_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    text = b"KeyError: 'nope'\n\nfatal: not a git repository (or any of the parent directories): .git\n"
    _, _, output = passed_on(capsys, [text], "none")
    assert output.last == "KeyError: 'nope'"


def test_a_line_without_end_does_not_fill_the_memory(capsys: pytest.CaptureFixture[str]) -> None:
    lines, _, _ = passed_on(capsys, [b"x" * 60000] * 5, "tqdm")
    assert sum(map(len, lines)) == 300000
    assert len(lines) > 1


def test_a_secret_that_is_a_short_number_does_not_change_results(capsys: pytest.CaptureFixture[str]) -> None:
    content = b'{"acc": 0.5123456789, "id": "123456789012", "key": "hf_canary"}'
    Report(["123456", "123456789012", "hf_canary"]).results({"results.json": content})
    _, *encoded, _ = capsys.readouterr().out.splitlines()
    plain = gzip.decompress(base64.b64decode("".join(encoded)))
    assert plain == b'{"acc": 0.5123456789, "id": "***", "key": "***"}'
