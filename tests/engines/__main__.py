"""The lane with real engines: starts a Docker Engine and a Slurm cluster of its own, runs what needs them, ends them.

Root on Debian. With DOCKER_HOST or SLURM_CONF set, that engine is used and left alone.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ENGINES = {"DOCKER_HOST": ("docker_up.sh", "docker_down.sh"), "SLURM_CONF": ("slurm/up.sh", "slurm/down.sh")}
"""Variable that names an engine, and what starts and ends one."""


def main() -> int:
    """Run the lane; returns pytest's exit code."""
    missing = [variable for variable in ENGINES if variable not in os.environ]
    if missing and os.geteuid() != 0:
        sys.stderr.write(f"tests.engines: starting engines needs root; or set {', '.join(missing)} to those that run\n")
        return 2
    with contextlib.ExitStack() as stack:
        for variable in missing:
            address = stack.enter_context(engine(variable, *ENGINES[variable]))
            if not address:
                sys.stderr.write(f"tests.engines: {ENGINES[variable][0]} failed; the lines above say why\n")
                return 1
            os.environ[variable] = address
        return run_tests()


@contextlib.contextmanager
def engine(variable: str, up: str, down: str) -> Iterator[str]:
    """The address of an engine that is ended afterwards; empty where it did not start."""
    with tempfile.TemporaryDirectory(prefix="nv-eval-engine-", ignore_cleanup_errors=True) as folder:
        started = subprocess.run([HERE / up, folder], stdout=subprocess.PIPE, text=True, check=False)
        try:
            yield "" if started.returncode else started.stdout.strip().rpartition(f"{variable}=")[2]
        finally:
            subprocess.run([HERE / down, folder], check=False)


def run_tests() -> int:
    """Run the tests marked `engine` against the engines of the environment: one after another, those of Docker beside.

    pytest-xdist has groups for that, but pytest 9.2 does not hear of them.
    """
    command = [sys.executable, "-m", "pytest", "-m", "engine", *sys.argv[1:]]
    with tempfile.TemporaryFile("w+") as said:
        beside = subprocess.Popen(command, env=_only("docker"), stdout=said, stderr=subprocess.STDOUT)
        try:
            codes = [subprocess.run(command, env=_only("slurm"), check=False).returncode, beside.wait()]
        finally:
            if beside.poll() is None:
                beside.terminate()
                beside.wait()
            said.seek(0)
            sys.stdout.write(said.read())
    ran = [code for code in codes if code != pytest.ExitCode.NO_TESTS_COLLECTED]
    return max(ran, default=int(pytest.ExitCode.NO_TESTS_COLLECTED))


def _only(engine: str) -> dict[str, str]:
    """An environment in which pytest runs the tests of one engine alone."""
    return {**os.environ, "NV_EVAL_TEST_ENGINE": engine}


if __name__ == "__main__":
    sys.exit(main())
