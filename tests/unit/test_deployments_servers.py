"""Each deployment turns its typed keys into exactly one command, environment and way to be asked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from launcher.config.deployment import (
    DEPLOYMENTS,
    AnyDeployment,
    Container,
    LeptonLlm,
    LeptonPhoton,
    LeptonTemplate,
    Llamacpp,
    Nim,
    NoDeployment,
    Sglang,
    Smollm,
    Trtllm,
    Vllm,
)
from launcher.config.fields import Reference
from launcher.deployments import DEPLOYMENT_TYPES, ServerSpec, build_server

LLAMA = ("sh", "-c", 'PATH="$PATH:/app" exec "$0" "$@"', "llama-server")

COMMANDS: list[tuple[str, AnyDeployment, tuple[str, ...]]] = [
    (
        "vllm, least",
        Vllm(model_id="org/model"),
        (
            *("vllm", "serve", "org/model", "--host", "{host}", "--port", "{port}", "--served-model-name", "name"),
            "--enable-tokenizer-info-endpoint",
        ),
    ),
    (
        "vllm, all",
        Vllm(
            model_id="org/model",
            revision="abc123",
            tensor_parallel_size=4,
            pipeline_parallel_size=2,
            data_parallel_size=3,
            expert_parallel=True,
            max_model_len=8192,
            dtype="bfloat16",
            quantization="fp8",
            gpu_memory_fraction=0.85,
            max_num_seqs=64,
            max_logprobs=30,
            trust_remote_code=True,
            chat_template="/t.jinja",
            lora_modules={"a": "org/a", "b": "/b"},
            tool_call_parser="hermes",
            reasoning_parser="qwen3",
            extra_args="--enforce-eager --seed=7",
        ),
        (
            *("vllm", "serve", "org/model", "--host", "{host}", "--port", "{port}", "--served-model-name", "name"),
            *("--revision", "abc123", "--tensor-parallel-size", "4", "--pipeline-parallel-size", "2"),
            *("--data-parallel-size", "3", "--enable-expert-parallel", "--max-model-len", "8192"),
            *("--dtype", "bfloat16", "--quantization", "fp8", "--gpu-memory-utilization", "0.85"),
            *("--max-num-seqs", "64", "--max-logprobs", "30", "--trust-remote-code", "--chat-template", "/t.jinja"),
            *("--enable-lora", "--lora-modules", "a=org/a", "b=/b", "--enable-auto-tool-choice"),
            *("--tool-call-parser", "hermes", "--reasoning-parser", "qwen3", "--enable-tokenizer-info-endpoint"),
            *("--enforce-eager", "--seed=7"),
        ),
    ),
    (
        "sglang, least",
        Sglang(model_id="org/model"),
        (
            *("python3", "-m", "sglang.launch_server", "--model-path", "org/model"),
            *("--host", "{host}", "--port", "{port}", "--served-model-name", "name"),
        ),
    ),
    (
        "sglang, all",
        Sglang(
            model_id="org/model",
            revision="main",
            tensor_parallel_size=2,
            pipeline_parallel_size=2,
            data_parallel_size=2,
            max_model_len=4096,
            dtype="float16",
            quantization="awq",
            gpu_memory_fraction=0.8,
            max_num_seqs=16,
            trust_remote_code=True,
            chat_template="/t.jinja",
            lora_modules={"a": "/a"},
            tool_call_parser="llama3",
            reasoning_parser="deepseek-r1",
            extra_args=["--enable-metrics"],
        ),
        (
            *("python3", "-m", "sglang.launch_server", "--model-path", "org/model"),
            *("--host", "{host}", "--port", "{port}", "--served-model-name", "name", "--revision", "main"),
            *("--tp", "2", "--pp-size", "2", "--dp", "2", "--context-length", "4096", "--dtype", "float16"),
            *("--quantization", "awq", "--mem-fraction-static", "0.8", "--max-running-requests", "16"),
            *("--trust-remote-code", "--chat-template", "/t.jinja", "--enable-lora", "--lora-paths", "a=/a"),
            *("--tool-call-parser", "llama3", "--reasoning-parser", "deepseek-r1", "--enable-metrics"),
        ),
    ),
    (
        "trtllm under its own name",
        Trtllm(model_id="/models/name"),
        ("trtllm-serve", "/models/name", "--host", "{host}", "--port", "{port}"),
    ),
    (
        "trtllm, all",
        Trtllm(
            model_id="org/model",
            revision="main",
            tensor_parallel_size=4,
            pipeline_parallel_size=2,
            max_model_len=4096,
            max_batch_size=32,
            max_num_tokens=8192,
            gpu_memory_fraction=0.9,
            trust_remote_code=True,
            chat_template="/t.jinja",
            tool_call_parser="qwen3",
            reasoning_parser="deepseek-r1",
            extra_args=["--ep_size", "4"],
        ),
        (
            *("trtllm-serve", "org/model", "--host", "{host}", "--port", "{port}", "--served_model_name", "name"),
            *("--revision", "main", "--tp_size", "4", "--pp_size", "2", "--max_seq_len", "4096"),
            *("--max_batch_size", "32", "--max_num_tokens", "8192"),
            *("--kv_cache_free_gpu_memory_fraction", "0.9", "--trust_remote_code", "--chat_template", "/t.jinja"),
            *("--tool_parser", "qwen3", "--reasoning_parser", "deepseek-r1", "--ep_size", "4"),
        ),
    ),
    ("nim starts itself", Nim(model_id="meta/llama", image="nvcr.io/nim/meta/llama:1"), ()),
    (
        "nim, command",
        Nim(model_id="meta/llama", image="nvcr.io/nim/meta/llama:2", command="nim-serve --port {port}"),
        ("nim-serve", "--port", "{port}"),
    ),
    (
        "llamacpp, file",
        Llamacpp(model_id="/models/x.gguf"),
        (
            *LLAMA,
            *("-m", "/models/x.gguf", "--host", "{host}", "--port", "{port}", "--alias", "name"),
            *("-c", "4096", "-np", "1", "-ngl", "99", "--jinja"),
        ),
    ),
    (
        "llamacpp, repository, all",
        Llamacpp(
            model_id="org/model",
            hf_repo="org/model-GGUF:Q4_K_M",
            context_length=1024,
            slots=4,
            gpus=0,
            chat_template="/t.jinja",
            extra_args=["--metrics"],
        ),
        (
            *LLAMA,
            *("-hf", "org/model-GGUF:Q4_K_M", "--host", "{host}", "--port", "{port}", "--alias", "name"),
            *("-c", "4096", "-np", "4", "-ngl", "0", "--jinja", "--chat-template-file", "/t.jinja", "--metrics"),
        ),
    ),
    ("container, image only", Container(model_id="m", image="org/server:1"), ()),
    (
        "container, command with placeholders",
        Container(model_id="org/m", command=["serve", "{model_id}", "--as={model}", "--at", "{host}:{port}"]),
        ("serve", "org/m", "--as=name", "--at", "{host}:{port}"),
    ),
    (
        "smollm, least",
        Smollm(),
        (
            *("{python}", "-m", "launcher.servers.smollm", "--host", "{host}", "--port", "{port}"),
            *("--served-name", "name", "--context", "2048", "--threads", "{threads}"),
        ),
    ),
    (
        "smollm, all",
        Smollm(gguf="/x.gguf", threads=3, context_length=512, extra_args="--slow"),
        (
            *("{python}", "-m", "launcher.servers.smollm", "--host", "{host}", "--port", "{port}"),
            *("--served-name", "name", "--context", "512", "--threads", "3", "--gguf", "/x.gguf", "--slow"),
        ),
    ),
]

LEAST: dict[str, AnyDeployment] = {
    "vllm": Vllm(model_id="m"),
    "sglang": Sglang(model_id="m"),
    "trtllm": Trtllm(model_id="m"),
    "nim": Nim(model_id="m", image="nvcr.io/nim/m:1"),
    "llamacpp": Llamacpp(model_id="m.gguf"),
    "container": Container(model_id="m", image="org/server:1"),
    "smollm": Smollm(),
    "lepton_llm": LeptonLlm(model_id="m"),
    "lepton_template": LeptonTemplate(model_id="m", template_id="t"),
    "lepton_photon": LeptonPhoton(model_id="m", photon_id="p"),
}


def built(deployment: AnyDeployment, served_name: str = "name") -> ServerSpec:
    server = build_server(deployment, served_name)
    assert server is not None
    return server


@pytest.mark.parametrize(("deployment", "command"), [c[1:] for c in COMMANDS], ids=[c[0] for c in COMMANDS])
def test_the_command_is_exactly(deployment: AnyDeployment, command: tuple[str, ...]) -> None:
    assert built(deployment).command == command


def test_every_type_has_a_server_but_none_and_what_a_provider_serves() -> None:
    assert set(DEPLOYMENT_TYPES) == {*LEAST, "none", "deepinfra"}
    assert build_server(NoDeployment(), "name") is None


@pytest.mark.parametrize(
    ("kind", "port", "health", "interval", "cache"),
    [
        ("vllm", 8000, "/health", 0.25, "/root/.cache/huggingface"),
        ("sglang", 8000, "/health", 5.0, "/root/.cache/huggingface"),
        ("trtllm", 8000, "/health", 0.25, "/root/.cache/huggingface"),
        ("nim", 8000, "/v1/health/ready", 0.25, "/opt/nim/.cache"),
        ("llamacpp", 8080, "/health", 0.25, "/root/.cache/llama.cpp"),
        ("container", 8000, "/health", 0.25, None),
        ("smollm", 8000, "/health", 0.25, None),
        ("lepton_llm", 8000, "/health", 0.25, "/root/.cache/huggingface"),
        ("lepton_template", 8000, "/health", 0.25, None),
        ("lepton_photon", 8080, "/health", 0.25, None),
    ],
)
def test_how_each_server_is_reached(kind: str, port: int, health: str, interval: float, cache: str | None) -> None:
    server = built(LEAST[kind])
    assert (server.type, server.served_name) == (kind, "name")
    assert (server.port, server.health.path, server.health.interval, server.cache_path) == (
        port,
        health,
        interval,
        cache,
    )


@pytest.mark.parametrize(
    ("kind", "loglikelihood", "remote_tokenizer"),
    [
        ("vllm", "yes", True),
        ("sglang", "probe", False),
        ("trtllm", "no", False),
        ("nim", "probe", False),
        ("llamacpp", "no", False),
        ("container", "probe", False),
        ("smollm", "yes", True),
    ],
)
def test_what_each_server_can_score(kind: str, loglikelihood: str, remote_tokenizer: bool) -> None:
    server = built(LEAST[kind])
    assert (server.loglikelihood, server.remote_tokenizer) == (loglikelihood, remote_tokenizer)
    assert bool(server.loglikelihood_note) == (loglikelihood == "no")


def test_default_images_are_pinned_and_a_given_one_wins() -> None:
    for kind in ("vllm", "sglang", "trtllm", "llamacpp"):
        image = built(LEAST[kind]).image
        assert image is not None
        name, _, tag = image.rpartition(":")
        assert name and any(digit in tag for digit in "0123456789")
    assert built(Vllm(model_id="m", image="my/vllm:1")).image == "my/vllm:1"
    assert built(LEAST["smollm"]).image is None


def test_llamacpp_without_a_gpu_takes_the_cpu_image() -> None:
    gpu, cpu = built(Llamacpp(model_id="m.gguf")), built(Llamacpp(model_id="m.gguf", gpus=0))
    assert (gpu.gpus, cpu.gpus) == (1, 0)
    assert "cuda" in (gpu.image or "") and "cuda" not in (cpu.image or "")


def test_the_llamacpp_program_is_found_in_the_image_folder_and_on_the_path(tmp_path: Path) -> None:
    """The shell prefix must hand over every argument unchanged."""
    program = tmp_path / "llama-server"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    command = built(Llamacpp(model_id="/with space/x.gguf", extra_args=["--prompt", "a 'b' $c"])).command
    run = subprocess.run(command, env={"PATH": f"/bin:/usr/bin:{tmp_path}"}, capture_output=True, text=True, check=True)
    assert tuple(run.stdout.splitlines()) == command[4:]


@pytest.mark.parametrize("deployment", [Vllm, Sglang])
def test_gpus_are_the_product_of_the_parallel_sizes(deployment: Callable[..., AnyDeployment]) -> None:
    sizes = {"tensor_parallel_size": 2, "pipeline_parallel_size": 3, "data_parallel_size": 4}
    assert built(deployment(model_id="m")).gpus == 1
    assert built(deployment(model_id="m", **sizes)).gpus == 24
    assert built(deployment(model_id="m", gpus=32, **sizes)).gpus == 32


def test_a_cpu_build_of_vllm_needs_no_gpu() -> None:
    assert built(Vllm(model_id="m", gpus=0)).gpus == 0


def test_several_gpus_get_shared_memory() -> None:
    assert built(Vllm(model_id="m")).shared_memory_mib is None
    assert built(Vllm(model_id="m", tensor_parallel_size=2)).shared_memory_mib == 16384
    assert built(Vllm(model_id="m", tensor_parallel_size=2, shared_memory_mib=512)).shared_memory_mib == 512


def test_a_command_of_ones_own_replaces_everything_and_is_probed() -> None:
    server = built(Vllm(model_id="org/m", command="vllm serve {model_id} --served-model-name '{model}' --port {port}"))
    assert server.command == ("vllm", "serve", "org/m", "--served-model-name", "name", "--port", "{port}")
    assert (server.loglikelihood, server.remote_tokenizer) == ("probe", False)


def test_nim_is_configured_by_variables() -> None:
    server = built(
        Nim(
            model_id="meta/llama",
            image="nvcr.io/nim/meta/llama:2",
            tensor_parallel_size=2,
            pipeline_parallel_size=2,
            max_model_len=4096,
            profile="abc",
            extra_args=["--tool-call-parser", "llama3 json"],
            envs={"NGC_API_KEY": Reference(env="NGC_API_KEY"), "NIM_LOG_LEVEL": "INFO"},
        )
    )
    assert server.env == {
        "NIM_SERVER_PORT": "{port}",
        "NIM_SERVED_MODEL_NAME": "name",
        "NIM_TENSOR_PARALLEL_SIZE": "2",
        "NIM_PIPELINE_PARALLEL_SIZE": "2",
        "NIM_MAX_MODEL_LEN": "4096",
        "NIM_MODEL_PROFILE": "abc",
        "NIM_PASSTHROUGH_ARGS": "--tool-call-parser 'llama3 json'",
        "NGC_API_KEY": Reference(env="NGC_API_KEY"),
        "NIM_LOG_LEVEL": "INFO",
    }
    assert server.gpus == 4


def test_container_says_what_it_can_do() -> None:
    server = built(
        Container(
            model_id="m",
            image="i:1",
            port=9000,
            health_path="/up",
            gpus=2,
            loglikelihood="no",
            endpoint_types=["chat"],
            revision="abc",
        )
    )
    assert (server.port, server.health.path, server.gpus, server.revision) == (9000, "/up", 2, "abc")
    assert (server.endpoint_types, server.loglikelihood) == (("chat",), "no")


def test_smollm_fetches_its_weights_once_unless_it_is_given_some() -> None:
    assert built(Smollm()).prepare == (("{python}", "-m", "launcher.servers.smollm", "--fetch"),)
    assert built(Smollm(gguf="/x.gguf")).prepare == ()


def test_numbers_in_the_environment_become_text() -> None:
    server = built(Sglang(model_id="m", envs={"A": 1, "B": 0.5, "C": 2.0, "D": "x", "E": Reference(secret="s")}))
    assert server.env == {"A": "1", "B": "0.5", "C": "2", "D": "x", "E": Reference(secret="s")}


def test_only_the_needed_deployment_is_imported() -> None:
    code = (
        "import sys; from launcher.config.deployment import Smollm; from launcher.deployments import build_server;"
        "build_server(Smollm(), 'm');"
        "print(sorted(m.rpartition('.')[2] for m in sys.modules if m.startswith('launcher.deployments.')))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "['common', 'smollm', 'spec']"


def test_every_type_has_a_config_group_of_its_name() -> None:
    folder = Path(__file__).parents[2] / "configs" / "deployment"
    groups = {path.stem: yaml.safe_load(path.read_text()) for path in folder.glob("*.yaml")}
    assert set(groups) == set(DEPLOYMENTS)
    assert {name: group["type"] for name, group in groups.items()} == {name: name for name in DEPLOYMENTS}
