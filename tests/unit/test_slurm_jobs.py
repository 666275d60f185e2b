"""What is told of a batch job, from what squeue and its own record say."""

from __future__ import annotations

import json

import pytest

from launcher.platforms.base import Resource, ResourceState
from launcher.platforms.slurm import archive
from launcher.platforms.slurm.jobs import RECORD_LAG, BatchJob, Parts
from launcher.platforms.slurm.platform import after
from launcher.platforms.slurm.queue import QueuedJob

NAME, JOB = "vllm-gsm8k-0-a1b2c3d4", "eval-gsm8k-0-a1b2c3d4"
EVALUATING = '@nv-eval {"event": "phase", "phase": "evaluating", "detail": "gsm8k"}'


def told(
    state: str | None,
    *,
    reason: str = "",
    record: str = "",
    events: tuple[str, ...] = (),
    now: float = 0.0,
    **files: str,
) -> tuple[Resource, Resource]:
    """Endpoint and evaluation of one batch job that holds both."""
    job = BatchJob(NAME, Parts(NAME, JOB))
    queued = QueuedJob(id=7, name=NAME, states=(state,), reason=reason) if state else None
    lines = {"id": ["nonce 7"], "events": list(events), **{name: [text] for name, text in files.items()}}
    if record:
        lines["ended"] = ["job=7", *record.split()]
    job.take(queued, lines, 0.0)
    job.take(queued, lines, now)
    found = dict(job.resources(now))
    return found["endpoint"], found["job"]


def test_one_that_waits_says_for_what() -> None:
    endpoint, job = told("PENDING", reason="Resources")

    assert (endpoint.state, endpoint.detail, endpoint.fatal) == (
        ResourceState.PENDING,
        "Resources: waits for free nodes",
        False,
    )
    assert job.state is ResourceState.PENDING


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("PENDING", "DependencyNeverSatisfied"),
        ("PENDING", "JobHoldMaxRequeue"),
        ("PENDING", "PartitionTimeLimit"),
        ("REQUEUE_HOLD", ""),
        ("SPECIAL_EXIT", ""),
    ],
)
def test_one_that_can_never_start_is_fatal(state: str, reason: str) -> None:
    endpoint, _ = told(state, reason=reason)

    assert endpoint.fatal
    assert (reason or state) in endpoint.detail


def test_its_own_end_counts_before_slurm_says_so() -> None:
    end = '@nv-eval {"event": "end", "reason": "completed", "detail": "", "data": {}}'

    endpoint, job = told("RUNNING", record="why=done client=0", events=(EVALUATING, end))

    assert (job.state, job.exit_code) == (ResourceState.SUCCEEDED, 0)
    assert job.end is not None and job.end.reason == "completed"
    assert endpoint.state is ResourceState.RUNNING, "nothing shows that the server died"


def test_a_runner_that_was_told_to_stop_has_not_ended_the_task_while_the_job_goes_on() -> None:
    end = '@nv-eval {"event": "end", "reason": "stopped", "detail": "stopped", "data": {}}'

    _, job = told("PENDING", reason="BeginTime", events=(EVALUATING, end))

    assert (job.state, job.end) == (ResourceState.PENDING, None)
    assert job.progress is not None and job.progress.phase == "evaluating"


def test_a_server_that_ended_first_has_failed() -> None:
    endpoint, job = told("FAILED", record="why=server server=137 client=", events=(EVALUATING,))

    assert (endpoint.state, endpoint.exit_code, endpoint.detail) == (
        ResourceState.FAILED,
        137,
        "exited with code 137",
    )
    assert job.end is None


@pytest.mark.parametrize(
    ("state", "reason", "preempted"),
    [
        ("TIMEOUT", "harness_timeout", False),
        ("DEADLINE", "harness_timeout", False),
        ("CANCELLED", "stopped", False),
        ("NODE_FAIL", None, False),
        ("BOOT_FAIL", None, False),
        ("PREEMPTED", None, True),
    ],
)
def test_an_end_without_a_record_is_what_slurm_says(state: str, reason: str | None, preempted: bool) -> None:
    endpoint, job = told(state)

    assert job.state is ResourceState.FAILED
    assert (job.end.reason if job.end else None, job.preempted) == (reason, preempted)
    assert state in job.detail
    assert endpoint.state is ResourceState.RUNNING


def test_out_of_memory_is_the_servers_end() -> None:
    endpoint, _ = told("OUT_OF_MEMORY")

    assert endpoint.state is ResourceState.FAILED
    assert "out of memory" in endpoint.detail and "execution.memory_gib" in endpoint.detail


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("spent", "execution.times.total"),
        ("timeout", "execution.times.limit"),
        ("cancelled", "scancel"),
        ("no_python", "execution.prologue"),
    ],
)
def test_the_record_says_why(why: str, said: str) -> None:
    _, job = told("COMPLETED", record=f"why={why}")

    assert job.end is not None and said in job.end.detail


