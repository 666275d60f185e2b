"""Settings of a task in words: what changes its scores, and how hard its endpoint is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from textwrap import shorten
from typing import Any

from launcher.config.evaluation import Settings
from launcher.config.values import text
from launcher.plan.words import duration

_SCORING = (
    "limit", "num_fewshot", "seed", "max_length", "max_gen_tokens", "generation", "apply_chat_template",
    "fewshot_as_multiturn", "system_prompt", "include_path", "model_args", "metadata", "params",
)  # fmt: skip
"""Settings that change scores. The tokenizer does too, but it is the harness that chooses it."""
_NAMES = {"num_fewshot": "few-shot"}
_LONGEST = 60
"""Characters of one value."""


def scoring(settings: Settings) -> list[str]:
    """Every setting that changes scores and is set, as `name value`."""
    return [f"{name} {_value(value)}" for name, value in _chosen(settings)]


def requests(settings: Settings) -> list[str]:
    """How the endpoint is asked, and what is kept of its answers."""
    at_once = "as many at once as help" if settings.concurrency == "auto" else f"{settings.concurrency} at once"
    found = [at_once] if settings.concurrency else []
    if (settings.batch_size or 1) > 1:
        found.append(f"{settings.batch_size} prompts in each")
    if settings.request_timeout is not None:
        found.append(f"at most {duration(settings.request_timeout)} each")
    if settings.max_retries is not None:
        found.append(f"{settings.max_retries} {'retry' if settings.max_retries == 1 else 'retries'}")
    found += ["answers not kept"] if settings.response_cache is False else []
    found += ["samples not kept"] if settings.log_samples is False else []
    return found


def _chosen(settings: Settings) -> Iterator[tuple[str, Any]]:
    for name in _SCORING:
        value = getattr(settings, name)
        if name == "generation":
            yield from value.arguments().items()
        elif value is not None:
            yield _NAMES.get(name, name), value


def _value(value: Any) -> str:
    if isinstance(value, bool | int | float):
        return text(value)
    return shorten(json.dumps(value, ensure_ascii=False), _LONGEST, placeholder="…")
