"""Trackio on this machine: a run for each task, in a group for each invocation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from launcher.config.export import Trackio
from launcher.results.exporters.base import Bundle, numbers
from launcher.results.model import TaskRecord


class Exporter:
    """Logs the scores of each task once; others than those that are there as a further step."""

    summary: ClassVar[str] = "runs of Trackio on this machine"
    extra: ClassVar[str] = "trackio"
    modules: ClassVar[tuple[str, ...]] = ("trackio",)

    def __init__(self, options: Trackio) -> None:
        self._options = options

    def problems(self) -> list[str]:
        """None: it asks for nothing."""
        return []

    def destination(self, _bundle: Bundle, /) -> str:
        """Folder and project."""
        folder = self._options.folder or os.environ.get("TRACKIO_DIR")
        return f"{Path(folder).absolute() if folder else 'trackio'} project {self._options.project}"

    def send(self, bundle: Bundle) -> None:
        """Log what is not there as it should be."""
        if self._options.folder:
            os.environ["TRACKIO_DIR"] = str(Path(self._options.folder).absolute())
        for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):  # on this machine is what the config asks for
            os.environ.pop(name, None)
        for task in bundle.record.tasks:
            self._task(bundle, task)

    def _task(self, bundle: Bundle, task: TaskRecord) -> None:
        import trackio

        name = f"{task.key} {bundle.record.invocation}"
        wanted: dict[str, Any] = {number.name: number.value for number in numbers(task)}
        wanted |= {"status": task.status, "reason": task.reason}
        if self._newest(name) == wanted:
            return
        run = trackio.init(
            project=self._options.project,
            name=name,
            group=bundle.record.invocation,
            config=bundle.facts(task),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        run.log(wanted)
        trackio.finish()

    def _newest(self, name: str) -> dict[str, Any] | None:
        """What the run holds; None if there is no such run."""
        from trackio.sqlite_storage import SQLiteStorage

        logs = SQLiteStorage.get_logs(self._options.project, name)
        return {key: value for key, value in logs[-1].items() if key not in ("timestamp", "step")} if logs else None
