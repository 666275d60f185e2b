"""Runs for reports: many tasks with samples of many words, their time lines, and tasks that failed."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec

from launcher.results.model import Record
from launcher.results.timeline import Span, Timeline
from tests.unit.past_runs import PastTask, digest, write_run

BEGAN = 1_760_000_000.0
HOSTILE = (
    "<script>window.harmed = 1</script>",
    "</script><script>window.harmed = 2</script>",
    '<img src="x" onerror="window.harmed = 3">',
    "line\u2028separator\u2029and a NUL \x00 and a bell \x07",
    "half a character \ud83d and another \udc00",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u202eturned\u202c back",
    "{{ 7 * 7 }} {% raw %} ${window.harmed = 4} <!-- -->]]>",
    "javascript:window.harmed=5 &lt;b&gt; &amp;",
)
"""Texts that a page could take for something else than text."""


@cache
def vocabulary() -> tuple[list[str], list[float]]:
    """Made-up words with their summed weights, some far more common, so that they compress about as those of people."""
    chance = random.Random(7)
    syllables = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "en", "ar", "is")]
    words = ["".join(chance.choices(syllables, k=chance.choice((1, 2, 2, 3, 3, 4)))) for _ in range(4000)]
    return words, list(accumulate(1 / (rank + 5) for rank in range(len(words))))


def sentence(chance: random.Random, words: int) -> str:
    known, weights = vocabulary()
    return " ".join(chance.choices(known, cum_weights=weights, k=words)).capitalize() + "."


@dataclass(frozen=True)
class WordyTask(PastTask):
    """A task whose prompts and answers have as many words as those of real benchmarks, by its seed."""

    seed: int = 0
    words: int = 60

    def _line(self, key: int, values: dict[str, Any]) -> dict[str, Any]:
        chance = random.Random(f"{self.seed} {key}")
        prompt = f"Question: {sentence(chance, self.words)}\nAnswer:"
        target = sentence(chance, 3)
        value = next(iter(values.values()))
        answer = target if value else sentence(random.Random(f"{self.seed} {key} {value}"), 12)
        line = super()._line(key, values)
        told = {"prompt_hash": digest(prompt), "target_hash": digest(target), "target": target}
        return {**line, **told, "arguments": {"gen_args_0": {"arg_0": prompt}}, "filtered_resps": [answer]}


@dataclass(frozen=True)
class SpokenTask(PastTask):
    """A task whose prompts, targets and answers are the given texts, one after the other."""

    texts: Sequence[str] = HOSTILE

    def _line(self, key: int, values: dict[str, Any]) -> dict[str, Any]:
        text = self.texts[key % len(self.texts)]
        line = super()._line(key, values)
        return {**line, "target": text, "arguments": {"gen_args_0": {"arg_0": text}}, "filtered_resps": [text]}


def many_tasks(count: int, samples: int, *, better: float = 0.0) -> list[PastTask]:
    """Tasks of very different sizes with `samples` in all; `better` is added to their chance to be right."""
    weights = [1 + (place * 7) % 11 for place in range(count)]
    sizes = [samples * weight // sum(weights) for weight in weights]
    sizes[0] += samples - sum(sizes)
    made = []
    for place, size in enumerate(sizes):
        chance = random.Random(place)
        drawn = [chance.random() for _ in range(size)]
        moved = random.Random(f"{place} {better}")
        share = 0.35 + 0.5 * (place % 7) / 7
        lift = better * (1 if place % 3 else -1)
        right = [int(one + (moved.random() - 0.5) * (0.25 if better else 0.0) < share + lift) for one in drawn]
        made.append(WordyTask(f"benchmark_{place:02}", {"acc": right}, seed=place, words=25 + 10 * (place % 6)))
    return made


def write_timeline(folder: Path, *, usd_per_hour: float | None = 2.5) -> Timeline:
    """Give a run a time line: each of its tasks has an endpoint and a job, one after the other a little later."""
    record = msgspec.json.decode((folder / "results.json").read_bytes(), type=Record)
    spans: list[Span] = []
    for place, task in enumerate(record.tasks):
        chance = random.Random(f"{folder.name} {place}")
        began, starts, works = BEGAN + 3 * place, 60 + 90 * chance.random(), 120 + 900 * chance.random()
        ended = began + starts + 20 + works
        usd = None if usd_per_hour is None else usd_per_hour * (ended + 15 - began) / 3600
        endpoint = Span(
            kind="endpoint",
            name=f"ep-{task.key}-{folder.name}",
            task=task.key,
            attempt=1,
            began=began,
            ready=began + starts,
            ended=ended + 15,
            reason=task.reason,
            users=[task.key],
            gpus=1,
            usd=usd,
        )
        job = Span(
            kind="job",
            name=f"job-{task.key}-{folder.name}",
            task=task.key,
            attempt=1,
            began=began + 5,
            ready=began + starts + 20,
            ended=ended,
            reason=task.reason,
        )
        spans += [endpoint, job]
    line = Timeline(
        invocation=folder.name, began=BEGAN, ended=max(span.ended or 0.0 for span in spans) + 4, spans=spans
    )
    (folder / "timeline.json").write_bytes(msgspec.json.encode(line))
    return line


def add_failures(folder: Path) -> None:
    """Let two more tasks of a run have failed, and one of those with scores have needed a second attempt."""
    path = folder / "results.json"
    record = json.loads(path.read_bytes())
    died = {
        "key": "big_benchmark",
        "name": "big_benchmark",
        "harness": "lm_eval",
        "status": "failed",
        "reason": "endpoint_out_of_memory",
        "detail": "CUDA out of memory <b>while loading</b>",
        "evidence": {
            "endpoint": [
                "INFO loading weights",
                "\x1b[31mERROR\x1b[0m torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
            ],
            "job": ["waiting for the endpoint"],
        },
    }
    stopped = {
        **died,
        "key": "late_benchmark",
        "name": "late_benchmark",
        "status": "stopped",
        "reason": "limit_reached",
    }
    record["tasks"] += [died, {**stopped, "detail": "", "evidence": {}}]
    record["tasks"][0]["attempts"] = [
        {"number": 1, "reason": "endpoint_died", "detail": "signal 9", "evidence": {"endpoint": ["Killed"]}}
    ]
    record["complete"] = False
    path.write_text(json.dumps(record))


def write_pair(root: Path, *, tasks: int, samples: int) -> list[Path]:
    """A baseline and a candidate with the same questions, the second better at some, with time lines and failures."""
    cost = {"created": BEGAN, "seconds": 1300.0}
    folders = [
        write_run(root, "1f2e3d4c", *many_tasks(tasks, samples), **cost),
        write_run(root, "5b6a7988", *many_tasks(tasks, samples, better=0.06), **cost),
    ]
    add_failures(folders[1])
    for folder in folders:
        write_timeline(folder)
        (folder / "config.yaml").write_text("deployment:\n  type: vllm\n  api_key: ${oc.env:HF_TOKEN}\n")
    return folders
