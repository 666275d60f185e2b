"""Logs on a page: their end, what came before, what is added, and files that are not what they were."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from launcher.errors import NotFound
from launcher.view import logs
from launcher.view.logs import Tail


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "words").mkdir()
    return tmp_path / "words" / "job.log"


def last(log: Path) -> logs.Piece:
    return logs.last(log.parent.parent, "words", "job")


def tail(log: Path) -> Tail:
    piece = last(log)
    return Tail(log.parent.parent, "words", "job", file=piece.file, end=piece.end, is_packed=piece.is_packed)


def add(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)


def test_a_large_log_is_shown_from_its_end_and_read_back_piece_by_piece(log: Path) -> None:
    lines = [f"line {number}" for number in range(100_000)]
    log.write_text("\n".join(lines) + "\n")

    piece = last(log)
    shown = list(piece.lines)
    while piece.start:
        assert len(piece.lines) < 20_000
        piece = logs.before(log.parent.parent, "words", "job", piece.start)
        shown = piece.lines + shown

    assert shown == lines


def test_what_is_added_comes_in_whole_lines_and_once(log: Path) -> None:
    log.write_text("one\n")
    followed = tail(log)

    add(log, "two\nthr")
    assert followed.read() == (["two"], False)
    assert followed.read() == ([], False)
    add(log, "ee\n")
    assert followed.read() == (["three"], False)


def test_a_log_that_is_cut_off_or_replaced_begins_anew(log: Path) -> None:
    log.write_text("one\ntwo\n")
    followed = tail(log)

    log.write_text("new\n")
    assert followed.read() == (["new"], True)
    (log.parent / "other").write_text("other, and longer than before\n")
    (log.parent / "other").rename(log)
    assert followed.read() == (["other, and longer than before"], True)
    log.unlink()
    assert followed.read() == ([], False)
    log.write_text("back\n")
    assert followed.read() == (["back"], True)


def test_a_log_that_does_not_exist_yet_is_followed_from_its_first_line(log: Path) -> None:
    followed = Tail(log.parent.parent, "words", "job", file="", end=0)
    assert followed.read() == ([], False)

    log.write_text("first\n")
    assert followed.read() == (["first"], True)


def test_sequences_of_terminals_and_the_runner_s_own_lines_become_words(log: Path) -> None:
    log.write_text(
        '\x1b[31mred\x1b[0m\n\x1b]0;title\x07a\u202eb\n 1%\r 50%\r100%\n@nv-eval {"event": "progress", "done": 1}\n'
    )
    add(log, '@nv-eval {"event": "phase", "phase": "evaluating", "detail": "words"}\n')

    assert last(log).lines == ["red", "ab", "100%", "[runner] evaluating: words"]


def test_packed_results_are_left_out_also_where_they_come_while_somebody_looks(log: Path) -> None:
    packed = base64.b64encode(os.urandom(60)).decode()
    log.write_text(f"before\n@nv-eval-results-begin a 1 2\n{packed}\n")
    followed = tail(log)
    assert last(log).lines == ["before"]

    add(log, f"{packed}\n@nv-eval-results-end\nafter\n")
    assert followed.read() == (["after"], False)


def test_a_line_without_an_end_is_shown_in_part_and_read_in_pieces(log: Path) -> None:
    log.write_text("x" * 3 * logs.PIECE)
    shown = last(log).lines
    assert len(shown) == 1 and shown[0].endswith("more characters") and len(shown[0]) < 5000

    log.write_text("begin\n")
    followed = tail(log)
    add(log, "y" * 2 * logs.PIECE)
    assert len(followed.read()[0]) == 1


@pytest.mark.parametrize("kind", ["folder", "pipe", "link out", "link in a loop", "missing"])
def test_what_is_no_file_of_the_folder_is_no_log(log: Path, kind: str, tmp_path: Path) -> None:
    if kind == "folder":
        log.mkdir()
    elif kind == "pipe":
        os.mkfifo(log)
    elif kind == "link out":
        log.symlink_to("/etc/passwd")
    elif kind == "link in a loop":
        log.symlink_to(log)

    with pytest.raises(NotFound):
        last(log)


def test_a_link_within_the_folder_is_followed(log: Path) -> None:
    (log.parent / "attempt-2.log").write_text("fine\n")
    log.symlink_to("attempt-2.log")

    assert last(log).lines == ["fine"]
