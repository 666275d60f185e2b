from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow  # noqa: F401  # where it is loaded already, Parquet is written without a process of its own
import pytest

from launcher.cli.main import main


@dataclass(frozen=True)
class Desk:
    """An empty machine: a home and a working folder, both watched."""

    root: Path
    capture: pytest.CaptureFixture[str]

    @property
    def cwd(self) -> Path:
        return self.root / "cwd"

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.cwd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def files(self) -> dict[str, bytes | None]:
        """Everything on the machine: contents of files, None for folders."""
        found = sorted(self.root.rglob("*"))
        return {str(path.relative_to(self.root)): path.read_bytes() if path.is_file() else None for path in found}

    def nv_eval(self, *argv: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of one command."""
        self.capture.readouterr()
        code = main(argv)
        out, err = self.capture.readouterr()
        return code, out, err


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    """A machine with nothing on it and nothing of the developer's environment that a config could see."""
    for name in ("home", "cwd"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NV_EVAL_HOME", str(tmp_path / "home" / "nv-eval"))
    for name in ("HF_TOKEN", "NOT_SET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path / "cwd")
    return Desk(tmp_path, capsys)
