"""SIGINT, SIGTERM and SIGHUP: the first asks for a clean end, the second stops waiting for it."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Protocol

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ending(Protocol):
    """What signals end: a run, or a sweep."""

    def stop(self) -> None:
        """Ask for a clean end."""
        ...

    def abandon(self) -> None:
        """Stop waiting for it."""
        ...


def reaction(run: Ending, say: Callable[[str], None]) -> Callable[[], None]:
    """What each signal does to `run`; `say` is told. To be called in the run's loop."""
    asked = count()

    def on_signal() -> None:
        if next(asked) == 0:
            say("Stopping: what is scored is kept, the rest is torn down. Once more stops waiting for it.")
            run.stop()
        else:
            say("Not waiting any longer.")
            run.abandon()

    return on_signal


@contextmanager
def handled(run: Ending, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Within, signals end `run`; `say` is told what a signal does. Does nothing outside the main thread."""
    with heard(reaction(run, say)):
        yield


@contextmanager
def heard(react: Callable[[], object]) -> Iterator[None]:
    """Within, signals call `react` in the running loop. Does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    wanted = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup means it
    for number in wanted:
        loop.add_signal_handler(number, react)
    try:
        yield
    finally:
        for number in wanted:
            loop.remove_signal_handler(number)
