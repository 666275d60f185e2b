"""Debian's cron and systemd themselves take what `nv-eval schedule` and `nv-eval gc` write."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.orchestrator.timer import Entry, Systemd
from launcher.schedule import places, times
from launcher.schedule.model import Via
from tests.e2e.cli import Home
from tests.e2e.conftest import home as home  # noqa: PLC0414  # a fixture
from tests.fakes.schedules import nightly
from tests.fakes.timers import as_cron_reads, as_systemd_reads, run_like_a_timer

pytestmark = pytest.mark.engine
PACKAGES = {"crontab": "cron", "systemd-analyze": "systemd"}


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    """The programs, installed where they are missing."""
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if missing:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        subprocess.run(install, check=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


@pytest.fixture
def table() -> Iterator[None]:
    """Puts the user's crontab back as it was."""
    before = subprocess.run(["crontab", "-l"], capture_output=True, check=False)
    yield
    if before.returncode == 0:
        subprocess.run(["crontab", "-"], input=before.stdout, check=True)
    else:
        subprocess.run(["crontab", "-r"], check=False, capture_output=True)


def crontab() -> str:
    return subprocess.run(["crontab", "-l"], capture_output=True, text=True, check=False).stdout


@pytest.mark.usefixtures("table")
def test_a_real_crontab_takes_the_entry_and_gives_it_back(home: Home) -> None:
    before = crontab()
    add = ("schedule", "add", "nightly", "--cron", "0 2 * * 1-5", "--via", "crontab", "--yes")

    added = home.run(*add, "--", "run", "evaluation.limit=2")
    (line,) = [line for line in crontab().splitlines() if line.endswith("# nv-eval-schedule-nightly")]
    (home.folder / "table").write_text(crontab())
    usage = subprocess.run(["crontab", "-h"], capture_output=True, text=True, check=False).stderr
    dry_run = ["crontab", "-T" if "-T" in usage else "-n", str(home.folder / "table")]  # cronie's and Debian's
    checked = subprocess.run(dry_run, capture_output=True, text=True, check=False)
    log = run_like_a_timer(as_cron_reads(line), home.folder / "state/schedule-nightly.log")
    removed = home.run("schedule", "rm", "nightly")

    assert (added.returncode, removed.returncode, checked.returncode) == (0, 0, 0), added.stderr + checked.stderr
    assert "nightly: nothing is due" in log
    assert crontab() == before


def test_a_real_crontab_refuses_what_is_no_entry(tmp_path: Path) -> None:
    """Or its word for the entry above would be worth nothing."""
    (tmp_path / "table").write_text("0 26 * * 1-5 true\n")

    assert subprocess.run(["crontab", tmp_path / "table"], capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("cron", ["0 2 * * 1-5", "*/15 9-17 1,15 * fri", "5 4 * 1-3 *"])
def test_systemd_finds_no_fault_with_the_units_of_a_schedule(cron: str, tmp_path: Path) -> None:
    entry = places.entry(nightly(cron=cron), ["/bin/true", "100%", "$x"], {"A": "b c"}, str(tmp_path))
    timer = places.timer(Via.SYSTEMD, "nightly")
    assert isinstance(timer, Systemd)
    for path, content in timer._units(entry).items():
        (tmp_path / path.name).write_text(content)

    verify = ["systemd-analyze", "--user", "verify", "--man=no", str(tmp_path / "nv-eval-schedule-nightly.timer")]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(verify, env=env, capture_output=True, text=True, check=False)

    assert [line for line in done.stderr.splitlines() if "nv-eval" in line] == []
    for calendar in times.parse(cron, "Europe/Berlin").moments().calendars:
        subprocess.run(["systemd-analyze", "calendar", calendar], check=True, capture_output=True)
    service = (tmp_path / "nv-eval-schedule-nightly.service").read_text()
    assert run_like_a_timer(as_systemd_reads(service), entry.log).count("\n") == 1, "it says when, and true nothing"


def test_systemd_finds_fault_with_a_unit_that_has_one(tmp_path: Path) -> None:
    moments = times.Moments(cron="* * * * *", calendars=("Funday *-*-* 02:00:00 Europe/Berlin",))
    entry = Entry(argv=["/bin/true"], log=tmp_path / "log", moments=moments)
    for path, content in Systemd("nv-eval-x")._units(entry).items():
        (tmp_path / path.name).write_text(content)

    verify = ["systemd-analyze", "--user", "verify", "--man=no", str(tmp_path / "nv-eval-x.timer")]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(verify, env=env, capture_output=True, text=True, check=False)

    assert any("nv-eval-x" in line for line in done.stderr.splitlines())
