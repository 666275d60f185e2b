"""Every malformed config is one line, exit code 2, and nothing created."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from launcher.config import Request, load
from launcher.errors import ConfigError

if TYPE_CHECKING:
    from tests.unit.conftest import Desk

HEAD = "defaults:\n  - execution: local\n  - deployment: smollm\n  - _self_\n"
"""Four lines, so that the case's own text begins in line 5."""
TASKS = "evaluation: {tasks: [gsm8k_100]}\n"
"""Line 5, where a case is not about the evaluation: its own text begins in line 6."""
VLLM = "deployment:\n  type: vllm\n  model_id: org/model\n"
SECTIONS = "; valid: auxiliary, deployment, evaluation, execution, export, limits, notify, pricing, sweep, target"
ENV_VALUE = "expected text, a number or a reference (${oc.env:NAME} or {secret: NAME})"
NO_VALUE = "got nothing; give it a value, or remove the key"
LIMIT = "expected a whole number of samples, or a share between 0 and 1"
SECRET = (
    "looks like a secret and this key is written to disk; "
    "give secrets by deployment.envs, evaluation.envs or target.api_endpoint.api_key_name"
)


@dataclass(frozen=True)
class InFile:
    """A config file conf/c.yaml and the line that it gives; `head` and `tasks` come before the text."""

    name: str
    text: str | bytes
    line: str
    head: str = HEAD
    tasks: str = TASKS

    def content(self) -> bytes:
        own = self.text if isinstance(self.text, bytes) else self.text.encode()
        return self.head.encode() + self.tasks.encode() + own


def evaluation(name: str, text: str, line: str) -> InFile:
    return InFile(name, text, line, tasks="")


def alone(name: str, text: str | bytes, line: str) -> InFile:
    return InFile(name, text, line, head="", tasks="")


