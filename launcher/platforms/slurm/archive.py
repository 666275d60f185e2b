"""Files on their way to the cluster and back, as tar archives; and the records that jobs leave there."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

from launcher.errors import PlatformError
from launcher.harnesses.spec import HarnessJob
from launcher.plan.document import job_document, runner_source
from launcher.plan.model import TaskPlan
from launcher.platforms.slurm.queue import ARRAY

_OUTPUT, _WORK = "../../tasks/{key}/output", "../../tasks/{key}/work"
"""As seen from a job's folder."""


def pack(contents: Mapping[str, bytes]) -> bytes:
    """An archive of files that only their owner can read."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as opened:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o600
            opened.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@cache
def shared() -> bytes:
    """What all jobs of an invocation share: the runner, the filter of logs, the balancer."""
    return pack(
        {
            "runner.py": runner_source().encode(),
            "log.awk": files("launcher.plan.slurm").joinpath("log.awk").read_bytes(),
            "balance.py": files("launcher.servers").joinpath("balance.py").read_bytes(),
        }
    )


def job_file(invocation: str, task: TaskPlan, url: str) -> bytes:
    """The document of a job, with folders as its working directory sees them."""
    output, work = (path.format(key=task.key) for path in (_OUTPUT, _WORK))
    return json.dumps(job_document(invocation, task, url=url, output_dir=output, work_dir=work), indent=1).encode()


def watch_file(invocation: str, task: TaskPlan, url: str) -> bytes:
    """The document of what asks an endpoint whether it answers, and evaluates nothing."""
    run = HarnessJob(harness="none", argv=("{python}",))
    asked = replace(task, job=replace(task.job, run=run), auxiliary={})
    return json.dumps(job_document(invocation, asked, url=url, output_dir="watch", work_dir="watch/work")).encode()


def records(text: str) -> dict[str, dict[str, list[str]]]:
    """Lines of the records, by job and file, of `jobs/NAME/FILE<NUL>LINE`."""
    found: dict[str, dict[str, list[str]]] = {}
    for line in text.split("\n"):
        path, separator, content = line.partition("\0")
        parts = path.split("/")
        if separator and len(parts) == 3 and parts[0] == "jobs":
            found.setdefault(parts[1], {}).setdefault(parts[2], []).append(content)
    return found


def arrays(text: str, invocation: str) -> dict[str, list[str]]:
    """Names of the elements of the job arrays among the same lines, by the array's name."""
    found: dict[str, list[str]] = {}
    for line in text.split("\n"):
        path, separator, content = line.partition("\0")
        parts = path.split("/")
        if separator and len(parts) == 3 and parts[0] == "arrays":
            found.setdefault(array_name(parts[1], invocation), []).append(content.partition(" ")[0])
    return found


def array_name(nonce: str, invocation: str) -> str:
    """Name of a job array in Slurm."""
    return f"{ARRAY}-{nonce}-{invocation}"


def unpack(content: bytes, folder: Path, patterns: tuple[str, ...]) -> None:
    """Files of a job's output into a folder. Raises PlatformError for an archive that is broken or lacks results."""
    with tempfile.TemporaryDirectory(prefix="nv-eval-") as place:
        there = Path(place)
        try:
            if content:
                with tarfile.open(fileobj=io.BytesIO(content)) as opened:
                    opened.extractall(there, filter="data")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise PlatformError(f"the results from the cluster are damaged: {error}") from error
        missing = [pattern for pattern in patterns if next(there.glob(pattern), None) is None]
        if missing:
            raise PlatformError(f"no file matches {', '.join(missing)} in the job's folder on the cluster")
        try:
            shutil.copytree(there, folder, dirs_exist_ok=True)
        except (OSError, shutil.Error) as error:
            raise PlatformError(f"{folder}: results cannot be written: {error}") from error
