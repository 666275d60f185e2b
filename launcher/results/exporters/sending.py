"""Send an invocation that has ended to the places that its config names, each in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from launcher.config.export import Export, chosen
from launcher.config.secret_names import is_secret_name
from launcher.decoding import decode
from launcher.errors import LauncherError
from launcher.platforms.secrets import Secrets, url_passwords
from launcher.results.exporters import receipts, registry
from launcher.results.exporters.base import Bundle, identity
from launcher.results.exporters.child import Answer, Order

_ROOT = Path(__file__).resolve().parents[3]
_PROGRAM = (
    f"import sys; sys.path.insert(0, {str(_ROOT)!r}); "
    "from launcher.results.exporters.child import main; sys.exit(main())"
)
_GRACE, _LOOK = 1.0, 0.02
"""Seconds that processes have to end when they are told to, and between two looks."""
_LOGIN = re.compile(r"//[^\s/?#@]*@")
"""Of a URL, also of one that only a server or a library knew."""


class State(StrEnum):
    """How an export went."""

    EXPORTED = "exported"
    UNCHANGED = "unchanged"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One export. `destination` is empty where not even that could be found out; `reason`: why it failed."""

    invocation: str
    exporter: str
    destination: str
    state: State
    seconds: float = 0.0
    reason: str = ""

    def line(self, repeat: str = "") -> str:
        """What to say of it; `repeat`: the command that does it again."""
        if self.state is State.FAILED:
            where = f" to {self.destination}" if self.destination else ""
            again = f"; repeat it with: {repeat}" if repeat else ""
            return f"{self.invocation}: {self.exporter}: not exported{where}: {self.reason}{again}"
        said = "has it already" if self.state is State.UNCHANGED else f"exported to {self.destination}"
        where = f"{self.destination} " if self.state is State.UNCHANGED else ""
        return f"{self.invocation}: {self.exporter}: {where}{said}"


async def send(folder: Path, export: Export, *, again: bool = False) -> list[Sent]:
    """Send what a folder holds to every place that `export` names, all at once, within `export.timeout` seconds.

    What a place has already by its receipt is not sent, unless `again`. An export that fails is in the answer; nothing
    is raised for it. Cancelled, it ends its processes.

    Raises NotFound or ResultsError if the folder's own files cannot be read.
    """
    bundle = Bundle.load(folder)
    deadline = time.monotonic() + export.timeout
    wanted = chosen(export)
    return list(
        await asyncio.gather(*(_Export(bundle, name, wanted[name], deadline).sent(again=again) for name in wanted))
    )


class _Export:
    """One invocation on its way to one place."""

    def __init__(self, bundle: Bundle, name: str, options: Any, deadline: float) -> None:
        self._bundle, self._name, self._options, self._deadline = bundle, name, options, deadline
        self._began = time.monotonic()
        self._destination = ""

    async def sent(self, *, again: bool) -> Sent:
        try:
            content = self._prepared()
        except LauncherError as error:
            return self._how(State.FAILED, self._without_secrets(" ".join(str(error).split())))
        except Exception as error:  # another package's code
            return self._how(State.FAILED, self._without_secrets(f"{type(error).__name__}: {error}"))
        old = receipts.load(self._bundle.folder).of(self._name, self._destination)
        if old is not None and old.content_sha256 == content and not again:
            return self._how(State.UNCHANGED)
        reason = await self._in_a_process()
        if reason is not None:
            reason = self._without_secrets(reason)
        try:
            receipts.keep(self._bundle.folder, self._name, self._destination, content=content, reason=reason)
        except OSError as error:
            reason = reason or f"sent, but {receipts.FILE} cannot be written: {error.strerror}"
        return self._how(State.EXPORTED) if reason is None else self._how(State.FAILED, reason)

    def _prepared(self) -> str:
        """Find out the place, and the digest of what is to be sent there."""
        exporter = registry.make(self._name, self._options)
        self._destination = exporter.destination(self._bundle)
        options = msgspec.json.encode(self._options).decode()
        with_samples = bool(msgspec.to_builtins(self._options).get("samples"))
        return identity(self._bundle.content(samples=with_samples), options, length=64)

    def _without_secrets(self, reason: str) -> str:
        return _without_secrets(reason, msgspec.to_builtins(self._options))

    def _how(self, state: State, reason: str = "") -> Sent:
        return Sent(
            invocation=self._bundle.record.invocation,
            exporter=self._name,
            destination=self._destination,
            state=state,
            seconds=round(time.monotonic() - self._began, 3),
            reason=reason,
        )

    async def _in_a_process(self) -> str | None:
        """Why it failed; None if it did not."""
        left = self._deadline - time.monotonic()
        order = Order(
            folder=str(self._bundle.folder),
            exporter=self._name,
            options=msgspec.to_builtins(self._options),
            seconds=left,
            launcher=os.getpid(),
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", _PROGRAM),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(max(0.1, left)):
                said, _ = await process.communicate(msgspec.json.encode(order))
        except TimeoutError:
            return "took longer than export.timeout"
        finally:
            await _end(process)
        try:
            return decode(said, Answer).reason
        except msgspec.DecodeError:
            return f"its process ended with exit code {process.returncode} and no answer"


async def _end(process: Process) -> None:
    """End what is left of an export, and of what it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        is_there, until = _signal(process, number), time.monotonic() + _GRACE
        while is_there and time.monotonic() < until:
            await asyncio.sleep(_LOOK)
            is_there = _signal(process, 0)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GRACE):
            await process.wait()


def _signal(process: Process, number: int) -> bool:
    """Whether any process of an export was there to be told."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _without_secrets(text: str, options: Any) -> str:
    """A reason without the value of any variable that is secret by its name or by the config, and without passwords."""
    secrets = Secrets()
    named = set(_texts(options))
    for name, value in os.environ.items():
        if name in named or is_secret_name(name):
            secrets.remember(value)
    for password in url_passwords([*named, *os.environ.values()]):
        secrets.remember(password)
    return _LOGIN.sub("//", secrets.redact(text))


def _texts(value: Any) -> Iterator[str]:
    """All texts among an exporter's keys; names of variables that hold secrets are among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)


def repeat(invocation: str, sent: Sequence[Sent]) -> str:
    """The command that exports again what failed."""
    names = [one.exporter for one in sent if one.state is State.FAILED]
    return f"nv-eval export {invocation} " + " ".join(f"--to {name}" for name in names)