FILES = [
    # keys that do not exist
    InFile("unknown_section", "foo: 1", f"conf/c.yaml:6: foo: unknown key{SECTIONS}"),
    InFile("mistyped_section", "tragets: {}", "conf/c.yaml:6: tragets: unknown key; did you mean target?"),
    InFile(
        "output_dir_of_nobody",
        "execution: {output_dir: '~nobody-at-all/x'}",
        "conf/c.yaml:6: execution.output_dir: ~nobody-at-all/x: there is no such home; write the whole path",
    ),
    InFile(
        "lost_section", "output_dir: x", "conf/c.yaml:6: output_dir: unknown key; did you mean execution.output_dir?"
    ),
    InFile(
        "unknown_in_section",
        "execution:\n  outputdir: x",
        "conf/c.yaml:7: execution.outputdir: unknown key; did you mean output_dir?",
    ),
    InFile(
        "unknown_nested",
        "execution:\n  docker:\n    hst: x",
        "conf/c.yaml:8: execution.docker.hst: unknown key; did you mean host?",
    ),
    evaluation(
        "unknown_in_task",
        "evaluation:\n  tasks:\n    - name: gsm8k_100\n      limt: 3",
        "conf/c.yaml:8: evaluation.tasks[0].limt: unknown key; did you mean limit?",
    ),
    InFile(
        "key_of_other_deployments",
        "deployment:\n  tensor_parallel_size: 2",
        "conf/c.yaml:7: deployment.tensor_parallel_size: "
        "unknown key of deployment smollm; vllm, sglang, trtllm, nim, lepton_llm have it",
    ),
    InFile(
        "key_of_one_other_execution",
        "execution:\n  node_group: x",
        "conf/c.yaml:7: execution.node_group: unknown key of execution local; lepton has it",
    ),
    InFile(
        "hydra_target",
        "deployment: {_target_: os.system}",
        "conf/c.yaml:6: deployment._target_: unknown key",
    ),
    InFile("number_as_key", "3: x", f"conf/c.yaml:6: 3: unknown key{SECTIONS}"),
    evaluation(
        "number_as_key_of_mapping",
        "evaluation:\n  tasks: [gsm8k_100]\n  metadata: {1: x}",
        "conf/c.yaml:7: evaluation.metadata.1: expected text as key; put it in quotes",
    ),
    InFile(
        "reference_with_unknown_key",
        "deployment:\n  envs:\n    A: {secrt: x}",
        "conf/c.yaml:8: deployment.envs.A.secrt: unknown key; did you mean secret?",
    ),
    # values of the wrong type
    InFile(
        "text_for_number",
        "deployment: {context_length: many}",
        "conf/c.yaml:6: deployment.context_length: expected a whole number of at least 1, got 'many'",
    ),
    InFile(
        "share_for_whole_number",
        "deployment: {context_length: 2.5}",
        "conf/c.yaml:6: deployment.context_length: expected a whole number of at least 1, got 2.5",
    ),
    InFile(
        "true_for_number",
        "deployment: {context_length: true}",
        "conf/c.yaml:6: deployment.context_length: expected a whole number of at least 1, got true",
    ),
    InFile(
        "number_for_text",
        "execution: {output_dir: 5}",
        "conf/c.yaml:6: execution.output_dir: expected text, got 5; put it in quotes",
    ),
    evaluation(
        "text_for_boolean",
        "evaluation:\n  log_samples: maybe",
        "conf/c.yaml:6: evaluation.log_samples: expected true or false, got 'maybe'",
    ),
    evaluation(
        "list_for_mapping",
        "evaluation:\n  params: [1]",
        "conf/c.yaml:6: evaluation.params: expected a mapping, got a list",
    ),
    InFile(
        "mapping_for_text",
        "execution:\n  output_dir: {secret: x}",
        "conf/c.yaml:7: execution.output_dir: expected text, got a mapping",
    ),
    InFile(
        "number_in_argument_list",
        "deployment:\n  extra_args:\n    - --threads\n    - 4",
        "conf/c.yaml:9: deployment.extra_args[1]: expected text, got 4; put it in quotes",
    ),
    InFile(
        "boolean_in_environment",
        "deployment:\n  envs: {A: true}",
        f"conf/c.yaml:7: deployment.envs.A: {ENV_VALUE}, got true; put it in quotes",
    ),
    InFile(
        "nothing_in_environment",
        "deployment:\n  envs: {A: null}",
        f"conf/c.yaml:7: deployment.envs.A: {ENV_VALUE}, {NO_VALUE}",
    ),
    InFile(
        "reference_to_two_things",
        "deployment:\n  envs: {A: {secret: x, env: y}}",
        f"conf/c.yaml:7: deployment.envs.A: {ENV_VALUE}, got a mapping",
    ),
    InFile("text_for_section", "execution: local", "conf/c.yaml:6: execution: expected a mapping, got 'local'"),
    InFile("empty_section", "deployment:", f"conf/c.yaml:6: deployment: expected a mapping, {NO_VALUE}"),
    InFile("list_for_section", "execution: [1]", "conf/c.yaml:6: execution: expected a mapping, got a list"),
    InFile(
        "empty_section_below",
        "target:\n  api_endpoint:",
        f"conf/c.yaml:7: target.api_endpoint: expected a mapping, {NO_VALUE}",
    ),
    evaluation(
        "text_for_tasks",
        "evaluation:\n  tasks: gsm8k_100",
        "conf/c.yaml:6: evaluation.tasks: expected a list, got 'gsm8k_100'; write [gsm8k_100], "
        "on the command line 'evaluation.tasks=[gsm8k_100]'",
    ),
    evaluation(
        "mistyped_generation",
        "evaluation:\n  tasks: [gsm8k_100]\n  generation: {temprature: 0.7}",
        "conf/c.yaml:7: evaluation.generation.temprature: unknown key; did you mean temperature?",
    ),
    evaluation(
        "generation_of_the_wrong_type",
        "evaluation:\n  tasks: [{name: gsm8k_100, generation: {temperature: hot}}]",
        "conf/c.yaml:6: evaluation.tasks[0].generation.temperature: expected a number of at least 0, got 'hot'",
    ),
    evaluation(
        "generation_by_another_name",
        "evaluation:\n  tasks: [gsm8k_100]\n  generation: {stop: [x]}",
        "conf/c.yaml:7: evaluation.generation.stop: unknown key; use generation.until",
    ),
    evaluation(
        "extra_generation_that_has_a_key",
        "evaluation:\n  tasks: [gsm8k_100]\n  generation: {extra: {max_tokens: 9}}",
        "conf/c.yaml:7: evaluation.generation.extra.max_tokens: use max_gen_tokens instead",
    ),
    evaluation(
        "mapping_for_tasks",
        "evaluation:\n  tasks: {name: gsm8k_100}",
        "conf/c.yaml:6: evaluation.tasks: expected a list, got a mapping",
    ),
    evaluation(
        "number_for_task",
        "evaluation:\n  tasks:\n    - gsm8k_100\n    - 3",
        "conf/c.yaml:8: evaluation.tasks[1]: expected a mapping, got 3",
    ),
    # values out of bounds
    InFile(
        "zero_seconds",
        "deployment: {start_timeout: 0}",
        "conf/c.yaml:6: deployment.start_timeout: expected a number above 0, got 0",
    ),
    InFile(
        "endless_seconds",
        "deployment: {start_timeout: .inf}",
        "conf/c.yaml:6: deployment.start_timeout: expected a finite number, got inf",
    ),
    InFile(
        "no_gpus",
        "limits: {max_gpus: 0}",
        "conf/c.yaml:6: limits.max_gpus: expected a whole number of at least 1, got 0",
    ),
    InFile(
        "port_too_high",
        f"{VLLM}  port: 70000",
        "conf/c.yaml:5: deployment.port: expected a whole number of at least 1 and at most 65535, got 70000",
        head="",
    ),
    InFile(
        "share_above_one",
        f"{VLLM}  gpu_memory_fraction: 1.5",
        "conf/c.yaml:5: deployment.gpu_memory_fraction: expected a number above 0 and at most 1, got 1.5",
        head="",
    ),
    InFile(
        "number_too_large",
        f"deployment: {{context_length: {10**30}}}",
        "conf/c.yaml:6: deployment.context_length: the number is too large",
    ),
    InFile(
        "text_with_nul",
        'execution: {output_dir: "a\\0b"}',
        "conf/c.yaml:6: execution.output_dir: holds a character that text cannot have",
    ),
    evaluation("limit_zero", "evaluation: {limit: 0}", f"conf/c.yaml:5: evaluation.limit: {LIMIT}, got 0"),
    evaluation("limit_negative", "evaluation: {limit: -1}", f"conf/c.yaml:5: evaluation.limit: {LIMIT}, got -1"),
    evaluation(
        "limit_nan", "evaluation: {limit: .nan}", "conf/c.yaml:5: evaluation.limit: expected a finite number, got nan"
    ),
    evaluation(
        "limit_of_task",
        "evaluation:\n  tasks:\n    - {name: gsm8k_100, limit: 1.5}",
        f"conf/c.yaml:7: evaluation.tasks[0].limit: {LIMIT}, got 1.5",
    ),
    # values that are not in a list of names
    InFile(
        "mistyped_name",
        "execution: {runtime: dockr}",
        "conf/c.yaml:6: execution.runtime: got 'dockr'; valid: process, docker; did you mean docker?",
    ),
    InFile(
        "other_name", "export: {formats: [pdf]}", "conf/c.yaml:6: export.formats[0]: got 'pdf'; valid: csv, markdown"
    ),
    evaluation(
        "unknown_harness",
        "evaluation:\n  tasks: [{name: gsm8k_100, harness: lm-eval}]",
        "conf/c.yaml:6: evaluation.tasks[0].harness: "
        "got 'lm-eval'; valid: lm_eval, nemo_evaluator, command; did you mean lm_eval?",
    ),
    InFile(
        "unknown_type",
        "deployment: {type: vlm}",
        "conf/c.yaml:2: deployment.type: 'vlm' is no deployment; did you mean vllm?",
        head="",
    ),
    InFile(
        "expiry_too_late",
        "deployment: {type: deepinfra, model_id: org/model, expires_after: 2592001}",
        "conf/c.yaml:2: deployment.expires_after: expected a number above 0 and at most 2592000, got 2592001",
        head="",
    ),
    InFile(
        "list_for_type",
        "deployment: {type: [vllm]}",
        "conf/c.yaml:2: deployment.type: expected text, got a list",
        head="",
    ),
    InFile(
        "types_that_clash",
        VLLM,
        "conf/c.yaml:7: deployment.type: vllm contradicts deployment=smollm, which is chosen; "
        "remove this key, or choose deployment=vllm",
    ),
    # values that are missing
    InFile(
        "no_type",
        "deployment: {model_id: org/model}",
        "conf/c.yaml:2: deployment.type: is missing; add `- deployment: NAME` to defaults; "
        "valid: vllm, sglang, trtllm, nim, llamacpp, container, lepton_llm, lepton_template, lepton_photon, "
        "deepinfra, smollm, none",
        head="",
    ),
    InFile(
        "no_model",
        "deployment: {type: vllm}",
        "conf/c.yaml:2: deployment.model_id: is missing; "
        "set it in the file, or on the command line: deployment.model_id=VALUE",
        head="",
    ),
    InFile(
        "model_left_open",
        "",
        "conf/c.yaml: deployment.model_id: is missing; "
        "set it in the file, or on the command line: deployment.model_id=VALUE",
        head="defaults: [{deployment: vllm}, _self_]\n",
    ),
    evaluation(
        "task_without_name",
        "evaluation:\n  tasks:\n    - limit: 3",
        "conf/c.yaml:7: evaluation.tasks[0].name: is missing; "
        "set it in the file, or on the command line: evaluation.tasks[0].name=VALUE",
    ),
    evaluation(
        "task_with_empty_name",
        "evaluation:\n  tasks: ['']",
        "conf/c.yaml:6: evaluation.tasks[0].name: expected text that is not empty, got ''",
    ),
    evaluation(
        "no_tasks",
        "evaluation: {tasks: []}",
        "conf/c.yaml:5: evaluation.tasks: no benchmark is named; add `- name: TASK`, see: nv-eval ls tasks",
    ),
    # references and interpolations
    InFile(
        "variable_not_set",
        "execution:\n  output_dir: ${oc.env:NOT_SET}/x",
        "conf/c.yaml:7: execution.output_dir: environment variable NOT_SET is not set",
    ),
    InFile(
        "secret_in_written_key",
        "execution:\n  output_dir: ${oc.env:HF_TOKEN}",
        f"conf/c.yaml:7: execution.output_dir: ${{oc.env:HF_TOKEN}} {SECRET}",
    ),
    InFile(
        "decoded_secret_in_written_key",
        "deployment:\n  context_length: ${oc.decode:${oc.env:SOME_TOKEN}}",
        f"conf/c.yaml:7: deployment.context_length: ${{oc.env:SOME_TOKEN}} {SECRET}",
    ),
    InFile(
        "text_around_reference",
        "deployment:\n  envs:\n    A: x${oc.env:HOME}",
        "conf/c.yaml:8: deployment.envs.A: text around ${oc.env:…} is not possible here; reference the whole value",
    ),
    InFile(
        "secret_by_value",
        "deployment:\n  envs:\n    HF_TOKEN: hf_12345",
        "conf/c.yaml:8: deployment.envs.HF_TOKEN: give it by reference: ${oc.env:HF_TOKEN}",
    ),
    evaluation(
        "secret_of_task_by_value",
        "evaluation:\n  tasks:\n    - name: gsm8k_100\n      envs: {HF_TOKEN: hf_12345}",
        "conf/c.yaml:8: evaluation.tasks[0].envs.HF_TOKEN: give it by reference: ${oc.env:HF_TOKEN}",
    ),
    InFile(
        "no_name_of_a_variable",
        "deployment:\n  envs: {A-B: x}",
        "conf/c.yaml:7: deployment.envs.A-B: 'A-B' is no name of an environment variable",
    ),
    InFile(
        "interpolation_to_nothing",
        "execution:\n  output_dir: ${nope.x}",
        "conf/c.yaml:7: execution.output_dir: refers to nope.x, which does not exist",
    ),
    InFile(
        "interpolation_in_a_circle",
        "execution:\n  output_dir: ${execution.output_dir}",
        "conf/c.yaml:7: execution.output_dir: refers to itself, directly or in a circle",
    ),
    InFile(
        "unknown_resolver",
        "execution:\n  output_dir: ${env:HOME}",
        "conf/c.yaml:7: execution.output_dir: ${env:…} is not known; for an environment variable write ${oc.env:NAME}",
    ),
    InFile(
        "open_interpolation",
        "execution:\n  output_dir: ${oc.env:HOME",
        "conf/c.yaml:7: execution.output_dir: is no valid interpolation; write ${KEY} or ${oc.env:NAME}",
    ),
    # files that are no config
    InFile(
        "open_brace",
        "execution: {a\n",
        "conf/c.yaml:7: not valid YAML: expected ',' or '}', but got the end of the file",
    ),
    InFile("two_colons", "execution: a: b", "conf/c.yaml:6: not valid YAML: mapping values are not allowed here"),
    InFile("tab", "execution:\n\toutput_dir: a", "conf/c.yaml:7: not valid YAML: indented with a tab; use spaces"),
    InFile(
        "same_key_twice",
        "execution:\n  output_dir: a\n  output_dir: b",
        "conf/c.yaml:8: not valid YAML: found duplicate key output_dir",
    ),
    InFile("not_utf8", b"execution: {output_dir: \xff}", "conf/c.yaml:6: is not text in UTF-8"),
    InFile("nul_byte", b"a: \x00", "conf/c.yaml:6: holds a character that YAML does not allow"),
    alone("a_list", "- a\n- b\n", "conf/c.yaml: holds a list; a config is a mapping of keys to values"),
    alone("only_a_word", "hello\n", f"conf/c.yaml: hello: unknown key{SECTIONS}"),
    alone(
        "empty_file",
        "",
        "conf/c.yaml: evaluation.tasks: no benchmark is named; add `- name: TASK`, see: nv-eval ls tasks",
    ),
    alone("defaults_are_text", "defaults: local\n", "conf/c.yaml: defaults: expected a list of `- group: option`"),
    alone(
        "two_groups_in_an_item",
        "defaults: [{execution: local, deployment: smollm}]\n",
        "conf/c.yaml: defaults: expected a list of `- group: option`, one group in each item",
    ),
    alone(
        "unknown_option_in_defaults",
        "defaults:\n  - execution: locl\n",
        "conf/c.yaml:2: execution=locl: no such option of execution; did you mean local?",
    ),
    alone(
        "unknown_group_in_defaults",
        "defaults:\n  - exection: local\n",
        "conf/c.yaml:2: exection: no such config group; did you mean execution?",
    ),
    alone(
        "unknown_config_in_defaults",
        "defaults:\n  - defalt\n",
        "conf/c.yaml:2: defaults: defalt: no such config; did you mean default?",
    ),
    # parts that contradict each other
    InFile(
        "open_quote",
        f'{VLLM}  extra_args: "--a \'b"',
        "conf/c.yaml:5: deployment.extra_args: cannot be split as a shell would: no closing quotation",
        head="",
    ),
    InFile(
        "nim_without_image",
        "deployment: {type: nim, model_id: org/model}",
        "conf/c.yaml:2: deployment.image: nim needs the image of its model, "
        "for example nvcr.io/nim/meta/llama-3.1-8b-instruct:TAG",
        head="",
    ),
    InFile(
        "two_served_names",
        "deployment:\n  served_model_name: a\ntarget:\n  api_endpoint: {model_id: b}",
        "conf/c.yaml:7: deployment.served_model_name (a) and target.api_endpoint.model_id (b) differ; set one",
    ),
    InFile(
        "url_beside_a_deployment",
        "target:\n  api_endpoint:\n    url: http://localhost:1",
        "conf/c.yaml:8: target.api_endpoint.url: deployment smollm makes its own endpoint; "
        "remove the URL, or set deployment=none",
    ),
    evaluation(
        "unknown_task",
        "evaluation:\n  tasks:\n    - hellaswag_10",
        "conf/c.yaml:7: evaluation.tasks[0] (hellaswag_10): no task 'hellaswag_10' in lm-eval 0.4.13; "
        "did you mean hellaswag_100, hellaswag, hellaswag_vi? See: nv-eval ls tasks PATTERN",
    ),
    evaluation(
        "several_tasks_in_a_name",
        "evaluation:\n  tasks: ['hellaswag,arc_easy']",
        "conf/c.yaml:6: evaluation.tasks[0] (hellaswag,arc_easy): 'hellaswag,arc_easy' names several tasks; "
        "give each an entry of its own in evaluation.tasks",
    ),
    evaluation(
        "loglikelihood_on_chat",
        "evaluation:\n  endpoint_type: chat\n  tasks:\n    - hellaswag_100",
        "conf/c.yaml:8: evaluation.tasks[0] (hellaswag_100): scores log-likelihoods, "
        "which a chat route cannot return; set endpoint_type: completions",
    ),
    evaluation(
        "no_program_for_the_command_harness",
        "evaluation:\n  tasks:\n    - {name: mine, harness: command}",
        "conf/c.yaml:7: evaluation.tasks[0] (mine): command: the command harness needs the program to run",
    ),
    evaluation(
        "open_quote_in_command",
        "evaluation:\n  tasks:\n    - name: mine\n      harness: command\n      command: python 'x",
        "conf/c.yaml:9: evaluation.tasks[0].command: cannot be split as a shell would: no closing quotation",
    ),
]


