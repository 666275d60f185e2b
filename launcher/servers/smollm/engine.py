"""One thread that computes: prompts one after another, generations of several requests side by side."""

from __future__ import annotations

import heapq
import queue
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager

from launcher.servers.smollm.job import Completion, Job, Request
from launcher.servers.smollm.prompts import PromptReader
from launcher.servers.smollm.runtime import Feed, Runtime

PREFIX_BUDGET = 192 << 20
"""Bytes of keys and values kept of earlier prompts; SmolLM2-135M takes 23 KB a token."""


class Engine:
    """Computes requests in the order they come, `slots` generations at once.

    Prompts are not batched with one another: a pass over one prompt's tokens is as fast per token as one over several,
    and the later prompt then finds what it shares with the earlier one. `prefix_budget` is in bytes.
    """

    def __init__(self, runtime: Runtime, *, slots: int, prefix_budget: int = PREFIX_BUDGET) -> None:
        self._runtime = runtime
        self._prompts = PromptReader(runtime, prefix_budget)
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._free = list(range(slots))
        self._active: dict[int, Job] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> Future[Completion]:
        """Queue a request. One whose future is cancelled before its turn is not computed."""
        job = Job(request, self._runtime)
        self._queue.put(job)
        return job.future

    def close(self) -> None:
        """Finish what was queued before, and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        closing = False
        while self._active or not closing:
            if self._free and not closing:
                closing = self._admit()
            if self._active:
                self._advance()

    def _admit(self) -> bool:
        """Start one queued request, no more, so that generations keep moving; true where none will come any more."""
        try:
            job = self._queue.get(block=not self._active)
        except queue.Empty:
            return False
        if job is None:
            return True
        if job.future.set_running_or_notify_cancel():
            self._start(job)
        return False

    def _start(self, job: Job) -> None:
        slot = heapq.heappop(self._free)
        self._active[slot] = job
        with self._answering({slot: job}):
            job.begin(*self._prompts.read(slot, job.request.tokens, job.request.prompt_top))

    def _advance(self) -> None:
        """One more token for every generation."""
        jobs = dict(sorted(self._active.items()))
        with self._answering(jobs):
            self._runtime.decode([Feed(*job.last, slot, True) for slot, job in jobs.items()])
            for index, job in enumerate(jobs.values()):
                job.extend(index)

    @contextmanager
    def _answering(self, jobs: Mapping[int, Job]) -> Iterator[None]:
        """Whatever goes wrong inside is the answer to these jobs; the slots of those that have ended become free."""
        try:
            yield
        except Exception as error:  # the requests must end and the thread must live, whatever it is
            for job in jobs.values():
                if not job.ended:
                    job.fail(error)
        for slot in [slot for slot, job in jobs.items() if job.ended]:
            del self._active[slot]
            self._runtime.truncate(slot, 0)
            heapq.heappush(self._free, slot)
