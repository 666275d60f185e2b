"""Times of a calendar: weekdays, nights when clocks change, and the same for every kind of timer."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import UTC, datetime
from itertools import islice

import pytest

from launcher.errors import ConfigError
from launcher.schedule import times
from launcher.schedule.serve import trigger_of
from tests.fakes.schedules import moment

BERLIN = "Europe/Berlin"


def following(cron: str, after: str, count: int, zone: str = BERLIN) -> list[str]:
    found = times.parse(cron, zone).after(moment(after))
    return [datetime.fromtimestamp(one, UTC).strftime("%a %m-%d %H:%M") for one in islice(found, count)]


@pytest.mark.parametrize(
    ("cron", "after", "utc"),
    [
        ("0 2 * * 1-5", "2026-11-27T12:00", ["Mon 11-30 01:00", "Tue 12-01 01:00"]),
        ("0 2 * * MON-FRI", "2026-11-27T12:00", ["Mon 11-30 01:00", "Tue 12-01 01:00"]),
        ("0 2 * * 0", "2026-11-27T12:00", ["Sun 11-29 01:00"]),
        ("0 2 * * 7", "2026-11-27T12:00", ["Sun 11-29 01:00"]),
        # either day suffices where both are restricted
        ("0 12 13 * 5", "2026-11-06T13:00", ["Fri 11-13 11:00", "Fri 11-20 11:00"]),
        ("0 12 14 * 5", "2026-11-06T13:00", ["Fri 11-13 11:00", "Sat 11-14 11:00", "Fri 11-20 11:00"]),
        # clocks go from 2:00 to 3:00: half past two comes when they do
        ("30 2 * * *", "2027-03-27T12:00", ["Sun 03-28 01:00", "Mon 03-29 00:30"]),
        # clocks go from 3:00 back to 2:00: half past two comes once, the first time
        ("30 2 * * *", "2026-10-24T12:00", ["Sun 10-25 00:30", "Mon 10-26 01:30"]),
        # what comes every half hour comes every half hour
        (
            "*/30 * * * *",
            "2026-10-25T01:45",
            ["Sun 10-25 00:00", "Sun 10-25 00:30", "Sun 10-25 01:00", "Sun 10-25 01:30"],
        ),
    ],
)
def test_times_in_berlin(cron: str, after: str, utc: list[str]) -> None:
    assert following(cron, after, len(utc)) == utc


@pytest.mark.parametrize(
    ("cron", "says"),
    [
        ("0 2 * *", "write five fields"),
        ("0 0 2 * * *", "write five fields"),
        ("@daily", "write five fields"),
        ("0 2 L * *", "write five fields"),
        ("0 2 * * 1#2", "write five fields"),
        ("0 2 15W * *", "write five fields"),
        ("60 2 * * *", "wrong minute"),
        ("0 2 * * 8", "wrong day-of-week"),
        ("0 2 * JUNO *", "wrong month"),
        ("0 2 30 2 *", "wrong day-of-month"),
    ],
)
def test_an_expression_that_is_wrong_or_never_comes_is_refused(cron: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        times.parse(cron, BERLIN)


def test_a_time_zone_is_known_by_its_name() -> None:
    with pytest.raises(ConfigError, match="did you mean Europe/Berlin"):
        times.parse("0 2 * * *", "Europe/Berln")
    assert times.same("UTC", "Etc/UTC", 0.0) and times.same("Europe/Berlin", "Europe/Paris", moment("2026-01-01"))
    assert not times.same("Europe/Berlin", "Africa/Lagos", moment("2026-01-01")), "one has a summer time"


@pytest.mark.parametrize(
    ("cron", "calendars", "fields"),
    [
        ("0 2 * * 1-5", ["Mon,Tue,Wed,Thu,Fri *-*-* 02:00:00 Europe/Berlin"], "0 2 * * 1-5"),
        ("*/30 * * * *", ["*-*-* *:00,30:00 Europe/Berlin"], "*/30 * * * *"),
        ("0 2 * * 6,7", ["Sun,Sat *-*-* 02:00:00 Europe/Berlin"], "0 2 * * 0,6"),
        (
            "5 1,13 1 1-3 fri",
            ["*-01,02,03-01 01,13:05:00 Europe/Berlin", "Fri *-01,02,03-* 01,13:05:00 Europe/Berlin"],
            "5 1,13 1 1-3 FRI",
        ),
        ("0 0 */10 * 1", ["Mon *-*-01,11,21,31 00:00:00 Europe/Berlin"], "0 0 */10 * 1"),
    ],
)
def test_the_same_times_for_systemd_and_for_cron(cron: str, calendars: list[str], fields: str) -> None:
    found = times.parse(cron, BERLIN).moments()

    assert (list(found.calendars), found.cron) == (calendars, fields)


@pytest.mark.parametrize("cron", ["0 2 * * 1-5", "*/20 */6 * * *", "5 1,13 1 1-3 fri", "0 0 */10 * 1", "17 3 29 2 *"])
def test_systemd_itself_comes_to_the_same_times(cron: str) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd here")
    begin = moment("2026-11-02T12:00")
    parsed = times.parse(cron, BERLIN)
    base = datetime.fromtimestamp(begin, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    found = set[str]()
    for calendar in parsed.moments().calendars:
        said = subprocess.run(
            [analyze, "calendar", f"--base-time={base}", "--iterations=8", calendar],
            capture_output=True,
            text=True,
            check=True,
            env={"TZ": "UTC", "PATH": "/usr/bin:/bin"},
        ).stdout
        found |= set(re.findall(r"(?:elapse|Iter\. #\d+): \w+ (\S+ \S+) UTC", said))

    wanted = [datetime.fromtimestamp(one, UTC).strftime("%Y-%m-%d %H:%M:%S") for one in islice(parsed.after(begin), 4)]
    assert wanted == sorted(found)[: len(wanted)]


def test_apscheduler_takes_the_times_from_here() -> None:
    trigger = trigger_of(times.parse("30 2 * * 1-5", BERLIN))
    now = datetime.fromtimestamp(moment("2026-11-27T12:00"), UTC)

    first = trigger.get_next_fire_time(None, now)
    second = trigger.get_next_fire_time(first, now)

    assert [one.strftime("%a %H:%M") for one in (first, second)] == ["Mon 01:30", "Tue 01:30"]
