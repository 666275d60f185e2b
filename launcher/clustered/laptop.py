"""What the machine does that began a run whose supervisor is in the cluster: hand over, look, stop, bring home."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from launcher.clustered import mirror
from launcher.config.execution import Kubernetes
from launcher.errors import LauncherError, Leftover, PlatformError, PreflightError
from launcher.orchestrator.blocking import complete
from launcher.orchestrator.journal import Fact, Invocation, Journal
from launcher.plan.model import Plan
from launcher.platforms import open_for
from launcher.platforms.base import CheckState
from launcher.platforms.home import write
from launcher.platforms.http import patience
from launcher.platforms.kubernetes.supervising import Seen, Supervised, opened, refuse
from launcher.supervise import begin, begin_folder, refuse_beyond_budget, stored_plan

START_TIME = 900.0
"""Seconds that the supervisor may take until it has taken over: an image is pulled, packages are installed."""
BEGUN_TIME = 120.0
"""Seconds after which a supervisor that is not there will not come."""
LOOK_TIME = 15.0
"""Seconds after which a cluster that nobody answers for is not asked on: whoever looks wants an answer."""
PAUSE = 0.3
STOP_PAUSE = 1.0
FACTS = "facts.json.gz"
"""What its journal says at the end, beside the results in what it brings."""
Say = Callable[[str], None]
T = TypeVar("T")


def detach(plan: Plan, *, yes: bool = False, say: Say = lambda _: None) -> str:
    """Run a plan by a supervisor in its cluster, which has taken over when this returns; returns the place.

    Raises PreflightError as `run` does, PlatformError if it does not take over; nothing is left running then.
    """
    refuse(plan)
    refuse_beyond_budget(plan, yes=yes)
    complete(_check(plan))
    begin_folder(plan, Path(plan.output_dir) / plan.invocation)
    journal = Journal.default()
    begin(plan, journal)
    return _hand_over(journal, plan, yes=yes, say=say)


def resume(invocation: str, *, change: Callable[[Plan], Plan], yes: bool = False, say: Say = lambda _: None) -> str:
    """Go on with such a run, whose journal is on the volume, by another supervisor in the cluster; returns the place.

    Raises LeaseHeld while one runs it, and as `detach` does.
    """
    from launcher.errors import LeaseHeld

    journal = Journal.default()
    found = journal.find(invocation)
    begun = stored_plan(journal, found)
    plan = change(begun)
    refuse(plan)
    refuse_beyond_budget(plan, yes=yes, accepted=begun)
    if journal.is_handed_over(found.id) and look(journal, found).job in ("pending", "running"):
        raise LeaseHeld(f"{found.id}: is being run in the cluster; see: nv-eval attach {found.id}")
    complete(_check(plan))
    folder = Path(plan.output_dir) / plan.invocation
    begin_folder(plan, folder)
    journal.replan(found.id, folder=str(folder), plan=msgspec.json.encode(plan))
    return _hand_over(journal, plan, yes=yes, say=say)


async def _check(plan: Plan) -> None:
    """Raises PreflightError with everything that keeps it from running."""
    platform = open_for(plan)
    try:
        checks = await platform.preflight(plan)
    finally:
        await platform.close()
    problems = [check.message for check in checks if check.state is CheckState.PROBLEM]
    async with opened(_config(plan), plan.invocation) as supervised:
        problems += await supervised.check()
    if problems:
        raise PreflightError(problems)


def _hand_over(journal: Journal, plan: Plan, *, yes: bool, say: Say) -> str:
    journal.record(plan.invocation, Fact.HANDED_OVER)
    life = secrets.token_hex(8)

    async def work(supervised: Supervised) -> str:
        try:
            mirror.hold(journal, plan.invocation, (), place=supervised.place)
            await supervised.start(plan, life=life, yes=yes)
            _note(journal, plan, await _taken_over(supervised, life, say), supervised.place)
        except BaseException:
            with contextlib.suppress(PlatformError):
                await asyncio.shield(supervised.remove())
            raise
        return supervised.place

    try:
        return _with(plan, work)
    except BaseException as error:
        code = error.exit_code if isinstance(error, LauncherError) else 130
        journal.record(plan.invocation, Fact.RUN_ENDED, exit_code=code, error=str(error))
        journal.record(plan.invocation, Fact.COME_HOME)
        mirror.forget_lease(journal, plan.invocation)
        raise


async def _taken_over(supervised: Supervised, life: str, say: Say) -> Seen:
    """How it is when the supervisor of this life has begun the run. Raises LauncherError if it will not."""
    deadline, said = time.monotonic() + START_TIME, ""
    while True:
        seen = await supervised.look()
        if seen.said.get("life") == life and (seen.has_ended or seen.said.get("state") == "running"):
            _refuse_failed(seen)
            return seen
        if seen.fatal or seen.job in ("ended", "gone"):
            raise PlatformError(
                f"the supervisor did not take over: {seen.detail or seen.job}; nothing was left running"
            )
        if time.monotonic() > deadline:
            raise PlatformError(f"the supervisor did not take over in {START_TIME:.0f} s: {seen.detail}")
        if seen.detail and seen.detail != said:
            said = seen.detail
            say(f"The supervisor {said}.")
        await asyncio.sleep(PAUSE)


def _refuse_failed(seen: Seen) -> None:
    """Raises the error that a supervisor ended with before it began."""
    if seen.said.get("error"):
        error = LauncherError(seen.said["error"])
        error.exit_code = int(seen.said.get("exit_code") or LauncherError.exit_code)
        raise error


# --- later ------------------------------------------------------------------------------------------------------------


def look(journal: Journal, invocation: Invocation) -> Seen:
    """See how a run is that was handed over, have the journal say the same, and bring home what has ended.

    Raises PlatformError if the cluster cannot be asked.
    """
    plan = stored_plan(journal, invocation)

    async def work(supervised: Supervised) -> Seen:
        with patience(LOOK_TIME):
            seen = await supervised.look()
        _note(journal, plan, seen, supervised.place)
        if seen.has_ended or seen.job == "gone":
            await _bring_home(journal, plan, supervised)
        return seen

    return _with(plan, work)


def _note(journal: Journal, plan: Plan, seen: Seen, place: str) -> None:
    """Have the journal say what was seen."""
    lives = seen.job in ("pending", "running")
    if seen.facts is not None:
        lives = lives and not seen.has_ended
        mirror.put(journal, plan.invocation, mirror.read(seen.facts), place=place, lives=lives)
    elif lives:
        why = f"its supervisor {seen.detail}" if seen.detail else "its supervisor starts"
        mirror.hold(journal, plan.invocation, [task.key for task in plan.tasks], place=place, why=why)
    else:
        mirror.forget_lease(journal, plan.invocation)


async def _bring_home(journal: Journal, plan: Plan, supervised: Supervised) -> None:
    """Take what the supervisor has left on the volume into the invocation's folder; then nothing of it is needed."""
    files = await supervised.bring()
    if files is None:
        handed = journal.last(plan.invocation, Fact.HANDED_OVER)
        if handed is not None and time.time() - handed.time > BEGUN_TIME:  # somebody has removed it
            journal.record(plan.invocation, Fact.COME_HOME)
        return
    snapshot = mirror.read(files.pop(FACTS))
    folder = Path(plan.output_dir) / plan.invocation
    begin_folder(plan, folder)
    await asyncio.to_thread(write, files, folder)
    mirror.put(journal, plan.invocation, snapshot, place=supervised.place, lives=False)
    journal.record(plan.invocation, Fact.COME_HOME)
    await supervised.remove()


