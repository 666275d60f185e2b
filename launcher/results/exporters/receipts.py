"""What has been sent where: `exports.json` in an invocation's folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from launcher.decoding import decode
from launcher.results.exporters.base import identity
from launcher.results.model import BROKEN
from launcher.results.write import write_atomically

FILE = "exports.json"
SCHEMA = "nv-eval.exports/1"


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """The last try to send an invocation to one place. `time` in seconds since 1970; `reason`: why it failed.

    `content_sha256` is of what the place has: of the last try that did not fail.
    """

    exporter: str
    destination: str
    state: Literal["exported", "failed"]
    time: float
    content_sha256: str = ""
    reason: str = ""

    @property
    def key(self) -> str:
        """What there is one receipt for."""
        return identity(self.exporter, self.destination)


@dataclass(frozen=True, kw_only=True)
class Receipts:
    """All receipts of an invocation."""

    exports: list[Receipt] = field(default_factory=list)
    schema: str = SCHEMA

    def of(self, exporter: str, destination: str) -> Receipt | None:
        """The one for a place."""
        return next((one for one in self.exports if one.key == identity(exporter, destination)), None)


def load(folder: Path) -> Receipts:
    """The receipts in a folder. A broken file is as good as none: what is sent again changes nothing."""
    try:
        return decode((folder / FILE).read_bytes(), Receipts)
    except (OSError, *BROKEN):
        return Receipts()


def keep(folder: Path, exporter: str, destination: str, *, content: str, reason: str | None = None) -> None:
    """Write down how it went; `reason`: it failed. Raises OSError where the folder cannot be written."""
    with _alone(folder):
        _keep(folder, exporter, destination, content, reason)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While no other process changes the receipts of a folder; on file systems that know locks."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _keep(folder: Path, exporter: str, destination: str, content: str, reason: str | None) -> None:
    before = load(folder)
    old = before.of(exporter, destination)
    receipt = Receipt(
        exporter=exporter,
        destination=destination,
        state="exported" if reason is None else "failed",
        time=round(time.time(), 3),
        content_sha256=content if reason is None else (old.content_sha256 if old else ""),
        reason=reason or "",
    )
    others = [one for one in before.exports if one.key != receipt.key]
    after = Receipts(exports=sorted([*others, receipt], key=lambda one: (one.exporter, one.destination)))
    write_atomically(folder / FILE, msgspec.json.format(msgspec.json.encode(after)))
