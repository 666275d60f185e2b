"""SIGINT, SIGTERM and SIGHUP: the first asks for a clean end, the second stops waiting for it."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from launcher.orchestrator.run import Run

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handled(run: Run) -> Iterator[None]:
    """Within, signals end `run`. Does nothing outside the main thread, where Python delivers none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    asked: list[int] = []

    def on_signal(number: int) -> None:
        asked.append(number)
        if len(asked) == 1:
            run.stop()
        else:
            run.abandon()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
