"""What runs in the process of one export: reads its task from standard input, answers on standard output.

A process of its own can be ended whatever a library does in it, and keeps the library's threads, prints, settings of
logging and hooks at exit away from the launcher.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from launcher.config.export import OPTIONS
from launcher.decoding import convert, decode
from launcher.errors import LauncherError
from launcher.results.exporters import registry
from launcher.results.exporters.base import Bundle

ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
}
"""What keeps libraries from reporting home, and from waiting longer for a server than an export may take.

What the environment says itself counts.
"""
_LONGEST_REASON = 300
PR_SET_PDEATHSIG = 1
"""Of Linux: the signal that a process gets when its parent ends."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the process is to do. `options` as JSON holds them; `seconds` until it ends itself, should nobody else.

    `launcher`: id of the process that ordered it, and with which it dies.
    """

    folder: str
    exporter: str
    options: dict[str, Any]
    seconds: float
    launcher: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`reason` is None if all went well."""

    reason: str | None = None


def main() -> int:
    """Do what the order says."""
    order = decode(sys.stdin.buffer.read(), Order)
    _die_with(order.launcher)
    signal.alarm(max(1, int(order.seconds) + 5))  # should it be somewhere that no signal of the above reaches
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    answer_to = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    answer = Answer(reason=_done(order))
    os.write(answer_to, msgspec.json.encode(answer))
    os.close(answer_to)
    return 0


def _die_with(launcher: int) -> None:
    """End this process and what it starts when the launcher is gone, also after `kill -9`."""
    signal.signal(signal.SIGUSR1, lambda *_: os.killpg(0, signal.SIGKILL))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0)
    if os.getppid() != launcher:  # it was gone before
        os.killpg(0, signal.SIGKILL)


def _done(order: Order) -> str | None:
    cls = OPTIONS.get(order.exporter)
    options = convert(order.options, cls) if cls else order.options
    try:
        registry.make(order.exporter, options).send(Bundle.load(Path(order.folder)))
    except LauncherError as error:
        return _short(str(error))
    except Exception as error:  # whatever a library raises
        return _short(f"{type(error).__name__}: {error}")
    return None


def _short(text: str) -> str:
    """One line; of a server that cannot be reached only that, which libraries wrap into many words."""
    refused = re.search(r"Max retries exceeded.*\[Errno -?\d+\] ([^\"')]+)", text, re.DOTALL)
    line = f"cannot be reached: {refused.group(1)}" if refused else " ".join(text.split())
    return line if len(line) <= _LONGEST_REASON else f"{line[: _LONGEST_REASON - 1]}…"


if __name__ == "__main__":
    sys.exit(main())
