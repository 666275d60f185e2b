"""MLflow: a real server on loopback, and what it has after an export, after a second one, and after a resume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.results.exporters.sending import State
from tests.exporters import servers
from tests.exporters.runs import BEGAN, ENDED, INVOCATION, change, mended
from tests.exporters.sent import send


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.mlflow_server(tmp_path_factory.mktemp("mlflow"), servers.free_port()) as url:
        yield url


def runs(url: str, experiment: str) -> dict[str, Any]:
    """All runs of an experiment by their name."""
    from mlflow import MlflowClient

    client = MlflowClient(url)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    every = client.search_runs([found.experiment_id])
    assert len({run.info.run_name for run in every}) == len(every)
    return {run.info.run_name: run for run in every}


def state(url: str, experiment: str) -> dict[str, Any]:
    """Everything that the server has: runs, histories of all metrics, parameters, tags, files."""
    from mlflow import MlflowClient

    client = MlflowClient(url)
    return {
        name: (
            run.to_dictionary(),
            {
                metric: [p.to_dictionary() for p in client.get_metric_history(run.info.run_id, metric)]
                for metric in run.data.metrics
            },
            sorted((file.path, file.file_size) for file in client.list_artifacts(run.info.run_id)),
        )
        for name, run in runs(url, experiment).items()
    }


def test_a_run_is_there_once_however_often_it_is_exported(folder: Path, server: str) -> None:
    keys = {"tracking_uri": server, "experiment": "twice", "samples": True}
    assert send(folder, "mlflow", **keys) is State.EXPORTED

    found = runs(server, "twice")
    parent = found.pop(f"acme/small {INVOCATION}")
    assert set(found) == {"hellaswag", "gsm8k", "broken"}
    assert {run.data.tags["mlflow.parentRunId"] for run in found.values()} == {parent.info.run_id}
    good, bad = found["hellaswag"], found["broken"]
    assert good.data.metrics["acc"] == 0.75 and good.data.metrics["acc_stderr"] == 0.25
    assert good.data.metrics["usd"] == 0.5 and good.data.metrics["prompt_tokens"] == 800
    assert "odd" not in good.data.metrics
    assert good.data.params["settings.limit"] == "4" and good.data.params["revision"] == "abc"
    assert good.info.status == "FINISHED" and good.info.start_time == int(BEGAN * 1000)
    assert good.info.end_time == int(ENDED * 1000)
    assert bad.info.status == "FAILED" and bad.data.tags["nv_eval.detail"] == "no space left"
    assert not {"acc", "exact_match"} & set(bad.data.metrics)

    before = state(server, "twice")
    assert send(folder, "mlflow", **keys) is State.UNCHANGED
    assert send(folder, "mlflow", again=True, **keys) is State.EXPORTED
    assert state(server, "twice") == before
    assert ("samples", None) in before[f"acme/small {INVOCATION}"][2]


def test_a_resumed_run_changes_what_is_new(folder: Path, server: str) -> None:
    from mlflow import MlflowClient

    keys = {"tracking_uri": server, "experiment": "resumed"}
    send(folder, "mlflow", **keys)
    change(folder, mended)
    assert send(folder, "mlflow", **keys) is State.EXPORTED

    found = runs(server, "resumed")
    assert len(found) == 4
    assert found["hellaswag"].data.metrics["acc"] == 0.25
    assert found["broken"].info.status == "FINISHED" and found["broken"].data.metrics["acc"] == 0.5
    client = MlflowClient(server)
    assert len(client.get_metric_history(found["hellaswag"].info.run_id, "acc")) == 2
    assert len(client.get_metric_history(found["hellaswag"].info.run_id, "acc_norm")) == 1


def test_mlflow_takes_the_trace_too(folder: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's own OTLP receiver, a backend that nobody here wrote."""
    from mlflow import MlflowClient

    client = MlflowClient(server)
    experiment = client.create_experiment("traces")
    monkeypatch.setenv("OTLP_HEADERS_OF_MINE", f"x-mlflow-experiment-id={experiment}")

    send(folder, "otel", endpoint=server, metrics=False, headers_name="OTLP_HEADERS_OF_MINE")

    (trace,) = client.search_traces(locations=[experiment])
    assert {span.name for span in trace.data.spans} >= {"evaluate acme/small", "endpoint gsm8k", "job gsm8k"}
    send(folder, "otel", again=True, endpoint=server, metrics=False, headers_name="OTLP_HEADERS_OF_MINE")
    (trace,) = client.search_traces(locations=[experiment])
    assert len(trace.data.spans) == 7
