"""The DeepInfra example as a person types it: real lm-eval, a real small model, the emulated account and its meter."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cyllama", reason="cyllama is not installed: pip install 'nv-eval-launcher[smollm]'")
pytest.importorskip("transformers", reason="transformers is missing: pip install 'nv-eval-launcher[hf-tokenizer]'")

from launcher.emulators.deepinfra import Config
from launcher.emulators.deepinfra.account import Snapshot
from launcher.emulators.deepinfra.config import Gpu
from launcher.emulators.deepinfra.rehearsal import rehearsal
from launcher.errors import LauncherError
from launcher.servers.smollm import weights
from tests.e2e import hub
from tests.e2e.cli import ROOT, Home
from tests.e2e.deepinfra_account import Account, emulated

pytestmark = pytest.mark.e2e

EXAMPLE = ("run", "--config-dir", "examples", "--config-name", "deepinfra_llama_2_7b_chat")
METRICS = {
    "hellaswag": ["acc", "acc_norm"],
    "arc_challenge": ["acc", "acc_norm"],
    "winogrande": ["acc"],
    "gsm8k": ["exact_match", "exact_match"],
}
HF_TOKEN = "hf_canary_0001"
LIMIT = 300
"""Seconds for one run, on a machine that is busy."""


@pytest.fixture(scope="module")
def hub_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    try:
        gguf = weights.find().path
    except LauncherError as error:
        pytest.skip(f"the model weights cannot be had: {error}")
    return hub.fill(tmp_path_factory.mktemp("hub"), gguf)


@pytest.fixture
def desk(home: Home, hub_env: dict[str, str]) -> Home:
    shutil.copytree(ROOT / "examples", home.folder / "examples")
    home.extra |= {**hub_env, "HF_TOKEN": HF_TOKEN}
    return home


def run(desk: Home, account: Account, *overrides: str) -> dict[str, Any]:
    """The record of one run that goes well."""
    account.point(desk)
    done = desk.run(*EXAMPLE, *overrides, timeout=LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (desk.folder / "cloud_results").glob("*/results.json")
    return json.loads(path.read_text()) | {"said": done.stdout + done.stderr, "folder": str(path.parent)}


def metrics(record: dict[str, Any]) -> dict[str, list[str]]:
    return {task["key"]: sorted(score["metric"] for score in task["scores"]) for task in record["tasks"]}


def most_at_once(state: Snapshot) -> int:
    """The most deployments there were at the same time."""
    lives = [(item.states[0][0], item.states[-1][0]) for item in state.deployments]
    return max(sum(begun <= moment < over for begun, over in lives) for moment, _ in lives)


def assert_priced(record: dict[str, Any], account: Account) -> None:
    """The cost is that of the meter, to the cent, in the record and in the sentence."""
    usd = sum(line.usd for line in account.emulator.meter().lines)
    assert sum(task["usd"] for task in record["tasks"]) == pytest.approx(usd, abs=0.005)
    assert f"{sum(task['usd'] for task in record['tasks']):.2f} USD" in record["said"]


def test_four_tasks_get_four_gpus_and_real_scores_and_cost_what_the_meter_says(desk: Home) -> None:
    with emulated(rehearsal(Config(gpus=tuple(_dear(Config())), hf_tokens=(HF_TOKEN,)))) as account:
        record = run(desk, account)

        assert metrics(record) == METRICS
        counts = {score["n"] for task in record["tasks"] for score in task["scores"]}
        assert counts == {hub.ITEMS, hub.SUMS}
        state = account.emulator.state()
        assert (len(state.deployments), most_at_once(state), account.left()) == (4, 4, [])
        assert_priced(record, account)
    secrets = (HF_TOKEN, account.emulator.key)
    written = [path for path in desk.folder.rglob("*") if path.is_file()]
    assert not any(secret in path.read_bytes().decode(errors="replace") for path in written for secret in secrets)


def test_overrides_choose_another_gpu_and_one_deployment_for_all(desk: Home) -> None:
    with emulated(rehearsal(Config(gpus=tuple(_dear(Config()))))) as account:
        record = run(
            desk,
            account,
            "deployment.gpu=H100-80GB",
            "deployment.sharing=shared",
            "deployment.model_id=mistralai/Mistral-7B-Instruct-v0.3",
            "evaluation.tokenizer=meta-llama/Llama-2-7b-chat-hf",
            "evaluation.tasks=[arc_challenge,winogrande]",
            "evaluation.limit=2",
        )

        assert metrics(record) == {name: METRICS[name] for name in ("arc_challenge", "winogrande")}
        (item,) = account.emulator.state().deployments
        assert item.document["config"]["gpu"] == "H100-80GB"
        assert item.document["config"]["weights"]["repo"] == "mistralai/Mistral-7B-Instruct-v0.3"
        assert account.left() == []
        assert_priced(record, account)


def _dear(config: Config) -> list[Gpu]:
    """Prices at which seconds cost cents."""
    return [replace(gpu, usd_per_hour=10 * gpu.usd_per_hour) for gpu in config.gpus]


def test_the_dry_run_tells_account_price_and_limit_and_creates_nothing(desk: Home) -> None:
    with emulated() as account:
        account.point(desk)

        done = desk.run(*EXAMPLE, "--dry-run")

        assert done.returncode == 0, done.stdout + done.stderr
        assert "nv-eval-tester" in done.stdout and "0.89 USD" in done.stdout
        assert {request.method for request in account.emulator.requests} == {"GET"}
    assert not (Path(desk.folder) / "cloud_results").exists()
