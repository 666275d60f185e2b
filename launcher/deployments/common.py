"""What the deployments share: typed keys as options, the whole command, GPUs, shared memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from launcher.config.deployment import Deployment, GpuServer, Server, UnknownServer
from launcher.config.fields import Env
from launcher.config.values import arguments, environment, text
from launcher.deployments.spec import Health, ServerSpec
from launcher.errors import ConfigError

HUGGINGFACE_CACHE = "/root/.cache/huggingface"
"""Where the images of vLLM, SGLang and TensorRT-LLM keep models."""

SHARED_MEMORY_MIB = 16384
"""Size of /dev/shm that tensor-parallel servers are usually given, in MiB."""

LAUNCHER_KEY = "the launcher"
"""Owner of options that no config key sets."""

_NO_LOGLIKELIHOOD = "deployment.loglikelihood is no; if the server returns prompt log-probabilities, set it to probe"

OptionValue: TypeAlias = str | float | bool | Sequence[str] | None


@dataclass(frozen=True)
class Option:
    """One command-line option and the key of `deployment` that sets it.

    The first of `flags` is used; all of them are refused in extra_args. None and False leave it out, True gives the
    bare flag, a sequence gives several values after one flag.
    """

    key: str
    flags: tuple[str, ...]
    value: OptionValue = None

    def words(self) -> list[str]:
        """The option as arguments; empty where it is left out."""
        if self.value is None or self.value is False:
            return []
        if self.value is True:
            return [self.flags[0]]
        if isinstance(self.value, str | int | float):
            return [self.flags[0], text(self.value)]
        return [self.flags[0], *self.value] if self.value else []


def bind_options(*flags: str) -> tuple[Option, Option]:
    """Where the server listens; platforms fill in both. `flags` are further spellings of the port."""
    return Option(LAUNCHER_KEY, ("--host",), "{host}"), Option("port", ("--port", *flags), "{port}")


def command(config: Server, served_name: str, program: Sequence[str], options: Iterable[Option]) -> tuple[str, ...]:
    """The whole command: the config's own, or program, options and extra arguments.

    Raises ConfigError for extra arguments that repeat an option, or that stand beside a command of one's own.
    """
    own = own_command(config, served_name)
    if own:
        return own
    options = list(options)
    extra = extra_arguments(config, options)
    return (*program, *(word for option in options for word in option.words()), *extra)


def own_command(config: Server, served_name: str) -> tuple[str, ...]:
    """`deployment.command` with {model} and {model_id} filled in; empty where it is not set."""
    words = arguments("deployment.command", config.command)
    if words and config.extra_args:
        raise ConfigError("deployment.extra_args: has no effect beside deployment.command; put them there")
    return tuple(w.replace("{model}", served_name).replace("{model_id}", config.model_id) for w in words)


def extra_arguments(config: Deployment, options: Iterable[Option]) -> list[str]:
    """`deployment.extra_args` as a list. Raises ConfigError where one of them repeats an option."""
    extra = arguments("deployment.extra_args", config.extra_args)
    owners = {_normal(flag): option.key for option in options for flag in option.flags}
    for word in extra:
        flag = word.partition("=")[0]
        owner = owners.get(_normal(flag)) if flag.startswith("-") else None
        if owner == LAUNCHER_KEY:
            raise ConfigError(f"deployment.extra_args: {flag} is set by the launcher; leave it out")
        if owner:
            raise ConfigError(f"deployment.extra_args: {flag} repeats deployment.{owner}; set only that key")
    return extra


def _normal(flag: str) -> str:
    """A long flag with one spelling of its separators; short flags differ by case, so case stays."""
    return flag.replace("_", "-")


def server_env(config: Deployment) -> Env:
    """`deployment.envs` as a plan holds them. Raises ConfigError for a secret given by value."""
    return environment("deployment.envs", config.envs)


def gpu_count(gpus: int | None, product: int, *, cpu_build: bool = False) -> int:
    """GPUs of one endpoint: the product of the parallel sizes unless `gpus` says more.

    `cpu_build`: the server also exists for CPUs, so that 0 is allowed. Raises ConfigError for fewer than needed.
    """
    if gpus is None:
        return product
    if gpus == 0 and cpu_build and product == 1:
        return 0
    if gpus < product:
        raise ConfigError(f"deployment.gpus: {gpus} is less than tensor x pipeline x data parallel size, {product}")
    return gpus


def parallel_gpus(config: GpuServer, *, cpu_build: bool = False) -> int:
    """`gpu_count` for a config with all three parallel sizes."""
    product = config.tensor_parallel_size * config.pipeline_parallel_size * config.data_parallel_size
    return gpu_count(config.gpus, product, cpu_build=cpu_build)


def shared_memory(config: Server, gpus: int) -> int | None:
    """Size of /dev/shm in MiB: several GPUs talk through it, and a container's 64 MiB are too few."""
    return config.shared_memory_mib or (SHARED_MEMORY_MIB if gpus > 1 else None)


def refuse(server: str, **keys: tuple[object, str]) -> None:
    """Raise ConfigError for each given key (value, what to do instead) that is set: `server` cannot express it."""
    problems = [
        f"deployment.{key}: {server} cannot do this; {advice}" for key, (value, advice) in keys.items() if value
    ]
    if problems:
        raise ConfigError(problems)


def described(spec: ServerSpec, config: UnknownServer) -> ServerSpec:
    """`spec` with what the config says of a server that the launcher does not know. Raises ConfigError."""
    for key, path in (("health_path", config.health_path), ("cache_path", config.cache_path or "/")):
        if not path.startswith("/"):
            raise ConfigError(f"deployment.{key}: {path!r} must start with /")
    return replace(
        spec,
        revision=config.revision,
        gpus=config.gpus,
        cpus=config.cpus,
        memory_gib=config.memory_gib,
        cache_path=config.cache_path,
        health=Health(path=config.health_path),
        endpoint_types=tuple(config.endpoint_types),
        loglikelihood=config.loglikelihood,
        loglikelihood_note=_NO_LOGLIKELIHOOD if config.loglikelihood == "no" else "",
    )


def refuse_extra_args(config: Deployment, kind: str, advice: str) -> None:
    """Raise ConfigError where there is no command of ours that arguments could be added to."""
    if config.extra_args:
        raise ConfigError(f"deployment.extra_args: {kind} has no command of its own; {advice}")


def above_one(size: int) -> int | None:
    """A parallel size as option value: 1 is every server's default and left out."""
    return size if size > 1 else None


def is_template(chat_template: str) -> bool:
    """Whether a chat template is given by its text rather than by a path."""
    return "{%" in chat_template or "{{" in chat_template


def assignments(modules: dict[str, str]) -> list[str]:
    """LoRA adapters as NAME=PATH words."""
    return [f"{name}={path}" for name, path in modules.items()]
