"""The program inside every job: waits for the endpoint, runs the harness, checks the results and prints them.

`python runner.py job.json`, where runner.py is this module and the ones it imports from this folder joined to one
file (launcher/plan/document.py does that), so that any image with Python 3.10 or later and a harness can host it.

Everything goes to standard output. Lines that begin with `@nv-eval ` carry one JSON object each (phase, progress,
end); the results follow as `@nv-eval-results-begin NAME SIZE SHA256`, base64 of gzip, `@nv-eval-results-end`. All
other lines are the harness's own, with secrets replaced by ***. SIGTERM ends the harness and then this program.
The exit code tells the reason: see `Ending`.
"""

from __future__ import annotations

import importlib.util
import io
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

from launcher.runner.client import Client, Ended, Ending, EndpointProblem, Target
from launcher.runner.endpoint import Readiness, last_sign_of_life, wait_ready
from launcher.runner.harness import TICK, Harness
from launcher.runner.job import Job
from launcher.runner.output import Report

__all__ = ["Ended", "Ending", "EndpointProblem", "Job", "Runner", "Target", "main", "wait_ready"]

SERVER_FILE = "server.json"
"""What the server answered to GET /v1/models when it was ready, in the output folder."""
AUXILIARY_FOLDER = "auxiliary"
"""Folder in the output folder with the same of auxiliary endpoints, NAME.json each."""
RESULTS_CAP = 8 * 2**20
"""Most bytes of results that go to the log."""


Stamps = dict[Path, tuple[int, int]]
"""Files with their time stamp (ns) and size: tells whether a file was written since."""


def matches(job: Job) -> dict[str, Stamps]:
    """For each results pattern the non-empty files it matches."""
    return {pattern: dict(_files(job.output_dir, pattern)) for pattern in job.run.results}


def _files(folder: Path, pattern: str) -> Iterator[tuple[Path, tuple[int, int]]]:
    for path in sorted(folder.glob(pattern)):
        if path.is_file() and (stat := path.stat()).st_size:
            yield path, (stat.st_mtime_ns, stat.st_size)


def verify(job: Job, before: dict[str, Stamps]) -> list[Path]:
    """The files this run wrote; `before` is what matched when it began. Raises Ended if any is missing or broken."""
    found: list[Path] = []
    for pattern, files in matches(job).items():
        fresh = [path for path, stamp in files.items() if before[pattern].get(path) != stamp]
        if not fresh:
            older = "; only files of an earlier run do" if files else ""
            raise Ended(Ending.RESULTS_MISSING, f"no file that is not empty matches {pattern}{older}")
        found += [path for path in fresh if path not in found]
    for path in found:
        if path.suffix == ".json":
            _check_json(path, job.output_dir)
    return found


def _check_json(path: Path, folder: Path) -> None:
    try:
        json.loads(path.read_bytes())
    except ValueError as error:
        raise Ended(Ending.RESULTS_INVALID, f"{path.relative_to(folder)} is no JSON: {error}") from error


def fitting(paths: list[Path], room: int = RESULTS_CAP) -> list[Path]:
    """The files to print: in order, as far as `room` bytes allow."""
    chosen = []
    for path in paths:
        size = path.stat().st_size
        if size <= room:
            room -= size
            chosen.append(path)
    return chosen


