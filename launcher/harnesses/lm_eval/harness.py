"""The `lm_eval` harness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launcher.config.evaluation import Settings
from launcher.errors import ConfigError
from launcher.harnesses.lm_eval import catalogue
from launcher.harnesses.lm_eval.index import IndexEntry
from launcher.harnesses.lm_eval.job import build_job
from launcher.harnesses.spec import HarnessJob, Score, TargetInfo, TaskInfo


class LmEval:
    """EleutherAI's lm-evaluation-harness, driven through its Python API against an OpenAI-compatible endpoint."""

    name = "lm_eval"
    defaults = Settings(
        harness="lm_eval",
        seed=1234,
        concurrency=4,
        batch_size=1,
        request_timeout=300.0,
        max_retries=3,
        response_cache=True,
        log_samples=True,
        timeout=4 * 3600.0,
    )

    def describe(self, task: str, settings: Settings) -> TaskInfo:
        """What the index, or the user's folder, says of a task or group.

        Raises ConfigError for an unknown name, a list of names, and a folder that does not exist.
        """
        entry = _find(task, settings)
        return TaskInfo(
            name=task,
            needs_loglikelihood=entry.needs_loglikelihood,
            endpoint_types=("completions",) if entry.needs_loglikelihood else ("completions", "chat"),
            samples=catalogue.samples(entry),
            generates="generate_until" in entry.output_types,
        )

    def job(self, task: str, settings: Settings, target: TargetInfo) -> HarnessJob:
        """The run of one task or group. Raises ConfigError where a setting does not fit lm-eval."""
        return build_job(self.name, _find(task, settings), settings, target)

    def parse(self, folder: Path, task: str, settings: Settings) -> list[Score]:
        """Scores of the newest run in `folder`, sub-tasks and group aggregates included.

        Raises ResultsError if files are missing or broken, are of another task, or hold fewer samples than asked.
        """
        from launcher.harnesses.lm_eval.results import parse  # a dry run needs none of it

        return parse(folder, task, settings)

    def provenance(self, folder: Path) -> dict[str, Any]:
        """provenance.json, as the driver wrote it. Raises ResultsError if it is missing or broken."""
        from launcher.harnesses.lm_eval.results import provenance

        return provenance(folder)


def _find(task: str, settings: Settings) -> IndexEntry:
    if "," in task:
        raise ConfigError(f"{task!r} names several tasks; give each an entry of its own in evaluation.tasks")
    return catalogue.find(task, settings.include_path)
