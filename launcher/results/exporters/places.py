"""Files at a path or at any URL that fsspec knows, written only where they differ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from launcher.results.write import write_atomically

_LOGIN = re.compile(r"//[^/?#]*@")
"""Also in URLs behind those of caches, `filecache::ftp://user:password@host`."""


def is_url(place: str) -> bool:
    """Whether a place is for fsspec rather than a path of this machine."""
    return "://" in place


def put(place: str, files: Mapping[str, bytes], options: Mapping[str, Any] | None = None) -> None:
    """Make the files, by their path below `place`, hold what they should; those that do are not touched."""
    if is_url(place):
        _put_remote(place, files, options or {})
        return
    for name, content in files.items():
        path = Path(place) / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)


def _put_remote(place: str, files: Mapping[str, bytes], options: Mapping[str, Any]) -> None:
    from fsspec.core import url_to_fs

    system, root = url_to_fs(place, **options)
    for name, content in files.items():
        path = f"{root.rstrip('/')}/{name}"
        try:
            same = system.cat_file(path) == content
        except FileNotFoundError:
            same = False
        if not same:
            system.makedirs(path.rpartition("/")[0], exist_ok=True)
            system.pipe_file(path, content)


def shown(place: str) -> str:
    """A place without user, password and query."""
    if not is_url(place):
        return str(Path(place).absolute())
    parts = urlsplit(_LOGIN.sub("//", place))
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def below(name: str) -> str:
    """A name of others as a relative path that leads nowhere else."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "unknown"
