"""Typed keys of `evaluation`: settings of all tasks, and each task's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from launcher.config.fields import Arguments, Count, EnvValue, Name, NonNegative, Seconds, key

EndpointType = Literal["completions", "chat"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a task is run. A task's own value wins over evaluation's, which wins over the harness's default."""

    harness: Literal["lm_eval", "nemo_evaluator", "command"] | None = key(None, "program that runs the benchmark")
    endpoint_type: EndpointType | None = key(
        None, "route that is evaluated; log-likelihood tasks need completions; default: what the task needs"
    )
    limit: float | None = key(None, "samples per task; below 1 a share of them; default: all")
    num_fewshot: NonNegative | None = key(None, "worked examples in the prompt; default: the task's")
    seed: NonNegative | None = key(None, "seed of sampling and of the choice of examples")
    concurrency: Count | None = key(None, "requests in flight at once")
    batch_size: Count | None = key(None, "prompts in one request")
    request_timeout: Seconds | None = key(None, "time one request may take")
    max_retries: NonNegative | None = key(None, "tries after a failed request")
    max_length: Count | None = key(None, "longest prompt plus answer the client sends, in tokens; default: the model's")
    max_gen_tokens: Count | None = key(None, "most tokens an answer may have; default: the task's")
    generation: dict[str, Any] | None = key(None, "generation arguments, for example temperature, top_p, until")
    apply_chat_template: bool | None = key(None, "send messages in the model's chat template; chat always does")
    fewshot_as_multiturn: bool | None = key(None, "worked examples as turns of a conversation")
    system_prompt: str | None = key(None, "system prompt")
    tokenizer: str | None = key(None, "tokenizer: a repository or folder; default: the served model's")
    tokenizer_backend: Literal["remote", "huggingface", "tiktoken", "none"] | None = key(
        None, "where prompts are split into tokens; default: what the deployment offers"
    )
    include_path: str | None = key(None, "folder with task definitions of your own")
    response_cache: bool | None = key(None, "keep answers, so that a repeated run asks only what is missing")
    log_samples: bool | None = key(None, "keep prompts, answers and scores of every sample")
    timeout: Seconds | None = key(None, "time the whole task may take once its endpoint answers")
    expected_duration: Seconds | None = key(
        None, "how long the task is expected to take; where slots are few the longest goes first"
    )
    image: str | None = key(
        None, "container image of the job; default: a process beside the launcher, or the harness's"
    )
    envs: dict[str, EnvValue] | None = key(None, "environment of the job; secrets by reference only")
    model_args: dict[str, Any] | None = key(None, "further arguments of lm-eval's model class")
    metadata: dict[str, Any] | None = key(None, "metadata handed to lm-eval's tasks")
    params: dict[str, Any] | None = key(None, "further run parameters of nemo_evaluator (config.params)")
    command: Arguments | None = key(
        None, "program of the command harness: a list, or one string split as a shell would"
    )


@dataclass(frozen=True, kw_only=True)
class Task(Settings):
    """One benchmark. The same name may appear twice with different settings."""

    name: Name = key(doc="name of the benchmark, as its harness knows it")


@dataclass(frozen=True, kw_only=True)
class Evaluation(Settings):
    """Which benchmarks run, and the settings they share."""

    tasks: list[Task] = key(factory=list, doc="benchmarks; each gets an endpoint and a job of its own")
