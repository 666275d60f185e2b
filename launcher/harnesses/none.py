"""No evaluation: what stands in the plan of an endpoint that somebody wants for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launcher.config.evaluation import Settings
from launcher.harnesses.spec import HarnessJob, Score, TargetInfo, TaskInfo


class NoHarness:
    """Evaluates nothing, so that it has no scores. No config can name it."""

    name = "none"
    defaults = Settings()

    def describe(self, task: str, settings: Settings) -> TaskInfo:  # noqa: ARG002  part of the interface
        """Any route will do; every server of text has completions, and not every model a chat template."""
        return TaskInfo(name=task, needs_loglikelihood=False, endpoint_types=("completions", "chat"))

    def job(self, task: str, settings: Settings, target: TargetInfo) -> HarnessJob:  # noqa: ARG002
        """A job that nobody runs."""
        return HarnessJob(harness=self.name, argv=("{python}",))

    def parse(self, folder: Path, task: str, settings: Settings) -> list[Score]:  # noqa: ARG002
        """No scores."""
        return []

    def provenance(self, folder: Path) -> dict[str, Any]:  # noqa: ARG002
        """Nothing."""
        return {}
