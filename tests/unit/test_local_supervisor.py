"""A supervised command leaves nothing behind, however it or its launcher ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from launcher.platforms.local import ports
from launcher.platforms.local.logfiles import Follower
from launcher.platforms.local.supervised import Command, Mark, Supervised, age, owned_by, supervisors
from launcher.platforms.local.supervisor import LogFile, Process, Redactor, read_process

FAMILY = textwrap.dedent(
    """
    import os, signal, subprocess, sys, time
    if "--stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    worker = subprocess.Popen(["sleep", "300"])
    pids, told = os.pipe()
    if (middle := os.fork()) == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(told, str(os.getpid()).encode())
            os.closerange(0, 3)
            os.execve("/bin/sleep", ["sleep", "300"], {})  # a daemon that shed its environment too
        os._exit(0)
    os.waitpid(middle, 0)
    print("family", os.getpid(), worker.pid, int(os.read(pids, 20)), flush=True)
    if "--leave" in sys.argv:
        sys.exit(3)
    while True:
        time.sleep(300)
    """
)
"""A server with a worker and a daemon in a session of its own; prints their pids."""


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Alive, and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Starter:
    """Starts supervised commands in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "it's a log.txt"
        self.mark = Mark(invocation=uuid4().hex[:12], name="server-1", kind="endpoint")
        self.started: list[Supervised] = []

    def command(self, *argv: str, grace: float = 5.0, secrets: tuple[str, ...] = (), **env: str) -> Command:
        path = {"PATH": os.environ["PATH"]}
        return Command(argv=argv, env=path | env, cwd=self.folder, log=self.log, grace=grace, secrets=secrets)

    def start(self, *argv: str, reservation: ports.Reservation | None = None, **settings: object) -> Supervised:
        command = self.command(*argv, **settings)  # type: ignore[arg-type]
        self.started.append(Supervised(self.mark, command, reservation))
        return self.started[-1]

    def python(self, code: str, *argv: str, **settings: object) -> Supervised:
        return self.start(sys.executable, "-c", textwrap.dedent(code), *argv, **settings)

    def family(self) -> list[int]:
        """Pids that FAMILY printed, once it has."""
        until(lambda: self.log.exists() and b"family" in self.log.read_bytes())
        return [int(word) for word in self.log.read_text().split()[1:4]]


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[Starter]:
    starter = Starter(tmp_path)
    yield starter
    for unit in starter.started:
        unit.kill()
        until(lambda unit=unit: unit.is_over)


def end_of(unit: Supervised) -> tuple[int | None, str]:
    until(lambda: unit.is_over)
    ending = unit.look()
    assert ending is not None
    return ending.exit_code, ending.detail


def test_an_exit_code_and_all_output_come_home(starter: Starter) -> None:
    unit = starter.python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)")
    assert end_of(unit) == (7, "exited with code 7")
    assert sorted(starter.log.read_text().split()) == ["err", "out"]


def test_a_crash_is_told_by_its_signal(starter: Starter) -> None:
    unit = starter.python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert end_of(unit) == (-signal.SIGSEGV, "killed by SIGSEGV")


def test_a_program_that_does_not_exist_is_named(starter: Starter) -> None:
    code, detail = end_of(starter.start("no-such-program", "--flag"))
    assert code is None
    assert detail == "cannot execute no-such-program: No such file or directory"


def test_the_exit_record_is_a_file_beside_the_log(starter: Starter) -> None:
    end_of(starter.python("raise SystemExit(4)"))
    record = json.loads((starter.folder / "it's a log.exit.json").read_text())
    assert (record["exit_code"], record["why"]) == (4, "exited")
    assert record["started"] <= record["ended"] <= time.time()


def test_a_polite_stop_ends_worker_and_daemon(starter: Starter) -> None:
    unit = starter.python(FAMILY)
    family = starter.family()
    assert all(map(is_running, family))
    unit.stop()
    assert end_of(unit) == (-signal.SIGTERM, "killed by SIGTERM")
    assert not any(map(is_running, family))


def test_what_ignores_the_polite_request_is_killed_after_the_grace_time(starter: Starter) -> None:
    unit = starter.python(FAMILY, "--stubborn", grace=0.3)
    family = starter.family()
    unit.stop()
    asked = time.monotonic()
    assert end_of(unit)[0] == -signal.SIGKILL
    assert 0.3 <= time.monotonic() - asked < 30
    assert not any(map(is_running, family))


