"""What one journal says of an invocation, for another journal: everything that answers `status` answers for both.

Standard library only.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from launcher.errors import PlatformError
from launcher.orchestrator.journal import Fact, Journal

OWN = (Fact.HANDED_OVER, Fact.COME_HOME)
"""Facts of the journal of the machine that began it."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Rows of a journal: facts as (time, task, kind, name, data), the last heartbeat as (time, data)."""

    facts: list[tuple[float, str | None, str, str, str]]
    live: tuple[float, str] | None
    host: str
    """Of the pod that runs it, or ran it last."""

    @property
    def has_ended(self) -> bool:
        """Whether the end of the run is the last that is told."""
        return bool(self.facts) and self.facts[-1][2] == Fact.RUN_ENDED


def take(journal: Journal, invocation: str) -> bytes:
    """What a journal says of an invocation."""
    statement = "SELECT time, task, kind, name, data FROM facts WHERE invocation = ? ORDER BY seq"
    live = journal.query("SELECT time, data FROM live WHERE invocation = ?", (invocation,))
    lease = journal.lease(invocation)
    document = {
        "facts": journal.query(statement, (invocation,)),
        "live": live[0] if live else None,
        "host": lease.host if lease else "",
    }
    return gzip.compress(json.dumps(document).encode(), mtime=0)


def read(content: bytes) -> Snapshot:
    """What `take` gave. Raises PlatformError if it is damaged."""
    try:
        found = json.loads(gzip.decompress(content))
        facts = [(float(row[0]), row[1], str(row[2]), str(row[3]), str(row[4])) for row in found["facts"]]
        live = None if found["live"] is None else (float(found["live"][0]), str(found["live"][1]))
        return Snapshot(facts=facts, live=live, host=str(found["host"]))
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError) as error:
        raise PlatformError(f"Kubernetes: what the supervisor says of itself is damaged: {error}") from error


def put(journal: Journal, invocation: str, snapshot: Snapshot, *, place: str, lives: bool) -> None:
    """Have a journal say the same. `place`: how the cluster is called from here.

    `lives`: the cluster says that it is being run; then the end of the run, whose results are not packed yet, is none.
    """
    marks = ",".join("?" * len(OWN))
    told = snapshot.facts[:-1] if lives and snapshot.has_ended else snapshot.facts
    facts = [(row[0], invocation, *row[1:4], _placed(row, place)) for row in told]
    insert = "INSERT INTO facts (time,invocation,task,kind,name,data) VALUES (?,?,?,?,?,?)"
    journal.change(
        (f"DELETE FROM facts WHERE invocation = ? AND kind NOT IN ({marks})", [(invocation, *OWN)]),  # noqa: S608
        (insert, facts),
        ("INSERT OR REPLACE INTO live VALUES (?,?,?)", [(invocation, *snapshot.live)] if snapshot.live else []),
        ("DELETE FROM leases WHERE invocation = ?", [(invocation,)]),
        ("INSERT INTO leases VALUES (?,?,?,?,?,?,?)", [_lease(invocation, snapshot.host, place)] if lives else []),
    )


def hold(journal: Journal, invocation: str, tasks: Iterable[str], *, place: str, why: str = "") -> None:
    """Have a journal say that a supervisor is on its way, and `why` it has not told anything yet."""
    before = journal.live(invocation)
    rows = {row["task"]: row for row in before[1]} if before else {}
    rows |= {task: {**rows.get(task, {"task": task}), "why": why} for task in tasks}
    journal.change(
        ("INSERT OR REPLACE INTO live VALUES (?,?,?)", [(invocation, time.time(), json.dumps([*rows.values()]))]),
        ("INSERT OR REPLACE INTO leases VALUES (?,?,?,?,?,?,?)", [_lease(invocation, "", place)]),
    )


def _lease(invocation: str, host: str, place: str) -> tuple[Any, ...]:
    now = time.time()
    return (invocation, "cluster", f"{host or 'a pod'} in {place}", 0, "", now, now)


def forget_lease(journal: Journal, invocation: str) -> None:
    """Nobody runs it any more."""
    journal.change(("DELETE FROM leases WHERE invocation = ?", [(invocation,)]))


def _placed(row: tuple[Any, ...], place: str) -> str:
    """The data of a fact; where it ran is called as it is from here."""
    data = json.loads(row[4])
    return json.dumps(data | {"place": place}) if row[2] == Fact.RUN_STARTED else str(row[4])
