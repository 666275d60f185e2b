"""OpenTelemetry: a run as one trace and a set of metrics, sent by OTLP over HTTP, with the times as they were.

Names that OpenTelemetry's semantic conventions for generative AI have are used,
https://opentelemetry.io/docs/specs/semconv/gen-ai/; the others begin with `nv_eval.`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

from launcher.config.export import Otel
from launcher.harnesses.spec import Score
from launcher.results.exporters import places
from launcher.results.exporters.base import Bundle, ExportFailed, identity, is_number
from launcher.results.model import TaskRecord
from launcher.results.timeline import Span

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import Metric, MetricsData, NumberDataPoint
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan

PATIENCE = 10.0
"""Seconds for one request, repeats of it included."""
_NANO = 10**9
Attributes = dict[str, str | bool | int | float]


class Exporter:
    """Sends spans and metrics. A collector takes what is sent twice twice: the receipt keeps it from being sent."""

    summary: ClassVar[str] = "OpenTelemetry traces and metrics, by OTLP"
    extra: ClassVar[str] = "otel"
    modules: ClassVar[tuple[str, ...]] = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")

    def __init__(self, options: Otel) -> None:
        self._options = options

    def problems(self) -> list[str]:
        """Headers that are nowhere."""
        name = self._options.headers_name
        unset = name is not None and name not in os.environ
        return [f"export.otel.headers_name: variable {name} is not set"] if unset else []

    def destination(self, _bundle: Bundle, /) -> str:
        """The collector."""
        return places.shown(
            self._options.endpoint or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or "http://localhost:4318"
        )

    def send(self, bundle: Bundle) -> None:
        """Send the trace, then the metrics."""
        with _Listening() as heard:
            if self._options.traces:
                self._send_spans(bundle, heard)
            if self._options.metrics:
                self._send_metrics(bundle, heard)

    def _send_spans(self, bundle: Bundle, heard: list[str]) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import SpanExportResult

        exporter = OTLPSpanExporter(**self._arguments("traces"))
        sent = exporter.export(list(_Trace(bundle, self._resource()).spans()))
        exporter.shutdown()
        if sent is not SpanExportResult.SUCCESS:
            raise ExportFailed(_reason(heard, "the collector did not take the spans"))

    def _send_metrics(self, bundle: Bundle, heard: list[str]) -> None:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics.export import MetricExportResult

        exporter = OTLPMetricExporter(**self._arguments("metrics"))
        sent = exporter.export(_metrics(bundle, self._resource()))
        exporter.shutdown()
        if sent is not MetricExportResult.SUCCESS:
            raise ExportFailed(_reason(heard, "the collector did not take the metrics"))

    def _arguments(self, signal: str) -> dict[str, Any]:
        """What the config says; for the rest the SDK reads its own environment variables."""
        from opentelemetry.exporter.otlp.proto.http import Compression
        from opentelemetry.util.re import parse_env_headers

        options = self._options
        named = os.environ[options.headers_name] if options.headers_name else None
        return {
            "endpoint": f"{options.endpoint.rstrip('/')}/v1/{signal}" if options.endpoint else None,
            "headers": parse_env_headers(named, liberal=True) if named is not None else None,
            "compression": Compression.Gzip if options.compression == "gzip" else Compression.NoCompression,
            "timeout": PATIENCE,
        }

    def _resource(self) -> Resource:
        from opentelemetry.sdk.resources import Resource

        version = metadata.version("nv-eval-launcher")
        return Resource({"service.name": self._options.service, "service.version": version})


class _Listening:
    """Within, what OpenTelemetry logs is collected: it says there, and nowhere else, why something was not sent."""

    def __enter__(self) -> list[str]:
        self._heard: list[str] = []
        self._handler = logging.Handler(logging.WARNING)
        self._handler.emit = lambda record: self._heard.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("opentelemetry").addHandler(self._handler)
        return self._heard

    def __exit__(self, *_: object) -> None:
        logging.getLogger("opentelemetry").removeHandler(self._handler)


def _reason(heard: list[str], otherwise: str) -> str:
    """The first complaint: those that follow are that repeating did not help."""
    return heard[0] if heard else otherwise


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000) * 1000


class _Trace:
    """The spans of one invocation. Their ids follow from its id and their names, so that a backend can see twins."""

    def __init__(self, bundle: Bundle, resource: Resource) -> None:
        self._bundle, self._resource = bundle, resource
        self._tasks = {task.key: task for task in bundle.record.tasks}

    def spans(self) -> Iterator[ReadableSpan]:
        """The run's, then one for each endpoint and each job."""
        record, bundle = self._bundle.record, self._bundle
        yield self._span(
            f"evaluate {bundle.model}",
            "run",
            (bundle.began, bundle.ended),
            {
                **common(bundle),
                "nv_eval.complete": record.complete,
                "nv_eval.tasks": len(record.tasks),
                "nv_eval.gpu_seconds": sum(task.gpu_seconds for task in record.tasks),
                "nv_eval.resumed": record.resumed,
            },
            failed="" if record.complete else "not every task has scores",
        )
        for span in bundle.timeline.spans if bundle.timeline else []:
            yield self._of(span)

    def _of(self, span: Span) -> ReadableSpan:
        task = self._tasks.get(span.task)
        attributes = common(self._bundle) | {
            "nv_eval.kind": span.kind,
            "nv_eval.name": span.name,
            "nv_eval.task": span.task,
            "nv_eval.attempt": span.attempt,
            "nv_eval.left": span.ended is None,
        }
        attributes |= {"nv_eval.reason": span.reason} if span.reason else {}
        if span.kind == "endpoint":
            attributes["nv_eval.gpus"] = span.gpus
            if is_number(span.usd):
                attributes["nv_eval.usd"] = span.usd
        over = self._bundle.ended if span.ended is None else span.ended
        events = [self._event("ready" if span.kind == "endpoint" else "evaluating", span.ready)] if span.ready else []
        if task is not None and span.kind == "job" and self._is_last(span):
            attributes |= _of_task(task)
            events += [self._event("gen_ai.evaluation.result", over, _of_score(score)) for score in _scored(task)]
        bad = task is not None and span.kind == "job" and (task.status != "scored" or not self._is_last(span))
        return self._span(
            f"{span.kind} {span.task}",
            span.name,
            (span.began, over),
            attributes,
            events,
            failed=(span.reason or "failed") if bad else "",
        )

    def _is_last(self, span: Span) -> bool:
        """Whether a job is the one whose end is the task's."""
        spans = self._bundle.timeline.spans if self._bundle.timeline else []
        return span.attempt == max(one.attempt for one in spans if one.kind == "job" and one.task == span.task)

    def _event(self, name: str, time: float | None, attributes: Attributes | None = None) -> Event:
        from opentelemetry.sdk.trace import Event

        return Event(name, attributes=attributes or {}, timestamp=_nanoseconds(time or 0.0))

    def _span(
        self,
        title: str,
        name: str,
        times: tuple[float, float],
        attributes: Attributes,
        events: Iterable[Event] = (),
        *,
        failed: str = "",
    ) -> ReadableSpan:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.status import Status, StatusCode

        return ReadableSpan(
            name=title,
            context=self._context(name),
            parent=None if name == "run" else self._context("run"),
            resource=self._resource,
            attributes=attributes,
            events=tuple(events),
            kind=SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, failed) if failed else Status(StatusCode.OK),
            start_time=_nanoseconds(times[0]),
            end_time=_nanoseconds(max(times)),
            instrumentation_scope=InstrumentationScope("nv-eval", metadata.version("nv-eval-launcher")),
        )

    def _context(self, name: str) -> Any:
        from opentelemetry.trace import SpanContext, TraceFlags

        invocation = self._bundle.record.invocation
        return SpanContext(
            trace_id=int(identity("trace", invocation), 16),
            span_id=int(identity("span", invocation, name, length=16), 16),
            is_remote=False,
            trace_flags=TraceFlags(TraceFlags.SAMPLED),
        )


