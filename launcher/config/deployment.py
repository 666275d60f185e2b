"""Typed keys of `deployment`: one dataclass per way to serve a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta

from launcher.config.fields import (
    Arguments,
    Count,
    EnvValue,
    Fraction,
    Gibibytes,
    Mebibytes,
    Name,
    NonNegative,
    Port,
    Seconds,
    key,
)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Keys that every deployment has."""

    type: str = key(doc="how the model is served; chosen by the config group `deployment`")
    model_id: str = key(doc="model to serve: a Hugging Face repository, or a path inside the server")
    served_model_name: str | None = key(
        None, "name the server answers to; default: target.api_endpoint.model_id, else model_id"
    )
    envs: dict[str, EnvValue] = key(
        factory=dict,
        doc="environment of the server; secrets by reference only: ${oc.env:NAME} or {secret: NAME}",
    )
    extra_args: Arguments = key(
        factory=list, doc="further arguments of the server: a list, or one string split as a shell would"
    )
    start_timeout: Seconds = key(3600.0, "time from creation until the health path answers 200")
    health_timeout: Seconds = key(300.0, "time from the first 200 until the model lists itself and completes one token")
    sharing: Literal["dedicated", "shared"] = key(
        "dedicated", "dedicated: each task has an endpoint of its own; shared: one endpoint for all tasks of a run"
    )
    cpus: float | None = key(None, "CPU cores one endpoint needs; default: not counted")
    memory_gib: Gibibytes | None = key(None, "memory one endpoint needs; default: not counted")


@dataclass(frozen=True, kw_only=True)
class Server(Deployment):
    """Keys of deployments that run a server of their own."""

    image: str | None = key(None, "container image; default: the one the deployment is known to work with")
    command: Arguments = key(
        factory=list,
        doc="replaces the whole server command; {host}, {port}, {model_id} and {model} (served name) are filled in",
    )
    port: Port | None = key(
        None, "port inside the container; default: the server's usual one. A process gets a free one"
    )
    shared_memory_mib: Mebibytes | None = key(None, "size of /dev/shm in the container")


@dataclass(frozen=True, kw_only=True)
class UnknownServer(Deployment):
    """Keys of deployments whose server the launcher knows nothing of: it must be told how that answers."""

    health_path: str = key("/health", "path that answers 200 when the server is up")
    gpus: NonNegative = key(0, "GPUs of one endpoint")
    revision: str | None = key(None, "revision of the model, for the record")
    cache_path: str | None = key(
        None, "folder in the container where the server keeps downloaded models; the model cache is mounted there"
    )
    loglikelihood: Literal["yes", "no", "probe"] = key(
        "probe", "whether prompt log-probabilities come back: probe asks the running server"
    )
    endpoint_types: list[Literal["completions", "chat"]] = key(
        factory=lambda: ["completions", "chat"], doc="routes the server has"
    )


@dataclass(frozen=True, kw_only=True)
class GpuServer(Server):
    """Keys of the GPU inference servers."""

    revision: str | None = key(None, "revision of the model repository: a commit makes the score reproducible")
    tensor_parallel_size: Count = key(1, "GPUs that share each layer")
    pipeline_parallel_size: Count = key(1, "groups of layers, each on its own GPUs")
    data_parallel_size: Count = key(1, "copies of the model in one endpoint")
    gpus: NonNegative | None = key(
        None, "GPUs of one endpoint; default: tensor x pipeline x data parallel size; 0: CPU build"
    )
    max_model_len: Count | None = key(None, "longest prompt plus answer, in tokens; default: the model's")
    dtype: str | None = key(None, "weights and activations, for example bfloat16; default: the model's")
    quantization: str | None = key(None, "quantisation method, for example fp8 or awq; default: the model's")
    gpu_memory_fraction: Fraction | None = key(
        None, "share of GPU memory for weights and KV cache; default: the server's"
    )
    max_num_seqs: Count | None = key(None, "requests computed at once; default: the server's")
    trust_remote_code: bool = key(False, "run Python code that comes with the model")
    chat_template: str | None = key(
        None, "chat template: a path inside the server, or the template itself where the server takes it"
    )
    lora_modules: dict[str, str] = key(factory=dict, doc="LoRA adapters: served name to repository or path")
    tool_call_parser: str | None = key(None, "parser for tool calls; also turns on automatic tool choice")
    reasoning_parser: str | None = key(None, "parser that separates reasoning from the answer")


@dataclass(frozen=True, kw_only=True)
class Vllm(GpuServer):
    """vLLM (`vllm serve`)."""

    type: Literal["vllm"] = key("vllm", "vLLM")
    expert_parallel: bool = key(False, "spread experts over the GPUs (mixture-of-experts models)")
    max_logprobs: Count | None = key(None, "most log-probabilities per token; default: the server's")


@dataclass(frozen=True, kw_only=True)
class Sglang(GpuServer):
    """SGLang (`sglang.launch_server`)."""

    type: Literal["sglang"] = key("sglang", "SGLang")


