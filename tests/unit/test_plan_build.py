from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from launcher.config import Config, Request, load
from launcher.config.execution import Lepton
from launcher.config.fields import Reference
from launcher.errors import ConfigError
from launcher.plan.build import build
from launcher.plan.model import Mount, Plan, TaskPlan

if TYPE_CHECKING:
    from tests.unit.conftest import Desk

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
GUIDE = Request(name="lepton_vllm_llama_3_1_8b_instruct", config_dir=str(EXAMPLES))
INVOCATION = "a1b2c3d4"
VLLM = ("deployment=vllm", "deployment.model_id=org/model")
EXISTING = ("deployment=none", "target.api_endpoint.model_id=m")
GENERATES = "evaluation.tasks=[gsm8k_100]"
SCORES = "evaluation.tasks=[hellaswag_100]"


def config(*overrides: str) -> Config:
    return load(Request(overrides=overrides))


def plan(*overrides: str) -> Plan:
    return build(config(*overrides), INVOCATION)


def guide(*overrides: str) -> Plan:
    return build(load(Request(name=GUIDE.name, config_dir=GUIDE.config_dir, overrides=overrides)), INVOCATION)


def task(*overrides: str) -> TaskPlan:
    return plan(*overrides).tasks[0]


class TestWhole:
    def test_the_same_config_gives_the_same_plan(self) -> None:
        assert plan(*VLLM) == plan(*VLLM)

    def test_without_an_id_each_plan_gets_a_fresh_one(self) -> None:
        assert build(config()).invocation != build(config()).invocation

    def test_each_task_has_an_endpoint_and_a_job_of_its_own(self) -> None:
        made = plan()
        names = [name for t in made.tasks for name in ((t.endpoint.name if t.endpoint else ""), t.job.name)]
        assert len(set(names)) == 6
        assert all(name.endswith(INVOCATION) for name in names)

    @pytest.mark.parametrize("overrides", [(), VLLM, (*EXISTING, "target.api_endpoint.url=http://h")])
    def test_a_plan_survives_json(self, overrides: tuple[str, ...]) -> None:
        made = plan(*overrides, "deployment.envs.A=${oc.env:SOME}" if "deployment=none" not in overrides else SCORES)
        assert msgspec.json.decode(msgspec.json.encode(made), type=Plan) == made

    def test_the_config_in_a_plan_is_resolved_to_the_last_default(self) -> None:
        made = guide()
        execution = made.execution_config()
        assert isinstance(execution, Lepton)
        assert made.config["execution"]["storage"]["mount_path"] == execution.storage.mount_path == "/shared"
        assert made.config["deployment"]["start_timeout"] == 3600

    def test_building_a_plan_touches_nothing(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("a plan is made without asking anyone")

        monkeypatch.setattr(socket, "socket", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        before = desk.files()
        assert len(guide().tasks) == 3
        assert desk.files() == before

    def test_no_value_of_a_secret_is_in_a_plan(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SOME_TOKEN", "canary-7f3a")
        made = plan(
            "deployment.envs.HF_TOKEN=${oc.env:SOME_TOKEN}",
            "evaluation.envs.MINE=${oc.env:SOME_TOKEN}",
            "target.api_endpoint.api_key_name=SOME_TOKEN",
        )
        first = made.tasks[0]
        assert first.endpoint is not None
        assert first.endpoint.server.env["HF_TOKEN"] == Reference(env="SOME_TOKEN")
        assert first.job.run.env["MINE"] == Reference(env="SOME_TOKEN")
        assert first.target.api_key == Reference(env="SOME_TOKEN")
        assert b"canary" not in msgspec.json.encode(made)


class TestWorstCase:
    def test_it_is_every_time_out_on_every_gpu_in_every_attempt(self) -> None:
        made = plan(
            *VLLM,
            GENERATES,
            "deployment.tensor_parallel_size=4",
            "deployment.start_timeout=1000",
            "deployment.health_timeout=200",
            "evaluation.timeout=2400",
            "execution.usd_per_gpu_hour=2.5",
            "limits.max_attempts=3",
        )
        assert (made.worst_case.gpu_hours, made.worst_case.usd) == (12.0, 30.0)

    def test_without_a_price_it_is_hours_only(self) -> None:
        assert guide().worst_case.usd is None
        assert guide().worst_case.gpu_hours == pytest.approx(2 * 15.25)

    def test_a_cpu_costs_nothing(self) -> None:
        assert plan("execution.usd_per_gpu_hour=3").worst_case.gpu_hours == 0

    def test_an_endpoint_that_exists_costs_nothing(self) -> None:
        made = plan(*EXISTING, "target.api_endpoint.url=http://h", "execution.usd_per_gpu_hour=3")
        assert (made.worst_case.gpu_hours, made.worst_case.usd) == (0, 0)


class TestRoute:
    def test_a_loglikelihood_task_is_scored_on_completions(self) -> None:
        assert (task(SCORES).target.endpoint_type, task(SCORES).target.needs_loglikelihood) == ("completions", True)

    def test_the_task_s_route_wins_over_the_target_s(self) -> None:
        both = ("target.api_endpoint.type=chat", "evaluation.tasks=[{name: gsm8k_100, endpoint_type: completions}]")
        assert task(*both).target.endpoint_type == "completions"
        assert task("target.api_endpoint.type=chat", GENERATES).target.endpoint_type == "chat"

    @pytest.mark.parametrize(
        ("url", "base", "route"),
        [
            ("http://h:8000", "http://h:8000", "completions"),
            ("http://h:8000/v1", "http://h:8000", "completions"),
            ("http://h/v1/", "http://h", "completions"),
            ("http://h/v1/completions", "http://h", "completions"),
            ("https://h/proxy/v1/chat/completions", "https://h/proxy", "chat"),
            ("http://[::1]:8000/v1", "http://[::1]:8000", "completions"),
        ],
    )
    def test_the_path_of_a_url_names_the_route(self, url: str, base: str, route: str) -> None:
        target = task(*EXISTING, f"target.api_endpoint.url='{url}'", GENERATES).target
        assert (target.url, target.endpoint_type) == (base, route)

    def test_a_route_that_the_server_has_not_is_refused(self) -> None:
        container = ("deployment=container", "deployment.model_id=m", "deployment.image=i")
        with pytest.raises(ConfigError, match="needs the completions route, which deployment container does not serve"):
            plan(*container, "deployment.endpoint_types=[chat]", GENERATES, "evaluation.endpoint_type=completions")

    def test_an_endpoint_said_to_have_no_loglikelihoods_is_refused_for_them(self) -> None:
        existing = (*EXISTING, "target.api_endpoint.url=http://h", "deployment.loglikelihood=no")
        with pytest.raises(ConfigError, match=r"hellaswag_100\): scores log-likelihoods, and deployment.loglikelihood"):
            plan(*existing, SCORES)
        assert task(*existing, GENERATES).endpoint is None


class TestGeneration:
    @pytest.mark.parametrize("setting", ["generation: {temperature: 1}", "max_gen_tokens: 9"])
    def test_a_task_that_writes_no_answers_refuses_what_it_is_told_of_them(self, setting: str) -> None:
        name = setting.partition(":")[0]
        with pytest.raises(ConfigError, match=rf"tasks\[0\]\.{name}: hellaswag_100 only scores given answers"):
            plan(f"evaluation.tasks=[{{name: hellaswag_100, {setting}}}]")

    def test_what_is_said_for_all_tasks_is_for_those_that_generate(self) -> None:
        made = plan("evaluation.generation.temperature=1", "evaluation.max_gen_tokens=9")
        assert [(t.settings.generation.temperature, t.settings.max_gen_tokens) for t in made.tasks] == [
            (None, None),
            (None, None),
            (1, 160),
        ]


class TestPlaces:
    def test_results_go_below_the_working_directory(self, desk: Desk) -> None:
        made = plan("execution.output_dir=out")
        assert (made.output_dir, made.storage) == (str(desk.cwd / "out"), str(desk.cwd / "out" / INVOCATION))

    def test_a_tilde_is_the_home(self, desk: Desk) -> None:
        assert plan("execution.output_dir='~/out'").output_dir == str(desk.root / "home" / "out")

    def test_storage_of_an_invocation_is_its_own(self) -> None:
        made = guide("execution.storage.workspace=/shared/w/")
        assert made.storage == "/shared/w/a1b2c3d4"
        assert [mount.path for mount in made.tasks[0].job.mounts] == ["/shared"]

    def test_models_are_kept_in_one_place_for_all_invocations(self) -> None:
        endpoint = guide("execution.storage.workspace=/shared/w").tasks[0].endpoint
        assert endpoint is not None
        assert endpoint.mounts == (
            Mount(source="node-nfs:lepton-shared-fs:/w/model-cache", path="/root/.cache/huggingface"),
        )

    def test_a_job_runs_beside_the_launcher_unless_the_task_names_an_image(self) -> None:
        assert task(GENERATES).job.image is None
        assert task(GENERATES, "evaluation.image=mine:1").job.image == "mine:1"
        assert guide().tasks[0].job.image == "python:3.11-slim"

    def test_elsewhere_a_server_needs_an_image(self) -> None:
        with pytest.raises(ConfigError) as caught:
            plan("execution=lepton")
        assert caught.value.problems == (
            "deployment.type: smollm runs only as a process on this machine; set execution=local",
        )
        with pytest.raises(ConfigError, match=r"deployment\.image: is missing; lepton runs servers in containers"):
            plan("execution=lepton", "deployment=container", "deployment.model_id=m", "deployment.command=[a]")


class TestNames:
    @pytest.mark.parametrize(
        ("overrides", "name"),
        [
            ((), "org/model"),
            (("deployment.served_model_name=a",), "a"),
            (("target.api_endpoint.model_id=b",), "b"),
            (("deployment.served_model_name=c", "target.api_endpoint.model_id=c"), "c"),
        ],
    )
    def test_the_model_is_asked_for_by_the_name_it_is_served_under(self, overrides: tuple[str, ...], name: str) -> None:
        made = task(*VLLM, *overrides, GENERATES)
        assert made.endpoint is not None
        assert made.target.model == made.endpoint.server.served_name == name


class TestNotes:
    def test_what_the_run_will_still_need_is_noted(self) -> None:
        assert guide().notes == (
            "execution.node_group is not set: a run needs one that the workspace offers",
            "execution.resource_shape is not set: a run needs one that the workspace offers",
        )

    def test_nothing_is_noted_where_nothing_is_missing(self) -> None:
        assert guide("execution.node_group=g", "execution.resource_shape=gpu.1xh100").notes == ()
        assert plan().notes == ()


class TestExpectedDuration:
    def test_it_grows_with_the_samples_and_stops_at_the_limit(self) -> None:
        whole, some, share = (
            task(GENERATES, f"evaluation.limit={limit or 'null'}").expected_duration for limit in (None, 5, 0.5)
        )
        assert whole is not None
        assert some is not None
        assert share is not None
        assert some < share < whole

    def test_what_the_person_expects_wins(self) -> None:
        assert task("evaluation.expected_duration=42").expected_duration == 42
