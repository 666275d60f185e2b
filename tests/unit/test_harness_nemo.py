"""The nemo_evaluator harness: which container runs what, and what is kept of results.yml."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from launcher.config.evaluation import Generation, Settings
from launcher.config.fields import Reference
from launcher.errors import ConfigError, ResultsError
from launcher.harnesses.nemo_evaluator import NemoEvaluator
from launcher.harnesses.nemo_tasks import IMAGE_NAMES, known_tasks
from launcher.harnesses.spec import HarnessJob, Score, TargetInfo

HARNESS = NemoEvaluator()
REGISTRY = "nvcr.io/nvidia/eval-factory"


def target(endpoint_type: str = "completions", *, has_api_key: bool = False) -> TargetInfo:
    return TargetInfo(
        model="served",
        endpoint_type="chat" if endpoint_type == "chat" else "completions",
        has_api_key=has_api_key,
        remote_tokenizer=True,
        model_id="org/model",
    )


def run_config(job: HarnessJob) -> dict[str, dict[str, object]]:
    config = yaml.safe_load(job.files["run_config.yml"])
    assert isinstance(config, dict)
    return config


@pytest.mark.parametrize(
    ("task", "endpoint_type", "needs_loglikelihood", "samples"),
    [
        ("ifeval", "chat", False, 541),
        ("gsm8k", "completions", False, None),
        ("hellaswag", "completions", True, None),
        ("wikitext", "completions", True, None),
        ("global_mmlu_full_zh", "completions", True, None),
        ("simple_evals.gpqa_diamond", "chat", False, 198),
        ("simple-evals.mmlu_pro", "chat", False, 12032),
        ("lm-evaluation-harness.mmlu_pro", "completions", False, 12032),
        ("AIME_2025", "chat", False, 30),
        ("hle", "chat", False, 2684),
    ],
)
def test_known_tasks_say_how_they_are_evaluated(
    task: str, endpoint_type: str, needs_loglikelihood: bool, samples: int | None
) -> None:
    info = HARNESS.describe(task, Settings())
    assert (info.name, info.known) == (task, True)
    assert (info.endpoint_types, info.needs_loglikelihood, info.samples) == (
        (endpoint_type,),
        needs_loglikelihood,
        samples,
    )


def test_the_task_list_has_all_tasks_of_lm_evaluation_harness_once() -> None:
    tasks = [task.name for entries in known_tasks().values() for task in entries if task.harness.startswith("lm-")]
    assert len(tasks) == len(set(tasks)) == 133


def test_a_name_of_several_harnesses_must_be_qualified() -> None:
    with pytest.raises(ConfigError) as caught:
        HARNESS.describe("mmlu", Settings())
    assert str(caught.value) == (
        "mmlu is a task of several harnesses; write lm-evaluation-harness.mmlu or simple_evals.mmlu"
    )


def test_an_unknown_task_needs_its_endpoint_type() -> None:
    with pytest.raises(ConfigError, match=r"hellaswagg is not in .* did you mean hellaswag"):
        HARNESS.describe("hellaswagg", Settings())
    info = HARNESS.describe("livecodebench.codegeneration", Settings(endpoint_type="chat"))
    assert (info.endpoint_types, info.known) == (("chat",), False)
    assert HARNESS.describe("codec.gpqa_diamond", Settings(endpoint_type="chat")).known is False


@pytest.mark.parametrize(
    ("task", "image", "kind"),
    [
        ("ifeval", f"{REGISTRY}/lm-evaluation-harness:26.03", "lm-evaluation-harness.ifeval"),
        ("simple-evals.mmlu", f"{REGISTRY}/simple-evals:26.03", "simple_evals.mmlu"),
        ("safety_eval.aegis_v2", f"{REGISTRY}/safety-harness:26.03", "safety_eval.aegis_v2"),
        ("my_own_task", None, "my_own_task"),
        ("v1.task", None, "v1.task"),
    ],
)
def test_each_task_runs_in_the_image_of_its_harness(task: str, image: str | None, kind: str) -> None:
    job = HARNESS.job(task, Settings(endpoint_type="chat"), target("chat"))
    assert job.image == image
    assert run_config(job)["config"]["type"] == kind


def test_settings_become_run_parameters() -> None:
    settings = Settings(
        limit=20.0,
        concurrency=4,
        max_gen_tokens=512,
        request_timeout=12.5,
        max_retries=2,
        num_fewshot=3,
        generation=Generation(temperature=1e-7, top_p=0.95),
        params={"task": "gsm8k_cot", "downsampling_ratio": 0.5, "extra": {"args": "--trust_remote_code"}},
        envs={"HF_TOKEN": Reference(env="HF_TOKEN")},
    )
    job = HARNESS.job("gsm8k", settings, target(has_api_key=True))
    assert run_config(job) == {
        "config": {
            "type": "lm-evaluation-harness.gsm8k",
            "params": {
                "limit_samples": 20,
                "parallelism": 4,
                "max_new_tokens": 512,
                "request_timeout": 13,
                "max_retries": 2,
                "temperature": 1e-7,
                "top_p": 0.95,
                "task": "gsm8k_cot",
                "extra": {"num_fewshot": 3, "args": "--trust_remote_code", "downsampling_ratio": 0.5},
            },
        },
        "target": {"api_endpoint": {"model_id": "served", "type": "completions", "api_key_name": "API_KEY"}},
    }
    assert job.env == {"NEMO_EVALUATOR_TELEMETRY_LEVEL": "0", "HF_TOKEN": Reference(env="HF_TOKEN")}
    assert (job.api_key_env, job.results) == ("API_KEY", ("results.yml",))


def test_without_a_key_none_is_named() -> None:
    job = HARNESS.job("ifeval", Settings(), target("chat"))
    assert job.api_key_env is None
    assert run_config(job)["target"] == {"api_endpoint": {"model_id": "served", "type": "chat"}}
    assert job.argv[3] == "{url}/v1/chat/completions"


def test_a_share_of_the_samples_stays_a_share() -> None:
    job = HARNESS.job("ifeval", Settings(limit=0.5), target("chat"))
    assert run_config(job)["config"]["params"] == {"limit_samples": 0.5}


def test_loglikelihood_tasks_get_a_tokenizer() -> None:
    params = run_config(HARNESS.job("hellaswag", Settings(), target()))["config"]["params"]
    assert params == {"extra": {"tokenizer": "org/model", "tokenizer_backend": "huggingface"}}
    params = run_config(HARNESS.job("hellaswag", Settings(tokenizer="/tok"), target()))["config"]["params"]
    assert params == {"extra": {"tokenizer": "/tok", "tokenizer_backend": "huggingface"}}


@pytest.mark.parametrize(
    ("task", "settings", "line"),
    [
        ("gsm8k", Settings(params={"parallelism": 3}), "params.parallelism: is set by concurrency; use that setting"),
        ("gsm8k", Settings(params={"extra": 3}), "params.extra: expected a mapping, got 3"),
        ("gsm8k", Settings(system_prompt="x"), "system_prompt: nemo_evaluator cannot pass this to lm-eval"),
        ("gsm8k", Settings(generation=Generation(until=["x"])), "generation.until: nemo_evaluator cannot pass this"),
        ("gsm8k", Settings(tokenizer_backend="remote"), "tokenizer_backend: remote: nemo_evaluator cannot pass"),
        ("hle", Settings(num_fewshot=3), "num_fewshot: nemo_evaluator cannot pass this to hle.hle; use params"),
        ("gsm8k", Settings(envs={"HF_TOKEN": "x"}), "envs.HF_TOKEN: give it by reference: ${oc.env:HF_TOKEN}"),
    ],
)
def test_settings_that_would_be_lost_are_refused(task: str, settings: Settings, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HARNESS.job(task, settings, target())
    assert line in str(caught.value)


RESULTS = """
command: lm-eval --tasks tiny
config: {type: lm-evaluation-harness.gsm8k, output_dir: /out}
git_hash: abc
metadata: {versioning: {nemo_evaluator: 0.2.8}}
results:
  tasks:
    tiny:
      metrics:
        exact_match: {scores: {exact_match: {value: 0.5, stats: {stderr: 0.25, count: 4}}}}
    gpqa_diamond:
      metrics:
        score: {scores: {micro: {value: 0.4, stats: {stderr: .nan, min: 0}}, macro: {value: 1}}}
  groups:
    tiny:
      metrics:
        exact_match: {scores: {exact_match: {value: 0.5, stats: {stderr: 0.25, count: 4}}}}
    mmlu:
      metrics: {acc: {scores: {acc: {value: 0.6, stats: {}}}}}
      groups:
        stem: {metrics: {acc: {scores: {acc: {value: 0.7, stats: {stderr: 0.1}}}}}}
