"""Bringing results home: from the job's log where they are whole there, else from the storage. All or an error."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from launcher.errors import PlatformError


def missing(patterns: tuple[str, ...], names: Mapping[str, bytes]) -> list[str]:
    """Patterns that no file matches."""
    return [pattern for pattern in patterns if not any(_matches(name, pattern) for name in names)]


def _matches(name: str, pattern: str) -> bool:
    """As pathlib's glob: a star stays within a folder, ** goes through any number of them, none included."""
    here, there = PurePosixPath(name).parts, PurePosixPath(pattern).parts
    return _parts_match(here, there)


def _parts_match(here: tuple[str, ...], there: tuple[str, ...]) -> bool:
    if not there:
        return not here
    if there[0] == "**":
        return any(_parts_match(here[skip:], there[1:]) for skip in range(len(here) + 1))
    return bool(here) and fnmatch(here[0], there[0]) and _parts_match(here[1:], there[1:])


def unpack(archive: bytes) -> dict[str, bytes]:
    """Files of a job's archive, by path. Raises PlatformError for one that is broken or leads outside."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            found = {entry.filename: opened.read(entry) for entry in opened.infolist() if not entry.is_dir()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise PlatformError(f"the results on the storage are damaged: {error}") from error
    for name in found:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise PlatformError(f"the results on the storage have a name outside their folder: {name}")
    return found


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Write results below a folder. Raises PlatformError if that is not possible."""
    try:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise PlatformError(f"{folder}: results cannot be written: {error.strerror}") from error