def stop(journal: Journal, invocation: Invocation, deadline: float) -> bool:
    """Ask the supervisor to end, and wait until it has, and what it brings is home; false if there is none that could.

    `deadline` by the monotonic clock. Raises Leftover for what is still being torn down then.
    """
    seen = look(journal, invocation)
    if seen.job in ("pending", "running") and not seen.has_ended:
        _with(stored_plan(journal, invocation), lambda supervised: supervised.ask_to_stop())
    while journal.is_handed_over(invocation.id) and seen.job in ("pending", "running"):
        if time.monotonic() > deadline:
            raise Leftover(f"{invocation.id}: still tearing down; see: nv-eval status {invocation.id}")
        time.sleep(STOP_PAUSE)
        seen = look(journal, invocation)
    return journal.ended(invocation.id) is not None


def remove(journal: Journal, invocation: Invocation) -> None:
    """Delete what is left of a supervisor that is gone. Raises PlatformError."""
    _with(stored_plan(journal, invocation), lambda supervised: supervised.remove())
    journal.record(invocation.id, Fact.COME_HOME)


def fetch_logs(journal: Journal, invocation: Invocation) -> None:
    """Have the output of what runs in the invocation's folder, as it is now. Raises PlatformError."""
    plan = stored_plan(journal, invocation)
    files = dict(_log_files(journal, invocation))

    async def work(supervised: Supervised) -> None:
        for name, text in (await supervised.logs(files)).items():
            path = Path(invocation.folder) / files[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    _with(plan, work)


def _log_files(journal: Journal, invocation: Invocation) -> list[tuple[str, str]]:
    """Name of each endpoint and job that exists, and the file of its output."""
    kinds = {Fact.INTEND_CREATE_ENDPOINT: "endpoint.log", Fact.INTEND_SUBMIT_JOB: "job.log"}
    facts = [fact for fact in journal.facts(invocation.id) if fact.kind in kinds and fact.task]
    newest = {(fact.task, fact.kind): fact.name for fact in facts}
    return [(name, f"{task}/{kinds[kind]}") for (task, kind), name in newest.items()]


def _config(plan: Plan) -> Kubernetes:
    config = plan.execution_config()
    assert isinstance(config, Kubernetes)
    return config


def _with(plan: Plan, work: Callable[[Supervised], Awaitable[T]]) -> T:
    async def run() -> T:
        async with opened(_config(plan), plan.invocation) as supervised:
            return await work(supervised)

    return complete(run())
