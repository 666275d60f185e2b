"""What wins over what when a config is put together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from launcher.config import Config, Request, load
from launcher.config.deployment import Smollm, Vllm
from launcher.config.evaluation import Generation
from launcher.config.execution import Lepton
from launcher.config.fields import Reference
from launcher.errors import ConfigError
from launcher.plan.build import build

if TYPE_CHECKING:
    from tests.unit.conftest import Desk

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
OWN = ("deployment: {type: smollm}\n", "evaluation: {tasks: [gsm8k_100]}\n")


def config(*overrides: str, **request: Any) -> Config:
    return load(Request(overrides=overrides, **request))


def own(desk: Desk, text: str, *overrides: str, name: str = "c") -> Config:
    """A config of the person's own, in their own folder."""
    desk.write(f"conf/{name}.yaml", text)
    return config(*overrides, name=name, config_dir="conf")


def vllm(made: Config) -> Vllm:
    assert isinstance(made.deployment, Vllm)
    return made.deployment


def test_the_default_config_is_a_small_model_and_three_tasks_on_this_machine() -> None:
    made = config()
    assert made.execution.type == "local"
    assert isinstance(made.deployment, Smollm)
    assert [task.name for task in made.evaluation.tasks] == ["hellaswag_100", "truthfulqa_mc1_100", "gsm8k_100"]


class TestFolders:
    def test_a_file_of_one_s_own_shadows_a_packaged_option(self, desk: Desk) -> None:
        desk.write("conf/limits/careful.yaml", "max_gpus: 3\n")
        assert config("limits=careful", config_dir="conf").limits.max_gpus == 3

    def test_packaged_options_stay_available_beside_one_s_own(self, desk: Desk) -> None:
        desk.write("conf/deployment/mine.yaml", "type: vllm\nmodel_id: org/model\n")
        assert vllm(config("deployment=mine", "limits=careful", config_dir="conf")).model_id == "org/model"

    def test_config_path_is_a_main_folder_with_the_packaged_groups_behind_it(self, desk: Desk) -> None:
        desk.write("main/c.yaml", "defaults: [{limits: careful}, _self_]\n" + OWN[1])
        made = config(name="c", config_path="main")
        assert (made.limits.max_parallel_endpoints, made.evaluation.tasks[0].name) == (1, "gsm8k_100")

    def test_config_dir_wins_over_config_path(self, desk: Desk) -> None:
        desk.write("main/c.yaml", "export: {formats: [csv]}\n")
        desk.write("conf/c.yaml", "export: {formats: [markdown]}\n")
        assert config(name="c", config_dir="conf", config_path="main").export.formats == ["markdown"]

    def test_hydra_s_own_search_path_is_followed(self, desk: Desk) -> None:
        desk.write("more/limits/tight.yaml", "max_gpus: 1\n")
        assert config("limits=tight", f"hydra.searchpath=['{desk.cwd}/more']").limits.max_gpus == 1

    @pytest.mark.parametrize("name", ["c", "c.yaml"])
    def test_a_config_may_be_named_with_its_ending(self, name: str, desk: Desk) -> None:
        desk.write("conf/c.yaml", OWN[1])
        assert config(name=name, config_dir="conf").evaluation.tasks[0].name == "gsm8k_100"

    def test_a_folder_with_blanks_and_quotes_works(self, desk: Desk) -> None:
        desk.write("my 'own' confs/c.yaml", OWN[1])
        assert config(name="c", config_dir="my 'own' confs").evaluation.tasks[0].name == "gsm8k_100"

    def test_a_defaults_list_without_self_is_no_warning_and_the_file_wins(self, desk: Desk) -> None:
        made = own(desk, "defaults: [{deployment: smollm}]\ndeployment: {context_length: 99}\n")
        assert isinstance(made.deployment, Smollm)
        assert made.deployment.context_length == 99


