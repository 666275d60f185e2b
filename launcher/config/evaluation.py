"""Typed keys of `evaluation`: settings of all tasks, and each task's own."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from launcher.config.fields import (
    Arguments,
    Count,
    EnvValue,
    Fraction,
    Name,
    NonNegative,
    Penalty,
    Positive,
    Probability,
    Seconds,
    Temperature,
    TopK,
    key,
)

EndpointType = Literal["completions", "chat"]


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How answers are generated. What is not set is as the task says, else as the server does."""

    temperature: Temperature | None = key(None, "randomness of sampling; 0: the likeliest token; default: the task's")
    top_p: Fraction | None = key(None, "sample from the likeliest tokens that together have this probability")
    top_k: TopK | None = key(None, "sample from this many of the likeliest tokens; -1: from all")
    min_p: Probability | None = key(None, "leave out tokens below this share of the likeliest one's probability")
    until: Name | list[Name] | None = key(None, "texts that end an answer; default: the task's")
    presence_penalty: Penalty | None = key(None, "penalty of tokens that the answer already has")
    frequency_penalty: Penalty | None = key(None, "penalty of tokens by how often the answer already has them")
    repetition_penalty: Positive | None = key(
        None, "factor against tokens that prompt or answer already has; above 1 avoids them"
    )
    extra: dict[str, Any] | None = key(
        None, "further parameters of a request, for servers that know them; nobody checks their names"
    )

    def arguments(self) -> dict[str, Any]:
        """What is set, by the names that servers and lm-eval use; `extra` beside the others."""
        named = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "extra"}
        return {name: value for name, value in named.items() if value is not None} | (self.extra or {})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a task is run. A task's own value wins over evaluation's, which wins over the harness's default."""

    harness: Literal["lm_eval", "nemo_evaluator", "command"] | None = key(
        None, "program that runs the benchmark; default: lm_eval"
    )
    endpoint_type: EndpointType | None = key(
        None, "route that is evaluated; log-likelihood tasks need completions; default: what the task needs"
    )
    limit: float | None = key(None, "samples per task; below 1 a share of them; default: all")
    num_fewshot: NonNegative | None = key(
        None, "worked examples in the prompt; default: the task's; refused for tasks that are defined with none"
    )
    seed: NonNegative | None = key(None, "seed of sampling and of the choice of examples")
    concurrency: Count | Literal["auto"] | None = key(
        None,
        "requests in flight at once; auto: as many as make the server faster, found while it is asked (lm_eval only)",
    )
    batch_size: Count | None = key(None, "prompts in one request")
    request_timeout: Seconds | None = key(None, "time one request may take")
    max_retries: NonNegative | None = key(None, "tries after a failed request")
    max_length: Count | None = key(None, "longest prompt plus answer the client sends, in tokens; default: the model's")
    max_gen_tokens: Count | None = key(None, "most tokens an answer may have; default: the task's")
    generation: Generation = key(factory=Generation, doc="how answers are generated")
    apply_chat_template: bool | None = key(
        None, "send messages in the model's chat template; default: only on chat, which always does"
    )
    fewshot_as_multiturn: bool | None = key(
        None, "worked examples as turns of a conversation; default: wherever the chat template is applied"
    )
    system_prompt: str | None = key(None, "system prompt; default: none")
    tokenizer: str | None = key(None, "tokenizer: a repository or folder; default: the served model's")
    tokenizer_backend: Literal["remote", "huggingface", "tiktoken", "none"] | None = key(
        None, "where prompts are split into tokens; default: what the deployment offers"
    )
    include_path: str | None = key(None, "folder with task definitions of your own; default: none")
    response_cache: bool | None = key(
        None, "keep answers within an invocation, so that a job that is run again asks only what is missing"
    )
    log_samples: bool | None = key(None, "keep prompts, answers and scores of every sample")
    cluster_by: str | None = key(
        None,
        "field of a document whose equal values belong together, such as a passage: intervals are then of clusters; "
        "empty: every sample for itself; default: as known of the task",
    )
    timeout: Seconds | None = key(None, "time the whole task may take once its endpoint answers")
    expected_duration: Seconds | None = key(
        None, "how long the task is expected to take; where slots are few the longest goes first"
    )
    image: str | None = key(
        None, "container image of the job; default: a process beside the launcher, or the harness's"
    )
    envs: dict[str, EnvValue] | None = key(None, "environment of the job; secrets by reference only")
    model_args: dict[str, Any] | None = key(
        None, "further arguments of lm-eval's model class, which ignores those it does not know"
    )
    metadata: dict[str, Any] | None = key(None, "metadata handed to lm-eval's tasks, each of which takes what it knows")
    params: dict[str, Any] | None = key(
        None, "further run parameters of nemo_evaluator (config.params), or of the program of command; not checked"
    )
    auxiliary: list[Name] | None = key(
        None, "auxiliary endpoints that a task uses, by name; default: all that `auxiliary` defines"
    )
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
