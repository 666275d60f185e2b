"""vLLM: `vllm serve`."""

from __future__ import annotations

from launcher.config.deployment import Vllm
from launcher.deployments.common import (
    HUGGINGFACE_CACHE,
    LAUNCHER_KEY,
    Option,
    above_one,
    assignments,
    bind_options,
    command,
    parallel_gpus,
    server_env,
    shared_memory,
)
from launcher.deployments.spec import ServerSpec

IMAGE = "vllm/vllm-openai:v0.30.0"
"""Needs an NVIDIA driver for CUDA 13 (580 or newer); the tag with -cu129 serves older ones."""

_TOKENIZER_INFO = "--enable-tokenizer-info-endpoint"


def server(config: Vllm, served_name: str) -> ServerSpec:
    """The server of one endpoint. Raises ConfigError where keys contradict each other."""
    argv = command(config, served_name, ("vllm", "serve", config.model_id), _options(config, served_name))
    gpus = parallel_gpus(config, cpu_build=True)
    return ServerSpec(
        type=config.type,
        model_id=config.model_id,
        served_name=served_name,
        command=argv,
        image=config.image or IMAGE,
        env={"VLLM_NO_USAGE_STATS": "1", **server_env(config)},  # an evaluation reports to its owner only
        port=config.port or 8000,
        revision=config.revision,
        gpus=gpus,
        cpus=config.cpus,
        memory_gib=config.memory_gib,
        shared_memory_mib=shared_memory(config, gpus),
        key_env="VLLM_API_KEY",
        cache_path=HUGGINGFACE_CACHE,
        loglikelihood="probe" if config.command else "yes",
        remote_tokenizer=_TOKENIZER_INFO in argv,
        max_length=config.max_model_len,
    )


def _options(config: Vllm, served_name: str) -> list[Option]:
    return [
        *bind_options(),
        Option("model_id", ("--model",)),
        Option("served_model_name", ("--served-model-name",), served_name),
        Option("revision", ("--revision",), config.revision),
        *_parallel_options(config),
        Option("max_model_len", ("--max-model-len",), config.max_model_len),
        Option("dtype", ("--dtype",), config.dtype),
        Option("quantization", ("--quantization", "-q"), config.quantization),
        Option("gpu_memory_fraction", ("--gpu-memory-utilization",), config.gpu_memory_fraction),
        Option("max_num_seqs", ("--max-num-seqs",), config.max_num_seqs),
        Option("max_logprobs", ("--max-logprobs",), config.max_logprobs),
        Option("trust_remote_code", ("--trust-remote-code",), config.trust_remote_code),
        Option("chat_template", ("--chat-template",), config.chat_template),
        Option("lora_modules", ("--enable-lora",), bool(config.lora_modules)),
        Option("lora_modules", ("--lora-modules",), assignments(config.lora_modules)),
        Option("tool_call_parser", ("--enable-auto-tool-choice",), config.tool_call_parser is not None),
        Option("tool_call_parser", ("--tool-call-parser",), config.tool_call_parser),
        Option("reasoning_parser", ("--reasoning-parser",), config.reasoning_parser),
        Option(LAUNCHER_KEY, (_TOKENIZER_INFO,), True),
    ]


def _parallel_options(config: Vllm) -> list[Option]:
    """Sizes of 1 are vLLM's default and left out."""
    return [
        Option("tensor_parallel_size", ("--tensor-parallel-size", "-tp"), above_one(config.tensor_parallel_size)),
        Option("pipeline_parallel_size", ("--pipeline-parallel-size", "-pp"), above_one(config.pipeline_parallel_size)),
        Option("data_parallel_size", ("--data-parallel-size", "-dp"), above_one(config.data_parallel_size)),
        Option("expert_parallel", ("--enable-expert-parallel",), config.expert_parallel),
    ]