@dataclass(frozen=True, kw_only=True)
class Trtllm(GpuServer):
    """TensorRT-LLM (`trtllm-serve`)."""

    type: Literal["trtllm"] = key("trtllm", "TensorRT-LLM")
    max_batch_size: Count | None = key(None, "requests computed at once; default: the server's")
    max_num_tokens: Count | None = key(None, "tokens computed at once; default: the server's")


@dataclass(frozen=True, kw_only=True)
class Nim(Server):
    """NVIDIA NIM for large language models: an image with its own start command."""

    type: Literal["nim"] = key("nim", "NVIDIA NIM")
    tensor_parallel_size: Count | None = key(None, "GPUs that share each layer; default: the profile's")
    pipeline_parallel_size: Count | None = key(None, "groups of layers; default: the profile's")
    gpus: NonNegative | None = key(None, "GPUs of one endpoint; default: tensor x pipeline parallel size")
    max_model_len: Count | None = key(None, "longest prompt plus answer, in tokens; default: the profile's")
    profile: str | None = key(None, "NIM model profile; default: the image chooses")


@dataclass(frozen=True, kw_only=True)
class Llamacpp(Server):
    """llama.cpp's own server (`llama-server`); cannot score log-likelihoods."""

    type: Literal["llamacpp"] = key("llamacpp", "llama.cpp server")
    hf_repo: str | None = key(None, "repository with optional :quantisation to load instead of model_id")
    context_length: Count = key(4096, "context of one slot, in tokens")
    slots: Count = key(1, "requests computed at once")
    gpu_layers: NonNegative = key(99, "layers on the GPU; 0 keeps the model on the CPU")
    gpus: NonNegative = key(1, "GPUs of one endpoint; 0 for CPU only")
    chat_template: str | None = key(None, "path of a Jinja chat template inside the server")


@dataclass(frozen=True, kw_only=True)
class Container(Server, UnknownServer):
    """Any image or command that serves the OpenAI routes on a port."""

    type: Literal["container"] = key("container", "any image or command")


@dataclass(frozen=True, kw_only=True)
class LeptonLlm(GpuServer):
    """LLM endpoint of Lepton: vLLM or SGLang, with a model from Hugging Face or from the file system.

    It is what "Create LLM endpoint" of the dashboard makes: by Lepton's API a container like any other. The service's
    own image and command are not documented, so by default they are those of `vllm` and `sglang` here.
    """

    type: Literal["lepton_llm"] = key("lepton_llm", "LLM endpoint of Lepton")
    engine: Literal["vllm", "sglang"] = key("vllm", "inference engine; it decides the default image and the command")
    model_path: str | None = key(
        None,
        "path of the model on the volume; it is mounted, read-only, and served instead of a download, and model_id "
        "only names it; default: model_id is downloaded from Hugging Face",
    )
    model_volume: Name | None = key(
        None, "volume that model_path is on, as the workspace names it; default: execution.storage.volume"
    )
    hf_token_secret: Name | None = key(
        None,
        "secret of the workspace that holds a Hugging Face token, for gated models; the server gets it as HF_TOKEN",
    )
    expert_parallel: bool = key(False, "spread experts over the GPUs (mixture-of-experts models); vllm only")
    max_logprobs: Count | None = key(None, "most log-probabilities per token; vllm only; default: the server's")


@dataclass(frozen=True, kw_only=True)
class LeptonTemplate(Server, UnknownServer):
    """Prebuilt template of a Lepton workspace that serves /templates: the workspace says what is run.

    Taken from what it renders are image, command, port, variables, mounts, image pull secrets, shared memory and, if
    `execution.resource_shape` is not set, the resource shape. What the config says goes before it, variables by name
    and mounts by place. All else (node group, replicas, access, time-outs, and whatever is about jobs) is the config's.
    The dry run shows what the workspace renders.
    """

    type: Literal["lepton_template"] = key("lepton_template", "template of the workspace")
    template_id: Name = key(doc="id of the template; `lep template list` shows them")
    template_visibility: Literal["public", "private"] = key("public", "whose template: everybody's or the workspace's")
    run: str | dict[str, Any] | None = key(
        None, "what the template is rendered with: its command, or its parameters; default: nothing"
    )
    image: str | None = key(None, "container image; default: the template's")
    command: Arguments = key(
        factory=list,
        doc="replaces the template's command; {host}, {port}, {model_id} and {model} (served name) are filled in",
    )
    port: Port | None = key(None, "port inside the container; default: the template's")
    shared_memory_mib: Mebibytes | None = key(None, "size of /dev/shm in the container; default: the template's")


