"""What a sweep of this machine shows of real processes: whose they are, whether their launcher lives, and their end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from launcher.config.execution import Local
from launcher.platforms.base import Leftover
from launcher.platforms.local import cgroups, sweeping
from launcher.platforms.local.launchers import Launcher
from launcher.platforms.local.platform import LocalPlatform
from launcher.platforms.local.supervised import Command, Kind, Mark, Supervised, owned_by


@pytest.fixture
def invocation() -> str:
    return uuid4().hex[:12]


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)


@pytest.fixture
def start(invocation: str, tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    units: list[Supervised] = []

    def begin(*argv: str, kind: Kind = "endpoint") -> Supervised:
        command = Command(
            argv=argv, env={"PATH": os.environ["PATH"]}, cwd=tmp_path, log=tmp_path / f"{len(units)}.log", grace=5.0
        )
        units.append(Supervised(Mark(invocation=invocation, name=f"n{len(units)}", kind=kind), command))
        return units[-1]

    yield begin
    for unit in units:
        unit.kill()
        until(lambda unit=unit: unit.is_over)


def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def swept(invocation: str) -> list[Leftover]:
    return asyncio.run(LocalPlatform(Local()).sweep(invocation))


def remove(left: Leftover) -> None:
    asyncio.run(LocalPlatform(Local()).remove(left))


def test_a_server_shows_with_its_live_launcher_and_an_emulators_does_not(
    start: Callable[..., Supervised], invocation: str
) -> None:
    start("sleep", "300")
    start("sleep", "300", kind="job")
    start("sleep", "300", kind="emulated")

    found = swept(invocation[:6])

    assert [(left.kind, left.name, left.said) for left in found] == [
        ("endpoint", "n0", "running"),
        ("job", "n1", "running"),
    ]
    assert all(left.launcher_alive and left.age is not None and left.owner for left in found)


def test_removing_is_polite_and_may_be_repeated(
    start: Callable[..., Supervised], invocation: str, tmp_path: Path
) -> None:
    unit = start("sh", "-c", "echo up; exec sleep 300")
    until(lambda: (tmp_path / "0.log").exists() and (tmp_path / "0.log").read_text())
    (left,) = swept(invocation)

    remove(left)
    until(lambda: unit.is_over)

    ending = unit.look()
    assert ending is not None and ending.exit_code == -signal.SIGTERM
    assert swept(invocation) == []
    remove(left)


ORPHANS = """
import os, sys, time
from pathlib import Path
from launcher.platforms.local.supervised import Command, Mark, Supervised
folder = Path(sys.argv[2])
command = Command(argv=("sh", "-c", sys.argv[3]), env={"PATH": os.environ["PATH"]},
                  cwd=folder, log=folder / "orphan.log", grace=5.0)
unit = Supervised(Mark(invocation=sys.argv[1], name="server", kind="endpoint"), command)
print(unit.id.removeprefix("pid:"), flush=True)
time.sleep(300)
"""


DAEMON = "setsid sh -c 'echo up; exec env -i sleep 300' & wait"
"""A command with a daemon that has a session of its own and no environment."""


def kill_launcher_and_supervisor(invocation: str, tmp_path: Path, command: str) -> None:
    argv = [sys.executable, "-c", ORPHANS, invocation, str(tmp_path), command]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as launcher:
        assert launcher.stdout is not None
        guard = int(launcher.stdout.readline())
        until(lambda: (tmp_path / "orphan.log").exists() and "up" in (tmp_path / "orphan.log").read_text())
        os.kill(launcher.pid, signal.SIGSTOP)  # so that it cannot clean up
        os.kill(guard, signal.SIGKILL)
        os.kill(launcher.pid, signal.SIGKILL)


def test_what_outlived_launcher_and_supervisor_is_found_by_its_environment(invocation: str, tmp_path: Path) -> None:
    kill_launcher_and_supervisor(invocation, tmp_path, "sleep 300 & echo up; wait")
    until(lambda: [left.launcher_alive for left in swept(invocation)] == [False])

    (left,) = swept(invocation)
    assert (left.kind, left.name, left.said) == ("endpoint", "server", "without its supervisor")
    remove(left)
    until(lambda: swept(invocation) == [])


@pytest.mark.skipif(cgroups.home() is None, reason="this user cannot make control groups here")
def test_what_has_shed_its_environment_too_is_found_by_its_control_group(
    start: Callable[..., Supervised], invocation: str, tmp_path: Path
) -> None:
    kill_launcher_and_supervisor(invocation, tmp_path, DAEMON)
    until(lambda: [left.said for left in swept(invocation)] == ["without its supervisor"])

    (left,) = swept(invocation)
    pid = int(left.id.split(":")[1])
    until(lambda: Path(f"/proc/{pid}/environ").read_bytes() == b"")
    remove(left)
    until(lambda: swept(invocation) == [])

    start("sleep", "300")  # the next start clears away what is empty
    assert [path.name.split("~")[2] for path in groups_of(invocation)] == ["n0"]


@pytest.mark.skipif(cgroups.home() is None, reason="this user cannot make control groups here")
def test_a_control_group_goes_with_what_it_was_made_for(start: Callable[..., Supervised], invocation: str) -> None:
    unit = start("sleep", "300")
    until(lambda: len(list(owned_by(unit.mark.owner))) == 1)
    assert len(groups_of(invocation)) == 1
    unit.stop()
    until(lambda: unit.is_over)
    assert groups_of(invocation) == []


def test_without_control_groups_everything_else_works(
    start: Callable[..., Supervised], invocation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "home", lambda: None)
    unit = start("sleep", "300")
    until(lambda: len(list(owned_by(unit.mark.owner))) == 1)
    assert [left.said for left in swept(invocation)] == ["running"]
    unit.stop()
    until(lambda: unit.is_over)


def groups_of(invocation: str) -> list[Path]:
    return list((cgroups.home() or Path("/nowhere")).glob(f"nv-eval~{invocation}~*"))


def test_a_pid_that_is_used_again_is_not_hit() -> None:
    with subprocess.Popen(["sleep", "300"]) as bystander:
        remove(Leftover(kind="job", name="x", invocation="y", id=f"pid:{bystander.pid}:1"))

        assert bystander.poll() is None
        bystander.kill()


def test_a_launcher_is_known_by_host_pid_and_start() -> None:
    own = Launcher.own()
    with subprocess.Popen(["true"]) as ended:
        until(lambda: Path(f"/proc/{ended.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
        start = Path(f"/proc/{ended.pid}/stat").read_text().rpartition(")")[2].split()[19]
        zombie = Launcher(host=socket.gethostname(), pid=ended.pid, start=start)
        assert zombie.is_alive is False

    assert Launcher.parse(str(own)) == own
    assert own.is_alive is True
    assert Launcher(host=own.host, pid=own.pid, start="1").is_alive is False
    assert Launcher(host="elsewhere", pid=own.pid, start=own.start).is_alive is None
    assert [Launcher.parse(text) for text in ("", "host", "host/x/1", "host/1/")] == [None] * 4


def test_processes_of_other_users_are_not_ours(
    start: Callable[..., Supervised], invocation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start("sleep", "300")
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)

    assert [left for left in sweeping.processes() if left.invocation == invocation] == []
