"""The lane with real engines: starts a Docker Engine of its own, runs the tests that need one, ends it.

Root on Debian. With DOCKER_HOST set, that engine is used and left alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """Run the lane; returns pytest's exit code."""
    if "DOCKER_HOST" in os.environ:
        return run_tests(os.environ["DOCKER_HOST"])
    if os.geteuid() != 0:
        sys.stderr.write("tests.engines: starting a Docker Engine needs root; or set DOCKER_HOST to one that runs\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="nv-eval-engine-", ignore_cleanup_errors=True) as folder:
        up = subprocess.run([HERE / "docker_up.sh", folder], stdout=subprocess.PIPE, text=True, check=False)
        if up.returncode != 0:
            sys.stderr.write("tests.engines: the Docker Engine did not start; the lines above say why\n")
            return 1
        try:
            return run_tests(up.stdout.strip().rpartition("DOCKER_HOST=")[2])
        finally:
            subprocess.run([HERE / "docker_down.sh", folder], check=False)


def run_tests(docker_host: str) -> int:
    """Run the tests marked `engine` against one engine."""
    command = [sys.executable, "-m", "pytest", "-m", "engine", *sys.argv[1:]]
    return subprocess.run(command, env={**os.environ, "DOCKER_HOST": docker_host}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
