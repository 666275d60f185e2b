"""The public Python API; the command line is built on it.

from launcher import load_config, plan, run, results

config = load_config("default", overrides=["evaluation.limit=5"])
outcome = run(plan(config))
print(results(outcome.invocation))
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from launcher.config import Config
    from launcher.orchestrator.blocking import Interrupts
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
    from launcher.errors import ConfigError

    try:
        return load(Request(name=name, overrides=tuple(overrides), config_dir=config_dir, config_path=config_path))
    except ConfigError as error:
        raise ConfigError([_without_command_line(problem) for problem in error.problems]) from None


def _without_command_line(problem: str) -> str:
    """A problem as said to a program, which has overrides and no command line."""
    return re.sub(r"^command line: ", "override: ", problem)


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

    try:
        platform = open_platform(plan.execution_config())
    except PreflightError as error:
        return [Check(f"execution {plan.execution}", CheckState.SKIPPED, str(error))]

    async def check() -> list[Check]:
        try:
            return await platform.preflight(plan)
        finally:
            await platform.close()

    from launcher.orchestrator.blocking import complete  # only now: it brings asyncio

    return complete(check())


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A run that has ended: its id, its folder, its record, and the exit code of the command line."""

    invocation: str
    folder: Path
    record: Record
    outcome: RunOutcome
    saved: bool = True
    """Whether results.json could be written."""

    @property
    def exit_code(self) -> int:
        """0 only if every task has scores, they are saved, and nothing is left running."""
        from launcher.errors import ResultsError

        return self.outcome.exit_code or (0 if self.saved else ResultsError.exit_code)


def run(plan: Plan, *, watcher: Watcher | None = None, say: Callable[[str], None] = lambda _: None) -> RunResult:
    """Run a plan, once, to its end and tear everything down; blocks. SIGINT, SIGTERM and SIGHUP end it cleanly.

    Where a loop runs already, as in Jupyter, the run has a thread of its own, in which it calls `watcher` and `say`.

    `watcher` sees every task whenever the world was looked at; `say` is told what a signal does.

    Tasks that fail do not raise: they are in the result, each with its reason.

    Raises:
        PreflightError: the plan cannot run here, or its results folder cannot be written; nothing was created.
        LauncherError: the plan has run already, or the state folder cannot be written; nothing was created.
    """
    from launcher.orchestrator.blocking import Interrupts, complete

    interrupts = Interrupts()
    return complete(_run(plan, watcher, say, interrupts), interrupts)


async def _run(plan: Plan, watcher: Watcher | None, say: Callable[[str], None], interrupts: Interrupts) -> RunResult:
    from launcher.errors import PreflightError
    from launcher.orchestrator.journal import Journal
    from launcher.orchestrator.run import Run
    from launcher.orchestrator.signals import handled, reaction
    from launcher.platforms import open_platform
    from launcher.platforms.base import CheckState
    from launcher.results import write

    platform = open_platform(plan.execution_config())
    checks = await platform.preflight(plan)
    problems = [check.message for check in checks if check.state is CheckState.PROBLEM]
    if problems:
        await platform.close()
        raise PreflightError(problems)
    for note in (check.message for check in checks if check.state is CheckState.NOTE):
        say(note)
    live = Run(plan, platform, Journal.default(), watcher=watcher)
    try:
        write.begin(plan, live.folder)
    except OSError as error:
        await platform.close()
        raise PreflightError(
            f"{live.folder}: cannot write results: {error.strerror}; set execution.output_dir"
        ) from None
    interrupts.react = reaction(live, say)
    with handled(live, say):
        outcome = await live.run()
    try:
        written = write.finish(plan, outcome, live.folder)
    finally:
        live.conclude(outcome)
    for problem in written.problems:
        say(problem)
    return RunResult(
        invocation=plan.invocation, folder=live.folder, record=written.record, outcome=outcome, saved=written.saved
    )


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
