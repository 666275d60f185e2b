"""Variables from a file, for a program that a timer starts: such a one has none of its user's."""

from __future__ import annotations

import os
import re
import shlex
import stat
from pathlib import Path

from launcher.errors import ConfigError

_BEFORE_COMMENT = re.compile(r"""(?: [^'"\\\#] | '[^']*' | "(?:[^"\\]|\\.)*" | \\.\#? | (?<=\S)\# )*""", re.VERBOSE)
"""A line up to its comment, which begins where a word does; all of the line or less where a quote is not closed."""


def read(file: str) -> dict[str, str]:
    """Variables of a file with lines `NAME=VALUE`, as a shell reads them: quotes, comments, `export`.

    Raises ConfigError if it cannot be read, if others may read it, or for a line that is something else.
    """
    try:
        path = Path(file).expanduser()
        others = path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"--env-file {file}: cannot be read: {_why(error)}") from None
    if others:
        raise ConfigError(f"--env-file {file}: others may read it, and it is for keys: chmod 600 {shlex.quote(file)}")
    return dict(pair for number, line in enumerate(text.split("\n"), 1) for pair in _pair(line, f"{file}:{number}"))


def apply(file: str | None) -> None:
    """Set the variables of a file, if one is named. Raises ConfigError as `read` does."""
    os.environ.update(read(file) if file else {})


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "it is no text" if isinstance(error, UnicodeDecodeError) else str(error).rstrip(".").lower()


def _without_comment(line: str) -> str:
    """A `#` within a word or quotes is part of the value; shlex would take it for a comment all the same."""
    found = _BEFORE_COMMENT.match(line)
    end = found.end() if found else 0
    return line[:end] if line[end : end + 1] == "#" else line


def _pair(line: str, where: str) -> list[tuple[str, str]]:
    """The variable of a line, or none of an empty one. The message never holds what may be a secret."""
    if "\0" in line:
        raise ConfigError(f"--env-file {where}: holds a NUL byte, which no variable can")
    try:
        words = shlex.split(_without_comment(line))
    except ValueError:
        words = ["unclosed"]
    if words[:1] == ["export"]:
        words = words[1:]
    if not words:
        return []
    name, equals, value = words[0].partition("=")
    if len(words) > 1 or not equals or not name.isidentifier():
        raise ConfigError(f"--env-file {where}: not of the form NAME=VALUE; put quotes around a value with spaces")
    return [(name, value)]
