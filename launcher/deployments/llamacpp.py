"""llama.cpp's own server: `llama-server`."""

from __future__ import annotations

from launcher.config.deployment import Llamacpp
from launcher.deployments.common import LAUNCHER_KEY, Option, bind_options, command, server_env, shared_memory
from launcher.deployments.spec import ServerSpec

BUILD = "b10481"
GPU_IMAGE = f"ghcr.io/ggml-org/llama.cpp:server-cuda-{BUILD}"
CPU_IMAGE = f"ghcr.io/ggml-org/llama.cpp:server-{BUILD}"

_PROGRAM = ("sh", "-c", 'PATH="$PATH:/app" exec "$0" "$@"', "llama-server")
"""The image keeps the program in /app, which is not on its PATH; a process finds it on the person's."""

_NOTE = "llama-server returns no prompt log-probabilities, and some builds say so only by chance scores; use vllm"


def server(config: Llamacpp, served_name: str) -> ServerSpec:
    """The server of one endpoint. Raises ConfigError for extra arguments that repeat a key."""
    return ServerSpec(
        type=config.type,
        model_id=config.model_id,
        served_name=served_name,
        command=command(config, served_name, _PROGRAM, _options(config, served_name)),
        image=config.image or (GPU_IMAGE if config.gpus else CPU_IMAGE),
        env=server_env(config),
        port=config.port or 8080,
        gpus=config.gpus,
        cpus=config.cpus,
        memory_gib=config.memory_gib,
        shared_memory_mib=shared_memory(config, config.gpus),
        key_env="LLAMA_API_KEY",
        cache_path="/root/.cache/llama.cpp",
        loglikelihood="no",
        loglikelihood_note=_NOTE,
        max_length=config.context_length,
        files={} if config.command else _files(config),
    )


def _files(config: Llamacpp) -> dict[str, str]:
    named = {"model_id": _path(config), "chat_template": config.chat_template}
    return {key: path for key, path in named.items() if path}


def _path(config: Llamacpp) -> str | None:
    """The model as a path; None where it is a repository."""
    return config.model_id if config.hf_repo is None and config.model_id.endswith(".gguf") else None


def _options(config: Llamacpp, served_name: str) -> list[Option]:
    path = _path(config)
    repository = None if path else config.hf_repo or config.model_id
    return [
        Option("model_id", ("-m", "--model"), path),
        Option("hf_repo", ("-hf", "-hfr", "--hf-repo"), repository),
        *bind_options(),
        Option("served_model_name", ("--alias", "-a"), served_name),
        # The context is divided among the slots.
        Option("context_length", ("-c", "--ctx-size"), config.context_length * config.slots),
        Option("slots", ("-np", "--parallel"), config.slots),
        Option("gpu_layers", ("-ngl", "--gpu-layers", "--n-gpu-layers"), config.gpu_layers if config.gpus else 0),
        Option(LAUNCHER_KEY, ("--jinja",), True),
        Option("chat_template", ("--chat-template-file",), config.chat_template),
    ]
