"""Export the way the command line does, and insist that it worked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launcher.api import export
from launcher.results.exporters.sending import State


def send(run: Path, name: str, /, *, again: bool = False, **keys: Any) -> State:
    (sent,) = export(run, to=[name], keys={name: keys}, again=again)
    assert not sent.reason, sent.line()
    return sent.state
