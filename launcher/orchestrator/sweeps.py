"""What the journal says of sweeps: their points, how far each is, and which invocations a sweep id stands for.

Standard library only, as `status`.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from launcher.errors import NotFound
from launcher.orchestrator.journal import Invocation, Journal, RunState, refuse_impossible
from launcher.orchestrator.status import RunStatus, of

_ID = re.compile(r"s[0-9a-f]*")
"""Ids of invocations begin with a to f."""


class PointState(StrEnum):
    """Where a point of a sweep is."""

    WAITING = "waiting"
    RUNNING = "running"
    SCORED = "scored"
    FAILED = "failed"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"
    """Its launcher is gone; resuming the sweep goes on with it."""
    SKIPPED = "skipped"
    """It is not run; its note says why."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep as it was begun. `data` are its settings and the command that made it."""

    id: str
    created: float
    folder: str
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def run(self) -> Invocation:
        """The sweep as what the journal's state, lease and facts are asked of."""
        return Invocation(
            id=self.id, created=self.created, execution="", deployment="", folder=self.folder, tasks=(), host=""
        )


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point as the journal has it. `invocation` may not have begun yet."""

    number: int
    invocation: str
    identity: str
    words: str
    note: str = ""
    """Why it is not run, or runs again."""
    is_skipped: bool = False


@dataclass(frozen=True, kw_only=True)
class PointStatus:
    """One point as last known."""

    number: int
    words: str
    invocation: str
    state: PointState
    note: str = ""
    scored: int = 0
    tasks: int = 0
    usd: float | None = None
    gpu_seconds: float = 0.0
    """GPU time of endpoints, those that it borrows included."""
    exit_code: int | None = None


@dataclass(frozen=True, kw_only=True)
class SweepStatus:
    """A sweep as last known. `age` is the time since its supervisor's last sign of life, in seconds."""

    sweep: str
    state: RunState
    created: float
    folder: str
    exit_code: int | None
    points: tuple[PointStatus, ...]
    age: float | None = None
    usd: float | None = None
    endpoints: tuple[str, ...] = ()
    """Invocations that keep the endpoints which points use one after another."""

    def count(self, *states: PointState) -> int:
        """How many points are in one of these states."""
        return sum(point.state in states for point in self.points)


def new_id() -> str:
    """A fresh id, which no invocation can have."""
    import secrets  # loads random and hashlib, which a status does without

    return "s" + secrets.token_hex(4)[:7]


def begin(
    journal: Journal, sweep: Sweep, points: Iterable[tuple[Point, bytes]], *, started: dict[str, Any] | None = None
) -> None:
    """Record a sweep with all its points. Raises LauncherError if it cannot."""
    data = {**sweep.data, **({"started": started} if started else {})}
    rows = [_row(sweep.id, point, plan) for point, plan in points]
    journal.change(
        ("INSERT INTO sweeps VALUES (?,?,?,?)", [(sweep.id, sweep.created, sweep.folder, json.dumps(data))]),
        ("INSERT INTO points VALUES (?,?,?,?,?,?,?)", rows),
    )


def replace(journal: Journal, sweep: str, point: Point, plan: bytes) -> None:
    """Keep a point as it is now: another invocation, or a note."""
    add(journal, sweep, [(point, plan)])


def add(
    journal: Journal, sweep: str, points: Iterable[tuple[Point, bytes]], *, data: dict[str, Any] | None = None
) -> None:
    """Keep points of a sweep that has begun, and what `data` says of the sweep: all or nothing."""
    rows = [_row(sweep, point, plan) for point, plan in points]
    told = [("UPDATE sweeps SET data = ? WHERE id = ?", [(json.dumps(data), sweep)])] if data is not None else []
    journal.change(("INSERT OR REPLACE INTO points VALUES (?,?,?,?,?,?,?)", rows), *told)


def _row(sweep: str, point: Point, plan: bytes) -> tuple[Any, ...]:
    note = f"skip:{point.note}" if point.is_skipped else point.note
    return sweep, point.number, point.invocation, point.identity, point.words, zlib.compress(plan), note