@pytest.mark.parametrize("case", FILES, ids=lambda case: case.name)
def test_a_malformed_file_is_one_line_and_nothing_is_created(case: InFile, desk: Desk) -> None:
    desk.write("conf/c.yaml", case.content())
    before = desk.files()
    code, out, err = desk.nv_eval("run", "--dry-run", "--config-dir", "conf", "--config-name", "c")
    assert (code, out, err) == (2, "", f"nv-eval: {case.line}\n")
    assert desk.files() == before


GRAMMAR = "the override does not follow Hydra's grammar; quote special characters"
SWEEP = "several values make a sweep; add -m to run it, give one value, or a list in brackets: [a,b]"
HYDRA = "Hydra's own settings have no effect here, but for hydra.searchpath"
NO_OVERRIDE = "is no override; write key=value, group=option or ~key"
TWO_OPTIONS = "two options are chosen; choose one with deployment=OPTION, without a plus"
URL = "command line: target.api_endpoint.url"
EXISTING = ("deployment=none", "target.api_endpoint.model_id=m")
MODEL = "deployment.model_id=org/model"
ONE_TASK = "evaluation.tasks=[hellaswag]"
TASK = "command line: evaluation.tasks[0] (hellaswag)"

LINES = {
    "command line: evaluation.limt: unknown key; did you mean limit?": ["evaluation.limt=3"],
    "command line: deploymen: unknown key; did you mean deployment?": ["deploymen=vllm"],
    "command line: evaluation.tasks[0].limt: unknown key; did you mean limit?": ["evaluation.tasks[0].limt=3"],
    "command line: execution.rutime: unknown key; did you mean runtime?": ["-o", "execution.rutime=docker"],
    "command line: evaluation.num_fewshot: expected a whole number of at least 0, got 'many'": [
        "evaluation.num_fewshot=many"
    ],
    "command line: evaluation.limit: expected a number, got a mapping": ["evaluation.limit.foo=3"],
    "command line: evaluation.harness: got 'foo'; valid: lm_eval, nemo_evaluator, command": ["evaluation.harness=foo"],
    "command line: deployment=vlm: no such option of deployment; did you mean vllm?": ["deployment=vlm"],
    "command line: limits=carefull: no such option of limits; did you mean careful?": ["limits=carefull"],
    "command line: execution: takes the name of an option, got nothing; valid: kubernetes, lepton, local, slurm": [
        "execution=null"
    ],
    "command line: target: takes the name of an option, got 3; valid: default": ["target=3"],
    f"command line: deployment: {TWO_OPTIONS}": ["+deployment=vllm", "+deployment=vllm"],
    "command line: deployment.type: vllm contradicts deployment=smollm, which is chosen; "
    "remove this key, or choose deployment=vllm": ["deployment.type=vllm", MODEL],
    "command line: deployment.model_id: is missing; "
    "set it in the file, or on the command line: deployment.model_id=VALUE": ["deployment=vllm"],
    f"command line: evaluation.limit: {SWEEP}": ["evaluation.limit=1,2"],
    f"command line: deployment: {SWEEP}": ["deployment=vllm,sglang"],
    f"command line: evaluation.seed: {SWEEP}": ["evaluation.seed=range(1,3)"],
    f"command line: evaluation.limit: {NO_OVERRIDE}": ["evaluation.limit"],
    f"command line: '': {NO_OVERRIDE}": ["=3"],
    f"command line: evaluation.tasks: {GRAMMAR}: 'evaluation.tasks=\"…\"'": ["evaluation.tasks=[a"],
    f"command line: deployment.envs.HF_TOKEN: {GRAMMAR}: 'deployment.envs.HF_TOKEN=\"…\"'": [
        "deployment.envs.HF_TOKEN='hf_12345"
    ],
    "command line: evaluation.tasks.7.limit: evaluation.tasks has no entry 7; the first is 0": [
        "evaluation.tasks[7].limit=3"
    ],
    "command line: ~evaluation.foo: there is no such key to remove": ["~evaluation.foo"],
    "command line: ~foo: there is no such key to remove": ["~foo"],
    "command line: ~deployment.type: its value is smollm; to remove it whatever it is, write ~deployment.type": [
        "~deployment.type=77"
    ],
    "command line: ~deployment=vllm: defaults do not choose it, so that there is nothing to remove": [
        "~deployment=vllm"
    ],
    f"command line: hydra.run.dir: {HYDRA}": ["hydra.run.dir=x"],
    f"command line: hydra/job_logging: {HYDRA}": ["hydra/job_logging=none"],
    "command line: execution.output_dir: refers to nope, which does not exist": ["execution.output_dir=${nope}"],
    "command line: execution.output_dir: environment variable NOT_SET is not set": [
        "execution.output_dir=${oc.env:NOT_SET}"
    ],
    "--config-name defalt: no such config; did you mean default?": ["--config-name", "defalt"],
    "--config-name '': no such config; valid: default": ["--config-name", ""],
    "--config-name ../x: no such config; it is a name, not a path; give the folder by --config-dir": ["-cn", "../x"],
    "--config-name conf/c.yaml: no such config; the file is found with --config-dir conf --config-name c": [
        "-cn",
        "conf/c.yaml",
    ],
    "--config-name folder: folder.yaml is a folder; a config is a file": ["-cd", "conf", "-cn", "folder"],
    "--config-dir nope: no such folder": ["--config-dir", "nope"],
    "--config-dir conf/c.yaml: is a file; write --config-dir conf --config-name c": ["--config-dir", "conf/c.yaml"],
    "--config-path nope: no such folder": ["--config-path", "nope"],
    f"{URL}: is missing; deployment none needs the URL of an endpoint": ["deployment=none"],
    f"{URL}: is no URL; it begins with http:// or https:// and names a host": [
        *EXISTING,
        "target.api_endpoint.url=localhost:8000",
    ],
    f"{URL}: is no URL; write http://HOST:PORT, with a port up to 65535": [
        *EXISTING,
        "target.api_endpoint.url=http://h:99999",
    ],
    f"{URL}: holds a password; name the key's variable in target.api_endpoint.api_key_name": [
        *EXISTING,
        "target.api_endpoint.url=http://me:hunter2@h",
    ],
    f"{URL}: has a query or fragment, which no request would carry; leave it out": [
        *EXISTING,
        "target.api_endpoint.url='http://h/v1?key=hunter2'",
    ],
    "command line: target.api_endpoint.model_id: is missing; an existing endpoint needs the model's name": [
        "deployment=none",
        "target.api_endpoint.url=http://h",
    ],
    "command line: target.api_endpoint.model_id: expected text that is not empty, got ''": [
        "target.api_endpoint.model_id=''"
    ],
    "command line: target.api_endpoint.api_key_name: expected the name of an environment variable, not what it holds": [
        "target.api_endpoint.api_key_name=sk-12345"
    ],
    "command line: deployment.gpus: 2 is less than tensor x pipeline x data parallel size, 4": [
        "deployment=vllm",
        MODEL,
        "deployment.tensor_parallel_size=4",
        "deployment.gpus=2",
    ],
    f"{TASK}: scores log-likelihoods; llama-server returns no prompt log-probabilities, "
    "and some builds say so only by chance scores; use vllm": ["deployment=llamacpp", MODEL, ONE_TASK],
    f"{TASK}: scores log-likelihoods; trtllm-serve returns log-probabilities of generated tokens only; "
    "use vllm or sglang for this task": ["deployment=trtllm", MODEL, ONE_TASK],
}


