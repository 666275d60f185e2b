"""Why a task ended: one enum, and for each reason its status, retry rule and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a task ended, in one word."""

    SCORED = "scored"
    FAILED = "failed"
    STOPPED = "stopped"


class Reason(StrEnum):
    """Why a task ended. The runner ends with the same words (RunnerEnd.reason)."""

    COMPLETED = "completed"
    ENDPOINT_NOT_CREATED = "endpoint_not_created"
    ENDPOINT_EXITED = "endpoint_exited"
    ENDPOINT_START_TIMEOUT = "endpoint_start_timeout"
    ENDPOINT_NOT_SERVING = "endpoint_not_serving"
    ENDPOINT_REFUSED = "endpoint_refused"
    MODEL_NOT_FOUND = "model_not_found"
    LOGLIKELIHOOD_UNSUPPORTED = "loglikelihood_unsupported"
    LOGLIKELIHOOD_WRONG = "loglikelihood_wrong"
    ENDPOINT_DIED = "endpoint_died"
    ENDPOINT_OUT_OF_MEMORY = "endpoint_out_of_memory"
    PREEMPTED = "preempted"
    AUXILIARY_FAILED = "auxiliary_failed"
    AUXILIARY_DIED = "auxiliary_died"
    JOB_NOT_SUBMITTED = "job_not_submitted"
    JOB_LOST = "job_lost"
    HARNESS_FAILED = "harness_failed"
    HARNESS_TIMEOUT = "harness_timeout"
    HARNESS_MISSING = "harness_missing"
    RESULTS_MISSING = "results_missing"
    RESULTS_INVALID = "results_invalid"
    RESULTS_NOT_FETCHED = "results_not_fetched"
    STOPPED = "stopped"
    LIMIT_REACHED = "limit_reached"
    LAUNCHER_DIED = "launcher_died"
    RELEASED = "released"
    """Of an auxiliary endpoint: nobody needs it any more."""
    LAUNCHER_ERROR = "launcher_error"


@dataclass(frozen=True)
class Meaning:
    """What a reason implies. `retry`: the task is tried again, within limits.max_attempts."""

    status: Status
    retry: bool
    advice: str


MEANINGS: dict[Reason, Meaning] = {
    Reason.COMPLETED: Meaning(Status.SCORED, False, ""),
    Reason.ENDPOINT_NOT_CREATED: Meaning(Status.FAILED, False, "the platform did not create it; see its message"),
    Reason.ENDPOINT_EXITED: Meaning(Status.FAILED, False, "the server ended before it was ready; see its last lines"),
    Reason.ENDPOINT_START_TIMEOUT: Meaning(
        Status.FAILED, False, "the server never answered; see its log, or raise deployment.start_timeout"
    ),
    Reason.ENDPOINT_NOT_SERVING: Meaning(
        Status.FAILED,
        False,
        "no completion came; see the server's log, or raise deployment.health_timeout",
    ),
    Reason.ENDPOINT_REFUSED: Meaning(
        Status.FAILED, False, "the endpoint refused the key; check target.api_endpoint.api_key_name"
    ),
    Reason.MODEL_NOT_FOUND: Meaning(
        Status.FAILED, False, "the endpoint serves another model; set target.api_endpoint.model_id to a name it lists"
    ),
    Reason.LOGLIKELIHOOD_UNSUPPORTED: Meaning(
        Status.FAILED,
        False,
        "the server returns no prompt log-probabilities; use vllm or sglang for this task",
    ),
    Reason.LOGLIKELIHOOD_WRONG: Meaning(
        Status.FAILED,
        False,
        "wrong prompt log-probabilities make scores chance; use vllm or sglang for this task",
    ),
    Reason.ENDPOINT_DIED: Meaning(Status.FAILED, True, "the server ended while the task ran; its last lines say why"),
    Reason.ENDPOINT_OUT_OF_MEMORY: Meaning(
        Status.FAILED,
        False,
        "the server ran out of memory; take a larger shape, or lower deployment.max_model_len or max_num_seqs",
    ),
    Reason.PREEMPTED: Meaning(Status.FAILED, True, "the platform gave its place to something of higher priority"),
    Reason.AUXILIARY_FAILED: Meaning(
        Status.FAILED, False, "an auxiliary endpoint of the task does not serve it; see its log: nv-eval logs ID NAME"
    ),
    Reason.AUXILIARY_DIED: Meaning(Status.FAILED, True, "an auxiliary endpoint ended while the task ran; see its log"),
    Reason.JOB_NOT_SUBMITTED: Meaning(Status.FAILED, False, "the platform did not start the job; see its message"),
    Reason.JOB_LOST: Meaning(Status.FAILED, True, "the job ended without a word; see its log"),
    Reason.HARNESS_FAILED: Meaning(Status.FAILED, False, "the benchmark program failed; see the job's log"),
    Reason.HARNESS_TIMEOUT: Meaning(Status.FAILED, False, "raise the task's timeout, or lower its limit"),
    Reason.HARNESS_MISSING: Meaning(
        Status.FAILED, False, "the job's Python lacks the harness: pip install 'nv-eval-launcher[lm-eval]'"
    ),
    Reason.RESULTS_MISSING: Meaning(Status.FAILED, False, "the benchmark program ended well but wrote no results"),
    Reason.RESULTS_INVALID: Meaning(Status.FAILED, False, "the results are broken or incomplete; see the job's log"),
    Reason.RESULTS_NOT_FETCHED: Meaning(Status.FAILED, False, "the results could not be brought home; see the message"),
    Reason.STOPPED: Meaning(Status.STOPPED, False, "stopped on request; nv-eval resume goes on"),
    Reason.LIMIT_REACHED: Meaning(Status.STOPPED, False, "a limit ended the run; raise it and nv-eval resume"),
    Reason.LAUNCHER_ERROR: Meaning(Status.FAILED, False, "a defect of the launcher; please report it with its message"),
    Reason.LAUNCHER_DIED: Meaning(Status.STOPPED, False, "the launcher was killed; nv-eval resume goes on"),
    Reason.RELEASED: Meaning(Status.STOPPED, False, "an auxiliary endpoint whose tasks are over; all is well"),
}