def settle(journal: Journal, sweep: Sweep) -> None:
    """Keep settings that a resumed sweep has now."""
    journal.change(("UPDATE sweeps SET data = ? WHERE id = ?", [(json.dumps(sweep.data), sweep.id)]))


def find(journal: Journal, prefix: str) -> Sweep:
    """The one sweep whose id begins with `prefix`. Raises NotFound if there is none, or several."""
    refuse_impossible(prefix)
    found = [sweep for sweep in every(journal) if sweep.id.startswith(prefix)]
    if not found:
        raise NotFound(f"{prefix}: no such sweep; see: nv-eval ls sweeps")
    if len(found) > 1:
        raise NotFound(f"{prefix}: fits several sweeps: {', '.join(sweep.id for sweep in found[:5])}")
    return found[0]


def every(journal: Journal) -> list[Sweep]:
    """All sweeps, newest first."""
    rows = journal.query("SELECT id, created, folder, data FROM sweeps ORDER BY created DESC")
    return [Sweep(id=row[0], created=row[1], folder=row[2], data=json.loads(row[3])) for row in rows]


def points(journal: Journal, sweep: str) -> list[Point]:
    """The points of a sweep in their order."""
    statement = "SELECT number, invocation, identity, words, note FROM points WHERE sweep = ? ORDER BY number"
    return [
        Point(
            number=number,
            invocation=invocation,
            identity=identity,
            words=words,
            note=note.removeprefix("skip:"),
            is_skipped=note.startswith("skip:"),
        )
        for number, invocation, identity, words, note in journal.query(statement, (sweep,))
    ]


def plan(journal: Journal, sweep: str, number: int) -> bytes:
    """The plan of a point as JSON. Raises NotFound if the journal has none."""
    rows = journal.query("SELECT plan FROM points WHERE sweep = ? AND number = ?", (sweep, number))
    if not rows:
        raise NotFound(f"{sweep}: has no point {number}")
    return zlib.decompress(rows[0][0])


def host(journal: Journal, sweep: str, invocation: str, serving: str) -> None:
    """Record that an invocation keeps an endpoint for points of a sweep, before it begins."""
    journal.change(("INSERT INTO hosts VALUES (?,?,?)", [(sweep, invocation, serving)]))


def hosts(journal: Journal, sweep: str) -> list[str]:
    """Invocations that keep, or kept, endpoints for points of a sweep."""
    return [row[0] for row in journal.query("SELECT invocation FROM hosts WHERE sweep = ?", (sweep,))]


def sweep_of(journal: Journal, invocation: str) -> str | None:
    """The sweep that an invocation belongs to, if it does."""
    rows = journal.query(
        "SELECT sweep FROM points WHERE invocation = ? UNION SELECT sweep FROM hosts WHERE invocation = ?",
        (invocation, invocation),
    )
    return str(rows[0][0]) if rows else None


def point_of(journal: Journal, invocation: str) -> Point | None:
    """The point of a sweep that an invocation is, if it is one."""
    sweep = sweep_of(journal, invocation)
    return next((p for p in points(journal, sweep) if p.invocation == invocation), None) if sweep else None


def is_sweep(word: str) -> bool:
    """Whether a word can only be a sweep's id, or the beginning of one."""
    return _ID.fullmatch(word) is not None and not Path(word).is_dir()


def expand(journal: Journal, words: Sequence[str], *, endpoints: bool = False, taken_over: bool = False) -> list[str]:
    """Ids of invocations for words that may be ids of sweeps: those of a sweep's points that have begun.

    `endpoints`: also those that keep the endpoints of a sweep. `taken_over`: in the place of a point that was not run
    because its results were there, the invocation that has them. Other words stay as they are. Raises NotFound.
    """
    found: list[str] = []
    for word in words:
        if not is_sweep(word):
            found.append(word)
            continue
        sweep = find(journal, word)
        ids = hosts(journal, sweep.id) if endpoints else []
        for point in points(journal, sweep.id):
            ids.append((taken_over and holder(journal, point)) or point.invocation)
        found += [one for one in ids if _exists(journal, one)]
    return list(dict.fromkeys(found))


