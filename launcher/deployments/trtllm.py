"""TensorRT-LLM: `trtllm-serve`."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from launcher.config.deployment import Trtllm
from launcher.deployments.common import (
    HUGGINGFACE_CACHE,
    Option,
    above_one,
    bind_options,
    command,
    parallel_gpus,
    refuse,
    server_env,
    shared_memory,
)
from launcher.deployments.spec import ServerSpec
from launcher.errors import ConfigError

IMAGE = "nvcr.io/nvidia/tensorrt-llm/release:1.3.0rc17"
"""The first line of releases with --served_model_name."""

_NAMES_SINCE = (1, 3)
_NOTE = "trtllm-serve returns log-probabilities of generated tokens only; use vllm or sglang for this task"


def server(config: Trtllm, served_name: str) -> ServerSpec:
    """The server of one endpoint. Raises ConfigError for keys that trtllm-serve cannot express."""
    _check(config)
    name = None if served_name == _own_name(config.model_id) else served_name
    if name and not config.command:
        _check_image(config.image or IMAGE)
    gpus = parallel_gpus(config)
    return ServerSpec(
        type=config.type,
        model_id=config.model_id,
        served_name=served_name,
        command=command(config, served_name, ("trtllm-serve", config.model_id), _options(config, name)),
        image=config.image or IMAGE,
        env=server_env(config),
        port=config.port or 8000,
        revision=config.revision,
        gpus=gpus,
        cpus=config.cpus,
        memory_gib=config.memory_gib,
        shared_memory_mib=shared_memory(config, gpus),
        cache_path=HUGGINGFACE_CACHE,
        loglikelihood="no",
        loglikelihood_note=_NOTE,
        max_length=config.max_model_len,
    )


def _check(config: Trtllm) -> None:
    file = "put it in a YAML file and pass --config FILE in extra_args"
    refuse(
        "trtllm-serve",
        data_parallel_size=(config.data_parallel_size > 1, "use attention data parallelism: " + file),
        dtype=(config.dtype, file),
        quantization=(config.quantization, "name a quantised checkpoint in model_id"),
        lora_modules=(config.lora_modules, file),
        max_num_seqs=(config.max_num_seqs, "use deployment.max_batch_size"),
    )


def _own_name(model_id: str) -> str:
    """The name the server takes by itself: a folder's base name, else the repository."""
    return PurePosixPath(model_id).name if model_id.startswith("/") else model_id


def _check_image(image: str) -> None:
    release = re.search(r":v?(\d+)\.(\d+)[.\w-]*$", image)
    if release and (int(release[1]), int(release[2])) < _NAMES_SINCE:
        raise ConfigError(
            f"deployment.served_model_name: trtllm-serve in {image} cannot serve under another name; "
            "use release 1.3 or newer, or leave the name out"
        )


def _options(config: Trtllm, served_name: str | None) -> list[Option]:
    return [
        *bind_options(),
        Option("served_model_name", ("--served_model_name",), served_name),
        Option("revision", ("--revision",), config.revision),
        Option("tensor_parallel_size", ("--tp_size", "--tensor_parallel_size"), above_one(config.tensor_parallel_size)),
        Option(
            "pipeline_parallel_size",
            ("--pp_size", "--pipeline_parallel_size"),
            above_one(config.pipeline_parallel_size),
        ),
        Option("max_model_len", ("--max_seq_len",), config.max_model_len),
        Option("max_batch_size", ("--max_batch_size",), config.max_batch_size),
        Option("max_num_tokens", ("--max_num_tokens",), config.max_num_tokens),
        Option(
            "gpu_memory_fraction",
            ("--kv_cache_free_gpu_memory_fraction", "--free_gpu_memory_fraction"),
            config.gpu_memory_fraction,
        ),
        Option("trust_remote_code", ("--trust_remote_code",), config.trust_remote_code),
        Option("chat_template", ("--chat_template",), config.chat_template),
        Option("tool_call_parser", ("--tool_parser",), config.tool_call_parser),
        Option("reasoning_parser", ("--reasoning_parser",), config.reasoning_parser),
    ]