@pytest.mark.parametrize(("line", "argv"), LINES.items())
def test_a_malformed_command_line_is_one_line_and_nothing_is_created(line: str, argv: list[str], desk: Desk) -> None:
    desk.write("conf/c.yaml", TASKS)
    desk.write("conf/folder.yaml/x", "")
    before = desk.files()
    code, out, err = desk.nv_eval("run", "--dry-run", *argv)
    assert (code, out, err) == (2, "", f"nv-eval: {line}\n")
    assert desk.files() == before


def test_all_that_is_wrong_is_said_at_once(desk: Desk) -> None:
    desk.write("conf/c.yaml", HEAD + TASKS + "execution:\n  rutime: docker\n  output_dir: 5\nlimits: {max_gpus: 0}\n")
    code, _, err = desk.nv_eval("run", "--dry-run", "-cd", "conf", "-cn", "c", "evaluation.limt=3")
    assert code == 2
    assert err.splitlines() == [
        "nv-eval: conf/c.yaml:7: execution.rutime: unknown key; did you mean runtime?",
        "nv-eval: conf/c.yaml:8: execution.output_dir: expected text, got 5; put it in quotes",
        "nv-eval: command line: evaluation.limt: unknown key; did you mean limit?",
        "nv-eval: conf/c.yaml:9: limits.max_gpus: expected a whole number of at least 1, got 0",
    ]