def common(bundle: Bundle) -> Attributes:
    """Attributes of every span and every point."""
    record = bundle.record
    return {
        "nv_eval.invocation": record.invocation,
        "nv_eval.execution": record.execution,
        "nv_eval.deployment": record.deployment,
        "gen_ai.request.model": record.model.served_name or bundle.model,
    }


def _of_task(task: TaskRecord) -> Attributes:
    found: Attributes = {
        "nv_eval.harness": task.harness,
        "nv_eval.status": task.status,
        "nv_eval.gpu_seconds": task.gpu_seconds,
    }
    if is_number(task.usd):
        found["nv_eval.usd"] = task.usd
    if task.tokens is not None:
        found["gen_ai.usage.input_tokens"] = task.tokens.prompt
        found["gen_ai.usage.output_tokens"] = task.tokens.completion
    return found


def _scored(task: TaskRecord) -> Iterator[Score]:
    return (score for score in task.scores if is_number(score.value))


def _of_score(score: Score) -> Attributes:
    """One result, by the conventions' names where they have one."""
    found: dict[str, Any] = {
        "gen_ai.evaluation.name": f"{score.task}/{score.metric}",
        "gen_ai.evaluation.score.value": score.value,
        "nv_eval.sub_task": score.task,
        "nv_eval.metric": score.metric,
        "nv_eval.filter": score.filter,
        "nv_eval.stderr": score.stderr,
        "nv_eval.low": score.low,
        "nv_eval.high": score.high,
        "nv_eval.samples": score.n,
    }
    return {name: value for name, value in found.items() if isinstance(value, str) or is_number(value)}


