"""Every fault on every route, and many at once: what may go wrong, and what must be true at the end whatever did.

    python -m tests.e2e.lepton_faults --seeds 2000 --first 0

runs so many random combinations and says how many were tried.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher.emulators.common.clock import After
from launcher.emulators.common.faults import RouteFault
from launcher.emulators.lepton import (
    BadConfig,
    Config,
    Crash,
    DelayLogs,
    ErrorState,
    Fault,
    LoseAnswer,
    NoCapacity,
    Refuse,
    SlowAnswer,
    SlowDelete,
    SlowStart,
)
from launcher.emulators.lepton.config import Timing
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.state import RunOutcome
from launcher.plan.model import Plan
from launcher.platforms.base import CheckState
from tests.e2e.lepton import SCORES, Bench, job_output
from tests.e2e.lepton_virtual import virtual_bench
from tests.fakes.clock import run_virtual

TASKS = 3
HIT = 1
"""Number of the task whose endpoint and job faults of resources hit; its siblings never feel them."""
STORED = 2
"""Number of the task whose results come home through the storage routes."""
MOST = 3000.0
"""Virtual seconds after which a run is taken for one that never ends."""
ENDPOINT, JOB = f"container-t{HIT}-{HIT}-*", f"eval-t{HIT}-{HIT}-*"


def routes(*, new: bool) -> tuple[str, ...]:
    """Every route that a run with its preflight uses, as patterns."""
    base = "/endpoints" if new else "/deployments"
    why = ("events",) if new else ("readiness", "termination")
    return (
        *(f"GET /{name}" for name in ("workspace", "tokens", "dedicated-node-groups", "shapes")),
        *(f"GET /{name}" for name in ("usersecrets", "imagepullsecrets")),
        *(f"{method} {base}" for method in ("GET", "POST")),
        *(f"{method} {base}/container-*-???????[!/]" for method in ("GET", "DELETE")),
        *(f"GET {base}/*/{name}" for name in why),
        *("GET /jobs", "POST /jobs", "GET /jobs/*", "DELETE /jobs/*", "GET /logs"),
        *("GET /storage", "HEAD /storage/*", "PUT /storage/*", "GET /storage/*"),
    )


BURSTS: dict[str, Callable[[str], RouteFault]] = {
    "429 asks for patience": lambda route: Refuse(route=route, status=429, retry_after=3, times=4),
    "429 for half a minute": lambda route: Refuse(route=route, status=429, lasts=30.0),
    "500 three times": lambda route: Refuse(route=route, status=500, times=3),
    "503 for most of the deadline": lambda route: Refuse(route=route, status=503, lasts=40.0),
    "502 now and then": lambda route: Refuse(route=route, status=502, probability=0.3),
    "answers lost": lambda route: LoseAnswer(route=route, times=3),
    "answers lost now and then": lambda route: LoseAnswer(route=route, probability=0.3),
    "answers slow": lambda route: SlowAnswer(route=route, seconds=10.0, times=3),
    "answers too slow": lambda route: SlowAnswer(route=route, seconds=45.0, times=2),
}
"""Faults of one route that end in time: none of them may cost a score."""


@dataclass(frozen=True)
class Trouble:
    """Faults of resources, and how the task that they hit may end."""

    faults: tuple[Fault, ...]
    ends: frozenset[Reason] = frozenset({Reason.COMPLETED})
    detail: str = ""
    within: float = float("inf")
    """Seconds from the creation of its endpoint to its end."""


def trouble(*faults: Fault, ends: Reason = Reason.COMPLETED, detail: str = "", within: float = 1e9) -> Trouble:
    return Trouble(faults, frozenset({ends}), detail, within)


_EXITED, _LOST, _LATE = Reason.ENDPOINT_EXITED, Reason.JOB_LOST, Reason.ENDPOINT_START_TIMEOUT
PASSING: dict[str, Trouble] = {
    "a slow node": trouble(SlowStart(resource=ENDPOINT, after=After(seconds=60))),
    "a node after many looks": trouble(SlowStart(resource=ENDPOINT, after=After(reads=20))),
    "no capacity for a minute": trouble(NoCapacity(resource=ENDPOINT, seconds=60)),
    "queued for a minute": trouble(NoCapacity(resource=ENDPOINT, seconds=60, queueing=True)),
    "a job queued for a minute": trouble(NoCapacity(resource=JOB, seconds=60, queueing=True)),
    "two crashes": trouble(Crash(resource=ENDPOINT, times=2, exit_code=137)),
    "a slow deletion": trouble(SlowDelete(resource=ENDPOINT, after=After(seconds=60))),
    "a deletion after many looks": trouble(SlowDelete(resource="*", after=After(reads=10))),
    "a slow deletion of a job": trouble(SlowDelete(resource=JOB, after=After(seconds=60))),
    "deletion refused 409": trouble(Refuse(route="DELETE *", resource=ENDPOINT, status=409, times=5)),
    "deletion refused 500": trouble(Refuse(route="DELETE *", resource=ENDPOINT, status=500, times=12)),
    "deletion of a job refused": trouble(Refuse(route="DELETE *", resource=JOB, status=409, times=5)),
    "the name is held": trouble(Refuse(route="POST *", resource=ENDPOINT, status=409, times=20)),
    "late logs": trouble(DelayLogs(resource=JOB, seconds=20)),
}
FAILING: dict[str, Trouble] = {
    "config error": trouble(
        BadConfig(resource=ENDPOINT, message="secret x not found"), ends=_EXITED, detail="secret x not found", within=15
    ),
    "system error": trouble(
        BadConfig(resource=ENDPOINT, reason="SystemError", message="disk"), ends=_EXITED, detail="disk", within=15
    ),
    "no such image": trouble(
        BadConfig(resource=ENDPOINT, message="ErrImagePull: manifest unknown"),
        ends=_EXITED,
        detail="the image cannot be pulled",
        within=15,
    ),
    "error": trouble(ErrorState(resource=ENDPOINT), ends=_EXITED, detail="error", within=15),
    "crash loop": trouble(Crash(resource=ENDPOINT, exit_code=137), ends=_EXITED, detail="crashed", within=30),
    "gated model": trouble(
        Crash(resource=ENDPOINT, message="OSError: You are trying to access a gated repo. 401 Client Error"),
        ends=_EXITED,
        detail="the model is gated",
        within=15,
    ),
    "no capacity ever": trouble(NoCapacity(resource=ENDPOINT), ends=_LATE, detail="no capacity in the node group"),
    "queued for ever": trouble(NoCapacity(resource=ENDPOINT, queueing=True), ends=_LATE, detail="queued for quota"),
    "create refused": trouble(
        Refuse(route="POST *", resource=ENDPOINT, status=400, message="too much"),
        ends=Reason.ENDPOINT_NOT_CREATED,
        detail="too much",
        within=2,
    ),
    "the job is refused": trouble(
        Refuse(route="POST *", resource=JOB, status=400, message="too much"),
        ends=Reason.JOB_NOT_SUBMITTED,
        detail="too much",
    ),
    "the job cannot start": trouble(BadConfig(resource=JOB, message="no such image"), ends=_LOST, detail="no such ima"),
    "the job dies": trouble(Crash(resource=JOB, exit_code=137, message="Killed"), ends=_LOST, detail="137"),
}
"""Faults that cost the one score, with the reason and what must be told of it."""

CONFIG = Config(
    timing=Timing(tick=0.25, endpoint_delete=After(seconds=2)),
    secrets={"my-hf": "hf_value_of_the_secret"},
    image_pull_secrets=("ngc",),
)


def config(*faults: Fault, new: bool, seed: int = 0) -> Config:
    """A workspace with everything that a run may use."""
    return replace(CONFIG, faults=faults, new_deployment_api=new, seed=seed)


async def one_run(folder: Path, workspace: Config) -> tuple[Bench, Plan, RunOutcome, list[str]]:
    """Preflight and a run of three tasks; returns what preflight found wrong, too."""
    async with virtual_bench(folder, workspace, boots=lambda _: 12.0, lasts=lambda number: 20.0 + number) as made:
        plan = made.plan(
            TASKS,
            deployment={
                "envs": {"HF_TOKEN": {"secret": "my-hf"}},
                "start_timeout": 300,
                "health_timeout": 60,
            },
            image_pull_secrets=["ngc"],
        )
        made.output = lambda number: _output(made, plan, number)
        made.chance = random.Random(workspace.seed)
        platform = made.open(plan)
        problems = [c.message for c in await platform.preflight(plan) if c.state is CheckState.PROBLEM]
        await platform.close()
        outcome = await asyncio.wait_for(made.run(plan), MOST)
        return made, plan, outcome, problems


def _output(made: Bench, plan: Plan, number: int) -> str:
    """What a job prints; one leaves its results on the storage."""
    if number != STORED:
        return job_output()
    folder = made.emulator.volume() / "nemo-evaluator-launcher-workspace" / plan.invocation / f"t{number}"
    made.store(folder, {"results.json": SCORES})
    return job_output(not_printed=True)


def run_one(folder: Path, workspace: Config) -> tuple[Bench, Plan, RunOutcome, list[str]]:
    """`one_run`, on a virtual clock."""
    return run_virtual(one_run(folder, workspace))


def check_end(made: Bench, outcome: RunOutcome) -> None:
    """What must be true whatever went wrong: nothing of ours exists or is billed, nothing was made twice."""
    state = made.emulator.state()
    assert outcome.leftovers == [], outcome.leftovers
    assert state.alive == (), f"left: {[item.name for item in state.alive]}"
    for items in (state.endpoints, state.jobs):
        names = [item.name for item in items]
        assert len(names) == len(set(names)), f"created twice: {names}"
    assert made.emulator.open_charges() == [], "still billed"
    for task in outcome.tasks:
        scored = [score.value for score in task.scores] == [0.5]
        assert scored == (task.reason is Reason.COMPLETED), task
        assert scored or (task.detail and task.reason is not Reason.LAUNCHER_ERROR), task


# --- random combinations ----------------------------------------------------------------------------------------------


def combination(seed: int) -> tuple[Config, frozenset[Reason]]:
    """A few faults at once, all of which pass but at most one of a resource; and how the task hit may end."""
    dice = random.Random(seed)
    new = dice.random() < 0.5
    faults: list[Fault] = []
    for _ in range(dice.randint(1, 4)):
        name, route = dice.choice(list(BURSTS)), dice.choice(routes(new=new))
        faults.append(replace(BURSTS[name](route), skip=dice.choice((0, 0, 1, 3))))
    chosen = dice.choice(list(PASSING.values()) * 2 + list(FAILING.values()))
    ends = chosen.ends
    faults += [replace(fault) for fault in chosen.faults]
    dice.shuffle(faults)
    return config(*faults, new=new, seed=seed), ends


def try_seed(seed: int, folder: Path) -> None:
    """One random combination. Raises AssertionError."""
    workspace, ends = combination(seed)
    made, _, outcome, _ = run_one(folder, workspace)
    try:
        check_end(made, outcome)
        reasons = [task.reason for task in outcome.tasks]
        assert reasons[HIT] in ends, outcome.tasks[HIT]
        assert [r for i, r in enumerate(reasons) if i != HIT] == [Reason.COMPLETED] * (TASKS - 1), outcome.tasks
    except AssertionError as error:
        faults = "\n  ".join(map(repr, workspace.faults))
        raise AssertionError(f"seed {seed}, new family: {workspace.new_deployment_api}\n  {faults}\n{error}") from error


def main(arguments: list[str] | None = None) -> int:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    wanted = parser.parse_args(arguments)
    began, failed = time.monotonic(), 0
    for seed in range(wanted.first, wanted.first + wanted.seeds):
        with tempfile.TemporaryDirectory() as folder:
            try:
                try_seed(seed, Path(folder))
            except AssertionError as error:
                failed += 1
                print(error, flush=True)
    print(f"{wanted.seeds} combinations tried in {time.monotonic() - began:.0f} s, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())


__all__: list[Any] = ["BURSTS", "FAILING", "PASSING", "check_end", "run_one", "try_seed"]