def test_every_wrong_task_is_named(desk: Desk) -> None:
    code, _, err = desk.nv_eval("run", "--dry-run", "evaluation.endpoint_type=chat")
    assert code == 2
    assert [line.partition(": scores")[0] for line in err.splitlines()] == [
        "nv-eval: command line: evaluation.tasks[0] (hellaswag_100)",
        "nv-eval: command line: evaluation.tasks[1] (truthfulqa_mc1_100)",
    ]


def test_a_setting_that_is_wrong_for_all_tasks_is_one_line(desk: Desk) -> None:
    code, _, err = desk.nv_eval("run", "--dry-run", "evaluation.envs.HF_TOKEN=hf_12345")
    line = "command line: evaluation.envs.HF_TOKEN: give it by reference: ${oc.env:HF_TOKEN}"
    assert (code, err) == (2, f"nv-eval: {line}\n")


def test_an_error_is_json_where_json_is_asked_for(desk: Desk) -> None:
    code, out, err = desk.nv_eval("run", "--dry-run", "--json", "evaluation.limt=3")
    assert (code, err) == (2, "")
    assert json.loads(out) == {
        "error": "ConfigError",
        "exit_code": 2,
        "message": "command line: evaluation.limt: unknown key; did you mean limit?",
    }


def test_run_itself_refuses_before_it_creates_anything(desk: Desk) -> None:
    code, out, _ = desk.nv_eval("run", "deployment.tensor_parallel_size=2")
    assert (code, out) == (2, "")
    assert desk.files() == {"cwd": None, "home": None}


