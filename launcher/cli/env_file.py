"""Variables from a file, for a program that a timer starts: such a one has none of its user's."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from launcher.errors import ConfigError


def read(file: str) -> dict[str, str]:
    """Variables of a file with lines `NAME=VALUE`, as a shell reads them: quotes, comments, `export`.

    Raises ConfigError if it cannot be read, if others may read it, or for a line that is something else.
    """
    path = Path(file).expanduser()
    try:
        others = path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"--env-file {file}: cannot be read: {reason}") from None
    if others:
        raise ConfigError(f"--env-file {file}: others may read it, and it is for keys: chmod 600 {shlex.quote(file)}")
    return dict(pair for number, line in enumerate(text.splitlines(), 1) for pair in _pair(line, f"{file}:{number}"))


def apply(file: str | None) -> None:
    """Set the variables of a file, if one is named. Raises ConfigError as `read` does."""
    os.environ.update(read(file) if file else {})


def _pair(line: str, where: str) -> list[tuple[str, str]]:
    """The variable of a line, or none of an empty one. The message never holds what may be a secret."""
    try:
        words = shlex.split(line, comments=True)
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
