"""The real `lep` CLI, each version in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher.emulators.lepton import LeptonEmulator

VERSIONS = {"0.47.1": "NV_EVAL_TEST_LEP_047", "0.27.3": "NV_EVAL_TEST_LEP_027"}
"""Versions, and the variables that name their programs where they are installed."""

LIMIT = 120.0
"""Seconds for one command."""


@dataclass(frozen=True)
class Lep:
    """`lep` pointed at an emulator. `home` holds its cache folder."""

    version: str
    program: Path
    home: Path
    emulator: LeptonEmulator

    def __call__(self, *arguments: str) -> str:
        """What a command prints; it must succeed."""
        with self.start(*arguments) as process:
            try:
                out, _ = process.communicate(timeout=LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert process.returncode == 0, f"lep {' '.join(arguments)}\n{out}"
        return out

    def follow(self, text: str, *arguments: str) -> str:
        """The first line with `text` that a command prints; the command, which goes on for ever, is ended then."""
        with self.start(*arguments) as process:
            guard = threading.Timer(LIMIT, process.kill)
            guard.start()
            assert process.stdout is not None
            found = next((line for line in process.stdout if text in line), "")
            guard.cancel()
            process.kill()
        return found

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [self.program, *arguments],
            env=self._environment(),
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _environment(self) -> dict[str, str]:
        cache = self.home / "cache"
        cache.mkdir(exist_ok=True)
        (cache / "latest_version_check").write_text(str(int(time.time())))
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LEPTON_CACHE_DIR": str(cache),
            "LEPTON_WORKSPACE_ID": self.emulator.config.workspace,
            "LEPTON_WORKSPACE_TOKEN": self.emulator.config.tokens[0].value,
            "LEPTON_WORKSPACE_URL": self.emulator.url,
            "COLUMNS": "400",
        }


def program(version: str) -> Path:
    """The program of a version, which lives in an environment of its own. Skips the test where no variable names it."""
    named = os.environ.get(VERSIONS[version])
    if not named:
        pytest.skip(f"{VERSIONS[version]} names no `lep` of leptonai {version}, in an environment of its own")
    return Path(named)
