"""What is checked of a plan whatever its platform says; a dry run loads nothing that would run it."""

from __future__ import annotations

from launcher.config.export import Export, chosen
from launcher.errors import PreflightError
from launcher.notify import Notifier
from launcher.orchestrator import budget
from launcher.plan.model import Plan
from launcher.platforms.base import BUDGET, Check, CheckState


def own_checks(plan: Plan) -> list[Check]:
    """What keeps a plan from running whatever the platform says: its own limits, and addresses for messages."""
    problems = [(BUDGET, problem) for problem in (*budget.unkeepable(plan), *budget.beyond(plan))]
    problems += [("export", problem) for problem in _unexportable(plan.export_config())]
    try:
        Notifier(plan.notify_config(), plan.invocation)
    except PreflightError as error:
        problems += [("notify", problem) for problem in error.problems]
    return [Check(name, CheckState.PROBLEM, problem) for name, problem in problems]


def _unexportable(export: Export) -> list[str]:
    """What keeps exporters from working; without any, the room of results need not be loaded."""
    if not chosen(export):
        return []
    from launcher.results.exporters import registry

    return registry.problems(export)