"""


def test_scores_keep_their_standard_errors_and_nested_groups(tmp_path: Path) -> None:
    (tmp_path / "results.yml").write_text(RESULTS)
    assert HARNESS.parse(tmp_path, "gsm8k", Settings()) == [
        Score(task="tiny", metric="exact_match", filter="none", value=0.5, stderr=0.25, n=4),
        Score(task="gpqa_diamond", metric="score", filter="micro", value=0.4),
        Score(task="gpqa_diamond", metric="score", filter="macro", value=1.0),
        Score(task="mmlu", metric="acc", filter="none", value=0.6, group=True),
        Score(task="mmlu/stem", metric="acc", filter="none", value=0.7, stderr=0.1, group=True),
    ]


def test_provenance_is_what_nemo_evaluator_recorded(tmp_path: Path) -> None:
    (tmp_path / "results.yml").write_text(RESULTS)
    assert HARNESS.provenance(tmp_path) == {
        "command": "lm-eval --tasks tiny",
        "config": {"type": "lm-evaluation-harness.gsm8k", "output_dir": "/out"},
        "git_hash": "abc",
        "versioning": {"nemo_evaluator": "0.2.8"},
    }


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "Expected `object`"),
        ("results: [", "is no results file of nemo-evaluator"),
        ("results: {}", "holds no scores"),
        ("command: x", "missing required field `results`"),
        ("results: {tasks: {t: {metrics: {m: {scores: {s: {}}}}}}}", "missing required field `value`"),
        ("results: {tasks: {t: {metrics: {m: {scores: {s: {value: .nan}}}}}}}", "t m s is nan, which is no score"),
        ("results: {tasks: {t: {metrics: {m: {scores: {s: {value: many}}}}}}}", "Expected `float`"),
    ],
)
def test_broken_results_are_refused_in_one_line(tmp_path: Path, content: str, what: str) -> None:
    (tmp_path / "results.yml").write_text(content)
    with pytest.raises(ResultsError) as caught:
        HARNESS.parse(tmp_path, "t", Settings())
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="No such file"):
        HARNESS.parse(tmp_path, "t", Settings())


def install(folder: Path, name: str) -> None:
    """A program that tells how it was called."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f'#!/bin/sh\necho {name}\nprintf "%s\\n" "$@" "$PWD" "${{PATH%%:*}}"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def start(tmp_path: Path, path: Path, output_dir: Path) -> subprocess.CompletedProcess[str]:
    """Run the helper that travels with the job, in the working folder, as the runner does."""
    source = HARNESS.job("ifeval", Settings(), target("chat")).files["nemo_run.py"]
    (tmp_path / "nemo_run.py").write_text(source)
    output_dir.mkdir(exist_ok=True)
    argv = [sys.executable, "-I", str(tmp_path / "nemo_run.py"), "run.yml", "http://x/v1", str(output_dir)]
    env = {**os.environ, "PATH": f"{path}:/usr/bin:/bin"}
    return subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)


