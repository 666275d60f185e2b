"""Times of a schedule: cron's five fields in a time zone, as Debian's cron reads them, through cronsim.

A time that the clocks skip in spring comes at the end of the gap; one that they show twice in autumn comes once, unless
the hour or the minute is `*`. Where day of month and day of week are both restricted, either suffices.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, available_timezones

from launcher.errors import ConfigError, MissingExtra, nearest
from launcher.orchestrator.timer import Moments

if TYPE_CHECKING:
    from cronsim import CronSim

_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_SPECIAL = re.compile(r"[^0-9A-Za-z*,/ \t-]|\d[lL]|\b[lL]\b|[wW]\b")
"""What only some crons know: seconds, last days, nearest weekdays."""
_COMPARED_DAYS = 800
"""Days for which two time zones must agree to be the same to a schedule."""


@dataclass(frozen=True)
class Cron:
    """Times of one expression in one time zone."""

    expression: str
    zone: ZoneInfo

    def after(self, moment: float) -> Iterator[float]:
        """The times after a moment, ascending; all in seconds since 1970."""
        last = moment
        for found in _simulator(self.expression, datetime.fromtimestamp(moment, self.zone)):
            time = found.astimezone(UTC).timestamp()
            if time > last:  # where clocks are put back, one may come again
                last = time
                yield time

    def between(self, after: float, until: float) -> list[float]:
        """The times after one moment and not after another."""
        found = []
        for time in self.after(after):
            if time > until:
                break
            found.append(time)
        return found

    def moments(self) -> Moments:
        """The same for timers: a crontab's fields, and calendar events of systemd, which know the time zone."""
        sim = _simulator(self.expression, datetime.fromtimestamp(0, self.zone))
        weekdays = sorted({int(day) % 7 for day in sim.weekdays if isinstance(day, int)})
        minute, hour, day, month, weekday = self.expression.split()
        if "7" in weekday:  # which Kubernetes does not know
            weekday = ",".join(map(str, weekdays))
        names = "" if len(weekdays) == 7 else ",".join(_DAYS[day] for day in weekdays) + " "
        days = _listed(sim.days, 31)
        months, hours, minutes = _listed(sim.months, 12), _listed(sim.hours, 24), _listed(sim.minutes, 60)
        clock = f"{hours}:{minutes}:00 {self.zone.key}"
        either = not sim.day_and and days != "*" and names
        wanted = [("", days), (names, "*")] if either else [(names, days)]
        calendars = tuple(f"{on}*-{months}-{dom} {clock}" for on, dom in wanted)
        return Moments(cron=" ".join((minute, hour, day, month, weekday)), calendars=calendars)

    def day_began(self, now: float) -> float:
        """Midnight before a moment, in the time zone."""
        return self._local(now).replace(hour=0, minute=0, second=0, microsecond=0, fold=0).timestamp()

    def month_began(self, now: float) -> float:
        """The first midnight of the month of a moment, in the time zone."""
        return self._local(now).replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0).timestamp()

    def shown(self, moment: float | None) -> str:
        """A moment as a person reads it; empty for None."""
        return "" if moment is None else self._local(moment).strftime("%a %Y-%m-%d %H:%M:%S")

    def _local(self, moment: float) -> datetime:
        return datetime.fromtimestamp(moment, self.zone)


def parse(expression: str, timezone: str) -> Cron:
    """Times of an expression. Raises ConfigError for one that is wrong or never comes, and for no time zone."""
    fields = expression.split()
    if len(fields) != 5 or _SPECIAL.search(expression):
        raise ConfigError(
            f"--cron {expression!r}: write five fields, minute hour day-of-month month day-of-week, of numbers, names, "
            "and * , - / alone; for example '0 2 * * 1-5'"
        )
    cron = Cron(" ".join(fields).upper(), zone(timezone))
    if next(cron.after(0.0), None) is None:
        raise ConfigError(f"--cron {expression!r}: there is no such day")
    return cron


def zone(name: str) -> ZoneInfo:
    """A time zone by its name. Raises ConfigError."""
    known = available_timezones()
    if name not in known:
        raise ConfigError(f"--timezone {name}: no such time zone{nearest(name, known)}")
    return ZoneInfo(name)


def local_zone() -> str:
    """Name of this machine's time zone; UTC where it has none."""
    try:
        import tzlocal
    except ModuleNotFoundError as error:
        raise MissingExtra("tzlocal, which schedules need,", "schedule") from error
    name = tzlocal.get_localzone_name()
    return name if name in available_timezones() else "UTC"


def same(one: str, other: str, now: float) -> bool:
    """Whether the clocks of two time zones show the same, today and in the next two years."""
    zones = zone(one), zone(other)
    days = (datetime.fromtimestamp(now, UTC) + timedelta(days=day) for day in range(_COMPARED_DAYS))
    return all(len({day.astimezone(place).utcoffset() for place in zones}) == 1 for day in days)


def _listed(values: Iterable[object], count: int) -> str:
    """Numbers as a list, `*` for all of them."""
    numbers = sorted(number for number in values if isinstance(number, int))
    return "*" if len(numbers) == count else ",".join(f"{number:02}" for number in numbers)


def _simulator(expression: str, start: datetime) -> CronSim:
    try:
        from cronsim import CronSim, CronSimError
    except ModuleNotFoundError as error:
        raise MissingExtra("cronsim, which schedules need,", "schedule") from error
    try:
        return CronSim(expression, start)
    except CronSimError as error:
        said = str(error).replace("Bad ", "wrong ")
        raise ConfigError(f"--cron {expression!r}: {said}; write for example '0 2 * * 1-5'") from None
