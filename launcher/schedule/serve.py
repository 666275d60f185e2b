"""`nv-eval schedule serve`: calls schedules where the machine has nothing that does, with APScheduler.

Its own CronTrigger counts weekdays from Monday and takes a night when clocks are put back twice, so the times come from
launcher.schedule.times. Each call is a process of its own: what becomes of it does not depend on this one.
"""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from launcher.errors import MissingExtra
from launcher.schedule import times
from launcher.schedule.model import Definition, Via
from launcher.schedule.store import Store

LOOK = 20.0
"""Seconds between two looks at what schedules there are."""
_PATIENCE = 300.0
"""Seconds that runs may take to tear down when this ends."""


@dataclass
class Server:
    """Calls `[*program, NAME]` when a schedule's time comes. `store` makes a view of the schedules for one look."""

    program: Sequence[str]
    store: Callable[[], Store] = Store.default
    say: Callable[[str], None] = lambda _: None
    look: float = LOOK
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _told: set[str] = field(default_factory=set)
    _known: dict[str, Definition] = field(default_factory=dict)
    _ends: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        """Serve until `stop`, then end what runs in order. Raises MissingExtra."""
        scheduler = _scheduler()
        scheduler.start()
        try:
            while not self._ends.is_set():
                self._follow(scheduler)
                self._ends.wait(self.look)
        finally:
            scheduler.shutdown(wait=False)
            self._end_runs()

    def stop(self, *_: object) -> None:
        """Make `run` come back; may be called by a signal."""
        self._ends.set()

    def _follow(self, scheduler: Any) -> None:
        """Bring what is called in line with what schedules there are."""
        with self._lock:  # calls come from the scheduler's threads
            self._running = [process for process in self._running if process.poll() is None]
        store = self.store()
        try:
            wanted = {one.name: one.definition for one in store.schedules() if one.definition.via is Via.SERVE}
            for line in set(store.damaged) - self._told:
                self._told.add(line)
                self.say(line)
        finally:
            store.close()
        for name in self._known.keys() - wanted.keys():
            scheduler.remove_job(name)
            self.say(f"{name}: is called no more")
        for name, definition in wanted.items():
            if self._known.get(name) != definition:
                self._call(name)  # what has passed while nobody served is decided now
                trigger = trigger_of(times.parse(definition.cron, definition.timezone))
                scheduler.add_job(self._call, trigger, args=[name], id=name, replace_existing=True)
                self.say(f"{name}: is called at {definition.cron} {definition.timezone}")
        self._known = wanted

    def _call(self, name: str) -> None:
        # in a group of its own: Ctrl-C here is handed on once, by _end_runs
        with self._lock:
            begun = subprocess.Popen([*self.program, name], stdin=subprocess.DEVNULL, start_new_session=True)
            self._running.append(begun)

    def _end_runs(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._running:
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self.say(f"process {process.pid} still tears down; it goes on without this one")


def _scheduler() -> Any:
    try:
        from apscheduler.schedulers.background import BackgroundScheduler
    except ModuleNotFoundError as error:
        raise MissingExtra("apscheduler, which schedule serve needs,", "schedule") from error
    # Late or not is for `schedule fire` to decide; threads only start processes.
    defaults = {"misfire_grace_time": None, "coalesce": True, "max_instances": 8}
    return BackgroundScheduler(timezone=UTC, job_defaults=defaults)


def trigger_of(cron: times.Cron) -> Any:
    """The times of a schedule as a trigger of APScheduler."""
    from apscheduler.triggers.base import BaseTrigger

    class Times(BaseTrigger):  # type: ignore[misc]
        """See launcher.schedule.times."""

        def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
            """The next time after the one before, or after now."""
            found = next(cron.after((previous or now).timestamp()), None)
            return None if found is None else datetime.fromtimestamp(found, UTC)

    return Times()