def test_everything_below_has_the_grace_time_even_when_the_command_ends_first(starter: Starter) -> None:
    unit = starter.python(
        """
        import subprocess, sys, time
        code = "import signal, time\\ndef end(*_):\\n time.sleep(0.3); print('saved', flush=True); raise SystemExit\\n"
        code += "signal.signal(signal.SIGTERM, end); print('ready', flush=True); time.sleep(300)"
        subprocess.Popen([sys.executable, "-c", code])
        time.sleep(300)
        """,
        grace=20,
    )
    until(lambda: starter.log.exists() and "ready" in starter.log.read_text())
    unit.stop()
    end_of(unit)
    assert "saved" in starter.log.read_text()


def test_a_command_that_exits_takes_worker_and_daemon_with_it(starter: Starter) -> None:
    unit = starter.python(FAMILY, "--leave")
    family = starter.family()
    assert end_of(unit) == (3, "exited with code 3")
    assert not any(map(is_running, family))


def test_sigterm_to_the_supervisor_is_a_polite_stop(starter: Starter) -> None:
    unit = starter.python(FAMILY)
    family = starter.family()
    os.kill(int(unit.id.removeprefix("pid:")), signal.SIGTERM)
    assert end_of(unit)[0] == -signal.SIGTERM
    assert not any(map(is_running, family))


def test_the_terminals_interrupt_does_not_reach_a_server(starter: Starter) -> None:
    unit = starter.python(FAMILY)
    family = starter.family()
    supervisor = int(unit.id.removeprefix("pid:"))
    os.kill(supervisor, signal.SIGINT)
    os.kill(supervisor, signal.SIGHUP)
    assert {os.getsid(pid) for pid in (supervisor, *family)}.isdisjoint({os.getsid(0)})
    unit.stop()
    assert end_of(unit)[0] == -signal.SIGTERM


def test_a_killed_supervisor_does_not_save_what_it_started(starter: Starter) -> None:
    unit = starter.python("import subprocess, time; subprocess.Popen(['sleep', '300']); print('up'); time.sleep(300)")
    until(lambda: len(list(owned_by(starter.mark.owner))) == 2)
    os.kill(int(unit.id.removeprefix("pid:")), signal.SIGKILL)
    assert end_of(unit) == (None, "its supervisor was killed")
    assert list(owned_by(starter.mark.owner)) == []


LAUNCHER = textwrap.dedent(
    """
    import json, sys, time
    from pathlib import Path
    from launcher.platforms.local.supervised import Command, Mark, Supervised
    request = json.loads(sys.stdin.readline())
    units = []
    for number in range(request["count"]):
        folder = Path(request["folder"])
        command = Command(argv=tuple(request["argv"]), env=request["env"], cwd=folder,
                          log=folder / f"{number}.log", grace=60)
        units.append(Supervised(Mark(invocation=request["invocation"], name=f"s{number}", kind="endpoint"), command))
    print("started", flush=True)
    time.sleep(300)
    """
)