def test_a_record_that_a_slow_file_system_does_not_show_yet_is_waited_for() -> None:
    _, before = told("COMPLETED", now=RECORD_LAG - 1)
    _, after = told("COMPLETED", now=RECORD_LAG + 1)

    assert (before.state, after.state) == (ResourceState.RUNNING, ResourceState.FAILED)


def test_a_record_of_an_earlier_job_of_the_same_name_says_nothing() -> None:
    job = BatchJob(NAME, Parts(NAME, JOB))
    job.take(QueuedJob(id=9, name=NAME, states=("RUNNING",)), {"ended": ["job=7", "why=done", "client=0"]}, 0.0)

    assert dict(job.resources(0.0))["job"].state is ResourceState.RUNNING


def test_gone_is_what_slurm_confirms() -> None:
    job = BatchJob(NAME, Parts(NAME, JOB), leaving=True)
    job.take(QueuedJob(id=7, name=NAME, states=("COMPLETING", "CANCELLED")), {}, 0.0)
    before = dict(job.resources(0.0))["endpoint"].state
    job.take(QueuedJob(id=7, name=NAME, states=("CANCELLED",)), {}, 1.0)

    assert (before, dict(job.resources(1.0))["endpoint"].state) == (ResourceState.RUNNING, ResourceState.GONE)


def test_it_has_cost_what_it_ran_and_not_what_it_waited() -> None:
    waiting, _ = told("PENDING", reason="Priority")
    running, _ = told("RUNNING", spent="95")

    assert (waiting.ran, running.ran) == (0.0, 95.0)


def test_an_endpoint_that_does_not_answer_is_told_by_what_asked_it() -> None:
    said = '@nv-eval {"event": "end", "reason": "endpoint_start_timeout", "detail": "GET /health: refused", "data": {}}'
    job = BatchJob(NAME, Parts(NAME))
    files = {"id": ["nonce 7"], "events": [said], "ended": ["job=7", "why=unready", "client=10"]}
    job.take(QueuedJob(id=7, name=NAME, states=("FAILED",)), files, 0.0)

    assert dict(job.resources(0.0))["endpoint"].state is ResourceState.RUNNING, "its own end would say less"
    assert job.asked.end is not None and job.asked.end.reason == "endpoint_start_timeout"


@pytest.mark.parametrize(
    ("state", "files", "said"),
    [
        ("CANCELLED", {}, "cancelled from outside"),
        ("TIMEOUT", {}, "at its time limit"),
        ("CANCELLED", {"ended": ["job=7", "why=cancelled"]}, "scancel"),
        ("PREEMPTED", {}, "job of higher priority"),
    ],
)
def test_an_endpoint_alone_has_failed_when_its_batch_job_has_ended(
    state: str, files: dict[str, list[str]], said: str
) -> None:
    job = BatchJob(NAME, Parts(NAME))
    job.take(QueuedJob(id=7, name=NAME, states=(state,)), {"id": ["nonce 7"], **files}, 0.0)

    endpoint = dict(job.resources(0.0))["endpoint"]

    assert endpoint.state is ResourceState.FAILED and said in endpoint.detail
    assert endpoint.preempted == (state == "PREEMPTED")


@pytest.mark.parametrize(
    ("options", "dependency"),
    [
        (["--nodes=1"], "after:5,after:6"),
        (["--dependency=afterok:1"], "afterok:1,after:5,after:6"),
    ],
)
def test_a_batch_job_begins_after_those_of_its_auxiliary_endpoints(options: list[str], dependency: str) -> None:
    assert after(options, ["5", "6"])[-1] == f"--dependency={dependency}"
    assert after(options, []) == options


def test_a_record_of_an_array_is_that_of_its_own_element() -> None:
    job = BatchJob(NAME, Parts(NAME, JOB))
    queued = QueuedJob(id=12, index=3, name=NAME, states=("RUNNING",))
    job.take(queued, {"id": ["nonce 12_3"], "ended": ["job=12_1", "why=done", "client=0"]}, 0.0)
    another = dict(job.resources(0.0))["job"]
    job.take(queued, {"id": ["nonce 12_3"], "ended": ["job=12_3", "why=done", "client=0"]}, 0.0)

    assert (another.state, another.id) == (ResourceState.RUNNING, "12_3")
    assert dict(job.resources(0.0))["job"].state is ResourceState.SUCCEEDED


def test_names_of_arrays_are_read_in_their_order() -> None:
    text = "jobs/x/id\0n 12_0\narrays/77aa/names\0a t0\narrays/77aa/names\0b t 1\n"

    assert archive.arrays(text, "a1b2c3d4") == {"array-77aa-a1b2c3d4": ["a", "b"]}
    assert archive.records(text) == {"x": {"id": ["n 12_0"]}}


def test_records_are_read_by_job_and_file() -> None:
    text = f"jobs/{NAME}/ended\0job=7\njobs/{NAME}/ended\0why=done\njobs/{NAME}/events\0{json.dumps({'a': 1})}\nnoise\n"

    assert archive.records(text) == {NAME: {"ended": ["job=7", "why=done"], "events": ['{"a": 1}']}}
