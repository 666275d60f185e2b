"""The embedded default: a small real model on CPU, served by the launcher's own server."""

from __future__ import annotations

from launcher.config.deployment import Smollm
from launcher.deployments.common import LAUNCHER_KEY, Option, bind_options, extra_arguments, server_env
from launcher.deployments.spec import ServerSpec

_PROGRAM = ("{python}", "-m", "launcher.servers.smollm")
"""Platforms fill in {python} with the launcher's own interpreter."""
_REQUIRES = ("cyllama", "filelock", "jinja2", "numpy", "starlette", "uvicorn")


def server(config: Smollm, served_name: str) -> ServerSpec:
    """The server of one endpoint. Raises ConfigError for extra arguments that repeat a key."""
    options = _options(config, served_name)
    words = [word for option in options for word in option.words()]
    return ServerSpec(
        type=config.type,
        model_id=config.model_id,
        served_name=served_name,
        command=(*_PROGRAM, *words, *extra_arguments(config, options)),
        env=server_env(config),
        cpus=config.cpus,
        memory_gib=config.memory_gib,
        loglikelihood="yes",
        remote_tokenizer=True,
        max_length=config.context_length,
        prepare=() if config.gguf else ((*_PROGRAM, "--fetch"),),
        requires=_REQUIRES,
        extra="smollm",
        files={"gguf": config.gguf} if config.gguf else {},
    )


def _options(config: Smollm, served_name: str) -> list[Option]:
    return [
        *bind_options(),
        Option("served_model_name", ("--served-name",), served_name),
        Option("context_length", ("--context",), config.context_length),
        Option("threads", ("--threads",), config.threads or "{threads}"),
        Option("gguf", ("--gguf",), config.gguf),
        Option(LAUNCHER_KEY, ("--fetch",)),
    ]
