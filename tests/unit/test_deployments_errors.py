"""Keys that contradict each other or that a server cannot express are refused in one line each."""

from __future__ import annotations

import pytest

from launcher.config.deployment import AnyDeployment, Container, Llamacpp, Nim, Sglang, Smollm, Trtllm, Vllm
from launcher.deployments import build_server
from launcher.errors import ConfigError

OLD_TRTLLM = "nvcr.io/nvidia/tensorrt-llm/release:1.2.1"

WRONG: list[tuple[AnyDeployment, str]] = [
    (Vllm(model_id="m", extra_args="--a 'b"), "deployment.extra_args: cannot be split as a shell would"),
    (Vllm(model_id="m", command='vllm "serve'), "deployment.command: cannot be split as a shell would"),
    (
        Vllm(model_id="m", extra_args="--tensor-parallel-size 2"),
        "deployment.extra_args: --tensor-parallel-size repeats deployment.tensor_parallel_size; set only that key",
    ),
    (
        Vllm(model_id="m", extra_args=["--tensor_parallel_size=2"]),
        "deployment.extra_args: --tensor_parallel_size repeats deployment.tensor_parallel_size; set only that key",
    ),
    (Vllm(model_id="m", extra_args="-tp 2"), "-tp repeats deployment.tensor_parallel_size"),
    (Sglang(model_id="m", extra_args="--tp-size=2"), "--tp-size repeats deployment.tensor_parallel_size"),
    (Llamacpp(model_id="m.gguf", extra_args="-c 99"), "-c repeats deployment.context_length"),
    (Vllm(model_id="m", extra_args="--port 1"), "--port repeats deployment.port"),
    (Vllm(model_id="m", extra_args="--host ::"), "--host is set by the launcher; leave it out"),
    (Smollm(extra_args="--fetch"), "--fetch is set by the launcher"),
    (Vllm(model_id="m", extra_args="--api-key sk-1"), "--api-key would show a secret in the process list"),
    (Sglang(model_id="m", extra_args="--admin-api-key=x"), "--admin-api-key would show a secret"),
    (Vllm(model_id="m", extra_args="--hf_token=x"), "--hf_token would show a secret in the process list"),
    (Vllm(model_id="m", command="vllm serve m --api-key x"), "deployment.command: --api-key would show a secret"),
    (
        Vllm(model_id="m", command="vllm serve m", extra_args="--x"),
        "deployment.extra_args: has no effect beside deployment.command; put them there",
    ),
    (
        Vllm(model_id="m", envs={"HF_TOKEN": "hf_abc"}),
        "deployment.envs.HF_TOKEN: give it by reference: ${oc.env:HF_TOKEN}",
    ),
    (Nim(model_id="m", image="i:1", envs={"NGC_API_KEY": "x"}), "deployment.envs.NGC_API_KEY: give it by reference"),
    (Vllm(model_id="m", envs={"A B": "x"}), "deployment.envs.A B: 'A B' is no name of an environment variable"),
    (
        Vllm(model_id="m", tensor_parallel_size=4, gpus=2),
        "deployment.gpus: 2 is less than tensor x pipeline x data parallel size, 4",
    ),
    (Vllm(model_id="m", tensor_parallel_size=2, gpus=0), "deployment.gpus: 0 is less than"),
    (Trtllm(model_id="m", gpus=0), "deployment.gpus: 0 is less than"),
    (Nim(model_id="m", image="i:1", tensor_parallel_size=2, gpus=1), "deployment.gpus: 1 is less than"),
    (Sglang(model_id="m", chat_template="{% for m in messages %}"), "deployment.chat_template: sglang cannot do this"),
    (Trtllm(model_id="m", data_parallel_size=2), "deployment.data_parallel_size: trtllm-serve cannot do this"),
    (Trtllm(model_id="m", dtype="float16"), "deployment.dtype: trtllm-serve cannot do this"),
    (Trtllm(model_id="m", quantization="fp8"), "deployment.quantization: trtllm-serve cannot do this"),
    (Trtllm(model_id="m", lora_modules={"a": "b"}), "deployment.lora_modules: trtllm-serve cannot do this"),
    (
        Trtllm(model_id="m", max_num_seqs=4),
        "deployment.max_num_seqs: trtllm-serve cannot do this; use deployment.max_b",
    ),
    (
        Trtllm(model_id="m", image=OLD_TRTLLM),
        f"deployment.served_model_name: trtllm-serve in {OLD_TRTLLM} cannot serve under another name",
    ),
    (Nim(model_id="m"), "deployment.image: nim needs the image of its model"),
    (
        Nim(model_id="m", image="i:1", envs={"NIM_MAX_MODEL_LEN": 5}),
        "deployment.envs.NIM_MAX_MODEL_LEN: repeats deployment.max_model_len; set only that key",
    ),
    (Container(model_id="m"), "deployment.image: container needs an image, a command, or both"),
    (Container(model_id="m", image="i:1", extra_args="-x"), "deployment.extra_args: container has no command"),
    (Container(model_id="m", image="i:1", health_path="up"), "deployment.health_path: 'up' must start with /"),
]


@pytest.mark.parametrize(("deployment", "line"), WRONG, ids=[line[:60] for _, line in WRONG])
def test_refused_in_one_line(deployment: AnyDeployment, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_server(deployment, "name")
    (problem,) = caught.value.problems
    assert line in problem
    assert "\n" not in problem


def test_all_keys_a_server_cannot_express_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        build_server(Trtllm(model_id="m", dtype="float16", quantization="fp8"), "m")
    assert [line.partition(":")[0] for line in caught.value.problems] == [
        "deployment.dtype",
        "deployment.quantization",
    ]


def test_a_secret_is_never_in_the_message() -> None:
    with pytest.raises(ConfigError) as caught:
        build_server(Vllm(model_id="m", envs={"HF_TOKEN": "canary"}), "name")
    assert "canary" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        build_server(Vllm(model_id="m", extra_args="--api-key=canary"), "name")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "argument", ["--max-num-batched-tokens=8", "--ssl-keyfile=/k", "--tokenizer-mode=slow", "--api-key-file=/run/key"]
)
def test_arguments_that_only_sound_like_secrets_pass(argument: str) -> None:
    server = build_server(Vllm(model_id="m", extra_args=[argument]), "name")
    assert server is not None and server.command[-1] == argument


def test_an_old_trtllm_may_serve_under_the_name_it_takes_by_itself() -> None:
    server = build_server(Trtllm(model_id="/models/llama", image=OLD_TRTLLM), "llama")
    assert server is not None and "--served_model_name" not in server.command


def test_an_empty_variable_is_no_secret() -> None:
    server = build_server(Vllm(model_id="m", envs={"HF_TOKEN": ""}), "name")
    assert server is not None and server.env["HF_TOKEN"] == ""
