from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launcher.config import Request, load
from launcher.plan.build import build
from launcher.plan.render import duration, render

if TYPE_CHECKING:
    from tests.unit.conftest import Desk

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


GUIDE = """\
Plan of invocation a1b2c3d4: 1 endpoint and 1 job on lepton
  results   CWD/cloud_results/a1b2c3d4
  storage   /shared/nemo-evaluator-launcher-workspace/a1b2c3d4
  limits    endpoints at once 1, duration 8 h

1. hellaswag (lm_eval)
   endpoint  vllm-hellaswag-0-a1b2c3d4: 1 GPU, shape gpu.1xh100, node group h100-a
   image     vllm/vllm-openai:v0.30.0
   command   vllm serve meta-llama/Llama-3.1-8B-Instruct --host 0.0.0.0 --port 8000 --served-model-name \
meta/llama-3.1-8b-instruct --enable-tokenizer-info-endpoint
   env       HF_TOKEN=${oc.env:HF_TOKEN}
   env       VLLM_NO_USAGE_STATS=1
   mount     node-nfs:lepton-shared-fs:/nemo-evaluator-launcher-workspace/model-cache at \
/root/.cache/huggingface
   request   {"resource_requirement": {"resource_shape": "gpu.1xh100", "affinity": \
{"allowed_dedicated_node_groups": ["h100-a"]}, "min_replicas": 1, "max_replicas": 1}, "auto_scaler": \
{"scale_down": {"no_traffic_timeout": 5700, "not_ready_timeout": 4200}}, "api_tokens": [{"value": \
"${oc.env:NV_EVAL_ENDPOINT_TOKEN}"}], "health": {"liveness": {"initial_delay_seconds": 3600}}, "log": \
{"enable_collection": true}}
   ready     /health within 1 h, a completion within 5 min more
   model     meta/llama-3.1-8b-instruct on completions; one token and prompt log-probabilities asked for first
   job       eval-hellaswag-0-a1b2c3d4: image python:3.11-slim, shape cpu.small, at most 4 h
   mount     node-nfs:lepton-shared-fs:/ at /shared
   installs  lm-eval[api]>=0.4.13,<0.5, where the image lacks it
   request   {"resource_shape": "cpu.small", "affinity": {"allowed_dedicated_node_groups": ["h100-a"]}, \
"max_failure_retry": 0, "max_job_failure_retry": 0, "ttl_seconds_after_finished": 259200, "log": \
{"enable_collection": true}}
   settings  seed 1234
   requests  4 at once, at most 5 min each, 3 retries
   tokenizer the server's own

Worst case, if every time-out runs to its end: 10.167 GPU-hours, 20.33 USD.
Note: the value of HF_TOKEN goes to the workspace, where its members can read it; to avoid that, store it \
there as a secret and write {secret: NAME}.
Not checked: credentials: LEPTON_API_TOKEN is not set
Dry run: nothing was created, nothing was written.
"""

EXISTING = """\
Plan of invocation a1b2c3d4: 1 job on local
  results   CWD/results/a1b2c3d4
  jobs      start when all endpoints answer

1. gsm8k (lm_eval)
   endpoint  http://localhost:8000 (exists)
   model     org/model on completions; one token asked for first
   job       eval-gsm8k-0-a1b2c3d4: a process beside the launcher, at most 10 min
   env       HF_HOME=/hf
   settings  limit 10, few-shot 5, seed 1234, max_gen_tokens 99, temperature 0.5, until ["###"], system_prompt \
"Be brief. Answer with the number alone, and do not explain…
   requests  9 at once, 2 prompts in each, at most 5 min each, 1 retry, samples not kept

Worst case: no GPU time.
Problem: no GPU is free
Checked: output folder.
Dry run: nothing was created, nothing was written.
"""


def text_of(request: Request, *, verbose: bool = False, checks: list[tuple[str, str, str]] | None = None) -> str:
    return render(build(load(request), "a1b2c3d4"), checks or [], verbose=verbose)


def test_the_lepton_guide_s_plan_for_people(desk: Desk) -> None:
    request = Request(
        name="lepton_vllm_llama_3_1_8b_instruct",
        config_dir=str(EXAMPLES),
        overrides=(
            "evaluation.tasks=[hellaswag]",
            "execution.node_group=h100-a",
            "execution.resource_shape=gpu.1xh100",
            "execution.usd_per_gpu_hour=2",
            "limits=careful",
            "deployment.envs.HF_TOKEN=${oc.env:HF_TOKEN}",
        ),
    )
    checks = [("skipped", "credentials", "LEPTON_API_TOKEN is not set")]
    text = text_of(request, checks=checks).replace(str(desk.cwd), "CWD")
    assert text == GUIDE


def test_the_plan_of_an_existing_endpoint_for_people(desk: Desk) -> None:
    request = Request(
        overrides=(
            "deployment=none",
            "target.api_endpoint.url=http://localhost:8000/v1",
            "target.api_endpoint.model_id=org/model",
            "evaluation.tasks=[gsm8k]",
            "evaluation.num_fewshot=5",
            "evaluation.limit=10",
            "evaluation.max_gen_tokens=99",
            "evaluation.generation={temperature: 0.5, until: ['###']}",
            "evaluation.system_prompt='Be brief. Answer with the number alone, and do not explain what you did.'",
            "evaluation.envs.HF_HOME=/hf",
            "evaluation.concurrency=9",
            "evaluation.batch_size=2",
            "evaluation.max_retries=1",
            "evaluation.log_samples=false",
            "evaluation.timeout=600",
            "execution.start_jobs=all_ready",
        )
    )
    text = text_of(request, checks=[("ok", "output folder", ""), ("problem", "gpus", "no GPU is free")])
    assert text.replace(str(desk.cwd), "CWD") == EXISTING


def test_a_long_command_is_whole_only_where_detail_is_asked_for() -> None:
    request = Request(overrides=("deployment=vllm", "deployment.model_id=org/model", f"deployment.dtype={'x' * 200}"))
    assert "x" * 200 not in text_of(request)
    assert "x" * 200 in text_of(request, verbose=True)
    assert "runs      " in text_of(request, verbose=True)


@pytest.mark.parametrize(("runtime", "shown"), [("process", False), ("docker", True)])
def test_what_only_containers_have_is_shown_only_for_them(runtime: str, shown: bool) -> None:
    served = ("deployment=vllm", "deployment.model_id=m", "deployment.tensor_parallel_size=2")
    text = text_of(Request(overrides=(*served, f"execution.runtime={runtime}")))
    assert ("image     vllm/vllm-openai" in text, "/dev/shm" in text) == (shown, shown)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "0.2 s"),
        (1, "1 s"),
        (59, "59 s"),
        (59.7, "1 min"),
        (90, "2 min"),
        (3599, "1 h"),
        (3600, "1 h"),
        (12000, "3 h 20 min"),
        (28800, "8 h"),
    ],
)
def test_time_spans_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
