"""LLM endpoint of Lepton: what its dashboard's "Create LLM endpoint" asks for, as a container of vLLM or SGLang.

The service's own image and command are not documented, and by its API such an endpoint is a container like any other.
So both are those of the deployments `vllm` and `sglang`, which the launcher's probes and log-likelihoods are known to
work with.
"""

from __future__ import annotations

from dataclasses import fields, replace

from launcher.config.deployment import GpuServer, LeptonLlm, Sglang, Vllm
from launcher.config.fields import Reference
from launcher.deployments import sglang, vllm
from launcher.deployments.common import refuse
from launcher.deployments.spec import ServerSpec, StoredModel
from launcher.errors import ConfigError

MODEL_FOLDER = "/mnt/model"
"""Where a model of the file system is mounted."""
TOKEN = "HF_TOKEN"  # noqa: S105 - the name of a variable
_SHARED = tuple(field.name for field in fields(GpuServer) if field.name not in ("type", "model_id", "envs"))


def server(config: LeptonLlm, served_name: str) -> ServerSpec:
    """The server of one endpoint. Raises ConfigError where keys contradict each other or the engine."""
    _check(config)
    stored = _stored(config)
    return replace(
        _engine_server(config, stored.mount_path if stored else config.model_id, served_name),
        type=config.type,
        model_id=config.model_id,
        stored_model=stored,
    )


def _engine_server(config: LeptonLlm, source: str, served_name: str) -> ServerSpec:
    """The same model on the deployment of the engine; `source` is what it loads."""
    shared = {name: getattr(config, name) for name in _SHARED}
    envs = dict(config.envs)
    if config.hf_token_secret:
        envs[TOKEN] = Reference(secret=config.hf_token_secret)
    if config.engine == "sglang":
        return sglang.server(Sglang(**shared, model_id=source, envs=envs), served_name)
    shared |= {"expert_parallel": config.expert_parallel, "max_logprobs": config.max_logprobs}
    return vllm.server(Vllm(**shared, model_id=source, envs=envs), served_name)


def _check(config: LeptonLlm) -> None:
    if config.engine == "sglang":
        advice = "put its own option in extra_args, or set engine: vllm"
        refuse("sglang", expert_parallel=(config.expert_parallel, advice), max_logprobs=(config.max_logprobs, advice))
    if config.hf_token_secret and TOKEN in config.envs:
        raise ConfigError(f"deployment.envs.{TOKEN}: repeats deployment.hf_token_secret; set only one of them")
    if config.model_path is None and config.model_volume is not None:
        raise ConfigError("deployment.model_volume: says where model_path is; set model_path too")
    if config.model_path is not None and not config.model_path.startswith("/"):
        raise ConfigError(f"deployment.model_path: {config.model_path!r} must start with /; it is a path on the volume")
    if config.model_path is not None and config.revision is not None:
        raise ConfigError("deployment.revision: is one of a repository; the model of model_path is not downloaded")


def _stored(config: LeptonLlm) -> StoredModel | None:
    if config.model_path is None:
        return None
    return StoredModel(path=config.model_path, mount_path=MODEL_FOLDER, volume=config.model_volume)
