"""`nv-eval watch`: every new checkpoint is evaluated once, whatever is killed in between.

Before a run begins, the store says which invocation it is. What had begun and has not ended is gone on with, by
`nv-eval resume`, not begun again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import msgspec

from launcher.errors import ConfigError, Interrupted, LauncherError, LeaseHeld, PlatformError
from launcher.orchestrator.journal import Journal
from launcher.schedule.firing import Clock, Ended, Prepared
from launcher.schedule.model import Checkpoint, Outcome, RunSpec, Seen, WatchSpec
from launcher.schedule.settling import invocation, outcome_of
from launcher.schedule.sources import Look, Source
from launcher.schedule.store import Store

PLACEHOLDERS = ("checkpoint", "name", "step")
_PLAIN = re.compile(r"[\w./:@+-]+")
_SAMPLE = Checkpoint(identity="", path="/checkpoints/step-1", name="step-1", step=1)


class Evaluate(Protocol):
    """What lies outside: new runs and those that had begun."""

    def begin(self, run: RunSpec) -> Prepared:
        """Plan a run. Raises LauncherError."""
        ...

    def resume(self, invocation: str) -> Ended:
        """Go on with one to its end. Raises LauncherError."""
        ...


@dataclass(kw_only=True)
class Watch:
    """One watch. `until`: it is over when so many checkpoints are evaluated, in all of its lives."""

    spec: WatchSpec
    source: Source
    store: Store
    journal: Journal
    evaluate: Evaluate
    clock: Clock = time
    say: Callable[[str], None] = lambda _: None
    once: bool = False
    interval: float = 60.0
    until: int | None = None
    _worst: int = 0
    _retried: set[str] = field(default_factory=set)

    @property
    def id(self) -> str:
        """The same for the same source and run: other settings are another watch, and evaluate everything anew."""
        ways = replace(self.spec, newest_first=False, retry=False, settle=0.0)
        return hashlib.sha256(msgspec.json.encode(ways)).hexdigest()[:12]

    def run(self) -> int:
        """Watch; returns the exit code of the last run that had no scores, else 0.

        Raises LeaseHeld while another process does the same, Interrupted if a signal ended a run, PlatformError with
        `once` if nobody can tell what is there.
        """
        with _alone(self.store.path.parent / f"watch-{self.id}.lock"):
            self._go_on()
            before = self.store.seen(self.id)
            while not self._is_over():
                if self._step():
                    continue
                if self.once:
                    if self.store.seen(self.id) == before:
                        self.say(f"{self.spec.source}: no new checkpoint")
                    break
                self.clock.sleep(self.interval)
        return self._worst

    def _is_over(self) -> bool:
        ended = [seen for seen in self.store.seen(self.id) if seen.outcome is not None]
        return self.until is not None and len(ended) >= self.until

    def _step(self) -> bool:
        """Look, and evaluate one checkpoint; whether it is worth to look again at once."""
        look = self._look()
        if look is None:
            return False
        waiting = self._waiting(look)
        if waiting:
            self._evaluate(*waiting[-1 if self.spec.newest_first else 0])
            return True
        return bool(self.once and look.unsettled and self._ripens(look))

    def _look(self) -> Look | None:
        try:
            return self.source.look(self.clock.time())
        except PlatformError as error:
            if self.once:
                raise
            self.say(f"{error}; looks again in {self.interval:g} s")
            return None

    def _ripens(self, before: Look) -> bool:
        """With `once`: wait once for what may be complete already and cannot be known to be."""
        self.clock.sleep(self.spec.settle)
        after = self._look()
        return after is not None and len(after.checkpoints) > len(before.checkpoints)

    def _waiting(self, look: Look) -> list[tuple[Checkpoint, Seen | None]]:
        """What is to be evaluated, oldest first, with what is known of it where it failed before."""
        seen = {one.checkpoint.identity: one for one in self.store.seen(self.id)}
        found = [(one, seen.get(one.identity)) for one in look.checkpoints if self._is_wanted(seen.get(one.identity))]
        return sorted(found, key=lambda pair: _age(pair[0]))

    def _is_wanted(self, seen: Seen | None) -> bool:
        if seen is None:
            return True
        return self.spec.retry and seen.outcome is Outcome.FAILED and seen.checkpoint.identity not in self._retried

    # --- evaluating -------------------------------------------------------------------------------------------------

    def _evaluate(self, checkpoint: Checkpoint, failed: Seen | None) -> None:
        self._retried.add(checkpoint.identity)
        if failed is not None and invocation(self.journal, failed.invocation) is not None:
            self.store.begin(self.id, checkpoint, failed.invocation, self.clock.time())
            self._end(checkpoint, failed.invocation, lambda: self.evaluate.resume(failed.invocation))
            return
        self._begin(checkpoint)

    def _begin(self, checkpoint: Checkpoint) -> None:
        try:
            prepared = self.evaluate.begin(filled(self.spec.run, checkpoint))
        except LauncherError as error:
            self.store.begin(self.id, checkpoint, "", self.clock.time())
            self._conclude(checkpoint, Ended(error.exit_code, detail=str(error)))
            return
        self.store.begin(self.id, checkpoint, prepared.invocation, self.clock.time())
        self._end(checkpoint, prepared.invocation, prepared.go)

    def _end(self, checkpoint: Checkpoint, invocation_id: str, go: Callable[[], Ended]) -> None:
        self.say(f"{checkpoint.name}: {invocation_id}")
        try:
            ended = go()
        except LeaseHeld:
            raise
        except LauncherError as error:
            ended = Ended(error.exit_code, detail=str(error))
        if ended.exit_code == Interrupted.exit_code:
            raise Interrupted(f"{checkpoint.name}: stopped; the same command goes on with {invocation_id}")
        self._conclude(checkpoint, ended)

    def _conclude(self, checkpoint: Checkpoint, ended: Ended) -> None:
        outcome = outcome_of(ended.exit_code)
        self.store.conclude(self.id, checkpoint.identity, outcome, ended.exit_code, ended.detail)
        self._worst = ended.exit_code or self._worst
        self.say(": ".join(filter(None, (checkpoint.name, str(outcome), ended.detail))))

    def _go_on(self) -> None:
        """With what had begun when this was killed or stopped. We hold the lock: no other watch runs it."""
        for seen in self.store.seen(self.id):
            if seen.outcome is not None:
                continue
            begun = invocation(self.journal, seen.invocation)
            ended = self.journal.ended(begun.id) if begun is not None else None
            code = int(ended.data.get("exit_code") or 0) if ended is not None else Interrupted.exit_code
            if begun is None:  # killed before anything was created
                self._begin(seen.checkpoint)
            elif code == Interrupted.exit_code:
                self._end(seen.checkpoint, begun.id, lambda id_=begun.id: self.evaluate.resume(id_))  # type: ignore[misc]
            else:
                self._conclude(seen.checkpoint, Ended(code))


def refuse_same_for_all(run: RunSpec) -> None:
    """Raises ConfigError if nothing in a run depends on the checkpoint."""
    if not any(f"{{{name}}}" in word for word in run.overrides for name in PLACEHOLDERS):
        raise ConfigError(
            "nv-eval watch: every checkpoint would get the same run; write {checkpoint}, {name} or {step} into it, for "
            "example deployment.model_id={checkpoint}"
        )


def sample(run: RunSpec) -> RunSpec:
    """The run for a checkpoint that might be, to see whether it can be planned."""
    return filled(run, _SAMPLE)


def filled(run: RunSpec, checkpoint: Checkpoint) -> RunSpec:
    """The run for a checkpoint. Raises ConfigError for a name that would mean something else in an override."""
    return replace(run, overrides=tuple(_filled(word, checkpoint) for word in run.overrides))


def _filled(word: str, checkpoint: Checkpoint) -> str:
    values = {"checkpoint": checkpoint.path, "name": checkpoint.name, "step": checkpoint.step}
    for name, value in values.items():
        hole = f"{{{name}}}"
        if hole not in word:
            continue
        if value is None:
            raise ConfigError(f"{checkpoint.name}: has no number for {{step}}")
        word = word.replace(hole, _quoted(str(value), alone=word.endswith(f"={hole}") and word.count(hole) == 1))
    return word


def _quoted(value: str, *, alone: bool) -> str:
    if _PLAIN.fullmatch(value):
        return value
    if not alone or not value.isprintable() or "\\" in value or "${" in value:
        raise ConfigError(f"{value!a}: has characters that mean something in an override; use another name")
    quoted = value.replace("'", "\\'")
    return f"'{quoted}'"


def _age(checkpoint: Checkpoint) -> tuple[int, float, str]:
    """Ascending from the oldest: by step, then by time."""
    return (-1 if checkpoint.step is None else checkpoint.step, checkpoint.order, checkpoint.name)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One watch at a time; the kernel ends the lock with its process."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LeaseHeld("another process watches the same with the same run; nothing was done") from None
        yield
    finally:
        os.close(descriptor)
