"""What the runner prints: the harness's lines without secrets, and lines for the launcher.

Part of the runner: standard library only, as it runs inside any image.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import os
import re
import select
import sys
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from launcher.runner.client import Ended, one_line

PLAIN_NUMBER = re.compile(r"[-+]?\d[\d.]*")
SHORTEST_NUMBER = 12
"""A secret that is a shorter number stays in results: it would be found inside scores."""


class Report:
    """Writes to standard output: the harness's lines, and lines for the launcher. Secrets become ***."""

    PREFIX = "@nv-eval"
    PROGRESS_INTERVAL = 0.2

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = sorted(secrets, key=len, reverse=True)
        self._progress: dict[str, Any] | None = None
        self._progress_at = -math.inf

    def redact(self, text: str) -> str:
        """The text without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def line(self, text: str) -> None:
        """A line of the harness. One that looks like ours is indented, so that nobody can speak in our name."""
        self._write((" " if text.startswith(self.PREFIX) else "") + self.redact(text))

    def phase(self, phase: str, detail: str) -> None:
        """What the job does now."""
        self._event({"event": "phase", "phase": phase, "detail": self.redact(detail)})

    def progress(self, done: int, total: int, detail: str) -> None:
        """How far the harness is; told at most every PROGRESS_INTERVAL seconds, the last one by `flush`."""
        self._progress = {"event": "progress", "done": done, "total": total, "detail": self.redact(detail)}

    def flush(self, *, due: bool = False) -> None:
        """Tell progress that was held back; with `due` only if the last one is PROGRESS_INTERVAL ago."""
        if self._progress and not (due and time.monotonic() - self._progress_at < self.PROGRESS_INTERVAL):
            self._event(self._progress)
            self._progress, self._progress_at = None, time.monotonic()

    def end(self, ended: Ended, data: dict[str, Any]) -> None:
        """How the job ended."""
        detail = self.redact(one_line(ended.detail, 500))
        self._event({"event": "end", "reason": ended.reason, "detail": detail, "data": data})

    def results(self, files: dict[str, bytes]) -> None:
        """The results themselves, so that scores come home where the job's storage cannot be read."""
        for name, plain in files.items():
            content = self._redact_bytes(plain)
            digest = hashlib.sha256(content).hexdigest()
            self._write(f"{self.PREFIX}-results-begin {quote(name)} {len(content)} {digest}")
            text = base64.b64encode(gzip.compress(content, mtime=0)).decode("ascii")
            self._write("\n".join(text[start : start + 100] for start in range(0, len(text), 100)))
            self._write(f"{self.PREFIX}-results-end")

    def _redact_bytes(self, content: bytes) -> bytes:
        for secret in self._secrets:
            if len(secret) >= SHORTEST_NUMBER or not PLAIN_NUMBER.fullmatch(secret):
                content = content.replace(secret.encode(), b"***")
        return content

    def _event(self, event: dict[str, Any]) -> None:
        self._write(f"{self.PREFIX} {json.dumps(event)}")

    def _write(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


BAR = re.compile(
    r"(?:(?<![\d.])(?P<done>\d+)/(?P<total>\d+)|(?<![\d.])\d[\d.]*\w*(?:/\S+)?(?: \w+)?)"
    r" \[[\d:]+(?:<|, )[^\]]*\]\s*$"
)
"""A progress bar of tqdm, of any unit; done and total where it counts one by one."""
LONGEST_BAR = 1000
RESUMED_LINE = re.compile(r"^@resumed (?P<kept>\d+)/(?P<asked>\d+)$")
"""What a harness says that goes on where an earlier attempt ended."""
PROGRESS_LINE = re.compile(r"^@progress (?P<done>\d+)/(?P<total>\d+)\s*$")
NOISE = ("fatal: not a git repository",)
"""Lines that harnesses print last without meaning an error."""


class Output:
    """The harness's output: split into lines, progress taken out, the rest passed on."""

    LONGEST = 65536
    PATIENCE = 2.0

    def __init__(self, stream: int, style: str, report: Report, label: str = "") -> None:
        self.last = ""
        """The last line that may say something about an error."""
        self._stream: int | None = stream
        self._style = style
        self._report = report
        self._label = label
        self._tail = b""

    def pump(self, seconds: float) -> None:
        """Pass on what comes within `seconds`; returns as soon as something came."""
        self._report.flush(due=True)
        if self._stream is None:
            time.sleep(seconds)
        elif select.select([self._stream], [], [], seconds)[0]:
            chunk = os.read(self._stream, self.LONGEST)
            self.feed(chunk)
            if not chunk:
                self._stream = None

    def drain(self) -> None:
        """Pass on what is left in the pipe. A stranger that holds its other end, or fills it, is not waited for."""
        patience = time.monotonic() + self.PATIENCE
        while self._stream is not None and select.select([self._stream], [], [], 0)[0] and time.monotonic() < patience:
            self.pump(0)
        self._line(self._tail)
        self._tail = b""
        self._report.flush()

    def feed(self, chunk: bytes) -> None:
        """Pass on the lines that the next bytes complete."""
        *lines, self._tail = re.split(rb"[\r\n]", self._tail + chunk)
        for line in lines:
            self._line(line)
        # tqdm ends a bar only by beginning the next one.
        if self._style == "tqdm" and self._take_progress(self._tail.decode("utf-8", "replace")):
            self._tail = b""
        elif len(self._tail) > self.LONGEST:
            self._line(self._tail)
            self._tail = b""

    def _line(self, raw: bytes) -> None:
        text = raw.decode("utf-8", "replace").rstrip()
        if not text or self._take_resumed(text) or self._take_progress(text):
            return
        self._report.line(text)
        if not text.startswith(NOISE):
            self.last = one_line(self._report.redact(text), 400)

    def _take_resumed(self, text: str) -> bool:
        match = RESUMED_LINE.match(text) if self._style != "none" else None
        if match:
            self._report.phase("evaluating", f"resumed: {match['kept']} of {match['asked']} answers kept")
        return bool(match)

    def _take_progress(self, text: str) -> bool:
        if self._style == "none" or len(text) > LONGEST_BAR:
            return False
        match = (BAR if self._style == "tqdm" else PROGRESS_LINE).search(text)
        if match and match["done"]:
            label = text[: match.start()].rpartition(":")[0].strip()
            if label.startswith(self._label):
                self._report.progress(int(match["done"]), int(match["total"]), label)
        return bool(match)