def test_a_person_s_file_is_named_even_if_a_group_is_switched_on_the_command_line(desk: Desk) -> None:
    desk.write("conf/c.yaml", HEAD + TASKS + "deployment: {dtyp: bfloat16}\n")
    argv = ("-cd", "conf", "-cn", "c", "deployment=vllm", MODEL)
    _, _, err = desk.nv_eval("run", "--dry-run", *argv)
    assert err == "nv-eval: conf/c.yaml:6: deployment.dtyp: unknown key; did you mean dtype?\n"


def test_a_type_in_the_file_does_not_silently_win_over_the_command_line(desk: Desk) -> None:
    desk.write("conf/c.yaml", "defaults: [{deployment: vllm}, _self_]\n" + TASKS + VLLM)
    _, _, err = desk.nv_eval("run", "--dry-run", "-cd", "conf", "-cn", "c", "deployment=sglang")
    assert err.startswith("nv-eval: conf/c.yaml:4: deployment.type: vllm contradicts deployment=sglang")


def test_the_python_api_raises_the_same_lines(desk: Desk) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Request(overrides=("evaluation.limt=3", "execution.output_dir=5")))
    assert caught.value.exit_code == 2
    assert caught.value.problems == (
        "command line: execution.output_dir: expected text, got 5; put it in quotes",
        "command line: evaluation.limt: unknown key; did you mean limit?",
    )


@pytest.mark.parametrize("secret", ["hf_12345", "hunter2", "sk-12345"])
def test_no_message_above_repeats_a_secret(secret: str) -> None:
    assert not [line for line in (*LINES, *(case.line for case in FILES)) if secret in line]


def test_a_file_that_may_not_be_read_is_said_so(desk: Desk) -> None:
    path = desk.write("conf/c.yaml", TASKS)
    path.chmod(0)
    try:
        path.read_bytes()
    except PermissionError:
        _, _, err = desk.nv_eval("run", "--dry-run", "-cd", "conf", "-cn", "c")
        assert err == "nv-eval: conf/c.yaml: cannot be read: Permission denied\n"
    else:
        pytest.skip("runs as root, who may read everything")
    finally:
        path.chmod(0o600)