@dataclass(frozen=True, kw_only=True)
class LeptonPhoton(UnknownServer):
    """Custom model of Lepton: a photon that was pushed to the workspace (legacy API only).

    It brings its own image and command, and listens on port 8080.
    """

    type: Literal["lepton_photon"] = key("lepton_photon", "photon of the workspace")
    photon_id: Name = key(doc="id of the photon, with its version")
    photon_namespace: Literal["public", "private"] = key(
        "private", "where the photon is: everybody's or the workspace's"
    )
    shared_memory_mib: Mebibytes | None = key(None, "size of /dev/shm in the container")


LONGEST_LIFE = 30 * 86_400.0
"""Seconds after which an endpoint that carries its expiry has expired at the latest: it shall not be forgotten."""

DeepInfraGpu = Literal[
    "L4-24GB",
    "L40S-48GB",
    "A100-80GB",
    "H100-80GB",
    "H200-141GB",
    "B200-180GB",
    "B300-270GB",
    "RTXPRO6000-96GB",
    "other",
]


@dataclass(frozen=True, kw_only=True)
class DeepInfra(Deployment):
    """Dedicated instance of a model on DeepInfra: rented by the GPU-hour until it is deleted."""

    type: Literal["deepinfra"] = key("deepinfra", "dedicated model on DeepInfra")
    gpu: DeepInfraGpu = key("H100-80GB", "type of GPU")
    num_gpus: Annotated[int, Meta(ge=1, le=8)] = key(1, "GPUs of one instance")
    max_batch_size: Annotated[int, Meta(ge=1, le=256)] = key(96, "requests computed at once; more of them queue")
    weights: Literal["hf", "base_model", "image"] = key(
        "hf",
        "hf: model_id is a Hugging Face repository; base_model: model_id is a public model of DeepInfra; image: "
        "container_image brings or fetches the model, and model_id only names it",
    )
    revision: str | None = key(None, "revision of the repository: a commit makes the score reproducible")
    hf_token_name: Name | None = key(
        None, "environment variable that holds a Hugging Face token, for gated and private models; its name"
    )
    container_image: str | None = key(None, "image of the server, for example vllm/vllm-openai:v0.8.4")
    min_instances: NonNegative = key(1, "instances of the model; 0: the first request starts one")
    max_instances: Count | None = key(None, "most instances that DeepInfra makes; default: min_instances, at least 1")
    expires_after: Annotated[float, Meta(gt=0, le=LONGEST_LIFE, extra={"unit": "s"})] | None = key(
        None,
        "time from creation to the expiry that its name carries and `nv-eval gc` honours; default: from the plan's "
        "time-outs",
    )
    loglikelihood: Literal["yes", "no", "probe"] = key(
        "probe", "whether prompt log-probabilities come back: probe asks the running server"
    )
    max_model_len: Count | None = key(None, "longest prompt plus answer, in tokens; default: the model's")


@dataclass(frozen=True, kw_only=True)
class Smollm(Deployment):
    """The embedded default: SmolLM2-135M-Instruct on CPU, with exact prompt log-probabilities."""

    type: Literal["smollm"] = key("smollm", "embedded small model on CPU")
    model_id: str = key("HuggingFaceTB/SmolLM2-135M-Instruct", "name of the embedded model")
    gguf: str | None = key(None, "path of another GGUF file to serve; default: the embedded one")
    context_length: Count = key(2048, "longest prompt plus answer, in tokens")
    threads: Count | None = key(None, "CPU threads; default: the machine's cores divided among the endpoints")
    start_timeout: Seconds = key(600.0, "time from creation until the health path answers 200")
    memory_gib: Gibibytes | None = key(0.7, "memory one endpoint needs")


@dataclass(frozen=True, kw_only=True)
class NoDeployment:
    """An endpoint that exists already: nothing is created; `target.api_endpoint.url` says where it is."""

    type: Literal["none"] = key("none", "an existing endpoint")
    health_path: str | None = key(None, "path that answers 200 when the server is up; default: not asked")
    health_timeout: Seconds = key(300.0, "time the endpoint has to list the model and complete one token")
    loglikelihood: Literal["yes", "no", "probe"] = key(
        "probe", "whether prompt log-probabilities come back: probe asks the running server"
    )


AnyDeployment = (
    Vllm
    | Sglang
    | Trtllm
    | Nim
    | Llamacpp
    | Container
    | LeptonLlm
    | LeptonTemplate
    | LeptonPhoton
    | DeepInfra
    | Smollm
    | NoDeployment
)

DEPLOYMENTS: dict[str, type[AnyDeployment]] = {
    "vllm": Vllm,
    "sglang": Sglang,
    "trtllm": Trtllm,
    "nim": Nim,
    "llamacpp": Llamacpp,
    "container": Container,
    "lepton_llm": LeptonLlm,
    "lepton_template": LeptonTemplate,
    "lepton_photon": LeptonPhoton,
    "deepinfra": DeepInfra,
    "smollm": Smollm,
    "none": NoDeployment,
}

ONLY_ON_LEPTON = ("lepton_llm", "lepton_template", "lepton_photon")
"""Deployments that another execution has nothing to make them with."""
