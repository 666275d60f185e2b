"""The program as a person starts it, in a home of its own; and what is left of it in the process table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Home:
    """A folder that is the whole world of one test: HOME, state, results, working directory."""

    folder: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def env(self) -> dict[str, str]:
        kept = {
            k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "TMPDIR", "SSL_CERT_FILE") or k[:4] == "PIP_"
        }
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        own = {
            "HOME": str(self.folder),
            "NV_EVAL_HOME": str(self.folder / "state"),
            "NV_EVAL_GPU_LOCKS": str(self.folder / "gpu-locks"),
            "PYTHONPATH": str(ROOT),
        }
        return {**kept, **own, "XDG_CACHE_HOME": cache, **self.extra}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `nv-eval`; its output can be read with communicate()."""
        return subprocess.Popen(
            [sys.executable, "-m", "launcher.cli.main", *arguments],
            cwd=self.folder,
            env=self.env(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run `nv-eval` to its end."""
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def record(self, out: str) -> dict[str, Any]:
        """The record that `run --json` printed."""
        record: dict[str, Any] = json.loads(out)
        return record

    def invocation(self, timeout: float = 20) -> str:
        """Id of the newest invocation, once there is one."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = sorted(self.results.glob("*/plan.json"), key=lambda path: path.stat().st_mtime)
            if found:
                return found[-1].parent.name
            time.sleep(0.02)
        raise AssertionError("no invocation began")


def processes_of(mark: str) -> list[str]:
    """Command lines of live processes that mention `mark` in their arguments or environment; zombies don't count."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if state != "Z" and mark.encode() in text:
            found.append(
                (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode() if entry.exists() else entry.name
            )
    return found


def assert_nothing_left(mark: str, within: float = 2.0) -> None:
    """No process mentions `mark` any more, at the latest after `within` seconds."""
    deadline = time.monotonic() + within
    while left := processes_of(mark):
        assert time.monotonic() < deadline, f"left after {within} s: {left}"
        time.sleep(0.02)


def kill(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    """Signal only this process, as the kernel's OOM killer would."""
    os.kill(process.pid, number)


def wait_for(condition: Any, what: str, timeout: float = 60) -> Any:
    """Poll until `condition()` is true; returns its value."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.02)
    return value
