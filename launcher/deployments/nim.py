"""NVIDIA NIM for large language models: the image starts itself, variables configure it."""

from __future__ import annotations

import shlex

from launcher.config.deployment import Nim
from launcher.config.fields import Env
from launcher.config.values import text
from launcher.deployments.common import extra_arguments, gpu_count, own_command, server_env, shared_memory
from launcher.deployments.spec import Health, ServerSpec
from launcher.errors import ConfigError


def server(config: Nim, served_name: str) -> ServerSpec:
    """The server of one endpoint. Raises ConfigError for a missing image or a variable that repeats a key."""
    if config.image is None:
        raise ConfigError(
            "deployment.image: nim needs the image of its model, for example nvcr.io/nim/meta/llama-3.1-8b-instruct:TAG"
        )
    gpus = gpu_count(config.gpus, (config.tensor_parallel_size or 1) * (config.pipeline_parallel_size or 1))
    return ServerSpec(
        type=config.type,
        model_id=config.model_id,
        served_name=served_name,
        command=own_command(config, served_name),
        image=config.image,
        env=_env(config, served_name),
        port=config.port or 8000,
        gpus=gpus,
        cpus=config.cpus,
        memory_gib=config.memory_gib,
        shared_memory_mib=shared_memory(config, gpus),
        cache_path="/opt/nim/.cache",
        # The port opens long before the model is loaded: only the ready path tells.
        health=Health(path="/v1/health/ready"),
        loglikelihood="probe",
        max_length=config.max_model_len,
    )


def _env(config: Nim, served_name: str) -> Env:
    own = server_env(config)
    typed: dict[str, tuple[str, str | int | None]] = {
        "NIM_SERVER_PORT": ("port", "{port}"),
        "NIM_SERVED_MODEL_NAME": ("served_model_name", served_name),
        "NIM_TENSOR_PARALLEL_SIZE": ("tensor_parallel_size", config.tensor_parallel_size),
        "NIM_PIPELINE_PARALLEL_SIZE": ("pipeline_parallel_size", config.pipeline_parallel_size),
        "NIM_MAX_MODEL_LEN": ("max_model_len", config.max_model_len),
        "NIM_MODEL_PROFILE": ("profile", config.profile),
        "NIM_PASSTHROUGH_ARGS": ("extra_args", shlex.join(extra_arguments(config, ())) or None),
    }
    for name, (key, _) in typed.items():
        if name in own:
            raise ConfigError(f"deployment.envs.{name}: repeats deployment.{key}; set only that key")
    return {name: text(value) for name, (_, value) in typed.items() if value is not None} | own
