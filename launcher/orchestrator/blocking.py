"""Runs a coroutine to its end for a caller that blocks, also where the caller's thread has a running loop (Jupyter)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from launcher.orchestrator.signals import SIGNALS

T = TypeVar("T")


class Interrupts:
    """What a signal does to a coroutine that runs in another thread than the main one, where signals arrive.

    At first it cancels the coroutine; the coroutine may set `react` to something better, called in its loop.
    """

    def __init__(self) -> None:
        self.react: Callable[[], object] = lambda: None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def attended(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await the coroutine, within reach of signals."""
        task = asyncio.current_task()
        assert task is not None
        self.react = task.cancel
        self._loop = asyncio.get_running_loop()
        return await coroutine

    def arrived(self) -> None:
        """A signal has come; called in the main thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended: nothing is left to interrupt
                self._loop.call_soon_threadsafe(self.react)


def complete(coroutine: Coroutine[Any, Any, T], interrupts: Interrupts | None = None) -> T:
    """The coroutine's result. In a thread with a running loop it gets a thread of its own, and this one waits.

    Raises KeyboardInterrupt if a signal cancelled it.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    interrupts = interrupts or Interrupts()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="nv-eval") as pool, _heard(interrupts.arrived):
        try:
            return pool.submit(asyncio.run, interrupts.attended(coroutine)).result()
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


@contextlib.contextmanager
def _heard(arrived: Callable[[], None]) -> Iterator[None]:
    """Within, signals call `arrived`. Does nothing outside the main thread, where Python delivers none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, lambda *_: arrived()) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