class Runner:
    """One job from its document to its exit code."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.report = Report(job.secrets())
        self.client = Client(job.target)
        self.data: dict[str, Any] = {}
        self._stopped = False

    def stop(self, *_: Any) -> None:
        """Handler of SIGTERM and SIGINT: sets a flag only, as locks must not be taken in a handler."""
        self._stopped = True

    def run(self) -> int:
        """The whole job; returns the exit code."""
        results: dict[str, bytes] = {}
        try:
            results = self._work()
            ended = Ended(Ending.COMPLETED, "")
        except Ended as problem:
            ended = problem
        except OSError as error:
            ended = Ended(Ending.HARNESS_FAILED, f"the job's files: {error}")
        self.report.end(ended, {**self.data, "requests": self.client.requests, "results": sorted(results)})
        self.report.results(results)
        return ended.ending.exit_code

    def _work(self) -> dict[str, bytes]:
        self._check_requirements()
        self._write_files()
        self._timed("waited", self._wait_ready)
        self._note_server()
        before = matches(self.job)
        self._timed("evaluated", self._evaluate)
        self.report.phase("verifying", "are the results there")
        paths = verify(self.job, before)
        printed = fitting(paths)
        self.data["not_printed"] = [self._name(path) for path in paths if path not in printed]
        return {self._name(path): path.read_bytes() for path in printed}

    def _name(self, path: Path) -> str:
        return path.relative_to(self.job.output_dir).as_posix()

    def _timed(self, name: str, step: Callable[[], None]) -> None:
        start = time.monotonic()
        try:
            step()
        finally:
            self.data[name] = round(time.monotonic() - start, 3)

    def _check_requirements(self) -> None:
        missing = [module for module in self.job.run.requires if not _importable(module)]
        if missing:
            raise Ended(Ending.HARNESS_MISSING, f"{sys.executable} has no module {', '.join(missing)}")

    def _write_files(self) -> None:
        self.job.output_dir.mkdir(parents=True, exist_ok=True)
        self.job.work_dir.mkdir(parents=True, exist_ok=True)
        for name, text in self.job.run.files.items():
            path = self.job.work_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.job.fill(text), encoding="utf-8")

    def _wait_ready(self) -> None:
        ready = Readiness(self.job.target, self.client, self.report.phase, stopped=lambda: self._stopped)
        self._unless_stopped(ready.wait)
        for name in self.job.auxiliary:
            self._unless_stopped(lambda name=name: self._wait_auxiliary(name))  # type: ignore[misc]

    def _wait_auxiliary(self, name: str) -> None:
        """The same of an endpoint that the harness uses beside: its reason is told as its own."""
        target = self.job.auxiliary[name]

        def say(phase: str, detail: str) -> None:
            self.report.phase(phase, f"{name}: {detail}")

        try:
            Readiness(target, Client(target), say, stopped=lambda: self._stopped).wait()
        except EndpointProblem as problem:
            if problem.ending is Ending.STOPPED:
                raise
            why = problem.reason.replace("_", " ")
            raise Ended(Ending.AUXILIARY_FAILED, f"{name}: {why}: {problem.detail}") from problem

    def _note_server(self) -> None:
        """Keep what each server says of its model: name, revision, longest input."""
        self._note(self.client, SERVER_FILE)
        for name, target in self.job.auxiliary.items():
            self._note(Client(target), f"{AUXILIARY_FOLDER}/{name}.json")

    def _note(self, client: Client, name: str) -> None:
        listed = client.ask("/v1/models", timeout=10.0).json
        if isinstance(listed, dict):
            path = self.job.output_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(listed), encoding="utf-8")

    def _evaluate(self) -> None:
        self.report.phase("evaluating", self.job.task)
        harness = Harness(self.job, self.report)
        harness.run(lambda: self._stopped)
        self.data["exit_code"] = harness.exit_code
        if harness.exit_code:
            self._unless_stopped(lambda: self._blame(harness.failure()))

    def _blame(self, failure: str) -> None:
        silence = last_sign_of_life(self.job.target, self.client)
        if silence:
            raise Ended(Ending.ENDPOINT_DIED, f"{silence}; the benchmark: {failure}")
        for name, target in self.job.auxiliary.items():
            if silence := last_sign_of_life(target, Client(target)):
                raise Ended(Ending.AUXILIARY_DIED, f"{name}: {silence}; the benchmark: {failure}")
        raise Ended(Ending.HARNESS_FAILED, failure)

    def _unless_stopped(self, step: Callable[[], None]) -> None:
        """Run a step in a thread: a request in flight must not delay the answer to SIGTERM."""
        future: Future[None] = Future()
        threading.Thread(target=_settle, args=(future, step), daemon=True).start()
        while not wait([future], timeout=TICK).done:
            if self._stopped:
                raise Ended(Ending.STOPPED, "stopped while asking the endpoint")
        future.result()


def _settle(future: Future[None], step: Callable[[], None]) -> None:
    try:
        step()
        future.set_result(None)
    except BaseException as problem:
        future.set_exception(problem)


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the parent package
        return False


def main(arguments: list[str]) -> int:
    """Run the job of one document; 2 for a document that cannot be understood."""
    try:
        (path,) = arguments
        runner = Runner(Job.load(path))
    except (ValueError, TypeError, KeyError, OSError) as error:
        sys.stderr.write(f"runner.py job.json: {type(error).__name__}: {error}\n")
        return 2
    if isinstance(sys.stdout, io.TextIOWrapper):  # an image may have any locale
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    signal.signal(signal.SIGTERM, runner.stop)
    signal.signal(signal.SIGINT, runner.stop)
    return runner.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
