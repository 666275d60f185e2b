"""Plans of endpoints that are kept for the points of a sweep."""

from __future__ import annotations

import dataclasses
import time

from launcher.config import Request, typed
from launcher.config.compose import compose
from launcher.config.deployment import LONGEST_LIFE
from launcher.plan.endpoint import build
from launcher.plan.model import Plan
from launcher.results.write import config_folder

SLACK = 600.0
"""Seconds beyond all time-outs that an endpoint is kept before it ends by itself."""


def plan_to_keep(plan: Plan, *, scope: str, uses: int) -> Plan:
    """The plan of an endpoint like those of another plan, for `uses` tasks one after another at most.

    It ends by itself when all of them could have run into their time-outs, should nobody end it before.
    """
    with config_folder(plan) as folder:
        request = Request(name="config", config_dir=str(folder))
        config = typed(compose(request), request)
    first = plan.tasks[0].target
    longest = max(task.job.timeout for task in plan.tasks)
    ttl = min(
        first.start_timeout + first.health_timeout + max(uses, 1) * longest * plan.max_attempts + SLACK, LONGEST_LIFE
    )
    made = build(config, ttl=ttl, now=time.time())
    return dataclasses.replace(made, scope=scope, max_duration=None, max_cost_usd=None, max_gpu_hours=None)
