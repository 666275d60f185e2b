"""Where checkpoints come from: a folder, a repository of the Hugging Face hub, or a program that lists them.

All are polled: what another machine writes to a network file system tells nobody here, and a hub tells nobody at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from launcher.errors import ConfigError, MissingExtra, PlatformError
from launcher.schedule.model import Checkpoint, Origin, WatchSpec

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".distcp")
_UNFINISHED = ("tmp-", ".", "_tmp")
"""How names begin that trainers and copiers rename when they are done."""
_REPO = re.compile(r"[\w.-]+/[\w.-]+")
_PATIENCE = 600.0
"""Seconds that a program may take to list checkpoints."""
_MOST = 16 << 20
"""Bytes that it may print."""


@dataclass(frozen=True)
class Look:
    """What there is: complete checkpoints, and how many others are there that are not, or not yet."""

    checkpoints: tuple[Checkpoint, ...]
    unsettled: int = 0


class Source(Protocol):
    """Somewhere to look."""

    def look(self, now: float) -> Look:
        """What there is at a time, in seconds since 1970. Raises PlatformError where nobody can tell."""
        ...


def open_source(spec: WatchSpec) -> Source:
    """What a watch looks at. Raises MissingExtra for the hub without huggingface_hub."""
    if spec.origin is Origin.FOLDER:
        return Folder(Path(spec.source), spec.pattern or "*", marker=spec.marker, settle=spec.settle)
    if spec.origin is Origin.REPO:
        return Repository(spec.source, spec.pattern or "main", _hub(), every_commit=spec.every_commit)
    return Command(shlex.split(spec.source), spec.pattern or "*")


def origin_of(source: str) -> Origin:
    """What a bare word means: a folder that is there, else OWNER/NAME of a repository, else a program that is there."""
    if Path(source).expanduser().is_dir():
        return Origin.FOLDER
    if _REPO.fullmatch(source):
        return Origin.REPO
    words = shlex.split(source) if source.count("'") % 2 == source.count('"') % 2 == 0 else []
    if words and shutil.which(words[0]):
        return Origin.COMMAND
    raise ConfigError(
        f"{source}: no folder, no repository OWNER/NAME and no program; say which with --folder, --repo or --command"
    )


def step_of(name: str) -> int | None:
    """The last number in a name."""
    found = re.findall(r"\d+", name)
    return int(found[-1]) if found else None


# --- a folder ---------------------------------------------------------------------------------------------------------


@dataclass
class Folder:
    """Folders below one, and GGUF files, that fit a pattern.

    One is complete when the file `marker` is in it; without one, when it has weights (all that its index names) and a
    config.json, and none of these has changed for `settle` seconds by this machine's clock: times of files that were
    copied, or that come from a server with another clock, tell nothing.
    """

    folder: Path
    pattern: str
    marker: str | None = None
    settle: float = 30.0
    _since: dict[Path, tuple[str, float]] = field(default_factory=dict)

    def look(self, now: float) -> Look:
        """See Source."""
        if Path(self.pattern).is_absolute():
            raise ConfigError(
                f"--pattern {self.pattern}: is a pattern of names below {self.folder}; write no / before it"
            )
        try:
            paths = sorted(path for path in self.folder.glob(self.pattern) if not path.name.startswith(_UNFINISHED))
        except OSError as error:
            raise PlatformError(f"{self.folder}: cannot be read: {error.strerror}") from None
        if not self.folder.is_dir():
            raise PlatformError(f"{self.folder}: there is no such folder")
        found, unsettled = list[Checkpoint](), 0
        for path in paths:
            try:
                files = _files_of(path)
                complete = bool(files) and self._is_complete(path, files, now)
            except OSError:  # it is being written, moved or deleted
                files, complete = [], False
            if complete:
                found.append(_checkpoint(path, files))
            unsettled += bool(files) and not complete
        return Look(tuple(found), unsettled)

    def _is_complete(self, path: Path, files: list[Path], now: float) -> bool:
        if self.marker is not None:
            return (path / self.marker).exists()
        if path.is_dir() and not ((path / "config.json").is_file() and _has_all_shards(path)):
            return False
        digest = _digest(path, files)
        before, since = self._since.get(path, ("", now))
        self._since[path] = (digest, since if before == digest else now)
        return now - self._since[path][1] >= self.settle


def _files_of(path: Path) -> list[Path]:
    """The weights and the config of a checkpoint; nothing if it is none. What else comes and goes is not it."""
    if path.is_file():
        return [path] if path.suffix == ".gguf" else []
    weights = [file for file in sorted(path.iterdir()) if file.suffix in _WEIGHTS and file.is_file()]
    config = path / "config.json"
    return [*weights, *([config] if config.is_file() else [])] if weights else []


def _has_all_shards(path: Path) -> bool:
    import json

    for index in path.glob("*.index.json"):
        try:
            named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        except (ValueError, KeyError, AttributeError, TypeError):
            return False
        if not all(isinstance(shard, str) and (path / shard).is_file() for shard in named):
            return False
    return True


def _digest(path: Path, files: Iterable[Path]) -> str:
    """Of the listing: names, sizes and times of change. Weights are too large to be read for this."""
    listing = "".join(f"{file.name}\0{(at := file.stat()).st_size}\0{at.st_mtime_ns}\n" for file in files)
    return hashlib.sha256(f"{path.resolve()}\n{listing}".encode("utf-8", "surrogateescape")).hexdigest()


def _checkpoint(path: Path, files: list[Path]) -> Checkpoint:
    name = path.stem if path.is_file() else path.name
    return Checkpoint(
        identity=_digest(path, files),
        path=str(path.resolve()),
        name=name,
        step=step_of(name),
        order=max(file.stat().st_mtime for file in files),
    )


# --- the hub ----------------------------------------------------------------------------------------------------------


@dataclass
class Repository:
    """Branches and tags of a repository that fit a pattern, each at the commit where it is; or every commit of them.

    A commit is complete as it is; one without weights is no checkpoint. Its identity is its sha, whatever leads to it.
    """

    repo: str
    pattern: str
    api: HfApi
    every_commit: bool = False
    _weights: dict[str, bool] = field(default_factory=dict)

    def look(self, now: float) -> Look:  # noqa: ARG002  # a commit does not ripen
        """See Source."""
        from httpx import HTTPError
        from huggingface_hub.errors import HfHubHTTPError

        try:
            found = {
                sha: Checkpoint(identity=sha, path=sha, name=name, step=step_of(name), order=order)
                for order, (name, sha) in enumerate(self._commits(self.api))
            }
        except (HfHubHTTPError, HTTPError, OSError) as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise PlatformError(f"{self.repo}: the hub does not tell what is there: {said[0]}") from None
        return Look(tuple(found.values()))

    def _commits(self, api: HfApi) -> Iterator[tuple[str, str]]:
        """Names with their commits, oldest first."""
        refs = api.list_repo_refs(self.repo)
        for ref in [*refs.tags, *refs.branches]:
            if not fnmatchcase(ref.name, self.pattern):
                continue
            commits = [ref.target_commit]
            if self.every_commit:
                commits = [one.commit_id for one in reversed(api.list_repo_commits(self.repo, revision=ref.name))]
            yield from ((ref.name, sha) for sha in commits if self._has_weights(api, sha))

    def _has_weights(self, api: HfApi, sha: str) -> bool:
        if sha not in self._weights:
            files = api.list_repo_files(self.repo, revision=sha)
            self._weights[sha] = any(file.endswith(_WEIGHTS) for file in files)
        return self._weights[sha]


def _hub() -> Any:
    try:
        from huggingface_hub import HfApi
    except ModuleNotFoundError as error:
        raise MissingExtra("huggingface_hub, which watching a repository needs,", "hf-tokenizer") from error
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


# --- a program --------------------------------------------------------------------------------------------------------


@dataclass
class Command:
    """A program that prints one checkpoint on each line, oldest first: paths, revisions, or whatever the run takes."""

    argv: list[str]
    pattern: str
    patience: float = _PATIENCE

    def look(self, now: float) -> Look:  # noqa: ARG002  # what it prints is complete
        """See Source."""
        try:
            done = _output(self.argv, self.patience)
        except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as error:
            raise PlatformError(f"{self.argv[0]}: cannot list checkpoints: {error}") from None
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or [""]
            raise PlatformError(f"{self.argv[0]}: ended with {done.returncode}: {said[-1]}")
        lines = dict.fromkeys(line.strip() for line in done.stdout.split("\n") if line.strip())
        made = (_listed(line, order) for order, line in enumerate(lines))
        return Look(tuple(one for one in made if fnmatchcase(one.name, self.pattern)))


def _output(argv: list[str], patience: float) -> subprocess.CompletedProcess[str]:
    """What a program prints. It and what it began end after `patience` seconds, or if it prints too much."""
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    said: dict[str, bytearray] = {"out": bytearray(), "err": bytearray()}
    until = time.monotonic() + patience
    try:
        with process, selectors.DefaultSelector() as selector:
            try:
                selector.register(process.stdout, selectors.EVENT_READ, "out")  # type: ignore[arg-type]
                selector.register(process.stderr, selectors.EVENT_READ, "err")  # type: ignore[arg-type]
                while selector.get_map():
                    ready = selector.select(max(until - time.monotonic(), 0.0))
                    if not ready:
                        raise subprocess.TimeoutExpired(argv, patience)
                    for key, _ in ready:
                        chunk = os.read(key.fd, 65536)
                        said[key.data] += chunk
                        if len(said[key.data]) > _MOST:
                            raise OSError(f"it printed more than {_MOST >> 20} MiB")
                        if not chunk:
                            selector.unregister(key.fileobj)
                process.wait(max(until - time.monotonic(), 0.0))
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    finally:
        process.wait()
    return subprocess.CompletedProcess(
        argv, process.returncode, said["out"].decode(), said["err"].decode(errors="replace")
    )


def _listed(line: str, order: int) -> Checkpoint:
    name = line.rstrip("/").rpartition("/")[2]
    return Checkpoint(identity=line, path=line, name=name, step=step_of(name), order=order)
