"""Logs of inspect_ai: one .eval file for each task, which `inspect view` and `read_eval_log` read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from launcher.config.export import Inspect
from launcher.results import samples
from launcher.results.exporters import places
from launcher.results.exporters.base import Bundle, identity, is_number, text_of
from launcher.results.model import TaskRecord
from launcher.results.samples import SampleSet, SampleText

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample, EvalScore

CONTENT = "content_sha256"
SCORER = "score"
"""Name of the scorer where the harness has no filter."""
_STATES: dict[str, Any] = {"scored": "success", "failed": "error", "stopped": "cancelled"}


class Exporter:
    """Writes the logs that are not there as they should be."""

    summary: ClassVar[str] = "logs that inspect_ai reads, with samples"
    extra: ClassVar[str] = "inspect"
    modules: ClassVar[tuple[str, ...]] = ("inspect_ai",)

    def __init__(self, options: Inspect) -> None:
        self._options = options

    def problems(self) -> list[str]:
        """A URL whose file system nobody has installed is found out by inspect_ai itself."""
        url = self._options.folder is not None and places.is_url(self._options.folder)
        if url and find_spec("fsspec") is None:
            return ["export.inspect.folder: a URL needs fsspec; pip install 'nv-eval-launcher[fsspec]'"]
        return []

    def destination(self, bundle: Bundle) -> str:
        """The folder."""
        return places.shown(bundle.place(self._options.folder, "inspect"))

    def send(self, bundle: Bundle) -> None:
        """Write one log after the other."""
        from inspect_ai.log import write_eval_log

        folder = bundle.place(self._options.folder, "inspect").rstrip("/")
        content = bundle.content(samples=self._options.samples)
        for task in bundle.record.tasks:
            location = f"{folder}/{_name(bundle, task)}"
            if _known(location) != content:
                write_eval_log(self._log(bundle, task, content), location, format="eval")

    def _log(self, bundle: Bundle, task: TaskRecord, content: str) -> EvalLog:
        from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSpec

        kept = list(_samples(bundle, task)) if self._options.samples else []
        invocation = bundle.record.invocation
        return EvalLog(
            status=_STATES.get(task.status, "error"),
            eval=EvalSpec(
                eval_id=identity("eval", invocation, task.key, length=22),
                run_id=identity("run", invocation, length=22),
                task_id=identity("task", invocation, task.key, length=22),
                created=text_of(bundle.began),
                task=task.name,
                task_version=next((score.version for score in task.scores if score.version), 0),
                task_args=task.settings,
                dataset=EvalDataset(name=task.name, samples=len(kept) or None),
                model=bundle.record.model.served_name or bundle.model,
                config=EvalConfig(),
                metadata={
                    "nv_eval.invocation": invocation,
                    "nv_eval.task": task.key,
                    "nv_eval.reason": task.reason,
                    "harness": task.harness,
                    "gpu_seconds": task.gpu_seconds,
                    "usd": task.usd,
                    CONTENT: content,
                },
            ),
            results=_results(task, len(kept)),
            stats=_stats(bundle, task),
            error=_error(task),
            samples=kept or None,
        )


def _name(bundle: Bundle, task: TaskRecord) -> str:
    """As inspect_ai names its logs: TIME_TASK_ID.eval."""
    time = text_of(bundle.record.created).replace(":", "-").replace(".", "-")
    plain = "".join(letter if letter.isalnum() else "-" for letter in task.key)
    return f"{time}_{plain}_{identity('eval', bundle.record.invocation, task.key, length=22)}.eval"


def _known(location: str) -> str | None:
    """The digest in a log that is there; None if there is none that can be read."""
    from inspect_ai.log import read_eval_log

    try:
        found = (read_eval_log(location, header_only=True).eval.metadata or {}).get(CONTENT)
    except Exception:  # absent, cut off, no log: it is written anew
        return None
    return None if found is None else str(found)


def _results(task: TaskRecord, logged: int) -> Any:
    from inspect_ai.log import EvalResults

    if task.status != "scored":
        return None
    counts = [score.n for score in task.scores if score.n]
    total = max(counts, default=logged)
    return EvalResults(total_samples=total, completed_samples=total, scores=list(_scores(task)))


def _scores(task: TaskRecord) -> Iterator[EvalScore]:
    """One for each sub-task and filter, with its metrics."""
    from inspect_ai.log import EvalMetric, EvalScore

    for sub_task, kind in dict.fromkeys((score.task, score.filter) for score in task.scores):
        metrics: dict[str, EvalMetric] = {}
        for score in task.scores:
            if (score.task, score.filter) != (sub_task, kind) or not is_number(score.value):
                continue
            parts = {"": score.value, "_stderr": score.stderr, "_low": score.low, "_high": score.high}
            for end, value in parts.items():
                if value is not None and is_number(value):
                    metrics[score.metric + end] = EvalMetric(name=score.metric + end, value=value)
        scorer = _scorer(task, sub_task, kind)
        yield EvalScore(name=scorer, scorer=scorer, metrics=metrics)


def _scorer(task: TaskRecord, sub_task: str, kind: str) -> str:
    name = SCORER if kind in ("none", "") else kind
    return name if sub_task == task.name else f"{sub_task}/{name}"


def _stats(bundle: Bundle, task: TaskRecord) -> Any:
    from inspect_ai.log import EvalStats
    from inspect_ai.model import ModelUsage

    jobs = (
        [span for span in bundle.timeline.spans if span.kind == "job" and span.task == task.key]
        if (bundle.timeline)
        else []
    )
    began = min((span.began for span in jobs), default=bundle.began)
    ended = max((span.ended for span in jobs if span.ended), default=bundle.ended)
    usage = {}
    if task.tokens is not None:
        asked, written = task.tokens.prompt, task.tokens.completion
        used = ModelUsage(input_tokens=asked, output_tokens=written, total_tokens=asked + written)
        usage = {bundle.record.model.served_name or bundle.model: used}
    return EvalStats(started_at=text_of(began), completed_at=text_of(ended), model_usage=usage)


def _error(task: TaskRecord) -> Any:
    from inspect_ai.log import EvalError

    if task.status == "scored":
        return None
    message = f"{task.reason}: {task.detail}" if task.detail else task.reason
    lines = "\n".join(line for lines in task.evidence.values() for line in lines)
    return EvalError(message=message, traceback=lines, traceback_ansi=lines)


@dataclass(frozen=True)
class _View:
    """One document as one filter saw it."""

    scorer: str
    text: SampleText
    values: dict[str, float]


def _samples(bundle: Bundle, task: TaskRecord) -> Iterator[EvalSample]:
    """Each document once, with what every filter made of the answer."""
    found = samples.read(bundle.folder / task.key / "output")
    several = len({sub_task for sub_task, _ in found}) > 1
    documents: dict[int | str, list[_View]] = {}
    for (sub_task, _), one in found.items():
        for document, view in _views(task, one):
            documents.setdefault(f"{sub_task}/{document}" if several else document, []).append(view)
    return (_sample(bundle, task, name, views) for name, views in documents.items())


def _views(task: TaskRecord, one: SampleSet) -> Iterator[tuple[int | str, _View]]:
    scorer = _scorer(task, one.task, one.filter)
    texts = samples.texts(one, range(len(one)), next(iter(one.values), ""))
    for place, (document, text) in enumerate(zip(one.ids, texts, strict=True)):
        values = {metric: values[place] for metric, values in one.values.items() if is_number(values[place])}
        yield document, _View(scorer, text, values)


def _sample(bundle: Bundle, task: TaskRecord, name: int | str, views: list[_View]) -> EvalSample:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant, ModelOutput
    from inspect_ai.scorer import Score

    text = views[0].text
    mark = identity(bundle.record.invocation, task.key, str(name), length=22)
    model = bundle.record.model.served_name or bundle.model
    message = ChatMessageAssistant(content=text.answer, id=mark, model=model)
    return EvalSample(
        id=name,
        epoch=1,
        input=text.prompt,
        target=text.target,
        output=ModelOutput(model=model, choices=[ChatCompletionChoice(message=message)]),
        scores={view.scorer: Score(value=dict(view.values), answer=view.text.answer) for view in views},
        uuid=mark,
    )
