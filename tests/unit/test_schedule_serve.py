"""`nv-eval schedule serve`: who is called, and what happens to what is called when it ends."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from launcher.schedule import serve
from launcher.schedule.model import Via
from launcher.schedule.store import Store
from tests.e2e.cli import wait_for
from tests.fakes.schedules import nightly

PROGRAM = """
import signal, sys, time
def end(*_):
    print("ended", sys.argv[2], file=open(sys.argv[1], "a"))
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("called", sys.argv[2], file=open(sys.argv[1], "a"), flush=True)
time.sleep(60 if sys.argv[2] == "long" else 0)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[serve.Server]:
    program = [sys.executable, "-c", PROGRAM, str(tmp_path / "calls")]
    (tmp_path / "calls").touch()
    made = serve.Server(program=program, store=lambda: Store(tmp_path / "schedules.db"), look=0.02)
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    made.stop()
    thread.join()


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def test_what_is_added_is_called_once_for_what_has_passed_and_then_at_its_times(
    server: serve.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apscheduler.triggers.date import DateTrigger

    monkeypatch.setattr(serve, "trigger_of", lambda _: DateTrigger(datetime.now(UTC), timezone=UTC))
    store = Store(tmp_path / "schedules.db")
    store.add(nightly(), 0.0)
    store.add(nightly(name="elsewhere", via=Via.CRONTAB), 0.0)

    wait_for(lambda: calls(tmp_path) == ["called nightly"] * 2, "it is called for what has passed, and at its time")


def test_what_still_runs_at_the_end_is_ended_in_order(tmp_path: Path, server: serve.Server) -> None:
    Store(tmp_path / "schedules.db").add(nightly(name="long"), 0.0)
    wait_for(lambda: calls(tmp_path) == ["called long"], "it is called")

    server.stop()

    wait_for(lambda: calls(tmp_path)[-1] == "ended long", "its run tears down")


def test_what_is_removed_is_called_no_more(tmp_path: Path, server: serve.Server) -> None:
    said: list[str] = []
    server.say = said.append
    store = Store(tmp_path / "schedules.db")
    store.add(nightly(), 0.0)
    wait_for(lambda: calls(tmp_path), "it is called")

    store.remove("nightly")

    wait_for(lambda: said[-1:] == ["nightly: is called no more"], "it is forgotten")