def test_the_older_program_is_taken_where_there_is_no_other(tmp_path: Path) -> None:
    bin_folder, output = tmp_path / "bin", tmp_path / "out"
    install(bin_folder, "eval-factory")
    lines = start(tmp_path, bin_folder, output).stdout.splitlines()
    assert lines[0] == "eval-factory"
    install(bin_folder, "nemo-evaluator")
    lines = start(tmp_path, bin_folder, output).stdout.splitlines()
    assert lines == [
        "nemo-evaluator",
        *("run_eval", "--run_config", "run.yml", "--model_url", "http://x/v1", "--output_dir", str(output)),
        str(tmp_path),
        str(bin_folder),
    ]


def test_an_output_folder_that_a_shell_would_split_is_never_pasted(tmp_path: Path) -> None:
    bin_folder, output = tmp_path / "bin", tmp_path / "my 'results'"
    install(bin_folder, "nemo-evaluator")
    lines = start(tmp_path, bin_folder, output).stdout.splitlines()
    assert lines[6:9] == ["--output_dir", ".", str(output)]


def test_a_missing_program_is_said(tmp_path: Path) -> None:
    ended = start(tmp_path, tmp_path, tmp_path / "out")
    assert ended.returncode == 127
    assert "neither nemo-evaluator nor eval-factory" in ended.stderr


def test_every_known_task_belongs_to_a_harness_with_an_image() -> None:
    assert {task.harness for entries in known_tasks().values() for task in entries} <= set(IMAGE_NAMES)
