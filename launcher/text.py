"""Text of others on its way to a terminal or a page."""

from __future__ import annotations

import re

_SEQUENCE = (
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours, cursor
    r"|\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # titles, links, the clipboard
    r"|\x1b[ -/]*[0-~]"
)
_CONTROL = "[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
"""Compiled when a line needs it: most commands print none that does."""


def plain(line: str) -> str:
    """A line without what a terminal would obey: escape sequences, control characters but for tabs, half characters."""
    if line.isprintable():
        return line
    return re.sub(_CONTROL, "", re.sub(_SEQUENCE, "", line))


def plain_lines(text: str) -> str:
    """`plain` for a text of several lines."""
    return "\n".join(plain(line) for line in text.split("\n"))
