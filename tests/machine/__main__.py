"""The long form: python -m tests.machine [EXAMPLES]."""

from __future__ import annotations

import sys
import time

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine.machine import Machine

LONG = 1000


def hold(examples: int) -> int:
    """Run examples until so many have held, and say how many were run.

    Raises what the first that fails raises, once it is as small as can be.
    """
    before, begun = (Machine.examples, Machine.steps), time.monotonic()
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    run, steps = Machine.examples - before[0], Machine.steps - before[1]
    print(f"{run} examples with {steps} steps held in {time.monotonic() - begun:.0f} s")
    return run


if __name__ == "__main__":
    hold(int(sys.argv[1]) if len(sys.argv) > 1 else LONG)
