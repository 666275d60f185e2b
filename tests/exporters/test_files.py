"""Files: to fsspec URLs, for leaderboards, into a model card."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from launcher.config.export import Fsspec
from launcher.results import read
from launcher.results.exporters import fsspec as exporter
from launcher.results.exporters.base import Bundle
from launcher.results.exporters.sending import State
from tests.exporters.runs import INVOCATION, change, mended
from tests.exporters.sent import send

EVERYTHING = {
    "scores.csv", "scores.parquet", "tasks.csv", "tasks.parquet", "results.json", "provenance.json",
    "samples/hellaswag/hellaswag.jsonl", "samples/gsm8k/gsm8k.jsonl",
}  # fmt: skip


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 service on loopback with a bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_file_urls_hold_the_same_bytes_after_a_second_export(folder: Path, tmp_path: Path) -> None:
    keys = {"url": f"file://{tmp_path}/out", "samples": True}
    assert send(folder, "fsspec", **keys) is State.EXPORTED
    place = tmp_path / "out" / INVOCATION
    files = {
        str(path.relative_to(place)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in place.rglob("*")
        if path.is_file()
    }
    assert set(files) == EVERYTHING

    assert send(folder, "fsspec", **keys) is State.UNCHANGED
    assert send(folder, "fsspec", again=True, **keys) is State.EXPORTED
    again = {
        str(path.relative_to(place)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in place.rglob("*")
        if path.is_file()
    }
    assert again == files

    tasks = pd.read_csv(place / "tasks.csv").set_index("task_key")
    assert tasks.loc["broken", "status"] == "failed" and math.isnan(tasks.loc["broken", "usd"])
    scores = pd.read_parquet(place / "scores.parquet")
    assert set(scores[scores["metric"] == "acc"]["value"]) == {0.75}
    assert scores[scores["metric"] == "odd"]["value"].isna().all()


def test_memory_urls(folder: Path) -> None:
    import fsspec

    made = exporter.Exporter(Fsspec(url="memory://box", formats=["csv"], artifacts=False))
    made.send(Bundle.load(folder))
    made.send(Bundle.load(folder))

    assert sorted(fsspec.filesystem("memory").find("/box")) == [
        f"/box/{INVOCATION}/{name}.csv" for name in ("scores", "tasks")
    ]


def test_an_s3_service_gets_files_and_keys_by_name(folder: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    monkeypatch.setenv("MY_S3_KEY", "AKIAEXAMPLE")
    monkeypatch.setenv("MY_S3_SECRET", "not-a-real-secret")
    client = boto3.client(
        "s3", endpoint_url=s3, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    client.create_bucket(Bucket="scores")
    client.put_bucket_versioning(Bucket="scores", VersioningConfiguration={"Status": "Enabled"})
    keys = {
        "url": "s3://scores/runs",
        "options": {"endpoint_url": s3},
        "option_names": {"key": "MY_S3_KEY", "secret": "MY_S3_SECRET"},
        "samples": True,
    }

    assert send(folder, "fsspec", **keys) is State.EXPORTED
    send(folder, "fsspec", again=True, **keys)

    versions = client.list_object_versions(Bucket="scores")["Versions"]
    assert {version["Key"] for version in versions} == {f"runs/{INVOCATION}/{name}" for name in EVERYTHING}
    assert len(versions) == len(EVERYTHING)  # nothing was written a second time
    assert "not-a-real-secret" not in (folder / "exports.json").read_text()


def test_a_leaderboard_reads_the_result_file(folder: Path) -> None:
    """Read as the readers of the leaderboards' template do, and by lm-eval itself."""
    from lm_eval.utils import make_table

    assert send(folder, "leaderboard") is State.EXPORTED
    (path,) = (folder / "exports" / "leaderboard").rglob("results_*.json")
    assert path.parent.name == "small" and path.parent.parent.name == "acme"
    before = path.read_bytes()
    found = json.loads(before)
    config = found.get("config")
    assert config["model_name"].split("/", 1) == ["acme", "small"] and config["model_sha"] == "abc"
    accuracies = [task["acc"] for name, task in found["results"].items() if name == "hellaswag"]
    assert accuracies == [0.75] and found["results"]["hellaswag"]["acc_stderr,none"] == 0.25
    assert set(found["results"]) == {"hellaswag", "gsm8k"} and found["nv_eval"]["failed"] == {
        "broken": "harness_failed"
    }
    pd.to_datetime(path.stem.removeprefix("results_")[:-7], format="%Y-%m-%dT%H-%M-%S")
    assert "|acc        |↑  | 0.75|±  |  0.25|" in make_table(found)

    send(folder, "leaderboard", again=True)
    change(folder, lambda record: record)
    assert [path] == list((folder / "exports" / "leaderboard").rglob("results_*.json")) and path.read_bytes() == before


def test_a_model_card_gets_results_and_keeps_the_rest(folder: Path, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    card = tmp_path / "README.md"
    card.write_text("---\nlicense: mit\ntags:\n- small\n---\n\n# Ours\n\nText: stays\n")
    send(folder, "huggingface", card=str(card))
    before = card.read_bytes()
    send(folder, "huggingface", card=str(card), again=True)
    assert card.read_bytes() == before

    found = ModelCard.load(card)
    assert found.data.license == "mit" and "Text: stays" in found.text
    values = {(one.dataset_name, one.metric_name): one.metric_value for one in found.data.eval_results}
    assert values == {("hellaswag", "acc"): 0.75, ("hellaswag", "acc_norm"): 0.75, ("gsm8k", "exact_match"): 0.5}

    change(folder, mended)
    send(folder, "huggingface", card=str(card))
    values = {(one.dataset_name, one.metric_name): one.metric_value for one in ModelCard.load(card).data.eval_results}
    assert values["hellaswag", "acc"] == 0.25 and values["broken", "acc"] == 0.5 and len(values) == 4


def test_a_card_that_cannot_be_read_is_left_alone(folder: Path, tmp_path: Path) -> None:
    from launcher.api import export

    card = tmp_path / "README.md"
    card.write_text("---\n: [broken\n---\n")
    (sent,) = export(folder, to=["huggingface"], keys={"huggingface": {"card": str(card)}})

    assert sent.state is State.FAILED and card.read_text() == "---\n: [broken\n---\n"
    assert read.load(folder).invocation == INVOCATION
