"""How a command tells an error: one line on standard error, or a JSON object on standard output."""

from __future__ import annotations

import sys

from launcher.cli.text import plain

TYPE_CHECKING = False  # as typing has it, which takes a third of a bare Python's time to load
if TYPE_CHECKING:
    from launcher.errors import LauncherError


def report(error: LauncherError, *, as_json: bool) -> int:
    """Tell an error; returns its exit code."""
    if as_json:
        import json

        kind = type(error).__name__
        print(json.dumps({"error": kind, "exit_code": error.exit_code, "message": str(error)}))
    else:
        for line in str(error).splitlines():
            sys.stderr.write(f"nv-eval: {plain(line)}\n")  # servers and files of others have their say in it
    return error.exit_code