def holder(journal: Journal, point: Point) -> str | None:
    """The invocation whose results a point was left out for, if they are still there."""
    if not point.is_skipped:
        return None
    named = point.note.rpartition(" ")[2]
    return named if is_complete(journal, named) else completed(journal, point.identity)


def taken_over(journal: Journal, words: Iterable[str]) -> dict[str, Point]:
    """Points that were left out of the sweeps among `words`, by the run that has the results. Raises NotFound."""
    found: dict[str, Point] = {}
    for word in filter(is_sweep, words):
        of_sweep = points(journal, find(journal, word).id)
        holders = {invocation: point for point in of_sweep if (invocation := holder(journal, point)) is not None}
        found |= {one: point for one, point in holders.items() if all(one != own.invocation for own in of_sweep)}
    return found


def begun(journal: Journal, invocations: Iterable[str]) -> list[Invocation]:
    """Those of some invocations that the journal knows."""
    return [journal.find(one) for one in invocations if _exists(journal, one)]


def _exists(journal: Journal, invocation: str) -> bool:
    return bool(journal.query("SELECT 1 FROM invocations WHERE id = ?", (invocation,)))


def completed(journal: Journal, identity: str) -> str | None:
    """An invocation that has all scores of a point of this identity; None if there is none whose results are there."""
    rows = journal.query("SELECT DISTINCT invocation FROM points WHERE identity = ? ORDER BY rowid DESC", (identity,))
    return next((row[0] for row in rows if is_complete(journal, row[0])), None)


def is_complete(journal: Journal, invocation: str) -> bool:
    """Whether an invocation ended with all its scores, and its results can be read."""
    if not _exists(journal, invocation):
        return False
    ended = journal.ended(invocation)
    if ended is None or ended.data.get("exit_code") != 0:
        return False
    with contextlib.suppress(OSError, ValueError):
        results = json.loads((Path(journal.find(invocation).folder) / "results.json").read_bytes())
        return bool(results.get("complete"))
    return False


def status(journal: Journal, sweep: Sweep) -> SweepStatus:
    """Status of a sweep and of each of its points."""
    state, ended, lease = journal.state(sweep.run), journal.ended(sweep.id), journal.lease(sweep.id)
    found = tuple(_point(journal, point, state) for point in points(journal, sweep.id))
    kept = [one for one in hosts(journal, sweep.id) if _exists(journal, one)]
    costs = [of(journal, journal.find(one)).usd for one in kept] if kept else [point.usd for point in found]
    known = [usd for usd in costs if usd is not None]
    return SweepStatus(
        sweep=sweep.id,
        state=state,
        created=sweep.created,
        folder=sweep.folder,
        exit_code=ended.data.get("exit_code") if ended else None,
        points=found,
        age=lease.age if lease else (time.time() - ended.time if ended else None),
        usd=round(sum(known), 4) if known else None,
        endpoints=tuple(kept),
    )


def _point(journal: Journal, point: Point, sweep: RunState) -> PointStatus:
    if point.is_skipped or not _exists(journal, point.invocation):
        state = PointState.SKIPPED if point.is_skipped else PointState.WAITING
        return PointStatus(
            number=point.number, words=point.words, invocation=point.invocation, state=state, note=point.note
        )
    run = of(journal, journal.find(point.invocation))
    return PointStatus(
        number=point.number,
        words=point.words,
        invocation=point.invocation,
        state=_state(run, sweep),
        note=point.note,
        scored=sum(task.reason == "completed" for task in run.tasks),
        tasks=len(run.tasks),
        usd=run.usd,
        gpu_seconds=sum(task.gpu_seconds or 0.0 for task in run.tasks),
        exit_code=run.exit_code,
    )


def _state(run: RunStatus, sweep: RunState) -> PointState:
    if run.state is RunState.FINISHED:
        return state_of(run.exit_code)
    if run.state is RunState.RUNNING and sweep is not RunState.INTERRUPTED:
        return PointState.RUNNING
    return PointState.INTERRUPTED


def state_of(exit_code: int | None) -> PointState:
    """State of a point that has ended."""
    ended = {0: PointState.SCORED, 130: PointState.STOPPED, 9: PointState.STOPPED}
    return ended.get(1 if exit_code is None else exit_code, PointState.FAILED)
