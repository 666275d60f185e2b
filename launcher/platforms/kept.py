"""What lies where in an invocation's folder; what was read of the logs of endpoints and jobs, for `nv-eval logs`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from launcher.plan.attempts import attempt
from launcher.plan.model import Plan
from launcher.platforms.progress import without_results

ENDPOINT_LOG, JOB_LOG = "endpoint.log", "job.log"
OUTPUT = "output"
"""Folder of a task into which its harness writes."""
SCORES = "scores.json"
"""Beside it once the scores are home."""


@dataclass(frozen=True)
class KeptLogs:
    """The log files of one invocation, whose folder this is."""

    plan: Plan
    folder: Path
    _files: dict[int, dict[str, list[Path]]] = field(default_factory=dict)
    """Log files by the name of what wrote them, for each attempt that was asked about."""

    def keep(self, name: str, lines: Iterable[str]) -> None:
        """Write the log of an endpoint or a job of any attempt of the plan's tasks; others' names have no file."""
        kept = without_results(lines)
        for path in self._paths(name) if kept else ():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8", errors="replace")

    def _paths(self, name: str) -> list[Path]:
        """From the name alone: what an earlier launcher created has it too. All tasks have a shared endpoint's."""
        further = re.search(rf"r(\d+)-{re.escape(self.plan.invocation)}$", name)
        number = int(further[1]) if further else 1
        if number not in self._files:
            self._files[number] = self._of_attempt(number)
        return self._files[number].get(name, [])

    def _of_attempt(self, number: int) -> dict[str, list[Path]]:
        found = defaultdict[str, list[Path]](list)
        for planned in (*self.plan.tasks, *self.plan.helpers):
            task = attempt(planned, number, self.plan.invocation)
            found[task.job.name].append(self.folder / task.key / JOB_LOG)
            if task.endpoint is not None:
                found[task.endpoint.name].append(self.folder / task.key / ENDPOINT_LOG)
        return found
