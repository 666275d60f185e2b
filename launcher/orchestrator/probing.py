"""Ask endpoints ourselves, before their jobs start: the barrier of `start_jobs: all_ready` waits for the answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial

from launcher.orchestrator.state import TaskState
from launcher.plan.addressing import addressed
from launcher.plan.document import job_document
from launcher.platforms.base import Answering, RunnerEnd
from launcher.platforms.secrets import Secrets
from launcher.runner import runner

EndpointProblem, Ending = runner.EndpointProblem, runner.Ending


class Probes:
    """The probes under way, each in a thread of its own."""

    def __init__(self, invocation: str, platform: object = None) -> None:
        """`platform`: the one that has the endpoints, which may ask them itself."""
        self._invocation = invocation
        self._platform = platform
        self._stops: dict[str, threading.Event] = {}
        self._asking: dict[str, asyncio.Future[RunnerEnd]] = {}

    async def answers(self, task: TaskState, say: Callable[[str, str], None] = lambda *_: None) -> None:
        """Ask a task's endpoint until it answers, or `stop` is called. Raises EndpointProblem.

        `say` is told, in another thread, of every phase and of what is not right yet.
        """
        if isinstance(self._platform, Answering):
            await self._asked_there(self._platform, task, say)
            return
        plan = addressed(task.plan, task.model)
        url = plan.target.url or task.url or ""
        document = job_document(self._invocation, plan, url=url, output_dir="", work_dir="")
        reference = plan.target.api_key
        key = Secrets().resolve(reference) if reference else None
        target, stop = runner.Target.from_document(document["target"]), threading.Event()
        self._stops[task.plan.key] = stop
        await in_thread(partial(runner.wait_ready, target, say, key=key, stop=stop))

    async def _asked_there(self, platform: Answering, task: TaskState, say: Callable[[str, str], None]) -> None:
        """The same by what runs beside the endpoint."""
        assert task.plan.endpoint is not None
        asking = asyncio.ensure_future(platform.answers(task.plan.endpoint.name, say))
        self._asking[task.plan.key] = asking
        try:
            await asyncio.wait({asking})
        finally:
            asking.cancel()
        if asking.cancelled():
            raise EndpointProblem(Ending.STOPPED, "stopped while waiting for the endpoint")
        end = asking.result()
        ending = next((known for known in Ending if known.reason == end.reason), Ending.ENDPOINT_NOT_SERVING)
        if ending is not Ending.COMPLETED:
            raise EndpointProblem(ending, end.detail)

    def stop(self, key: str) -> None:
        """End the probe of one task."""
        if key in self._asking:
            self._asking[key].cancel()
        if key in self._stops:
            self._stops[key].set()

    def stop_all(self) -> None:
        """End all probes."""
        for key in {*self._stops, *self._asking}:
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
