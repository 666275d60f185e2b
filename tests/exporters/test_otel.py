"""OTLP over HTTP to a receiver that decodes with OpenTelemetry's own messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.results.exporters.sending import State
from tests.exporters.runs import BEGAN, ENDED, INVOCATION, change, mended
from tests.exporters.sent import send
from tests.exporters.servers import Collector


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def ns(seconds: float) -> int:
    return int(seconds * 1000) * 10**6


def attributes(of: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in of.attributes}


def test_a_run_is_one_trace_with_the_times_as_they_were(folder: Path, collector: Collector) -> None:
    assert send(folder, "otel", endpoint=collector.url) is State.EXPORTED

    assert {headers["Content-Encoding"] for headers in collector.headers} == {"gzip"}
    assert {attributes(resource)["service.name"] for resource in collector.scopes} == {"nv-eval"}
    (root,) = (span for span in collector.spans if not span.parent_span_id)
    children = {span.name: span for span in collector.spans if span.parent_span_id == root.span_id}
    assert set(children) == {
        f"{kind} {task}" for kind in ("endpoint", "job") for task in ("hellaswag", "gsm8k", "broken")
    }
    assert len({span.trace_id for span in collector.spans}) == 1
    assert root.start_time_unix_nano == ns(BEGAN) and root.end_time_unix_nano == ns(ENDED)
    job = children["job hellaswag"]
    assert (job.start_time_unix_nano, job.end_time_unix_nano) == (ns(BEGAN), ns(BEGAN + 300))
    assert attributes(job)["gen_ai.request.model"] == "small" and attributes(job)["gen_ai.usage.input_tokens"] == 800
    assert attributes(job)["nv_eval.invocation"] == INVOCATION
    results = [attributes(event) for event in job.events if event.name == "gen_ai.evaluation.result"]
    assert {one["gen_ai.evaluation.name"]: one["gen_ai.evaluation.score.value"] for one in results} == {
        "hellaswag/acc": 0.75,
        "hellaswag/acc_norm": 0.75,
    }
    ready = next(event for event in children["endpoint gsm8k"].events if event.name == "ready")
    assert ready.time_unix_nano == ns(BEGAN + 21)
    bad = children["job broken"]
    assert bad.status.code == bad.status.STATUS_CODE_ERROR and bad.status.message == "harness_failed"


def test_metrics_are_points_at_the_end_of_the_run(folder: Path, collector: Collector) -> None:
    send(folder, "otel", endpoint=collector.url, traces=False, compression="none")

    found = {
        (name, attributes(point)["nv_eval.task"], attributes(point).get("nv_eval.metric")): point
        for name, point in collector.points
    }
    assert found["nv_eval.score", "hellaswag", "acc"].as_double == 0.75
    assert found["nv_eval.gpu.time", "gsm8k", None].as_double == 60.0
    assert found["nv_eval.cost", "hellaswag", None].as_double == 0.5
    assert ("nv_eval.cost", "gsm8k", None) not in found
    assert not [key for key in found if key[:2] == ("nv_eval.score", "broken")]
    assert found["nv_eval.task.scored", "broken", None].as_int == 0
    assert {point.time_unix_nano for point in found.values()} == {ns(ENDED)}
    assert "Content-Encoding" not in collector.headers[0]


def test_an_unchanged_run_is_not_sent_twice_and_sent_again_it_is_the_same(folder: Path, collector: Collector) -> None:
    send(folder, "otel", endpoint=collector.url)
    spans, points = list(collector.spans), list(collector.points)
    assert send(folder, "otel", endpoint=collector.url) is State.UNCHANGED
    assert (collector.spans, collector.points) == (spans, points)

    send(folder, "otel", endpoint=collector.url, again=True)
    assert collector.spans == spans * 2 and collector.points == points * 2

    change(folder, mended)
    assert send(folder, "otel", endpoint=collector.url) is State.EXPORTED
    assert {span.span_id for span in collector.spans} == {span.span_id for span in spans}
