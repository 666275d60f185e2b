"""Ask endpoints ourselves, before their jobs start: the barrier of `start_jobs: all_ready` waits for the answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial

from launcher.orchestrator.state import TaskState
from launcher.plan.addressing import addressed
from launcher.plan.document import job_document
from launcher.platforms.secrets import Secrets
from launcher.runner import runner

EndpointProblem = runner.EndpointProblem


class Probes:
    """The probes under way, each in a thread of its own."""

    def __init__(self, invocation: str) -> None:
        self._invocation = invocation
        self._stops: dict[str, threading.Event] = {}

    async def answers(self, task: TaskState, say: Callable[[str, str], None] = lambda *_: None) -> None:
        """Ask a task's endpoint until it answers, or `stop` is called. Raises EndpointProblem.

        `say` is told, in another thread, of every phase and of what is not right yet.
        """
        plan = addressed(task.plan, task.model)
        url = plan.target.url or task.url or ""
        document = job_document(self._invocation, plan, url=url, output_dir="", work_dir="")
        reference = plan.target.api_key
        key = Secrets().resolve(reference) if reference else None
        target, stop = runner.Target.from_document(document["target"]), threading.Event()
        self._stops[task.plan.key] = stop
        await in_thread(partial(runner.wait_ready, target, say, key=key, stop=stop))

    def stop(self, key: str) -> None:
        """End the probe of one task."""
        if key in self._stops:
            self._stops[key].set()

    def stop_all(self) -> None:
        """End all probes."""
        for key in self._stops:
            self.stop(key)


async def in_thread(work: Callable[[], None]) -> None:
    """Run blocking work in a daemon thread of its own, which cannot hold up the end of the program."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if not done.done():
            done.set_exception(error) if error else done.set_result(None)

    def target() -> None:
        try:
            work()
        except BaseException as error:
            loop.call_soon_threadsafe(settle, error)
        else:
            loop.call_soon_threadsafe(settle, None)

    threading.Thread(target=target, daemon=True).start()
    await done
