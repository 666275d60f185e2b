"""Auxiliary endpoints in the config and in the plan: what is refused, what is sent, what jobs are told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml

from launcher.config.evaluation import Settings
from launcher.config.fields import Reference
from launcher.config.validate import validate
from launcher.errors import ConfigError
from launcher.harnesses import load_harness
from launcher.harnesses.lm_eval.driver import auxiliary as metadata_of
from launcher.harnesses.spec import TargetInfo
from launcher.plan.addressing import with_auxiliary
from launcher.plan.build import build
from launcher.plan.changes import Change
from launcher.plan.document import job_document
from launcher.plan.model import Plan
from launcher.plan.render import render
from launcher.platforms.local.machine import largest, most_at_once
from launcher.platforms.pair import jobs_alone
from launcher.platforms.secrets import references
from launcher.runner.job import Job

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.conftest import Desk

VLLM = {"type": "vllm", "model_id": "org/model", "image": "vllm:1"}
JUDGE = {"deployment": {"type": "vllm", "model_id": "org/judge", "tensor_parallel_size": 4, "start_timeout": 7200}}
HOSTED = {
    "deployment": {"type": "none"},
    "target": {"api_endpoint": {"url": "https://judge.example/v1", "model_id": "big", "api_key_name": "JUDGE_KEY"}},
}
LEPTON = {"type": "lepton", "node_group": "h100", "resource_shape": "gpu.1xh100"}


def plan(auxiliary: dict[str, Any], *tasks: dict[str, Any], **sections: Any) -> Plan:
    named = [{"name": f"t{i}", **task} for i, task in enumerate(tasks or ({}, {}))]
    evaluation = {"harness": "command", "command": ["bench"], "timeout": 3600, "tasks": named}
    tree = {"execution": {"type": "local"}, "deployment": VLLM, "auxiliary": auxiliary, "evaluation": evaluation}
    return build(validate({**tree, **sections}), "a1234567")


def refusal(auxiliary: dict[str, Any], *tasks: dict[str, Any], **sections: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        plan(auxiliary, *tasks, **sections)
    return str(caught.value)


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_an_auxiliary_endpoint_is_planned_once_with_a_name_of_its_own():
    made = plan({"judge": JUDGE})
    assert [endpoint.name for endpoint in made.endpoints] == [
        "vllm-t0-0-a1234567",
        "vllm-t1-1-a1234567",
        "vllm-judge-2-a1234567",
    ]
    assert (made.auxiliary[0].key, made.auxiliary[0].target.model) == ("judge", "org/judge")
    assert made.auxiliary[0].target.endpoint_type == "chat"
    assert [list(task.auxiliary) for task in made.tasks] == [["judge"], ["judge"]]
    assert len(made.tasks) == 2 and msgspec.json.decode(msgspec.json.encode(made), type=Plan) == made


def test_a_task_uses_those_it_names_and_all_where_it_names_none():
    made = plan({"judge": JUDGE, "user": HOSTED}, {"auxiliary": ["user"]}, {}, {"auxiliary": []})
    assert [list(task.auxiliary) for task in made.tasks] == [["user"], ["judge", "user"], []]


def test_it_counts_in_the_worst_case_and_in_what_a_machine_must_have_free():
    made = plan({"judge": JUDGE}, execution={"type": "local", "usd_per_gpu_hour": 2.0}, limits={"max_attempts": 1})
    boot, longest = 3900 / 3600, (3900 + 7500) / 3600 + 1
    gpu_hours = 2 * longest + 4 * (7500 / 3600 + longest)
    assert boot < longest and made.worst_case.gpu_hours == pytest.approx(gpu_hours, abs=0.01)
    assert made.worst_case.usd == pytest.approx(2 * gpu_hours, abs=0.05)
    assert largest(made) == 5 and most_at_once(made, gpus=8, memory_gib=None) == 3


def test_tasks_that_limits_keep_apart_need_it_one_after_the_other():
    side_by_side = plan({"judge": JUDGE}, {}, {}, {}, {}).auxiliary[0].job.timeout
    queued = plan({"judge": JUDGE}, {}, {}, {}, {}, limits={"max_parallel_endpoints": 3}).auxiliary[0].job.timeout
    assert queued == 2 * side_by_side


def test_on_lepton_it_may_have_a_shape_of_its_own_and_waits_long_for_a_request():
    made = plan({"judge": {**JUDGE, "resource_shape": "gpu.8xh100", "node_group": "big"}}, execution=LEPTON)
    spec = made.auxiliary[0].endpoint.request["spec"]
    assert spec["resource_requirement"]["resource_shape"] == "gpu.8xh100"
    assert spec["resource_requirement"]["affinity"] == {"allowed_dedicated_node_groups": ["big"]}
    idle = spec["auto_scaler"]["scale_down"]["no_traffic_timeout"]
    assert idle >= made.tasks[0].longest
    own = made.tasks[0].endpoint.request["spec"]["auto_scaler"]["scale_down"]["no_traffic_timeout"]
    assert own >= made.tasks[0].longest, "while the judge works nobody asks the judged model"
    keys = [env["name"] for env in made.tasks[0].job.request["spec"]["envs"]]
    assert "NV_EVAL_AUX_JUDGE_API_KEY" in keys


def test_the_dry_run_shows_it_and_who_uses_it():
    text = render(plan({"judge": JUDGE, "user": HOSTED}, {}, {"auxiliary": ["user"]}))
    assert "judge (auxiliary, for t0)" in text and "vllm-judge-2-a1234567: 4 GPUs" in text
    assert "user (auxiliary, for t0, t1)" in text and "https://judge.example (exists)" in text
    assert "3 endpoints and 2 jobs" in text


def test_answers_of_the_evaluated_model_are_kept_whoever_judges_them():
    def cache(auxiliary: dict[str, Any]) -> Any:
        made = plan(auxiliary, evaluation={"tasks": ["gsm8k_100"]})
        return json.loads(made.tasks[0].job.run.files["run.json"])["cache"]

    assert cache({}) == cache({"judge": JUDGE}) == cache({"judge": HOSTED}) is not None


def test_another_judge_is_no_operational_change_and_its_time_outs_are():
    assert not Change("auxiliary.judge.deployment.model_id", "a", "b").is_operational
    assert not Change("auxiliary.judge.target.api_endpoint.url", "a", "b").is_operational
    assert Change("auxiliary.judge.deployment.start_timeout", 1, 2).is_operational


# --- what jobs are told -----------------------------------------------------------------------------------------------


def test_a_job_finds_it_in_its_environment_and_its_key_is_a_reference_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NV_EVAL_AUX_USER_API_KEY", "canary-key-1")
    made = plan({"judge": JUDGE, "user": HOSTED}, {"command": ["bench", "--judge", "{auxiliary.judge.url}/v1"]})
    assert made.tasks[0].job.run.env["NV_EVAL_AUX_USER_API_KEY"] == Reference(env="JUDGE_KEY")
    assert Reference(env="JUDGE_KEY") in set(references(jobs_alone(made)))
    assert b"canary" not in msgspec.json.encode(made)
    task = with_auxiliary(made.tasks[0], {"judge": ("http://127.0.0.1:9001/", None)})
    document = job_document("a1234567", task, url="http://h:1", output_dir="o", work_dir="w")
    (tmp_path / "job.json").write_text(json.dumps(document))
    job = Job.load(str(tmp_path / "job.json"))
    env = job.environment()
    found = {name: value for name, value in env.items() if name.startswith("NV_EVAL_AUX_")}
    assert found == {
        "NV_EVAL_AUX_JUDGE_BASE_URL": "http://127.0.0.1:9001/v1",
        "NV_EVAL_AUX_JUDGE_MODEL": "org/judge",
        "NV_EVAL_AUX_JUDGE_API_KEY": "none",
        "NV_EVAL_AUX_USER_BASE_URL": "https://judge.example/v1",
        "NV_EVAL_AUX_USER_MODEL": "big",
        "NV_EVAL_AUX_USER_API_KEY": "canary-key-1",
    }
    assert job.fill(job.run.argv[2]) == "http://127.0.0.1:9001/v1"
    assert "canary-key-1" in job.secrets()
    assert metadata_of(env) == {
        "auxiliary": {
            "judge": {"base_url": "http://127.0.0.1:9001/v1", "model": "org/judge"},
            "user": {"base_url": "https://judge.example/v1", "model": "big"},
        }
    }


def nemo(params: dict[str, Any], *auxiliary: str) -> dict[str, Any]:
    target = TargetInfo(
        model="m", endpoint_type="chat", has_api_key=False, remote_tokenizer=False, model_id="m", auxiliary=auxiliary
    )
    job = load_harness("nemo_evaluator").job("simple_evals.gpqa_diamond", Settings(params=params), target)
    filled = job.files["run_config.yml"].replace("{auxiliary.judge.url}", "http://j:1")
    extra = yaml.safe_load(filled.replace("{auxiliary.judge.model}", "123"))["config"]["params"].get("extra", {})
    return extra.get("judge", {})  # type: ignore[no-any-return]


def test_nvidias_harnesses_find_the_judge_in_their_own_parameters():
    assert nemo({}) == {} == nemo({}, "user")
    own = {"extra": {"judge": {"url": "/v1/chat/completions", "temperature": 0}}}
    key = "NV_EVAL_AUX_JUDGE_API_KEY"
    assert nemo({}, "judge") == {"url": "http://j:1/v1", "model_id": "123", "api_key": key}
    assert nemo(own, "judge")["url"] == "http://j:1/v1/chat/completions" and nemo(own, "judge")["temperature"] == 0
    with pytest.raises(ConfigError, match=r"params.extra.judge.model_id: is set by auxiliary.judge"):
        nemo({"extra": {"judge": {"model_id": "another"}}}, "judge")


# --- what is refused --------------------------------------------------------------------------------------------------

JUDGE_KEYS = "auxiliary:\n  judge:\n"
"""Lines 5 and 6, where a case is about the keys of one endpoint: its own text begins in line 7."""
VLLM_KEYS = "    deployment: {type: vllm, model_id: j}\n"
NAME_RULE = "which becomes part of variables; use lower-case letters, digits and underscores, a letter first"
TARGET = "auxiliary.judge.target.api_endpoint"

REFUSALS = [
    (
        f"{JUDGE_KEYS}    deployment: {{type: vllm, model_id: j, max_len: 5}}\n",
        "7: auxiliary.judge.deployment.max_len: unknown key; did you mean max_model_len?",
    ),
    (
        f"{JUDGE_KEYS}    deployment: {{type: vlm, model_id: j}}\n",
        "7: auxiliary.judge.deployment.type: 'vlm' is no deployment; did you mean vllm?",
    ),
    (
        f"auxiliary:\n  my-judge:\n{VLLM_KEYS}",
        f"6: auxiliary.my-judge: 'my-judge' cannot be its name, {NAME_RULE}",
    ),
    (
        f"{JUDGE_KEYS}    deploy: {{type: vllm}}\n",
        "6: auxiliary.judge.deployment: is missing; set it in the file, or on the command line: "
        "auxiliary.judge.deployment=VALUE",
    ),
    (
        f"{JUDGE_KEYS}{VLLM_KEYS}    taget: {{}}\n",
        "8: auxiliary.judge.taget: unknown key; did you mean target?",
    ),
    ("auxiliary: [judge]\n", "5: auxiliary: expected a mapping of names to endpoints, got a list"),
    (
        f"{JUDGE_KEYS}    deployment: {{type: none}}\n",
        f"6: {TARGET}.url: is missing; deployment none needs the URL of an endpoint",
    ),
    (
        f"{JUDGE_KEYS}    deployment: {{type: none}}\n"
        "    target: {api_endpoint: {url: 'http://h', model_id: m, api_key_name: sk-1.2}}\n",
        f"8: {TARGET}.api_key_name: expected the name of an environment variable, not what it holds",
    ),
    (
        f"{JUDGE_KEYS}    deployment: {{type: vllm, model_id: j, envs: {{HF_TOKEN: hf_abc}}}}\n",
        "7: auxiliary.judge.deployment.envs.HF_TOKEN: give it by reference: ${oc.env:HF_TOKEN}",
    ),
]


@pytest.mark.parametrize(("text", "line"), REFUSALS, ids=[line[:40] for _, line in REFUSALS])
def test_a_mistake_is_one_line_with_its_place(text: str, line: str, desk: Desk):
    head = "defaults:\n  - execution: local\n  - deployment: smollm\n  - _self_\n"
    desk.write("conf/c.yaml", head + text + "evaluation: {tasks: [gsm8k_100]}\n")
    code, out, err = desk.nv_eval("run", "--dry-run", "--config-dir", "conf", "--config-name", "c")
    assert (code, out, err) == (2, "", f"nv-eval: conf/c.yaml:{line}\n")


def test_a_name_that_nothing_defines_is_refused_with_the_nearest(desk: Desk):
    text = "auxiliary: {judge: {deployment: {type: smollm}}}\n"
    text += "evaluation: {tasks: [{name: gsm8k_100, auxiliary: [juge]}]}\n"
    desk.write("conf/c.yaml", "defaults:\n  - execution: local\n  - deployment: smollm\n  - _self_\n" + text)
    code, _, err = desk.nv_eval("run", "--dry-run", "--config-dir", "conf", "--config-name", "c")
    wrong = "evaluation.tasks[0].auxiliary[0]: 'juge' is no auxiliary endpoint; did you mean judge?"
    assert (code, err) == (2, f"nv-eval: conf/c.yaml:6: {wrong}\n")


def test_what_cannot_run_together_is_refused():
    rented = {"deployment": {"type": "deepinfra", "model_id": "org/judge", "gpu": "H100-80GB"}}
    assert refusal({"judge": rented}).startswith("auxiliary.judge.deployment.type: deepinfra beside vllm: ")
    assert refusal({"judge": {**JUDGE, "resource_shape": "gpu.8xh100"}}).startswith(
        "auxiliary.judge.resource_shape: only execution lepton has it"
    )
    assert refusal({"t0": JUDGE}).startswith("auxiliary.t0: a task has this name")
    assert refusal({"judge": JUDGE}, limits={"max_parallel_endpoints": 1}) == (
        "limits.max_parallel_endpoints: t0 needs 2 at once, with judge; raise it\n"
        "limits.max_parallel_endpoints: t1 needs 2 at once, with judge; raise it"
    )
    assert "limits.max_gpus: t0 needs 5 at once" in refusal({"judge": JUDGE}, limits={"max_gpus": 4})
    taken = {"envs": {"NV_EVAL_AUX_JUDGE_MODEL": "x"}}
    assert "envs.NV_EVAL_AUX_JUDGE_MODEL: is set by the launcher" in refusal({"judge": JUDGE}, taken)


def test_an_endpoint_kept_for_itself_has_none(monkeypatch: pytest.MonkeyPatch):
    from launcher.plan.endpoint import build as build_endpoint

    tree = {"execution": {"type": "local"}, "deployment": VLLM, "auxiliary": {"judge": JUDGE}}
    assert build_endpoint(validate(tree), ttl=60, now=0.0).auxiliary == ()
