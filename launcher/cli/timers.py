"""What every timer of ours starts, and whether a person wants it: shared by `nv-eval gc` and `nv-eval schedule`."""

from __future__ import annotations

import os
import sys
from collections.abc import Container
from pathlib import Path

from launcher.errors import ConfigError

# -P: whatever lies in the folder that a timer starts in is no part of the program
PROGRAM = (sys.executable, "-P", "-m", "launcher.cli.main")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


def environment() -> dict[str, str]:
    """All variables that a timer sets: it has none of its user's."""
    from launcher.orchestrator.journal import state_folder

    env = {"PATH": f"{Path(sys.executable).parent}:{_SYSTEM_PATH}", "NV_EVAL_HOME": str(state_folder().absolute())}
    if "PYTHONPATH" in os.environ:  # nv-eval runs from its sources
        env["PYTHONPATH"] = os.environ["PYTHONPATH"]
    return env


def missing(prefixes: tuple[str, ...], given: Container[str]) -> list[str]:
    """Variables of this shell that say where to go, and that a timer would lack."""
    leads = (name for name in os.environ if name.startswith(prefixes) or name.upper() in _PROXIES)
    return sorted(name for name in leads if name not in given)


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
