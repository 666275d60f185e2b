"""Runs in the background: handed over, watched from elsewhere, ended, taken up again."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.cli import Home, assert_nothing_left, processes_of, wait_for
from tests.e2e.scenario import benchmark, by_key, serve, write_config

pytestmark = pytest.mark.e2e
CONFIG = ("--config-dir", ".", "--config-name", "config")


def detach(home: Home, *arguments: str) -> str:
    """Start a run in the background; returns its id."""
    done = home.run("run", "--detach", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(f"/proc/{found['pid']}").is_dir()
    return str(found["invocation"])


def phases(home: Home, invocation: str) -> set[str]:
    status = json.loads(home.run("status", invocation, "--json").stdout)
    return {task["reason"] or task["phase"] for task in status["invocations"][0]["tasks"]}


def in_a_terminal_that_is_closed(home: Home, *arguments: str) -> str:
    """Run `nv-eval` in a terminal of its own, read what it prints, and close the terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(home.folder)
        os.execve(sys.executable, [sys.executable, "-m", "launcher.cli.main", *arguments], home.env())
    text = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # nobody holds the other side any more
            break
        if not piece:
            break
        text += piece
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, text.decode()
    return text.decode()


def test_the_small_model_runs_on_when_its_terminal_is_gone_and_is_stopped_and_resumed(tmp_path: Path) -> None:
    home = Home(tmp_path)
    said = in_a_terminal_that_is_closed(home, "run", "--detach", "evaluation.limit=4")
    invocation = said.split()[0]
    assert processes_of(invocation)

    watching = home.start("attach", invocation)
    wait_for(lambda: "evaluating" in phases(home, invocation), "a task evaluates", timeout=60)
    watching.send_signal(signal.SIGINT)
    out, err = watching.communicate(timeout=10)
    assert watching.returncode == 130
    assert "waiting" in out and "it goes on" in err

    assert home.run("stop", invocation).stdout == f"{invocation}: stopped\n"
    assert_nothing_left(invocation)
    assert phases(home, invocation) <= {"stopped", "completed"}

    resumed = home.run("resume", invocation, timeout=180)
    assert resumed.returncode == 0, resumed.stderr
    assert "3 of 3 tasks scored" in resumed.stdout
    assert_nothing_left(invocation)
    assert "has all its scores" in home.run("resume", invocation).stdout


def test_attach_ends_with_the_run_and_with_its_exit_code(tmp_path: Path) -> None:
    home = Home(tmp_path)
    write_config(home, [benchmark("good", seconds=1), benchmark("bad", "fails")], serve())
    invocation = detach(home, *CONFIG)
    attached = home.run("attach", invocation)
    assert attached.returncode == 4
    assert "bad: harness failed" in attached.stdout and "1 of 2 tasks scored" in attached.stdout


def test_a_run_that_cannot_start_is_told_where_it_was_asked_for_and_leaves_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    write_config(home, [benchmark("good")], serve(command=["/no/such/server"]))
    done = home.run("run", "--detach", *CONFIG)
    assert done.returncode == 3
    assert "/no/such/server" in done.stderr and "Traceback" not in done.stderr
    assert_nothing_left(home.invocation())


def test_while_one_process_runs_it_another_cannot(tmp_path: Path) -> None:
    home = Home(tmp_path)
    write_config(home, [benchmark("long", seconds=60)], serve())
    invocation = detach(home, *CONFIG)
    refused = home.run("resume", invocation)
    assert refused.returncode == 10
    assert f"nv-eval attach {invocation}" in refused.stderr
    home.run("stop", invocation)
    assert_nothing_left(invocation)


def test_after_kill_9_status_says_so_and_resume_finishes_with_what_was_scored(tmp_path: Path) -> None:
    home = Home(tmp_path)
    write_config(home, [benchmark("short", seconds=0.1), benchmark("long", seconds=20)], serve())
    invocation = detach(home, *CONFIG)
    wait_for(lambda: "completed" in phases(home, invocation), "the short task is scored")
    before = (home.results / invocation / "short" / "scores.json").read_bytes()
    status = json.loads(home.run("status", invocation, "--json").stdout)["invocations"][0]
    os.kill(status["pid"], signal.SIGKILL)
    assert_nothing_left(invocation)
    assert "interrupted" in home.run("status", invocation).stdout

    done = home.run("resume", invocation, "--json", "evaluation.tasks.1.timeout=400")
    tasks = by_key(home.record(done.stdout))
    assert done.returncode == 0
    assert (home.results / invocation / "short" / "scores.json").read_bytes() == before
    assert [attempt["reason"] for attempt in tasks["long"]["attempts"]] == ["launcher_died"]
    assert (home.results / invocation / "long" / "attempts" / "1" / "endpoint.log").is_file()
    assert_nothing_left(invocation)


def test_what_would_mix_two_settings_is_refused_and_a_limit_may_change(tmp_path: Path) -> None:
    home = Home(tmp_path)
    write_config(home, [benchmark("one", "fails")], serve())
    assert home.run("run", *CONFIG).returncode == 4
    invocation = home.invocation()
    refused = home.run("resume", invocation, "deployment.model_id=other")
    assert refused.returncode == 2
    assert "deployment.model_id: fake -> other" in refused.stderr
    assert home.run("resume", invocation, "limits.max_duration=60", "execution.output_dir=elsewhere").returncode == 4
    assert (tmp_path / "elsewhere" / invocation / "results.json").is_file()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_tear_down_and_keep_what_is_scored(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # tests that run under nohup would hand down that it is ignored
    home = Home(tmp_path)
    write_config(home, [benchmark("short", seconds=0.1), benchmark("long", seconds=60)], serve())
    process = home.start("run", *CONFIG)
    signal.signal(number, before)
    invocation = home.invocation()
    wait_for((home.results / invocation / "short" / "scores.json").is_file, "the short task is scored")
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "1 of 2 tasks scored" in out
    assert_nothing_left(invocation)


def test_a_closed_standard_input_and_no_terminal_do_not_end_a_run(tmp_path: Path) -> None:
    home = Home(tmp_path)
    write_config(home, [benchmark("one", seconds=0.5)], serve())
    command = [sys.executable, "-m", "launcher.cli.main", "run", *CONFIG]
    closed = f"exec {' '.join(command)} <&- >/dev/null 2>&1"
    done = subprocess.run(["setsid", "sh", "-c", closed], cwd=home.folder, env=home.env(), timeout=60, check=False)
    assert done.returncode == 0


def test_two_launchers_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    home = Home(tmp_path)
    write_config(home, [benchmark("a", seconds=1), benchmark("b", seconds=2)], serve())
    first, second = home.start("run", "--json", *CONFIG), home.start("run", "--json", *CONFIG)
    records = [home.record(process.communicate(timeout=60)[0]) for process in (first, second)]
    assert [record["complete"] for record in records] == [True, True]
    assert records[0]["invocation"] != records[1]["invocation"]
    began = time.monotonic()
    for record in records:
        assert_nothing_left(record["invocation"])
    assert time.monotonic() - began < 4
