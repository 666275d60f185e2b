"""A world around a schedule: a clock that a test turns, and runs that take and cost what a test says.

The journal and the store are the real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from launcher.errors import LauncherError
from launcher.orchestrator.journal import Fact, Journal
from launcher.schedule.firing import Ended, Firing, Prepared
from launcher.schedule.model import Definition, Fire, RunSpec, Verdict, Via
from launcher.schedule.store import Store

BERLIN = ZoneInfo("Europe/Berlin")


def moment(text: str) -> float:
    """A time in Berlin."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


def nightly(**keys: object) -> Definition:
    """Every day at two in Berlin."""
    facts = {"name": "nightly", "cron": "0 2 * * *", "timezone": "Europe/Berlin", "run": RunSpec(), "via": Via.SERVE}
    return Definition(**{**facts, "cwd": "/", **keys})  # type: ignore[arg-type]


@dataclass
class Clock:
    """Stands still until somebody turns it."""

    now: float
    slept: list[float] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Killed(BaseException):
    """What a SIGKILL is to the code that it hits: nothing after it runs."""


@dataclass
class World:
    """Runs last `lasts` seconds, cost `usd` and may cost `worst`; `during` is what happens while one goes on."""

    folder: Path
    clock: Clock
    store: Store = field(init=False)
    journal: Journal = field(init=False)
    lasts: float = 600.0
    usd: float | None = 2.0
    worst: float | None = 3.0
    exit_code: int = 0
    during: Callable[[], None] | None = None
    refuses: LauncherError | None = None
    verdict: Verdict | LauncherError = Verdict.GO
    gated: list[tuple[str, str]] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    dead_address: bool = False
    runs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = Store(self.folder / "schedules.db")
        self.journal = Journal(self.folder / "journal.db")
        for file in (self.store, self.journal):
            file._db.execute("PRAGMA synchronous = OFF")  # no test here pulls the plug

    def at(self, when: str, name: str = "nightly", **how: bool) -> Fire | None:
        """The schedule is called at a time in Berlin."""
        self.clock.now = max(self.clock.now, moment(when))
        return self.fire(name, **how)

    def fire(self, name: str = "nightly", **how: bool) -> Fire | None:
        firing = Firing(store=self.store, journal=self.journal, launch=self, clock=self.clock)
        return firing.fire(name, **how)  # type: ignore[arg-type]

    def history(self) -> list[tuple[str, int]]:
        """Outcomes with their counts."""
        return [(str(fire.outcome), fire.count) for fire in self.store.history()]

    # --- the outside of a schedule ----------------------------------------------------------------------------------

    def prepare(self, definition: Definition) -> Prepared:
        if self.refuses is not None:
            raise self.refuses
        invocation = f"run{len(self.runs):05}"
        self.runs.append(invocation)
        return Prepared(invocation, self.worst, lambda: self._go(invocation))

    def _go(self, invocation: str) -> Ended:
        self.journal.begin(
            invocation, execution="local", deployment="vllm", folder=str(self.folder), tasks=["t"], hold=False
        )
        self.journal.record(invocation, Fact.RUN_STARTED)
        self.journal.beat(invocation, [{"task": "t", "usd": (self.usd or 0.0) / 2}])
        during, self.during = self.during, None
        if during is not None:
            during()
        self.clock.now += self.lasts
        self.end(invocation)
        return Ended(self.exit_code, self.usd)

    def end(self, invocation: str) -> None:
        self.journal.beat(invocation, [{"task": "t", "usd": self.usd or 0.0}])
        self.journal.record(invocation, Fact.RUN_ENDED, exit_code=self.exit_code)

    def gate(self, policy: str, baseline: str, candidate: str) -> tuple[Verdict, str]:
        self.gated.append((baseline, candidate))
        if isinstance(self.verdict, LauncherError):
            raise self.verdict
        return self.verdict, "worse by 0.1" if self.verdict is Verdict.NO_GO else ""

    def tell(self, names: tuple[str, ...], title: str, text: str) -> None:
        if self.dead_address:
            raise LauncherError("nobody answers")
        self.sent.append(text)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, Clock(moment("2026-11-02T12:00")))