class TestOverrides:
    def test_a_group_can_be_chosen_that_the_config_s_defaults_do_not_mention(self, desk: Desk) -> None:
        made = own(desk, OWN[1], "deployment=vllm", "deployment.model_id=org/model")
        assert vllm(made).model_id == "org/model"

    def test_a_group_chosen_late_keeps_the_keys_of_the_file(self, desk: Desk) -> None:
        made = own(desk, "deployment: {model_id: org/model, dtype: half}\n", "deployment=vllm")
        assert (vllm(made).model_id, vllm(made).dtype) == ("org/model", "half")

    def test_an_added_group_counts_once(self, desk: Desk) -> None:
        assert own(desk, OWN[1], "+limits=careful").limits.max_parallel_endpoints == 1

    @pytest.mark.parametrize("plus", ["", "+", "++"])
    def test_a_key_that_no_file_mentions_needs_no_plus_and_takes_one(self, plus: str) -> None:
        assert config(f"{plus}evaluation.seed=7").evaluation.seed == 7

    @pytest.mark.parametrize("plus", ["", "+", "++"])
    def test_a_key_that_a_file_sets_needs_no_plus_and_takes_one(self, plus: str) -> None:
        assert config(f"{plus}evaluation.limit=7").evaluation.limit == 7

    @pytest.mark.parametrize("key", ["evaluation.tasks.1.limit", "evaluation.tasks[1].limit"])
    def test_one_task_of_the_list_can_be_set(self, key: str) -> None:
        assert [task.limit for task in config(f"{key}=3").evaluation.tasks] == [10, 3, 10]

    @pytest.mark.parametrize(
        ("overrides", "limits"),
        [
            ((), [10, 10, 10]),
            (("evaluation.limit=2",), [2, 2, 2]),
            (("evaluation.limit=null",), [None, None, None]),
            (("evaluation.limit=2", "evaluation.tasks[0].limit=5"), [5, 2, 2]),
            (("evaluation.tasks=[gsm8k_100]",), [None]),
            (("evaluation.tasks=[gsm8k_100]", "evaluation.limit=7"), [7]),
            (("deployment=vllm", "deployment.model_id=m", "evaluation.tasks=[hellaswag]"), [None]),
        ],
    )
    def test_only_the_demo_s_own_tasks_are_cut_short(
        self, overrides: tuple[str, ...], limits: list[float | None]
    ) -> None:
        assert [task.settings.limit for task in build(config(*overrides)).tasks] == limits

    @pytest.mark.parametrize("value", ["0", "abc"])
    def test_a_bad_value_that_other_keys_repeat_is_told_once(self, value: str) -> None:
        with pytest.raises(ConfigError) as caught:
            config(f"evaluation.limit={value}")
        assert len(caught.value.problems) == 1
        assert caught.value.problems[0].startswith("command line: evaluation.limit: expected a ")

    def test_a_mapping_on_the_command_line_adds_to_the_section(self) -> None:
        made = config("evaluation={seed: 3}").evaluation
        assert (made.seed, len(made.tasks)) == (3, 3)

    def test_a_tilde_removes_what_a_file_sets(self) -> None:
        assert config("~evaluation.tasks").evaluation.tasks == []

    def test_the_last_override_wins(self) -> None:
        assert config("evaluation.limit=1", "evaluation.limit=2").evaluation.limit == 2

    def test_quotes_functions_and_escapes_of_the_grammar_work(self) -> None:
        made = config("execution.output_dir='a, b'", "evaluation.seed=int('7')", r"evaluation.system_prompt=a\=b\,c")
        assert (made.execution.output_dir, made.evaluation.seed, made.evaluation.system_prompt) == ("a, b", 7, "a=b,c")


class TestTasks:
    def test_a_task_may_be_just_its_name(self) -> None:
        made = config("evaluation.tasks=[ifeval,{name: gsm8k_100, limit: 2}]")
        assert [(task.name, task.limit) for task in made.evaluation.tasks] == [("ifeval", None), ("gsm8k_100", 2)]

    def test_the_same_task_may_appear_twice_with_its_own_settings(self) -> None:
        made = config("evaluation.tasks=[{name: gsm8k, num_fewshot: 0}, {name: gsm8k, num_fewshot: 5}]")
        planned = build(made).tasks
        assert [(task.key, task.settings.num_fewshot) for task in planned] == [("gsm8k", 0), ("gsm8k-2", 5)]
        assert len({task.endpoint.name for task in planned if task.endpoint}) == 2

    def test_the_task_s_setting_wins_over_evaluation_s_which_wins_over_the_harness_s(self, desk: Desk) -> None:
        made = own(
            desk,
            """
            evaluation:
              seed: 1
              limit: 5
              tasks:
                - gsm8k_100
                - {name: gsm8k_100, limit: 3}
            """,
        )
        settings = [task.settings for task in build(made).tasks]
        assert [(s.limit, s.seed) for s in settings] == [(5, 1), (3, 1)]
        assert build(config()).tasks[0].settings.seed == 1234, "lm_eval's own default"

    def test_mappings_of_a_task_are_merged_into_evaluation_s(self, desk: Desk) -> None:
        made = own(
            desk,
            """
            evaluation:
              generation: {temperature: 0, top_p: 1}
              tasks: [{name: gsm8k_100, generation: {temperature: 0.5}}]
            """,
        )
        assert build(made).tasks[0].settings.generation == Generation(temperature=0.5, top_p=1)

    def test_extra_arguments_of_a_task_are_merged_too(self, desk: Desk) -> None:
        made = own(
            desk,
            """
            evaluation:
              generation: {top_k: 5, extra: {a: 1, b: 1}}
              tasks: [{name: gsm8k_100, generation: {extra: {b: 2}}}]
            """,
        )
        assert build(made).tasks[0].settings.generation == Generation(top_k=5, extra={"a": 1, "b": 2})

    def test_lists_of_a_task_replace_evaluation_s(self) -> None:
        made = config(
            "evaluation.harness=command",
            "evaluation.command=[a,b]",
            "evaluation.tasks=[one,{name: two, command: [c]}]",
        )
        assert [task.settings.command for task in build(made).tasks] == [["a", "b"], ["c"]]


