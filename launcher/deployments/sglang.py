"""SGLang: `python3 -m sglang.launch_server`."""

from __future__ import annotations

from launcher.config.deployment import Sglang
from launcher.deployments.common import (
    HUGGINGFACE_CACHE,
    Option,
    above_one,
    assignments,
    bind_options,
    command,
    is_template,
    parallel_gpus,
    refuse,
    server_env,
    shared_memory,
)
from launcher.deployments.spec import Health, ServerSpec

IMAGE = "lmsysorg/sglang:v0.5.18"

_HEALTH_INTERVAL = 5.0
"""Seconds: an idle server computes a token for each health question."""


def server(config: Sglang, served_name: str) -> ServerSpec:
    """The server of one endpoint. Raises ConfigError where keys contradict each other."""
    template = config.chat_template or ""
    refuse("sglang", chat_template=(is_template(template), "give the path of a template file or a built-in name"))
    program = ("python3", "-m", "sglang.launch_server", "--model-path", config.model_id)
    argv = command(config, served_name, program, _options(config, served_name))
    gpus = parallel_gpus(config, cpu_build=True)
    return ServerSpec(
        type=config.type,
        model_id=config.model_id,
        served_name=served_name,
        command=argv,
        image=config.image or IMAGE,
        env=server_env(config),
        port=config.port or 8000,
        revision=config.revision,
        gpus=gpus,
        cpus=config.cpus,
        memory_gib=config.memory_gib,
        shared_memory_mib=shared_memory(config, gpus),
        cache_path=HUGGINGFACE_CACHE,
        health=Health(interval=_HEALTH_INTERVAL),
        loglikelihood="probe",
        max_length=config.max_model_len,
    )


def _options(config: Sglang, served_name: str) -> list[Option]:
    return [
        *bind_options(),
        Option("model_id", ("--model-path", "--model")),
        Option("served_model_name", ("--served-model-name",), served_name),
        Option("revision", ("--revision",), config.revision),
        Option(
            "tensor_parallel_size",
            ("--tp", "--tp-size", "--tensor-parallel-size"),
            above_one(config.tensor_parallel_size),
        ),
        Option(
            "pipeline_parallel_size",
            ("--pp-size", "--pipeline-parallel-size"),
            above_one(config.pipeline_parallel_size),
        ),
        Option(
            "data_parallel_size", ("--dp", "--dp-size", "--data-parallel-size"), above_one(config.data_parallel_size)
        ),
        Option("max_model_len", ("--context-length",), config.max_model_len),
        Option("dtype", ("--dtype",), config.dtype),
        Option("quantization", ("--quantization",), config.quantization),
        Option("gpu_memory_fraction", ("--mem-fraction-static",), config.gpu_memory_fraction),
        Option("max_num_seqs", ("--max-running-requests",), config.max_num_seqs),
        Option("trust_remote_code", ("--trust-remote-code",), config.trust_remote_code),
        Option("chat_template", ("--chat-template",), config.chat_template),
        Option("lora_modules", ("--enable-lora",), bool(config.lora_modules)),
        Option("lora_modules", ("--lora-paths",), assignments(config.lora_modules)),
        Option("tool_call_parser", ("--tool-call-parser",), config.tool_call_parser),
        Option("reasoning_parser", ("--reasoning-parser",), config.reasoning_parser),
    ]
