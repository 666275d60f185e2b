"""The time line of an invocation, from the facts of its journal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from launcher.api import load_config, plan
from launcher.errors import ResultsError
from launcher.orchestrator.journal import Entry, Fact
from launcher.results import timeline
from launcher.results.timeline import from_facts


def story(*facts: tuple[float, Fact, str | None, str, dict[str, object]]) -> list[Entry]:
    return [
        Entry(time=when, kind=kind, task=task, name=name, data=dict(data)) for when, kind, task, name, data in facts
    ]


SIMPLE = story(
    (0, Fact.RUN_STARTED, None, "", {}),
    (1, Fact.INTEND_CREATE_ENDPOINT, "a", "srv-a", {}),
    (2, Fact.ENDPOINT_CREATED, "a", "srv-a", {}),
    (3, Fact.INTEND_SUBMIT_JOB, "a", "job-a", {}),
    (11, Fact.TASK_EVALUATING, "a", "", {}),
    (31, Fact.TASK_ENDED, "a", "", {"reason": "completed"}),
    (32, Fact.TASK_COLLECTED, "a", "", {"reason": "completed"}),
    (33, Fact.INTEND_DELETE_ENDPOINT, "a", "srv-a", {}),
    (35, Fact.TASK_GONE, "a", "", {}),
    (36, Fact.RUN_ENDED, None, "", {"exit_code": 0}),
)


def test_an_endpoint_lasts_from_its_intent_to_the_proof_that_it_is_gone_and_a_job_to_its_end():
    found = from_facts("1234", SIMPLE)
    endpoint, job = found.spans
    assert (endpoint.kind, endpoint.began, endpoint.ready, endpoint.ended) == ("endpoint", 1, 11, 35)
    assert (job.kind, job.began, job.ready, job.ended, job.reason) == ("job", 3, 11, 31, "completed")
    assert (found.began, found.ended) == (0, 36)


def test_idle_time_is_what_no_job_evaluated_in():
    found = from_facts("1234", SIMPLE)
    assert found.busy(found.spans[0], now=100) == 20
    assert found.idle(found.spans[0], now=100) == 14


def test_a_shared_endpoint_is_one_span_with_all_its_users_until_the_last_one_lets_go():
    found = from_facts(
        "1234",
        story(
            (0, Fact.RUN_STARTED, None, "", {}),
            (1, Fact.INTEND_CREATE_ENDPOINT, "a", "srv", {}),
            (2, Fact.INTEND_CREATE_ENDPOINT, "b", "srv", {}),
            (3, Fact.INTEND_SUBMIT_JOB, "a", "job-a", {}),
            (3, Fact.INTEND_SUBMIT_JOB, "b", "job-b", {}),
            (5, Fact.TASK_EVALUATING, "a", "", {}),
            (7, Fact.TASK_EVALUATING, "b", "", {}),
            (10, Fact.TASK_ENDED, "a", "", {"reason": "completed"}),
            (11, Fact.TASK_GONE, "a", "", {"left": True}),
            (20, Fact.TASK_ENDED, "b", "", {"reason": "completed"}),
            (22, Fact.TASK_GONE, "b", "", {"usd": 0.5}),
        ),
    )
    endpoint = found.spans[0]
    assert (endpoint.users, endpoint.ended, endpoint.usd, endpoint.ready) == (["a", "b"], 22, 0.5, 5)
    assert found.busy(endpoint, now=100) == 15
    assert found.ended is None


def test_each_attempt_has_spans_of_its_own():
    found = from_facts(
        "1234",
        story(
            (0, Fact.RUN_STARTED, None, "", {}),
            (1, Fact.INTEND_CREATE_ENDPOINT, "a", "srv", {}),
            (4, Fact.TASK_ENDED, "a", "", {"reason": "endpoint_failed"}),
            (5, Fact.TASK_GONE, "a", "", {}),
            (5, Fact.TASK_RETRY, "a", "", {"attempt": 2}),
            (9, Fact.INTEND_CREATE_ENDPOINT, "a", "srv-r2", {}),
        ),
    )
    first, second = found.spans
    assert (first.attempt, first.ended, first.reason, first.ready) == (1, 5, "endpoint_failed", None)
    assert (second.attempt, second.ended) == (2, None)


def test_a_job_that_tries_again_on_the_kept_endpoint_is_its_user_still():
    found = from_facts(
        "1234",
        story(
            (1, Fact.INTEND_CREATE_ENDPOINT, "a", "srv", {}),
            (2, Fact.INTEND_SUBMIT_JOB, "a", "job", {}),
            (3, Fact.TASK_EVALUATING, "a", "", {}),
            (4, Fact.TASK_ENDED, "a", "", {"reason": "harness_failed"}),
            (5, Fact.TASK_RETRY, "a", "srv", {"attempt": 2}),
            (6, Fact.INTEND_SUBMIT_JOB, "a", "job-r2", {}),
            (7, Fact.TASK_EVALUATING, "a", "", {}),
            (9, Fact.TASK_ENDED, "a", "", {"reason": "completed"}),
            (10, Fact.TASK_GONE, "a", "", {}),
        ),
    )
    assert [(span.name, span.ended) for span in found.spans] == [("srv", 10), ("job", 4), ("job-r2", 9)]
    assert found.busy(found.spans[0], now=100) == 3


def test_what_may_be_left_over_has_no_end():
    facts = story(
        (0, Fact.RUN_STARTED, None, "", {}),
        (1, Fact.INTEND_CREATE_ENDPOINT, "a", "srv", {}),
        (2, Fact.INTEND_CREATE_ENDPOINT, "b", "other", {}),
        (9, Fact.RUN_ENDED, None, "", {"leftovers": ["srv"]}),
    )
    assert [span.ended for span in from_facts("1234", facts).spans] == [None, 9]


def test_a_broken_file_is_called_broken_and_a_missing_one_is_none(tmp_path: Path):
    assert timeline.load(tmp_path) is None
    (tmp_path / timeline.FILE).write_text('{"invocation": "1", "be')
    with pytest.raises(ResultsError, match="broken"):
        timeline.load(tmp_path)
    (tmp_path / timeline.FILE).write_text('{"invocation":"1","began":0,"ended":null,"spans":[],"schema":"later/9"}')
    with pytest.raises(ResultsError, match="later/9"):
        timeline.load(tmp_path)


@pytest.mark.parametrize("time", [-1e308, -1.0, 1e308])
def test_a_time_that_no_run_can_have_is_broken(tmp_path: Path, time: float):
    span = timeline.Span(kind="job", name="j", task="t", attempt=1, began=time)
    line = timeline.Timeline(invocation="1", began=1.0, ended=2.0, spans=[span])
    (tmp_path / timeline.FILE).write_bytes(msgspec.json.encode(line))
    with pytest.raises(ResultsError, match="a time"):
        timeline.load(tmp_path)


def test_a_clock_that_was_set_back_makes_no_endpoint_earn_money():
    made = plan(load_config(overrides=["deployment=smollm", "evaluation=offline", "execution=local"]))
    task = made.tasks[0]
    assert task.endpoint is not None
    priced = replace(made, tasks=(replace(task, endpoint=replace(task.endpoint, usd_per_hour=3600.0)),))
    facts = story(
        (100, Fact.RUN_STARTED, None, "", {}),
        (100, Fact.INTEND_CREATE_ENDPOINT, task.key, "srv", {}),
        (40, Fact.TASK_GONE, task.key, "", {}),
        (40, Fact.RUN_ENDED, None, "", {}),
    )
    (span,) = from_facts("1234", facts, priced).spans
    assert span.usd == 0.0
