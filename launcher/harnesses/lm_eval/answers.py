"""The answers that a task has so far, in one file of its storage: a job that is run again asks only for the rest.

Part of the driver's program: standard library only, as it travels to wherever the job runs.

Each answer is a line `CHECKSUM KEY VALUE`, written by one system call when it arrives, so that a process killed at any
moment loses nothing but a line that it was writing. Lines that are damaged are passed over. KEY is the SHA-256 of a
question and of what it is put to; VALUE is compressed JSON.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import math
import os
import threading
import time
import zlib
from collections import defaultdict, deque
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

FORMAT = 1
"""Part of every key: answers of another form are never found."""
SYNC_INTERVAL = 1.0
"""Seconds of answers that the death of a machine, unlike that of a process, may cost."""

log = logging.getLogger("driver")


class Answers:
    """Answers by question. A question that was asked several times has several answers, and gives each only once.

    `identity` says what the questions are put to: answers of another one are never found. Without a `path` nothing is
    kept. A file that cannot be read or written costs its answers, never the run. Safe for several threads.
    """

    def __init__(self, path: Path | None, identity: str) -> None:
        self._identity = identity
        self._found: defaultdict[str, deque[bytes]] = defaultdict(deque)
        self._lock = threading.Lock()
        self._synced_at = -math.inf
        self._file = self._open(path) if path else None

    def key(self, question: Any) -> str:
        """The key of a question, which is anything that JSON can hold."""
        text = json.dumps([FORMAT, self._identity, question], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def take(self, key: str) -> Any:
        """The first answer to a question that was not taken yet; None where there is none."""
        with self._lock:
            values = self._found.get(key)
            return json.loads(zlib.decompress(base64.b64decode(values.popleft()))) if values else None

    def keep(self, key: str, answer: Any) -> None:
        """Write down a new answer, which is anything that JSON can hold but None."""
        value = base64.b64encode(zlib.compress(json.dumps(answer).encode(), level=1))
        with self._lock:
            if self._file is not None:
                name = key.encode()
                self._write(self._file, b"%s %s %s\n" % (_checksum(name, value), name, value))

    def close(self) -> None:
        """Bring what is written to disk; nothing is kept any more."""
        with self._lock:
            if self._file is not None:
                self._sync(self._file)
                self._close(self._file)

    def _open(self, path: Path) -> FileIO | None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = FileIO(path, "a+")
            file.seek(0)
            self._load(file)
        except OSError as error:
            log.warning("answers cannot be kept: %s: %s", path, error.strerror)
            return None
        return file

    def _load(self, file: FileIO) -> None:
        damaged, line = 0, b"\n"
        for line in _lines(file):
            checksum, _, rest = line.rstrip(b"\n").partition(b" ")
            key, _, value = rest.partition(b" ")
            if checksum and checksum == _checksum(key, value):
                self._found[key.decode()].append(value)
            else:
                damaged += line != b"\n"
        if not line.endswith(b"\n"):
            file.write(b"\n")  # what comes next must not continue a line that was cut off
        if damaged:
            log.warning("%d damaged lines in %s; their questions are asked again", damaged, file.name)

    def _write(self, file: FileIO, line: bytes) -> None:
        try:
            written = file.write(line)
            reason = None if written == len(line) else "the disk is full"
        except OSError as error:
            reason = error.strerror
        if reason is not None:
            log.warning("answers can no longer be kept: %s: %s", file.name, reason)
            self._close(file)
        elif time.monotonic() - self._synced_at >= SYNC_INTERVAL:
            self._sync(file)

    def _sync(self, file: FileIO) -> None:
        with contextlib.suppress(OSError):  # some storage cannot; the lines are written all the same
            os.fsync(file.fileno())
        self._synced_at = time.monotonic()

    def _close(self, file: FileIO) -> None:
        with contextlib.suppress(OSError):  # a full disk may be noticed only here
            file.close()
        self._file = None


def _lines(file: FileIO) -> Iterator[bytes]:
    """The lines of a file, the last one maybe without its end."""
    with open(os.dup(file.fileno()), "rb") as buffered:  # noqa: PTH123  a descriptor has no path
        yield from buffered


def _checksum(key: bytes, value: bytes) -> bytes:
    return hashlib.sha256(key + b" " + value).hexdigest()[:16].encode()
