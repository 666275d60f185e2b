"""The harness's process: started, watched, ended with everything it started.

Part of the runner: standard library only, as it runs inside any image.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable

from launcher.runner.client import Ended, Ending
from launcher.runner.endpoint import EndpointWatch
from launcher.runner.job import Job
from launcher.runner.output import Output, Report

TICK = 0.1
GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""


class Harness:
    """The harness's process and all its descendants in the same process group."""

    def __init__(self, job: Job, report: Report) -> None:
        self._job = job
        argv = [job.fill(argument) for argument in job.run.argv]
        try:
            self._process = subprocess.Popen(
                argv,
                env=job.environment(),
                cwd=job.work_dir,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise Ended(Ending.HARNESS_MISSING, f"{argv[0]} cannot be started: {error.strerror}") from error
        assert self._process.stdout is not None
        self._stdout = self._process.stdout
        self.output = Output(self._stdout.fileno(), job.run.progress, report, job.run.progress_label)

    def run(self, stopped: Callable[[], bool]) -> None:
        """Wait for its end. Raises Ended if it must be ended, or failed."""
        deadline = time.monotonic() + self._job.timeout
        watch = EndpointWatch(self._job.target)
        others = {name: EndpointWatch(target) for name, target in self._job.auxiliary.items()}
        try:
            while self._process.poll() is None:
                self.output.pump(TICK)
                if stopped():
                    raise Ended(Ending.STOPPED, "stopped while the benchmark ran")
                if watch.dead:
                    raise Ended(Ending.ENDPOINT_DIED, self._with_last("the endpoint refuses connections"))
                if dead := [name for name, other in others.items() if other.dead]:
                    raise Ended(Ending.AUXILIARY_DIED, self._with_last(f"{dead[0]} refuses connections"))
                if time.monotonic() > deadline:
                    raise Ended(Ending.HARNESS_TIMEOUT, self._with_last(f"not done after {self._job.timeout:g} s"))
        finally:
            self._end()

    @property
    def exit_code(self) -> int:
        """Its exit code once it has ended; negative: the signal."""
        return self._process.wait()

    def _with_last(self, what: str) -> str:
        return f"{what}; last line: {self.output.last}" if self.output.last else what

    def failure(self) -> str:
        """Why it failed, in one line."""
        code = self.exit_code
        hint = " (often: out of memory)" if code == -signal.SIGKILL else ""
        return self._with_last(f"exit code {code}" if code > 0 else f"ended by signal {-code}{hint}")

    def _end(self) -> None:
        """End the whole process group: ask the harness first, then leave nothing."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            patience = time.monotonic() + GRACE
            while self._process.poll() is None and time.monotonic() < patience:
                self.output.pump(TICK)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self.output.drain()
        self._stdout.close()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            pass
