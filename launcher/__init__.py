"""nv-eval: put a model on GPUs, run benchmarks against it, bring home scores, leave nothing running.

load_config  compose and validate a config
plan         everything that a run of it will create
preflight    check a plan against this machine or platform, creating nothing
run          run a plan to its end; the result has the record and the exit code
status       state of an invocation
record       everything that an invocation brought home
results      scores of invocations as a data frame
compare      is a run better than another, or is it chance
gate         may a run replace another, by a policy
report       runs as one file to read and to pass on
plan_sweep   every point of a sweep; run_sweep runs them, resume_sweep goes on, sweep_status tells

    from launcher import load_config, plan, results, run

    done = run(plan(load_config("default", overrides=["evaluation.limit=5"])))
    print(results(done.invocation))

Mistakes raise a LauncherError; its message says what to do.
"""

from __future__ import annotations

import sys
from types import ModuleType

TYPE_CHECKING = False  # as typing has it, which takes a third of a bare Python's time to load
if TYPE_CHECKING:
    from typing import Any

    from launcher.api import (
        compare,
        detach,
        gate,
        load_config,
        plan,
        plan_sweep,
        preflight,
        record,
        report,
        results,
        resume,
        resume_sweep,
        run,
        run_sweep,
        status,
        sweep_status,
    )
    from launcher.config import Config
    from launcher.errors import LauncherError
    from launcher.plan.model import Plan
    from launcher.supervise import RunResult

__version__ = "0.1.0"
__all__ = [
    "Config",
    "LauncherError",
    "Plan",
    "RunResult",
    "compare",
    "detach",
    "gate",
    "load_config",
    "plan",
    "plan_sweep",
    "preflight",
    "record",
    "report",
    "results",
    "resume",
    "resume_sweep",
    "run",
    "run_sweep",
    "status",
    "sweep_status",
]

_HOME = {
    "Config": "launcher.config",
    "LauncherError": "launcher.errors",
    "Plan": "launcher.plan.model",
    "RunResult": "launcher.supervise",
}


class _Api(ModuleType):
    """Public names load when they are used: `nv-eval --help` must not pay for Hydra and pandas.

    `plan` and `results` are functions here although rooms of the code have the same names; importing such a room
    would otherwise put the module in the function's place.
    """

    def __getattr__(self, name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'launcher' has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(_HOME.get(name, "launcher.api")), name)
        super().__setattr__(name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Api
