"""MLflow: a parent run for each invocation, a nested run for each task, found again by their tags."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from launcher.config.export import Mlflow
from launcher.results.exporters import places
from launcher.results.exporters.base import Bundle, ExportFailed, numbers
from launcher.results.model import TaskRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

INVOCATION, TASK, STATUS, CONTENT = "nv_eval.invocation", "nv_eval.task", "nv_eval.status", "nv_eval.content_sha256"
_STATES = {"scored": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_FORBIDDEN = re.compile(r"[^\w\-. :/]", re.ASCII)
"""What the name of a metric or parameter cannot have, says mlflow.utils.validation."""
_LONGEST = 240
_LONGEST_VALUE = 500
"""Characters of a parameter that every version of the server takes."""
_BATCH = 100
"""Parameters in one request."""


class Exporter:
    """Writes what differs from what the server has."""

    summary: ClassVar[str] = "runs of an MLflow tracking server"
    extra: ClassVar[str] = "mlflow"
    modules: ClassVar[tuple[str, ...]] = ("mlflow",)

    def __init__(self, options: Mlflow) -> None:
        self._options = options

    @property
    def _uri(self) -> str | None:
        return self._options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")

    def problems(self) -> list[str]:
        """No address, no token."""
        found = [] if self._uri else ["export.mlflow.tracking_uri: is not set, and MLFLOW_TRACKING_URI is not either"]
        name = self._options.token_name
        return found + ([f"export.mlflow.token_name: variable {name} is not set"] if _is_unset(name) else [])

    def destination(self, _bundle: Bundle, /) -> str:
        """Server and experiment."""
        return f"{places.shown(self._uri or '')} experiment {self._options.experiment}"

    def send(self, bundle: Bundle) -> None:
        """Find or make the runs, then write what they lack."""
        if self._options.token_name:
            os.environ["MLFLOW_TRACKING_TOKEN"] = os.environ[self._options.token_name]
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            _Sending(MlflowClient(self._uri), self._options, bundle).all()
        except MlflowException as error:
            raise ExportFailed(str(error)) from error


def _is_unset(name: str | None) -> bool:
    return name is not None and name not in os.environ


class _Sending:
    """One invocation on its way to one server."""

    def __init__(self, client: MlflowClient, options: Mlflow, bundle: Bundle) -> None:
        self._client, self._options, self._bundle = client, options, bundle
        self._began, self._ended = int(bundle.began * 1000), int(bundle.ended * 1000)
        self._experiment = self._experiment_id()

    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        name = self._options.experiment
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name))
        except MlflowException:  # another one was faster
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    def all(self) -> None:
        """The parent first: the others name it."""
        record = self._bundle.record
        parent = self._run(f"{self._bundle.model} {record.invocation}", "")
        for task in record.tasks:
            self._task(task, parent.info.run_id)
        used = [one.gpu_seconds for one in record.spenders]
        costs = [one.usd for one in record.spenders if one.usd is not None]
        sums = {"gpu_seconds": sum(used), "scored": sum(task.status == "scored" for task in record.tasks)}
        sums |= {"tasks": len(record.tasks)} | ({"usd": sum(costs)} if costs else {})
        self._metrics(parent, sums)
        self._params(parent, {"model": self._bundle.model, "deployment": record.deployment})
        self._files(parent)
        self._tags(parent, {STATUS: "complete" if record.complete else "incomplete"})
        self._end(parent, "FINISHED" if record.complete else "FAILED")

    def _task(self, task: TaskRecord, parent: str) -> None:
        run = self._run(task.key, task.key, parent)
        self._metrics(run, {_name(number.name): number.value for number in numbers(task)})
        self._params(run, self._bundle.facts(task))
        self._tags(run, {STATUS: task.status, "nv_eval.reason": task.reason, "nv_eval.detail": task.detail})
        self._end(run, _STATES.get(task.status, "FAILED"))

    def _run(self, name: str, task: str, parent: str | None = None) -> Run:
        """The run of the invocation, or of one of its tasks: the one with its tags, a new one where there is none."""
        invocation = self._bundle.record.invocation
        wanted = f"tags.`{INVOCATION}` = '{invocation}' and tags.`{TASK}` = '{_quoted(task)}'"
        found = self._client.search_runs([self._experiment], wanted, order_by=["attributes.start_time ASC"])
        if found:
            return found[0]
        tags = {INVOCATION: invocation, TASK: task} | ({"mlflow.parentRunId": parent} if parent else {})
        return self._client.create_run(self._experiment, start_time=self._began, tags=tags, run_name=name)

    def _metrics(self, run: Run, wanted: Mapping[str, float]) -> None:
        """Points of what has no value yet or another one: a chart has no second point of the same score."""
        from mlflow.entities import Metric

        known = {metric.key: metric for metric in run.data._metric_objs}
        points = []
        for name, value in wanted.items():
            old = known.get(name)
            if old is None or old.value != value:
                time = self._ended if old is None else max(self._ended, old.timestamp + 1)
                points.append(Metric(name, value, time, 0))
        if points:
            self._client.log_batch(run.info.run_id, metrics=points)

    def _params(self, run: Run, wanted: Mapping[str, str]) -> None:
        """Parameters that the run lacks. MLflow lets none change; those that a resumed run has otherwise are tags."""
        from mlflow.entities import Param

        known = run.data.params
        named = {_name(name): value[:_LONGEST_VALUE] for name, value in wanted.items() if value}
        new = [Param(name, value) for name, value in named.items() if name not in known]
        for batch in _batches(new):
            self._client.log_batch(run.info.run_id, params=batch)
        changed = {name: value for name, value in named.items() if known.get(name, value) != value}
        self._tags(run, {f"nv_eval.now.{name}": value for name, value in changed.items()})

    def _tags(self, run: Run, wanted: Mapping[str, str]) -> None:
        for name, value in wanted.items():
            if run.data.tags.get(name, "") != value:
                self._client.set_tag(run.info.run_id, name, value)

    def _files(self, run: Run) -> None:
        """The invocation's files, unless the server has them as they are."""
        content = self._bundle.content(samples=self._options.samples)
        if run.data.tags.get(CONTENT) == content:
            return
        if self._options.artifacts:
            for path in self._bundle.files():
                self._client.log_artifact(run.info.run_id, str(path))
        for key, path in self._bundle.sample_files() if self._options.samples else ():
            self._client.log_artifact(run.info.run_id, str(path), f"samples/{key}")
        self._client.set_tag(run.info.run_id, CONTENT, content)

    def _end(self, run: Run, status: str) -> None:
        if run.info.status != status or run.info.end_time != self._ended:
            self._client.set_terminated(run.info.run_id, status, self._ended)


def _name(name: str) -> str:
    """A name that MLflow takes; one that had to be changed ends in a digest, so that no two become the same."""
    plain = _FORBIDDEN.sub("_", name)[:_LONGEST]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _quoted(text: str) -> str:
    return text.replace("'", "\\'")


def _batches(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]
