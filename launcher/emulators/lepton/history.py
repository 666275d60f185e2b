"""What has happened to a resource: states, events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from launcher.emulators.common.clock import Clock, iso


@dataclass
class Event:
    """Something that happened, so many times. `last` in seconds since 1970."""

    type: str
    reason: str
    count: int
    last: float


@dataclass
class History:
    """States and events of one endpoint or job, oldest first. `states` holds (seconds since 1970, state)."""

    clock: Clock
    states: list[tuple[float, str]] = field(default_factory=list)
    _events: list[Event] = field(default_factory=list)

    def note(self, state: str) -> None:
        """Keep a state if it is a new one."""
        if not self.states or self.states[-1][1] != state:
            self.states.append((self.clock.now(), state))

    def event(self, reason: str, *, warning: bool = False) -> None:
        """Keep an event; one that repeats the last is counted."""
        if self._events and self._events[-1].reason == reason:
            self._events[-1].count += 1
            self._events[-1].last = self.clock.now()
        else:
            self._events.append(Event("Warning" if warning else "Normal", reason, 1, self.clock.now()))

    def events(self, kind: str, name: str) -> list[dict[str, Any]]:
        """The events as the API shows them."""
        return [
            {
                "type": event.type,
                "reason": event.reason,
                "regarding": {"kind": kind, "name": name},
                "count": event.count,
                "last_observed_time": iso(event.last),
            }
            for event in self._events
        ]
