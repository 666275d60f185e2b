"""Limits on cost and GPU time, on real servers with faked GPUs; and messages about them to a real web hook."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.e2e.cli import Home, assert_nothing_left
from tests.e2e.scenario import benchmark, by_key, serve, write_config

pytestmark = pytest.mark.e2e
CONFIG = ("--config-dir", ".", "--config-name", "config")
PRICE = 3600.0
"""USD per GPU-hour: a dollar a second, so that a short run costs something."""


class Hook(ThreadingHTTPServer):
    """Keeps the messages that are posted to it."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def address(self) -> str:
        """Its address in Apprise's form, with a password."""
        return f"json://user:canary-password@127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.messages.append(f"{body['title']}: {body['message']}")
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def home_with(tmp_path: Path, seconds: tuple[float, ...], **sections: object) -> Home:
    home = Home(tmp_path)
    tasks = [benchmark(f"t{index}", seconds=length) for index, length in enumerate(seconds)]
    execution = {"usd_per_gpu_hour": PRICE, "gpus": list(range(len(seconds)))}
    write_config(home, tasks, serve(gpus=1), execution=execution, **sections)
    return home


def test_half_of_what_a_run_needs_ends_it_and_keeps_what_is_scored(tmp_path: Path, hook: Hook) -> None:
    home = home_with(tmp_path, (0.2, 60), limits={"max_cost_usd": 14}, notify={"url_names": ["HOOK"]})
    home.extra["HOOK"] = hook.address
    done = home.run("run", "--yes", "--json", *CONFIG)
    record = home.record(done.stdout)
    tasks = by_key(record)
    assert done.returncode == 9, done.stderr
    assert tasks["t0"]["status"] == "scored" and tasks["t1"]["reason"] == "limit_reached"
    spent = sum(task["usd"] for task in record["tasks"])
    assert 14 <= spent <= 14 + 2 * 4  # a tick of 0.1 s, and the time that two servers take to end
    assert_nothing_left(record["invocation"])
    events = [message.split(": ", 1)[1].split()[0] for message in hook.messages]
    assert events == ["Near", "Limit", "1"]
    assert "canary-password" not in done.stderr + done.stdout
    found = [path for path in tmp_path.rglob("*") if path.is_file() and b"canary-password" in path.read_bytes()]
    assert found == []


def test_a_worst_case_beyond_the_budget_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    home = home_with(tmp_path, (0.2,), limits={"max_cost_usd": 1, "max_gpu_hours": 0.001})
    for arguments in (("run",), ("run", "--detach"), ("run", "--dry-run")):
        done = home.run(*arguments, *CONFIG)
        assert done.returncode == 3, done.stderr
        text = done.stderr + done.stdout
        assert "limits.max_cost_usd: the worst case is" in text and "limits.max_gpu_hours" in text
    assert not home.results.exists()


def test_a_cost_limit_without_a_price_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path)
    write_config(home, [benchmark("one")], serve(gpus=1), limits={"max_cost_usd": 5})
    done = home.run("run", "--yes", *CONFIG)
    assert done.returncode == 3
    assert "no price is known" in done.stderr


@pytest.mark.parametrize(
    ("variable", "said"), [({}, "variable HOOK is not set"), ({"HOOK": "secret-text"}, "HOOK holds no address")]
)
def test_an_address_that_cannot_be_used_is_told_before_anything_is_made(
    tmp_path: Path, variable: dict[str, str], said: str
) -> None:
    home = Home(tmp_path, dict(variable))
    write_config(home, [benchmark("one")], serve(), notify={"url_names": ["HOOK"]})
    done = home.run("run", *CONFIG)
    assert done.returncode == 3
    assert said in done.stderr and "secret-text" not in done.stderr
    assert not home.results.exists()


def test_a_hook_that_does_not_answer_costs_a_line_and_no_score(tmp_path: Path) -> None:
    home = Home(tmp_path, {"HOOK": "json://127.0.0.1:9/"})
    write_config(home, [benchmark("one")], serve(), notify={"url_names": ["HOOK"]})
    done = home.run("run", *CONFIG)
    assert done.returncode == 0
    assert "could not be sent" in done.stderr
