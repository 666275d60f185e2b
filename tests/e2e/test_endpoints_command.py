"""`nv-eval endpoints`: an endpoint for itself, from its start until nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import urllib.request
from itertools import takewhile
from typing import Any

import pytest

from launcher.orchestrator import endpoints
from launcher.orchestrator.endpoints import EndpointStatus
from launcher.orchestrator.journal import Journal
from tests.e2e.cli import Home, assert_nothing_left, processes_of, wait_for
from tests.e2e.scenario import benchmark, serve, write_config

pytestmark = pytest.mark.e2e
CONFIG = ("--config-dir", ".", "--config-name", "config")


def up(home: Home, *arguments: str) -> dict[str, Any]:
    """Start an endpoint; what `up --json` says of it."""
    done = home.run("endpoints", "up", "--json", *CONFIG, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "nv-eval.endpoints/1"
    (found,) = document["endpoints"]
    return dict(found)


def every(home: Home) -> dict[str, EndpointStatus]:
    """All endpoints that the journal knows, also those that are over."""
    return {status.id: status for status in endpoints.every(Journal(home.folder / "state" / "journal.db"))}


def alive(home: Home) -> list[str]:
    """Ids of those that `ls` shows."""
    return [status.id for status in every(home).values() if not status.is_over]


def printed(out: str, head: str) -> str:
    """What `up` prints below a line that begins with `head`, to be pasted."""
    after = out[out.index(head) :].splitlines()[1:]
    return textwrap.dedent("\n".join(takewhile(lambda line: line.startswith("  "), after)))


def completes(endpoint: dict[str, Any]) -> str:
    """What the model says, asked as `up` tells."""
    body = json.dumps({"model": endpoint["model"], "prompt": "Hello", "max_tokens": 4}).encode()
    request = urllib.request.Request(f"{endpoint['base_url']}/completions", body, {"Content-Type": "application/json"})
    return str(json.load(urllib.request.urlopen(request, timeout=10))["choices"][0]["text"])


def test_an_endpoint_is_started_called_listed_read_and_taken_down(home: Home) -> None:
    write_config(home, [benchmark("ignored")], serve())
    done = home.run("endpoints", "up", *CONFIG)
    assert done.returncode == 0, done.stderr
    (endpoint,) = json.loads(home.run("endpoints", "ls", "--json").stdout)["endpoints"]
    invocation, prefix = endpoint["id"], endpoint["id"][:5]

    assert f"{endpoint['base_url']}\n" in done.stdout
    asked = (
        ["bash", "-c", printed(done.stdout, "With curl:")],
        [sys.executable, "-c", printed(done.stdout, "With the")],
    )
    for command in asked:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert answer.stdout.strip()
    assert (endpoint["state"], endpoint["model"], endpoint["alive"]) == ("up", "fake", True)
    assert 4 * 3600 - 60 < endpoint["expires_in"] < 4 * 3600
    assert "listening on" in home.run("endpoints", "logs", prefix, "--lines", "5").stdout
    assert "up" in home.run("status", prefix).stdout
    assert "its launcher is alive" in home.run("gc", "-v", "execution=local").stdout

    for words, code, said in (
        (("endpoints", "scale", prefix, "--min", "1", "--max", "2"), 7, "neither be scaled nor counted"),
        (("resume", prefix), 3, "not resumed"),
    ):
        refused = home.run(*words)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (code, 1) and said in refused.stderr

    assert home.run("endpoints", "down", prefix).stdout == f"{invocation}: stopped\n"
    assert_nothing_left(invocation)
    assert (alive(home), every(home)[invocation].state) == ([], "down")
    assert home.run("endpoints", "down", prefix).stdout == f"{invocation}: had ended already\n"


def test_when_its_time_is_over_it_is_gone(home: Home) -> None:
    write_config(home, [], serve())
    endpoint = up(home, "--ttl", "8s")
    assert completes(endpoint)
    wait_for(lambda: every(home)[endpoint["id"]].state == "down", "its time is over", timeout=40)
    assert alive(home) == []
    assert_nothing_left(endpoint["id"])


def test_when_its_keeper_is_killed_the_server_ends_and_everybody_is_told(home: Home) -> None:
    write_config(home, [], serve())
    invocation = up(home)["id"]
    lease = Journal(home.folder / "state" / "journal.db").lease(invocation)
    assert lease is not None
    os.kill(lease.pid, signal.SIGKILL)
    assert_nothing_left(invocation)

    assert "keeper gone, server ended with it" in home.run("endpoints", "ls").stdout
    assert "resume" not in home.run("status", invocation).stdout
    done = home.run("endpoints", "down", invocation)
    assert (done.returncode, done.stdout) == (0, f"{invocation}: its launcher was gone; nothing of it is left\n")
    assert alive(home) == []


def test_a_server_that_dies_is_told_with_its_last_words_and_leaves_nothing(home: Home) -> None:
    write_config(home, [], serve("--fault", "die_loading", "--delay", "0.2"))
    done = home.run("endpoints", "up", *CONFIG)
    assert done.returncode == 4
    assert "out of memory: exited with code 3" in done.stderr and "endpoint | torch.OutOf" in done.stderr
    assert_nothing_left(str(home.folder))
    assert alive(home) == []


def test_a_config_that_cannot_run_here_is_refused_before_anything_begins(home: Home) -> None:
    write_config(home, [], serve(command=["/no/such/server"]))
    done = home.run("endpoints", "up", *CONFIG)
    assert (done.returncode, "/no/such/server" in done.stderr) == (3, True)
    assert alive(home) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_starts_takes_it_down(home: Home, number: signal.Signals) -> None:
    write_config(home, [], serve("--fault", "never_start", start_timeout=60))
    before = signal.signal(number, signal.SIG_DFL)  # tests that run under nohup would hand down that it is ignored
    process = home.start("endpoints", "up", *CONFIG)
    signal.signal(number, before)
    wait_for(lambda: any("openai_server" in line for line in processes_of(str(home.folder))), "the server runs")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in err) == (130, False), err
    assert ": stopped\n" in out
    assert_nothing_left(str(home.folder))


def test_without_waiting_it_comes_up_in_the_background(home: Home) -> None:
    write_config(home, [], serve())
    done = home.run("endpoints", "up", "--no-wait", *CONFIG)
    invocation = done.stdout.split()[0]
    assert "starting in the background" in done.stdout
    wait_for(lambda: every(home)[invocation].is_up, "it is up")
    assert home.run("stop", invocation).stdout == f"{invocation}: stopped\n"
    assert_nothing_left(invocation)
    assert (home.results / invocation / "endpoint" / "endpoint.log").is_file()
