"""Evaluation results in the metadata of a Hugging Face model card.

https://huggingface.co/docs/hub/model-cards#evaluation-results
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from launcher.config.export import Huggingface
from launcher.results.exporters.base import Bundle, ExportFailed, is_number
from launcher.results.table import label
from launcher.results.write import write_atomically

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

SOURCE = "nv-eval"


class Exporter:
    """Writes the results of scored tasks into a README.md; all else in the card stays."""

    summary: ClassVar[str] = "model-index metadata of a Hugging Face model card"
    extra: ClassVar[str] = "huggingface"
    modules: ClassVar[tuple[str, ...]] = ("huggingface_hub",)

    def __init__(self, options: Huggingface) -> None:
        self._options = options

    def problems(self) -> list[str]:
        """A card that is a folder."""
        card = self._options.card
        is_folder = card is not None and Path(card).is_dir()
        return [f"export.huggingface.card: {card} is a folder; name the README.md in it"] if is_folder else []

    def destination(self, bundle: Bundle) -> str:
        """The file."""
        return str(self._path(bundle).absolute())

    def _path(self, bundle: Bundle) -> Path:
        return Path(self._options.card or f"{bundle.place(None, 'huggingface')}/README.md")

    def send(self, bundle: Bundle) -> None:
        """Put the results into the card, in place of those of the same benchmark and metric."""
        path = self._path(bundle)
        before = path.read_text() if path.is_file() else ""
        after = _with_results(before, bundle)
        if after != before:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, after.encode())


def _with_results(text: str, bundle: Bundle) -> str:
    card = _card(text, bundle)
    new = {_key(result): result for result in _results(bundle)}
    if not new:
        return text
    data: Any = card.data  # typed as the base of all cards' data, which has no results
    kept = [result for result in data.eval_results or [] if _key(result) not in new]
    data.model_name = data.model_name or bundle.model
    data.eval_results = [*kept, *new.values()]
    return str(card) + ("" if str(card).endswith("\n") else "\n")


def _card(text: str, bundle: Bundle) -> ModelCard:
    from huggingface_hub import ModelCard

    if not text:
        text = f"---\ntags: []\n---\n\n# {bundle.model}\n"
    try:
        return ModelCard(text, ignore_metadata_errors=False)
    except ValueError as error:
        raise ExportFailed(f"the card's metadata cannot be read: {' '.join(str(error).split())[:200]}") from None


def _key(result: EvalResult) -> tuple[object, ...]:
    """What one result is about: no second one of it belongs into a card."""
    return (result.dataset_type, result.dataset_name, result.metric_type, result.metric_name)


def _results(bundle: Bundle) -> Iterator[EvalResult]:
    from huggingface_hub import EvalResult

    for task in bundle.record.tasks:
        for score in task.scores:
            if not is_number(score.value):
                continue
            suffix = "" if score.filter in ("none", "") else f" ({score.filter})"
            arguments = {"num_few_shot": score.num_fewshot, "num_samples": score.n, "stderr": score.stderr}
            yield EvalResult(
                task_type="text-generation",
                task_name="Text Generation",
                dataset_type=score.task,
                dataset_name=label(task, score),
                dataset_args={"num_few_shot": score.num_fewshot} if score.num_fewshot is not None else None,
                metric_type=score.metric,
                metric_name=score.metric + suffix,
                metric_value=score.value,
                metric_args={
                    name: value for name, value in arguments.items() if value is not None and name != "num_few_shot"
                }
                or None,
            )