@pytest.mark.parametrize("count", [1, 12])
def test_kill_9_of_the_launcher_leaves_nothing_after_two_seconds(tmp_path: Path, count: int) -> None:
    invocation = uuid4().hex[:12]
    argv = [sys.executable, "-S", "-c", FAMILY, "--stubborn"] if count == 1 else ["sh", "-c", STUBBORN]
    env = {"PATH": os.environ["PATH"]}
    request = {"count": count, "folder": str(tmp_path), "argv": argv, "env": env, "invocation": invocation}
    with subprocess.Popen([sys.executable, "-c", LAUNCHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdin is not None
        launcher.stdin.write(json.dumps(request).encode() + b"\n")
        launcher.stdin.flush()
        logs = [tmp_path / f"{number}.log" for number in range(count)]
        until(lambda: all(log.exists() and "family" in log.read_text() for log in logs), 20)
        family = [int(word) for log in logs for word in log.read_text().split()[1:4]]
        assert len(family) >= 2 * count
        assert all(map(is_running, family))
        os.kill(launcher.pid, signal.SIGKILL)
    until(lambda: not any(map(is_running, family)), 2)
    until(lambda: not [mark for mark, _ in supervisors() if mark.invocation == invocation], 1)
    assert json.loads((tmp_path / "0.exit.json").read_text())["why"] == "launcher_died"


STUBBORN = "trap '' TERM HUP INT; setsid sleep 300 & echo family $$ $!; while :; do sleep 300; done"


def test_secrets_never_reach_the_log_however_they_are_cut(starter: Starter) -> None:
    unit = starter.python(
        """
        import os, sys, time
        for part in ("key=canary-", "1234", "-tail\\n", "canary-1235 stays\\n", "canary-1234canary-12"):
            os.write(1, part.encode())
            time.sleep(0.02)
        """,
        secrets=("canary-1234",),
    )
    end_of(unit)
    assert starter.log.read_text() == "key=***-tail\ncanary-1235 stays\n***canary-12"


def test_a_long_log_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    log, follower = LogFile(str(path), limit=10_000, end=1_000), Follower(path)
    followed, largest = b"", 0
    for number in range(5_000):
        log.write(f"line {number}\n".encode())
        followed += follower.read()
        largest = max(largest, path.stat().st_size)
    os.close(log.fd)
    lines = path.read_text().splitlines()
    assert largest <= 10_000
    assert lines[:2] == ["line 0", "line 1"]
    assert lines[-60:] == [f"line {number}" for number in range(4_940, 5_000)]
    notes = [line for line in lines if "left out" in line]
    written = len("".join(f"line {number}\n" for number in range(5_000)))
    assert notes == [f"[... {written - path.stat().st_size + len(notes[0]) + 2} bytes left out ...]"]
    assert set(followed.split(b"\n")) >= {f"line {number}".encode() for number in range(5_000)}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_redaction_is_the_same_for_every_size_of_chunk(size: int) -> None:
    text = b"a topsecret b topsecre c secrets topsecrets topsectopsecret topsecret-long end topsecret-lon"
    redactor = Redactor([b"topsecret", b"secrets", b"topsecret-long"])
    shown = b"".join(redactor.feed(text[at : at + size]) for at in range(0, len(text), size)) + redactor.flush()
    assert shown == b"a *** b topsecre c *** ***s topsec*** *** end ***-lon"


def test_output_shows_at_once_unless_it_may_begin_a_secret() -> None:
    redactor = Redactor([b"hidden"])
    assert redactor.feed(b"ready hid") == b"ready "
    assert redactor.feed(b"e and seek") == b"hide and seek"


def test_a_reused_pid_is_never_hit() -> None:
    with subprocess.Popen(["sleep", "300"]) as bystander:
        now = read_process(bystander.pid)
        assert now is not None
        Process(now.pid, now.parent, start="1").signal(signal.SIGKILL)
        assert bystander.poll() is None
        now.signal(signal.SIGKILL)
        assert bystander.wait(5) == -signal.SIGKILL


def test_a_running_supervisor_is_found_by_its_mark_and_shows_no_secret(starter: Starter) -> None:
    unit = starter.python("import time; time.sleep(300)", secrets=("canary-1234",), API_KEY="canary-1234")
    pid = int(unit.id.removeprefix("pid:"))
    until(lambda: (starter.mark, pid) in set(supervisors()))
    until(lambda: len(list(owned_by(starter.mark.owner))) == 1)
    assert b"canary" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()
    seconds = age(pid)
    assert seconds is not None
    assert 0 <= seconds < 60


def test_what_has_just_been_started_can_be_killed_at_once(starter: Starter) -> None:
    for _ in range(5):
        unit = starter.start("sleep", "300")
        unit.kill()
        assert end_of(unit) == (-signal.SIGKILL, "killed by SIGKILL")


def test_what_has_just_been_started_is_found_at_once(starter: Starter) -> None:
    for _ in range(10):
        unit = starter.start("sleep", "300")
        assert unit.id in {f"pid:{pid}" for mark, pid in supervisors() if mark == starter.mark}


def test_a_supervisor_that_ends_at_once_is_a_failure_and_not_waited_for(
    starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    unit = starter.start("sleep", "300")
    assert end_of(unit) == (None, "its supervisor was killed")


def test_a_server_that_cannot_share_its_port_is_started_again_without_the_reservation(starter: Starter) -> None:
    with ports.reserve() as reservation:
        unit = starter.python(
            f"""
            import socket, time
            server = socket.socket()
            server.bind(("127.0.0.1", {reservation.port}))
            server.listen()
            print("listening", flush=True)
            time.sleep(300)
            """,
            reservation=reservation,
        )
    until(lambda: starter.log.exists() and "listening" in starter.log.read_text())
    assert unit.look() is None


def test_a_port_that_somebody_else_has_is_an_ordinary_failure(starter: Starter) -> None:
    unit = starter.python("raise OSError(98, 'Address already in use')")
    assert end_of(unit) == (1, "exited with code 1")
    assert starter.log.read_text().count("Traceback") == 1
