"""What every timer of ours starts, and whether a person wants it: shared by `nv-eval gc` and `nv-eval schedule`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from launcher.errors import ConfigError

# -P: whatever lies in the folder that a timer starts in is no part of the program
PROGRAM = (sys.executable, "-P", "-m", "launcher.cli.main")
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


def environment() -> dict[str, str]:
    """All variables that a timer sets: it has none of its user's."""
    from launcher.orchestrator.journal import state_folder

    env = {"PATH": f"{Path(sys.executable).parent}:{_SYSTEM_PATH}", "NV_EVAL_HOME": str(state_folder().absolute())}
    if "PYTHONPATH" in os.environ:  # nv-eval runs from its sources
        env["PYTHONPATH"] = os.environ["PYTHONPATH"]
    return env


def agrees() -> bool:
    """Whether a person at a terminal types yes."""
    if not sys.stdin.isatty():
        return False
    sys.stdout.write("Write it? Type yes: ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() == "yes"


def absolute(path: str) -> str:
    """A path that means the same wherever a timer starts. Raises ConfigError for the home of a user there is not."""
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError:
        raise ConfigError(f"{path}: no such user") from None
