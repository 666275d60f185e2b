"""The file of answers: what is kept is found again, whatever happens to the process, the disk or the file."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.harnesses.lm_eval import answers as module
from launcher.harnesses.lm_eval.answers import Answers

KEPT: list[Any] = ["a text\n with 'all' \ud800 \u2028 kinds", "", [-0.1, True], [float("-inf"), False], [1, 2, 3]]


@contextmanager
def opened(path: Path | None, identity: str = "vllm 1") -> Iterator[Answers]:
    answers = Answers(path, identity)
    yield answers
    answers.close()


def fill(path: Path, kept: list[Any] = KEPT) -> None:
    with opened(path) as answers:
        for number, answer in enumerate(kept):
            answers.keep(answers.key(number), answer)


@pytest.fixture(autouse=True)
def _fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test ends a machine, so none needs what is written to be on its disk."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


def found(path: Path, count: int = len(KEPT), identity: str = "vllm 1") -> list[Any]:
    with opened(path, identity) as answers:
        return [answers.take(answers.key(number)) for number in range(count)]


def test_what_is_kept_is_found_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a 'new' folder" / "answers"
    fill(path)
    assert found(path) == KEPT


def test_a_new_answer_is_no_answer_of_an_earlier_run(tmp_path: Path) -> None:
    with opened(tmp_path / "answers") as answers:
        key = answers.key("q")
        answers.keep(key, "yes")
        assert answers.take(key) is None


def test_each_repetition_of_a_question_has_its_own_answer(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    for answer in ("first", "second"):
        with opened(path) as answers:
            answers.keep(answers.key("q"), answer)
    with opened(path) as answers:
        key = answers.key("q")
        assert [answers.take(key) for _ in range(3)] == ["first", "second", None]


def test_answers_of_another_server_are_not_found(tmp_path: Path) -> None:
    fill(tmp_path / "answers")
    assert found(tmp_path / "answers", identity="vllm 2") == [None] * len(KEPT)


def test_a_question_is_the_same_in_any_order_of_its_parts() -> None:
    answers = Answers(None, "")
    assert answers.key({"a": 1, "b": [0.7]}) == answers.key({"b": [0.7], "a": 1})
    assert len({answers.key(question) for question in ("1", 1, [1], {"a": 1}, {"a": 1.5}, None)}) == 6


def test_a_file_cut_off_at_any_byte_loses_only_what_is_cut_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    fill(path)
    whole = path.read_bytes()
    ends = [position for position, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        left = sum(end <= length for end in ends)
        fill(path, [])
        assert found(path) == KEPT[:left] + [None] * (len(KEPT) - left)
        with opened(path) as answers:
            answers.keep(answers.key("next"), "kept after all")
        with opened(path) as answers:
            assert answers.take(answers.key("next")) == "kept after all"


@settings(max_examples=100, deadline=None)
@given(position=st.integers(min_value=0), damage=st.binary(max_size=300), length=st.integers(0, 100))
def test_damage_costs_only_the_lines_it_touches(
    tmp_path_factory: pytest.TempPathFactory, position: int, damage: bytes, length: int
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "answers"
    fill(path)
    whole = path.read_bytes()
    position %= len(whole)
    path.write_bytes(whole[:position] + damage + whole[position + length :])
    before, after = whole[:position].count(b"\n"), whole[position + length :].count(b"\n")
    survivors = found(path)
    assert survivors[:before] == KEPT[:before]
    if after > 1:
        assert survivors[-(after - 1) :] == KEPT[-(after - 1) :]
    assert all(answer in (None, right) for answer, right in zip(survivors, KEPT, strict=True)), "never a wrong one"


def test_a_process_killed_at_any_moment_loses_nothing_it_was_done_with(tmp_path: Path) -> None:
    path, folder = tmp_path / "answers", Path(module.__file__).parent
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from answers import Answers\n"
        "answers = Answers(Path(sys.argv[2]), 'vllm 1')\n"
        "for number in range(10**6): answers.keep(answers.key(number), [number] * 50); print(number, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, folder, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 200:
            pass
        process.kill()
    assert found(path, 201) == [[number] * 50 for number in range(201)]


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    with opened(tmp_path / "answers") as answers:

        def keep(first: int) -> None:
            for number in range(first, 200, 4):
                answers.keep(answers.key(number), str(number) * 1000)

        threads = [Thread(target=keep, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found(tmp_path / "answers", 200) == [str(number) * 1000 for number in range(200)]


def test_a_full_disk_costs_the_answers_and_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "answers"
    fill(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    answers = Answers(path, "vllm 1")
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))  # the size a file may have
    try:
        for number in range(3):
            answers.keep(answers.key(f"more {number}"), "x")
        answers.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [record.message.split(":")[0] for record in caplog.records] == ["answers can no longer be kept"]
    assert found(path) == KEPT


def test_a_file_that_cannot_be_opened_costs_the_answers_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path)
    assert caplog.records[0].message == f"answers cannot be kept: {tmp_path}: Is a directory"


def test_without_a_file_nothing_is_kept_or_found() -> None:
    with opened(None) as answers:
        answers.keep(answers.key("q"), "x")
        assert answers.take(answers.key("q")) is None