def _metrics(bundle: Bundle, resource: Resource) -> MetricsData:
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    scope = InstrumentationScope("nv-eval", metadata.version("nv-eval-launcher"))
    made = list(_Measures(bundle).all())
    return MetricsData([ResourceMetrics(resource, [ScopeMetrics(scope, made, "")], "")])


class _Measures:
    """The metrics of one invocation. Points have the time at which it ended: sent twice they are the same point."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._tasks = bundle.record.tasks

    def all(self) -> Iterator[Metric]:
        """Those that have a point."""
        scores = [(task, score) for task in self._tasks for score in _scored(task)]
        values = [self._point(task, score.value, _labels(score)) for task, score in scores]
        errors = [self._point(task, score.stderr, _labels(score)) for task, score in scores]
        yield from self._gauge("nv_eval.score", "1", "scores as the harness computed them", values)
        yield from self._gauge("nv_eval.score.stderr", "1", "standard errors of scores", errors)
        states = [self._point(task, 1 if task.status == "scored" else 0, _state(task)) for task in self._tasks]
        yield from self._gauge("nv_eval.task.scored", "1", "1 for a task with scores, 0 for one without", states)
        time = [self._point(task, task.gpu_seconds, {}) for task in self._tasks]
        yield from self._sum("nv_eval.gpu.time", "s", "GPU time of endpoints", time)
        cost = [self._point(task, task.usd, {}) for task in self._tasks]
        yield from self._sum("nv_eval.cost", "USD", "cost of endpoints", cost)
        used = [
            self._point(task, count, {"gen_ai.token.type": kind})
            for task in self._tasks
            if task.tokens is not None
            for kind, count in (("input", task.tokens.prompt), ("output", task.tokens.completion))
        ]
        yield from self._sum("nv_eval.tokens", "{token}", "tokens of requests that were answered", used)

    def _point(self, task: TaskRecord, value: float | None, labels: Attributes) -> NumberDataPoint | None:
        from opentelemetry.sdk.metrics.export import NumberDataPoint

        if not is_number(value):
            return None
        return NumberDataPoint(
            attributes={**common(self._bundle), "nv_eval.task": task.key, "nv_eval.harness": task.harness, **labels},
            start_time_unix_nano=_nanoseconds(self._bundle.began),
            time_unix_nano=_nanoseconds(self._bundle.ended),
            value=value,
        )

    def _gauge(
        self, name: str, unit: str, description: str, points: Iterable[NumberDataPoint | None]
    ) -> Iterator[Metric]:
        from opentelemetry.sdk.metrics.export import Gauge, Metric

        if known := [point for point in points if point is not None]:
            yield Metric(name=name, description=description, unit=unit, data=Gauge(known))

    def _sum(
        self, name: str, unit: str, description: str, points: Iterable[NumberDataPoint | None]
    ) -> Iterator[Metric]:
        from opentelemetry.sdk.metrics.export import AggregationTemporality, Metric, Sum

        if known := [point for point in points if point is not None]:
            data = Sum(known, aggregation_temporality=AggregationTemporality.CUMULATIVE, is_monotonic=True)
            yield Metric(name=name, description=description, unit=unit, data=data)


def _labels(score: Score) -> Attributes:
    return {
        "gen_ai.evaluation.name": f"{score.task}/{score.metric}",
        "nv_eval.metric": score.metric,
        "nv_eval.filter": score.filter,
    }


def _state(task: TaskRecord) -> Attributes:
    return {"nv_eval.status": task.status, "nv_eval.reason": task.reason}
