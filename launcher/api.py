"""The public Python API; the command line is built on it.

from launcher import load_config, plan, run, results

config = load_config("default", overrides=["evaluation.limit=5"])
outcome = run(plan(config))
print(results(outcome.invocation))
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from launcher.config import Config
    from launcher.orchestrator.run import Watcher
    from launcher.orchestrator.state import RunOutcome
    from launcher.orchestrator.status import RunStatus
    from launcher.plan.model import Plan
    from launcher.platforms.base import Check
    from launcher.results.model import Record


def load_config(
    name: str = "default",
    *,
    overrides: Sequence[str] = (),
    config_dir: str | None = None,
    config_path: str | None = None,
) -> Config:
    """Compose and validate a config.

    `overrides` are in Hydra's grammar, as on the command line. Raises ConfigError.
    """
    from launcher.config import Request, load

    return load(Request(name=name, overrides=tuple(overrides), config_dir=config_dir, config_path=config_path))


def plan(config: Config, *, invocation: str | None = None) -> Plan:
    """Everything a run of this config will create, with a fresh invocation id unless one is given.

    Raises ConfigError where parts of the config contradict each other.
    """
    from launcher.plan.build import build

    return build(config, invocation)


def preflight(plan: Plan) -> list[Check]:
    """Checks of the plan against the platform. Reads only; what cannot be checked is in the list as skipped."""
    from launcher.errors import PreflightError
    from launcher.platforms import open_platform
    from launcher.platforms.base import Check, CheckState

    async def check() -> list[Check]:
        platform = open_platform(plan.execution_config())
        try:
            return await platform.preflight(plan)
        finally:
            await platform.close()

    try:
        return asyncio.run(check())
    except PreflightError as error:
        return [Check(f"execution {plan.execution}", CheckState.SKIPPED, str(error))]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A run that has ended: its id, its folder, its record, and the exit code of the command line."""

    invocation: str
    folder: Path
    record: Record
    outcome: RunOutcome

    @property
    def exit_code(self) -> int:
        """0 only if every task has scores and nothing is left running."""
        return self.outcome.exit_code


def run(plan: Plan, *, watcher: Watcher | None = None) -> RunResult:
    """Run a plan to its end and tear everything down; blocks. SIGINT, SIGTERM and SIGHUP end it cleanly.

    Tasks that fail do not raise: they are in the result, each with its reason.

    Raises:
        PreflightError: the plan cannot run here; nothing was created.
        LauncherError: the state folder or the results folder cannot be written; nothing was created.
    """
    return asyncio.run(_run(plan, watcher))


async def _run(plan: Plan, watcher: Watcher | None) -> RunResult:
    from launcher.errors import LauncherError, PreflightError
    from launcher.orchestrator.journal import Journal
    from launcher.orchestrator.run import Run
    from launcher.orchestrator.signals import handled
    from launcher.platforms import open_platform
    from launcher.platforms.base import CheckState
    from launcher.results import write

    platform = open_platform(plan.execution_config())
    problems = [c.message for c in await platform.preflight(plan) if c.state is CheckState.PROBLEM]
    if problems:
        await platform.close()
        raise PreflightError(problems)
    live = Run(plan, platform, Journal.default(), watcher=watcher)
    try:
        write.begin(plan, live.folder)
    except OSError as error:
        raise LauncherError(
            f"{live.folder}: cannot write results: {error.strerror}; set execution.output_dir"
        ) from None
    with handled(live):
        outcome = await live.run()
    record = write.finish(plan, outcome, live.folder)
    return RunResult(invocation=plan.invocation, folder=live.folder, record=record, outcome=outcome)


def status(invocation: str) -> RunStatus:
    """State of an invocation by id or unique prefix. Raises NotFound."""
    from launcher.orchestrator.journal import Journal
    from launcher.orchestrator.status import of

    journal = Journal.default()
    return of(journal, journal.find(invocation))


def record(invocation: str) -> Record:
    """Everything results.json holds, by id or unique prefix, or by the path of the invocation's folder."""
    from launcher.orchestrator.journal import Journal
    from launcher.results import read

    folder = Path(invocation)
    if (folder / "plan.json").is_file():
        return read.load(folder)
    return read.load(Path(Journal.default().find(invocation).folder))


def results(*invocations: str) -> pd.DataFrame:
    """The scores table of one or several invocations: a row for each task, metric and filter.

    Columns are those of `launcher.results.table.COLUMNS`. Raises NotFound.
    """
    from launcher.results.table import frame

    return frame([record(invocation) for invocation in invocations])
