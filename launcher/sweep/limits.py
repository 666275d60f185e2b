"""What a sweep may use at most, against its own limits and those of its points."""

from __future__ import annotations

from launcher import supervise
from launcher.errors import PreflightError
from launcher.plan.words import beyond_limit
from launcher.sweep.model import SweepPlan


def beyond(plan: SweepPlan) -> list[str]:
    """Common limits that the worst case of a sweep breaks, one line each."""
    worst, settings = plan.worst_case(), plan.settings
    cases = (
        ("sweep.max_cost_usd", worst.usd, settings.max_cost_usd, "USD"),
        ("sweep.max_gpu_hours", worst.gpu_hours, settings.max_gpu_hours, "GPU hours"),
    )
    return [
        beyond_limit(key, used, most, unit)
        for key, used, most, unit in cases
        if used is not None and most is not None and used > most
    ]


def refuse_beyond_budget(plan: SweepPlan, *, yes: bool) -> None:
    """Raises PreflightError for a bound that cannot be kept or, unless `yes`, that the worst case breaks."""
    problems = [] if yes else beyond(plan)
    if plan.settings.max_cost_usd is not None and plan.worst_case().usd is None and not _is_metered(plan):
        problems.append("sweep.max_cost_usd: no price is known; set execution.usd_per_gpu_hour, or prices of shapes")
    for point in plan.examples:
        try:
            supervise.refuse_beyond_budget(point.plan, yes=yes)
        except PreflightError as error:
            problems += [f"point {point.number} ({point.words}): {problem}" for problem in error.problems]
    if problems:
        raise PreflightError(problems)


def _is_metered(plan: SweepPlan) -> bool:
    endpoints = [endpoint for point in plan.examples for endpoint in point.plan.endpoints]
    return bool(endpoints) and all(endpoint.is_metered for endpoint in endpoints)
