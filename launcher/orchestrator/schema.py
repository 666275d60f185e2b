"""Tables of the journal, and how a journal of an earlier version becomes one of this version."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

_FIRST = """
CREATE TABLE invocations (
  id TEXT PRIMARY KEY, created REAL NOT NULL, execution TEXT NOT NULL, deployment TEXT NOT NULL,
  folder TEXT NOT NULL, tasks TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL, pid_start TEXT NOT NULL
);
CREATE TABLE facts (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, invocation TEXT NOT NULL, task TEXT,
  kind TEXT NOT NULL, name TEXT NOT NULL DEFAULT '', data TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX facts_of ON facts (invocation, seq);
CREATE TABLE live (invocation TEXT PRIMARY KEY, time REAL NOT NULL, data TEXT NOT NULL);
"""

_PLANS_AND_LEASES = """
CREATE TABLE plans (invocation TEXT PRIMARY KEY, plan BLOB NOT NULL);
CREATE TABLE leases (
  invocation TEXT PRIMARY KEY, owner TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
  pid_start TEXT NOT NULL, taken REAL NOT NULL, beat REAL NOT NULL
);
INSERT INTO leases SELECT id, 'begun', host, pid, pid_start, created, created FROM invocations;
"""

_SWEEPS = """
CREATE TABLE sweeps (id TEXT PRIMARY KEY, created REAL NOT NULL, folder TEXT NOT NULL, data TEXT NOT NULL);
CREATE TABLE points (
  sweep TEXT NOT NULL, number INTEGER NOT NULL, invocation TEXT NOT NULL, identity TEXT NOT NULL,
  words TEXT NOT NULL, plan BLOB NOT NULL, note TEXT NOT NULL DEFAULT '', PRIMARY KEY (sweep, number)
);
CREATE INDEX points_of ON points (invocation);
CREATE INDEX points_alike ON points (identity);
CREATE TABLE hosts (sweep TEXT NOT NULL, invocation TEXT PRIMARY KEY, serving TEXT NOT NULL)
"""

_ENDS = "CREATE INDEX ends_of ON facts (invocation, seq, kind) WHERE kind IN ('run_started', 'run_ended')"
"""So that what has not ended is found without reading all that ever happened."""

MIGRATIONS = (_FIRST, _PLANS_AND_LEASES, _SWEEPS, _ENDS)
"""Migration n makes version n + 1 of version n; version 0 is an empty file."""

VERSION = len(MIGRATIONS)


def version(db: sqlite3.Connection) -> int:
    """Version of the tables in a file."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def migrate(db: sqlite3.Connection) -> None:
    """Bring the tables to this version: all of it, or, if it fails, nothing. Two processes may do so at once."""
    with writing(db):
        for number in range(version(db), VERSION):
            for statement in MIGRATIONS[number].split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number + 1}")


@contextmanager
def writing(db: sqlite3.Connection) -> Iterator[None]:
    """One transaction that no other writer interrupts."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")  # which a full disk may refuse
    except BaseException:
        if db.in_transaction:  # SQLite may have ended it itself
            db.execute("ROLLBACK")
        raise
