"""Bring home what a task leaves behind: scores of a completed job, evidence of any other end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from launcher.errors import LauncherError, ResultsError
from launcher.harnesses import load_harness
from launcher.harnesses.spec import Score
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.retry import diagnosed
from launcher.orchestrator.state import Evidence, TaskState
from launcher.plan.model import TaskPlan
from launcher.platforms.base import Platform
from launcher.platforms.kept import SCORES
from launcher.platforms.progress import readable

TAIL_LINES = 20
"""Lines of a log that are kept as evidence of a failure."""
LOGS = ("endpoint.log", "job.log")
_PARSING = threading.Lock()
"""Held while results are parsed: two threads that decode a type for the first time at once crash in msgspec 0.22."""


async def collect(platform: Platform, task: TaskState, folder: Path, auxiliary: Sequence[TaskState] = ()) -> None:
    """Scores, or the reason why there are none with the last lines of the logs. `folder` is the task's.

    Whatever is wrong with the scores becomes the task's reason. `auxiliary`: endpoints that the task uses beside its
    own, whose last lines tell of an end that is theirs.
    """
    if task.reason is Reason.COMPLETED:
        try:
            await _fetch_scores(platform, task, folder)
        except ResultsError as error:
            task.reason, task.detail = Reason.RESULTS_INVALID, str(error)
        except (LauncherError, OSError) as error:
            task.reason, task.detail = Reason.RESULTS_NOT_FETCHED, str(error)
        except Exception as error:  # a defect in reading one task's results is that task's alone
            task.reason, task.detail = Reason.LAUNCHER_ERROR, f"{type(error).__name__}: {error}"
    if task.reason is not None and task.reason is not Reason.COMPLETED:
        task.evidence = await _evidence(platform, task, auxiliary)
        task.reason = diagnosed(task.reason, task.detail, task.evidence.endpoint)
    task.collected = True


async def _fetch_scores(platform: Platform, task: TaskState, folder: Path) -> None:
    await platform.fetch(task.plan, folder / "output")
    scores = await asyncio.to_thread(_parse, task.plan, folder / "output")
    await asyncio.to_thread(
        folder.mkdir, parents=True, exist_ok=True
    )  # nobody has made it where the platform keeps no logs
    (folder / SCORES).write_bytes(msgspec.json.format(msgspec.json.encode(scores)))
    task.scores = scores


def _parse(plan: TaskPlan, output: Path) -> list[Score]:
    with _PARSING:
        return load_harness(plan.harness).parse(output, plan.name, plan.settings)


async def _evidence(platform: Platform, task: TaskState, auxiliary: Sequence[TaskState]) -> Evidence:
    endpoint = task.plan.endpoint
    server = await _tail(platform, endpoint.name, TAIL_LINES) if endpoint and task.endpoint_wanted else []
    client = readable(await _tail(platform, task.plan.job.name, 10 * TAIL_LINES)) if task.job_wanted else []
    theirs = [line for one in auxiliary for line in await _last_words(platform, task, one)]
    return Evidence(endpoint=tuple(server), job=tuple(client[-TAIL_LINES:]), auxiliary=tuple(theirs))


async def _last_words(platform: Platform, task: TaskState, auxiliary: TaskState) -> Sequence[str]:
    """The last lines of the auxiliary endpoint that a task has ended for, read before they go with it."""
    is_cause = task.reason in (Reason.AUXILIARY_FAILED, Reason.AUXILIARY_DIED)
    endpoint = auxiliary.plan.endpoint
    if endpoint is None or not is_cause or not task.detail.startswith(f"{auxiliary.plan.key}:"):
        return ()
    return auxiliary.evidence.endpoint or await _tail(platform, endpoint.name, TAIL_LINES)


async def _tail(platform: Platform, name: str, lines: int) -> list[str]:
    try:
        return await platform.tail(name, lines)
    except Exception as error:  # whatever is wrong with a log keeps no endpoint alive
        return [f"(its log cannot be read: {error or type(error).__name__})"]


def put_away(folder: Path, attempt: int) -> None:
    """Keep the logs of an attempt that is followed by another: they go to `attempts/N` in the task's folder."""
    kept = folder / "attempts" / str(attempt)
    for name in LOGS:
        if (folder / name).is_file():
            kept.mkdir(parents=True, exist_ok=True)
            (folder / name).replace(kept / name)
