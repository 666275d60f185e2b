"""Lines of logs cannot steer the terminal they are printed to."""

from __future__ import annotations

import pytest

from launcher.cli.text import plain


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("\x1b[31;1mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]52;c;aGk=\x1b\\text", "text"),
        ("a\x1b[2J\x1b[1;1Hb\x1bc", "ab"),
        ("50%\r100%\x08", "50%100%"),
        ("\x9b31mred", "31mred"),
        ("safe \u202eexe.txt", "safe exe.txt"),
        ("cut \x1b[", "cut "),
        ("\ttabs, Ümläute and 日本 stay", "\ttabs, Ümläute and 日本 stay"),
    ],
)
def test_what_a_terminal_would_obey_is_taken_out(line: str, shown: str) -> None:
    assert plain(line) == shown
