"""Weights & Biases: a run for each task, in a group for each invocation.

Scores are in a run's summary, not in its history: what is written twice is there once.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from launcher.config.export import Wandb
from launcher.results import samples
from launcher.results.exporters.base import Bundle, identity, numbers
from launcher.results.model import TaskRecord

if TYPE_CHECKING:
    from wandb import Run

CONTENT = "nv_eval.content_sha256"
MARK = "nv-eval.json"
"""In the files of an offline run: what it holds, so that it is not written again."""


class Exporter:
    """Makes each run once, by an id that follows from invocation and task."""

    summary: ClassVar[str] = "runs of Weights & Biases, online or in a folder"
    extra: ClassVar[str] = "wandb"
    modules: ClassVar[tuple[str, ...]] = ("wandb",)

    def __init__(self, options: Wandb) -> None:
        self._options = options

    def problems(self) -> list[str]:
        """No key, when one is needed."""
        name = self._options.api_key_name
        if self._options.mode == "offline" or name in os.environ:
            return []
        return [f"export.wandb.api_key_name: variable {name} is not set; set it, or export.wandb.mode=offline"]

    def destination(self, bundle: Bundle) -> str:
        """Server and project, or the folder."""
        project = "/".join(filter(None, (self._options.entity, self._options.project)))
        if self._options.mode == "offline":
            return f"{self._folder(bundle).absolute()} project {project}"
        return f"{self._options.base_url or os.environ.get('WANDB_BASE_URL', 'https://api.wandb.ai')} project {project}"

    def _folder(self, bundle: Bundle) -> Path:
        return Path(bundle.place(self._options.folder, "wandb"))

    def send(self, bundle: Bundle) -> None:
        """Write the runs that are not there as they should be."""
        if self._options.mode == "online":
            os.environ["WANDB_API_KEY"] = os.environ[self._options.api_key_name]
            if self._options.base_url:
                os.environ["WANDB_BASE_URL"] = self._options.base_url
        self._folder(bundle).mkdir(parents=True, exist_ok=True)
        content = bundle.content(samples=self._options.samples)
        for task in bundle.record.tasks:
            name = run_id(bundle.record.invocation, task.key)
            if self._known(bundle, name) != content:
                self._task(bundle, task, name, content)

    def _known(self, bundle: Bundle, name: str) -> str | None:
        """What the run holds, by the digest that was written with it; None if there is no such run."""
        return self._known_offline(bundle, name) if self._options.mode == "offline" else self._known_online(name)

    def _known_offline(self, bundle: Bundle, name: str) -> str | None:
        marks = sorted(self._folder(bundle).glob(f"wandb/offline-run-*-{name}/files/{MARK}"))
        if not marks:
            return None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(marks[-1].read_text())["content_sha256"])
        return None

    def _known_online(self, name: str) -> str | None:
        import wandb
        from wandb.errors import CommError

        api = wandb.Api()
        entity = self._options.entity or api.default_entity
        try:
            found = api.run(f"{entity}/{self._options.project}/{name}").summary.get(CONTENT)
        except (CommError, ValueError):  # no such run, or no such project yet
            return None
        return None if found is None else str(found)

    def _task(self, bundle: Bundle, task: TaskRecord, name: str, content: str) -> None:
        run = self._begun(bundle, task, name)
        run.summary.update({number.name: number.value for number in numbers(task)})
        run.summary.update({"status": task.status, "reason": task.reason, CONTENT: content})
        self._files(bundle, task, run)
        (Path(run.dir) / MARK).write_text(json.dumps({"content_sha256": content}))
        run.finish(exit_code=0 if task.status == "scored" else 1)

    def _begun(self, bundle: Bundle, task: TaskRecord, name: str) -> Run:
        import wandb

        return wandb.init(
            project=self._options.project,
            entity=self._options.entity,
            id=name,
            resume="allow",
            name=f"{task.key} {bundle.record.invocation}",
            group=bundle.record.invocation,
            job_type="evaluation",
            tags=[tag[:64] for tag in (task.harness, task.status) if tag],
            config=bundle.facts(task),
            mode=self._options.mode,
            dir=str(self._folder(bundle)),
            allow_val_change=True,
            settings=wandb.Settings(**_QUIET),
        )

    def _files(self, bundle: Bundle, task: TaskRecord, run: Run) -> None:
        """One artifact; W&B makes no new version of one whose files are the same."""
        import wandb

        paths = dict.fromkeys(bundle.files(), "") if self._options.artifacts else {}
        if self._options.samples:
            output = bundle.folder / task.key / "output"
            paths |= {path: f"samples/{sub_task}.jsonl" for sub_task, path in samples.files(output)}
        if paths:
            artifact = wandb.Artifact(f"nv-eval-{run.id}", type="evaluation")
            for path, name in paths.items():
                artifact.add_file(str(path), name or path.name)
            run.log_artifact(artifact)


def run_id(invocation: str, task: str) -> str:
    """The id of a task's run."""
    return identity("wandb", invocation, task, length=16)


_QUIET: dict[str, Any] = {
    "silent": True,
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "disable_job_creation": True,
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}
"""Only what the bundle says is written: nothing of this process, this machine, this folder."""
