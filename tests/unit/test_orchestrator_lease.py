"""A signal to the holder of a lease reaches that very process or nobody: pids are used again."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.cli import stop_command
from launcher.cli.main import main
from launcher.orchestrator.journal import Journal
from launcher.orchestrator.lease import Lease, process_start


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "300"]) as process:
        yield process
        process.kill()


@pytest.fixture(params=["pidfd", "no pidfd"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, flags: int = 0) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if request.param == "no pidfd":
        monkeypatch.setattr(os, "pidfd_open", refuse)


def lease_of(pid: int) -> Lease:
    return Lease(
        invocation="abc",
        owner="x",
        host=socket.gethostname(),
        pid=pid,
        pid_start=process_start(pid),
        taken=time.time(),
        beat=time.time(),
    )


@pytest.mark.usefixtures("kernel")
def test_the_holder_is_hit_and_a_later_process_with_its_pid_is_not(bystander: subprocess.Popen[bytes]) -> None:
    lease = lease_of(bystander.pid)
    ticks, _, boot = lease.pid_start.partition("@")
    forged = [
        replace(lease, pid_start=f"{int(ticks) - 1}@{boot}"),
        replace(lease, pid_start=f"{ticks}@00000000"),  # the same pid and ticks after a reboot
        replace(lease, pid_start=""),
        replace(lease, host="elsewhere"),
    ]
    assert [record.signal(signal.SIGKILL) for record in forged] == [False] * 4
    assert bystander.poll() is None
    assert lease.signal(signal.SIGTERM)
    assert bystander.wait(5) == -signal.SIGTERM
    assert not lease.signal(signal.SIGTERM)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("pid", [0, -1])
def test_a_pid_that_means_many_processes_is_no_holder(pid: int) -> None:
    assert not replace(lease_of(os.getpid()), pid=pid).signal(signal.SIGTERM)


def test_stop_does_not_touch_a_process_that_has_the_pid_of_a_launcher_that_is_gone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bystander: subprocess.Popen[bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NV_EVAL_HOME", str(tmp_path))
    journal = Journal.default()
    journal.begin("abc", execution="local", deployment="x", folder=str(tmp_path / "abc"), tasks=["a"])
    with sqlite3.connect(journal.path) as db:
        db.execute("UPDATE leases SET pid = ?, pid_start = '1@00000000'", (bystander.pid,))
    db.close()
    ended: list[str] = []
    monkeypatch.setattr(stop_command, "_end", lambda found: ended.append(found.id) or "nothing of it is left")

    assert main(["stop", "abc"]) == 0

    assert (ended, capsys.readouterr().out) == (["abc"], "abc: nothing of it is left\n")
    assert bystander.poll() is None
    journal.close()