class TestReferences:
    def test_a_variable_in_an_environment_stays_a_reference(self) -> None:
        made = config("deployment.envs.HF_TOKEN=${oc.env:HF_TOKEN}")
        assert made.deployment.envs == {"HF_TOKEN": Reference(env="HF_TOKEN")}

    def test_a_reference_needs_no_value_yet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NOT_SET", raising=False)
        assert config("deployment.envs.A=${oc.env:NOT_SET}").deployment.envs == {"A": Reference(env="NOT_SET")}

    def test_a_reference_survives_another_key_and_a_decoding(self, desk: Desk) -> None:
        made = own(
            desk,
            """
            deployment: {type: smollm, envs: {A: "${oc.env:SOME}", B: "${oc.decode:${oc.env:SOME}}"}}
            evaluation: {envs: {C: "${deployment.envs.A}"}}
            """,
        )
        assert set(made.deployment.envs.values()) == {Reference(env="SOME")}
        assert made.evaluation.envs == {"C": Reference(env="SOME")}

    def test_a_default_counts_only_where_the_variable_is_not_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        override = "deployment.envs.A=${oc.env:SOME,fallback}"
        monkeypatch.delenv("SOME", raising=False)
        assert config(override).deployment.envs == {"A": "fallback"}
        monkeypatch.setenv("SOME", "x")
        assert config(override).deployment.envs == {"A": Reference(env="SOME")}

    def test_an_entry_of_the_platform_s_secret_store_is_a_reference(self) -> None:
        assert config("deployment.envs.A={secret: store}").deployment.envs == {"A": Reference(secret="store")}

    def test_elsewhere_a_variable_is_its_value(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PLACE", "/data")
        assert config("execution.output_dir=${oc.env:PLACE}/x").execution.output_dir == "/data/x"

    def test_a_number_from_a_variable_is_decoded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SEED", "7")
        assert config("evaluation.seed='${oc.decode:${oc.env:SEED}}'").evaluation.seed == 7

    def test_oc_env_outside_the_launcher_is_as_omegaconf_makes_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from omegaconf import OmegaConf

        monkeypatch.setenv("SEED", "7")
        config("deployment.envs.A=${oc.env:SEED}")
        tree = OmegaConf.create({"text": "${oc.env:SEED}", "number": "${oc.decode:${oc.env:SEED}}"})
        assert OmegaConf.to_container(tree, resolve=True) == {"text": "7", "number": 7}


class TestLeptonGuide:
    """The Lepton guide's example as it stands."""

    @pytest.fixture
    def made(self) -> Config:
        return config(name="lepton_vllm_llama_3_1_8b_instruct", config_dir=str(EXAMPLES))

    def test_its_keys_are_accepted_exactly(self, made: Config) -> None:
        assert isinstance(made.execution, Lepton)
        assert vllm(made).model_id == "meta-llama/Llama-3.1-8B-Instruct"
        assert made.target.api_endpoint.model_id == "meta/llama-3.1-8b-instruct"
        assert [task.name for task in made.evaluation.tasks] == ["hellaswag", "arc_challenge", "winogrande"]

    def test_the_model_is_served_under_the_name_of_the_target(self, made: Config) -> None:
        for task in build(made).tasks:
            assert task.endpoint is not None
            assert task.endpoint.server.served_name == task.target.model == "meta/llama-3.1-8b-instruct"
            assert "meta-llama/Llama-3.1-8B-Instruct" in task.endpoint.server.command

    def test_its_results_go_where_it_says(self, made: Config, desk: Desk) -> None:
        assert build(made).output_dir == str(desk.cwd / "cloud_results")


def test_no_problem_of_one_request_is_kept_for_the_next(desk: Desk) -> None:
    with pytest.raises(ConfigError):
        config("deployment=vlm", config_dir=str(desk.cwd))
    assert config().deployment.type == "smollm"


@pytest.mark.parametrize("shown", [("--cfg", "job"), ("--info", "config")])
def test_a_config_can_be_shown_with_a_group_that_its_defaults_do_not_mention(
    shown: tuple[str, str], desk: Desk
) -> None:
    desk.write("conf/c.yaml", OWN[1])
    argv = ("run", *shown, "-cd", "conf", "-cn", "c", "deployment=vllm", "evaluation.seed=7")
    # A process of its own: Hydra sets up logging when it shows a config, and leaves it so.
    done = subprocess.run(
        [sys.executable, "-m", "launcher.cli.main", *argv], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "type: vllm" in done.stdout
    assert "seed: 7" in done.stdout
