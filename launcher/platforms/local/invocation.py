"""One opened invocation on this machine: its folders, its secrets, and what its servers may use."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.config.execution import Local
from launcher.plan.document import API_KEY_ENV, job_document, runner_source
from launcher.plan.model import Plan, TaskPlan
from launcher.platforms.kept import ENDPOINT_LOG, OUTPUT
from launcher.platforms.local import environment
from launcher.platforms.local.gpulocks import GpuLocks
from launcher.platforms.secrets import Secrets, url_passwords

PYTHON = sys.executable
"""The interpreter of jobs and of servers of ours: this one, which has what the person installed."""


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """What both runtimes need to know.

    `threads` is the number of CPU threads of one server. What may outlive the launcher keeps its part of `gpu_locks`.
    """

    plan: Plan
    folder: Path
    execution: Local
    secrets: Secrets
    threads: int
    gpu_locks: GpuLocks

    def task_folder(self, task: TaskPlan) -> Path:
        """The folder of one task."""
        return self.folder / task.key

    def output(self, task: TaskPlan) -> Path:
        """Where a task's harness writes its results."""
        return self.task_folder(task) / OUTPUT

    def work(self, task: TaskPlan) -> Path:
        """Where a task's runner has its files."""
        return self.task_folder(task) / "work"

    def endpoint_log(self, task: TaskPlan) -> Path:
        """The log of a task's server."""
        if task.endpoint is not None and task.endpoint.is_shared:
            return self.folder / f"{task.endpoint.name}.log"
        return self.task_folder(task) / ENDPOINT_LOG

    def show_shared_log(self, task: TaskPlan) -> None:
        """Let a task's folder have the log of the server that it shares, where the file system can do that."""
        own = self.task_folder(task) / ENDPOINT_LOG
        with contextlib.suppress(OSError):
            if self.endpoint_log(task) != own and not own.exists():
                self.endpoint_log(task).touch()
                own.hardlink_to(self.endpoint_log(task))

    def job_log(self, task: TaskPlan) -> Path:
        """The log of a task's job."""
        return self.task_folder(task) / "job.log"

    def make_folders(self) -> None:
        """Create the folders of all tasks."""
        for helper in self.plan.helpers:
            self.task_folder(helper).mkdir(parents=True, exist_ok=True)
        for task in self.plan.tasks:
            self.output(task).mkdir(parents=True, exist_ok=True)
            self.work(task).mkdir(parents=True, exist_ok=True)

    def write_job(self, task: TaskPlan, *, url: str, output_dir: str, work_dir: str) -> None:
        """Write the runner and its instructions, which name folders as the job sees them."""
        document = job_document(self.plan.invocation, task, url=url, output_dir=output_dir, work_dir=work_dir)
        (self.work(task) / "runner.py").write_text(runner_source(), encoding="utf-8")
        (self.work(task) / "job.json").write_text(json.dumps(document, indent=1), encoding="utf-8")

    def job_env(self, task: TaskPlan) -> dict[str, str]:
        """What a job's plan adds to its environment, references resolved. Raises PlatformError without a value."""
        env = self.secrets.resolve_env(task.job.run.env)
        if task.target.api_key is not None:
            env[API_KEY_ENV] = self.secrets.resolve(task.target.api_key)
        return env

    def remember_inherited(self) -> dict[str, str]:
        """The inherited environment; passwords in it (of a proxy, say) are taken out of logs from now on."""
        env = environment.inherited()
        for password in url_passwords(env.values()):
            self.secrets.remember(password)
        return env


def fill(arguments: tuple[str, ...], values: Mapping[str, str]) -> tuple[str, ...]:
    """Arguments with each `{name}` of `values` replaced; other braces stay as they are."""
    return tuple(fill_text(argument, values) for argument in arguments)


def fill_text(text: str, values: Mapping[str, str]) -> str:
    """Text with each `{name}` of `values` replaced; other braces stay as they are."""
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text
