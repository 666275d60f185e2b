"""Schedules with real runs: fired, gated, told, killed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.e2e.cli import Home, kill, wait_for
from tests.e2e.scenario import benchmark, serve, write_config

pytestmark = pytest.mark.e2e

SMALL = ("--", "run", "evaluation.tasks=[hellaswag_100]", "evaluation.limit=2", "execution.output_dir=results")


@pytest.fixture
def inbox() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A web hook: its Apprise address and what it was sent."""
    got: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"json://127.0.0.1:{server.server_port}/", got
    server.shutdown()
    server.server_close()


def history(home: Home) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(home.run("schedule", "history", "--json").stdout)["history"]
    return found


def fire(home: Home) -> tuple[int, str]:
    """The schedule's timer calls: the time that it means is now."""
    done = home.run("schedule", "fire", "nightly", "--due", datetime.now().astimezone().isoformat())
    return done.returncode, done.stdout + done.stderr


def test_a_real_run_is_fired_becomes_the_baseline_and_the_next_is_a_no_go_that_somebody_is_told_of(
    home: Home, inbox: tuple[str, list[dict[str, Any]]]
) -> None:
    address, got = inbox
    (home.folder / "policy.yaml").write_text("default:\n  min_value: 1.01\n")  # which no accuracy reaches
    (home.folder / "keys.env").write_text(f"HOOK={address}\n")
    (home.folder / "keys.env").chmod(0o600)
    options = ("--gate", "policy.yaml", "--notify", "HOOK", "--env-file", "keys.env", "--via", "serve")
    added = home.run("schedule", "add", "nightly", "--cron", "0 2 * * *", *options, *SMALL)
    assert added.returncode == 0, added.stderr

    first, second = fire(home), fire(home)

    assert (first[0], second[0]) == (0, 12), first[1] + second[1]
    lines = history(home)
    assert [(line["outcome"], line["verdict"], line["exit_code"]) for line in lines] == [
        ("scored", "first", 0),
        ("scored", "NO-GO", 0),
    ]
    assert lines[1]["baseline"] == lines[0]["invocation"]
    assert all(line["due"] <= line["started"] <= line["ended"] for line in lines)
    (message,) = got
    assert message["title"] == "nv-eval schedule nightly" and "gate: NO-GO against" in message["message"]
    assert home.run("results", lines[1]["invocation"]).returncode == 0


def test_a_fire_that_is_killed_is_told_by_the_next_and_can_be_resumed(home: Home) -> None:
    write_config(home, [benchmark("a", seconds=3)], serve("--workers"))
    run = ("--", "run", "--config-dir", ".", "--config-name", "config")
    assert home.run("schedule", "add", "nightly", "--cron", "0 2 * * *", "--via", "serve", *run).returncode == 0
    process = home.start("schedule", "run-now", "nightly")
    wait_for(lambda: list(home.results.glob("*/a/job.log")), "the job begins", timeout=60)

    overlapping = fire(home)
    kill(process)
    process.communicate()
    (killed, skipped) = history(home)

    assert overlapping[0] == 0 and "is still running" in overlapping[1]
    assert (killed["outcome"], skipped["outcome"]) == ("killed", "skipped overlap")
    assert killed["detail"] == f"go on with it: nv-eval resume {killed['invocation']}"
    assert home.run("resume", killed["invocation"]).returncode == 0
    assert fire(home)[0] == 0
    assert [line["outcome"] for line in history(home)] == ["scored", "skipped overlap", "scored"]


def test_a_sweep_can_stand_in_a_schedule_and_is_resumed_as_one_after_a_kill(home: Home) -> None:
    write_config(home, [benchmark("a", seconds=2)], serve("--workers"))
    run = ("--", "run", "-m", "--config-dir", ".", "--config-name", "config", "evaluation.limit=1,2")
    added = home.run("schedule", "add", "nightly", "--cron", "0 2 * * *", "--via", "serve", *run)
    assert added.returncode == 0, added.stderr
    process = home.start("schedule", "run-now", "nightly")
    wait_for(lambda: list(home.results.glob("*/a/job.log")), "a point is evaluated", timeout=60)
    kill(process)
    process.communicate()

    (killed,) = history(home)
    resumed = home.run("resume", killed["invocation"])
    (line,) = history(home)

    assert killed["outcome"] == "killed" and killed["invocation"].startswith("s")
    assert (resumed.returncode, line["outcome"], line["exit_code"]) == (0, "scored", 0), resumed.stderr
    assert home.run("results", line["invocation"], "--format", "csv").stdout.count(",acc,") == 2
