"""Which ends are tried again, when, and what an end really was."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.orchestrator.reasons import MEANINGS, Reason
from launcher.orchestrator.retry import FIRST_DELAY, LONGEST_DELAY, delay, diagnosed
from launcher.orchestrator.state import TaskState
from tests.unit.test_orchestrator_run import make_plan

AGAIN = {Reason.ENDPOINT_DIED, Reason.PREEMPTED, Reason.JOB_LOST, Reason.AUXILIARY_DIED}


def ended(folder: Path, reason: Reason | None, *, number: int = 1, again: bool = False) -> TaskState:
    return TaskState(plan=make_plan(folder, 1).tasks[0], reason=reason, attempt=number, again=again)


def test_only_ends_that_trying_again_can_mend_are_tried_again(tmp_path: Path):
    assert {reason for reason in Reason if delay(ended(tmp_path, reason), 2) is not None} == AGAIN
    assert {reason for reason, meaning in MEANINGS.items() if meaning.retry} == AGAIN


def test_a_task_gets_no_more_attempts_than_it_is_given(tmp_path: Path):
    assert delay(ended(tmp_path, Reason.PREEMPTED, number=3), 3) is None
    assert delay(ended(tmp_path, Reason.PREEMPTED, number=2), 3) is not None


def test_each_further_attempt_waits_longer_within_a_bound(tmp_path: Path):
    waits = [delay(ended(tmp_path, Reason.ENDPOINT_DIED, number=number), 99) for number in range(1, 9)]
    assert waits[:3] == [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY]
    assert waits[-1] == LONGEST_DELAY


@pytest.mark.parametrize("reason", [Reason.STOPPED, Reason.HARNESS_FAILED, Reason.ENDPOINT_OUT_OF_MEMORY])
def test_a_resume_gives_one_more_attempt_at_once_whatever_the_reason(tmp_path: Path, reason: Reason):
    assert delay(ended(tmp_path, reason, number=7, again=True), 1) == 0.0


@pytest.mark.parametrize("reason", [None, Reason.COMPLETED])
def test_what_has_scores_or_has_not_ended_is_not_tried_again(tmp_path: Path, reason: Reason | None):
    assert delay(ended(tmp_path, reason, again=True), 9) is None


@pytest.mark.parametrize(
    "line",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "ValueError: No available memory for the cache blocks.",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "state: OOMKilled",
    ],
)
def test_a_server_whose_log_speaks_of_memory_ran_out_of_it(line: str):
    for reason in (Reason.ENDPOINT_DIED, Reason.ENDPOINT_EXITED):
        assert diagnosed(reason, "exit code 137", ["INFO starting", line]) is Reason.ENDPOINT_OUT_OF_MEMORY
        assert diagnosed(reason, line, []) is Reason.ENDPOINT_OUT_OF_MEMORY
    assert diagnosed(Reason.PREEMPTED, "", [line]) is Reason.PREEMPTED


def test_a_server_that_died_of_something_else_died_of_that():
    log = ["INFO memory in use: 71 GiB", "RuntimeError: NCCL error"]
    assert diagnosed(Reason.ENDPOINT_DIED, "exit code 1", log) is Reason.ENDPOINT_DIED
