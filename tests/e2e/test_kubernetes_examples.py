"""The Kubernetes example, rehearsed: the real small model in the place of vLLM, real lm-eval in the jobs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

pytest.importorskip("kubernetes", reason="pip install 'nv-eval-launcher[kubernetes]'")
pytest.importorskip("cyllama", reason="cyllama is not installed: pip install 'nv-eval-launcher[smollm]'")

from launcher.emulators.common.rehearsal import NETWORK
from launcher.emulators.kubernetes import Config, KubernetesEmulator
from launcher.emulators.lepton.images import table
from tests.e2e.cli import ROOT, Home, wait_for

pytestmark = pytest.mark.e2e
TASKS = "[{name: hellaswag_100},{name: truthfulqa_mc1_100},{name: gsm8k_100}]"


def test_the_example_scores_three_benchmarks_with_a_real_model(home: Home) -> None:
    config = Config(images=table())
    with KubernetesEmulator(dataclasses.replace(config, inherit=(*config.inherit, *NETWORK))) as emulator:
        home.extra["KUBECONFIG"] = str(emulator.kubeconfig)
        words = ["--config-dir", str(Path(ROOT, "examples")), "--config-name", "kubernetes_vllm_llama_3_1_8b_instruct"]

        done = home.run(
            *("run", *words, f"evaluation.tasks={TASKS}", "evaluation.limit=2", "--json"),
            timeout=300,
        )

        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        record = json.loads(done.stdout)
        wait_for(lambda: not emulator.left(), "nothing is left")
    assert [task["key"] for task in record["tasks"]] == ["hellaswag_100", "truthfulqa_mc1_100", "gsm8k_100"]
    assert all(task["scores"] and task["scores"][0]["n"] == 2 for task in record["tasks"])
