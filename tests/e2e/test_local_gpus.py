"""Two launchers on one machine: they never put two servers on one GPU, and neither keeps the other from ending."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cli import Home, kill, wait_for
from tests.e2e.scenario import benchmark, serve, write_config

pytestmark = pytest.mark.e2e
RUN = ("run", "--config-dir", ".", "--config-name")


@pytest.fixture
def two(home: Home) -> Iterator[list[subprocess.Popen[str]]]:
    """Launchers started by a test; those that still run are ended."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def configure(home: Home, name: str, tasks: list[dict[str, Any]], gpus: list[int], each: int = 1) -> None:
    write_config(home, tasks, serve(gpus=each), execution={"gpus": gpus})
    (home.folder / "config.yaml").rename(home.folder / f"{name}.yaml")


def servers_per_gpu(home: Home) -> Counter[str]:
    """How many live servers see each GPU."""
    seen: Counter[str] = Counter()
    for entry in Path("/proc").iterdir():
        try:
            is_server = entry.name.isdigit() and b"tests.servers.openai_server" in (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes().split(b"\0") if is_server else []
        except OSError:
            continue
        if f"HOME={home.folder}".encode() in environment:
            visible = [text for text in environment if text.startswith(b"CUDA_VISIBLE_DEVICES=")]
            seen.update(visible[0].decode().partition("=")[2].split(",") if visible else [])
    return seen


def evaluating(home: Home) -> str | None:
    """The invocation whose job runs."""
    for log in home.results.glob("*/*/job.log"):
        if "evaluating" in log.read_text():
            return log.parent.parent.name
    return None


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """The first line of standard error with these words."""
    assert process.stderr is not None
    return next(line for line in process.stderr if words in line)


def test_two_runs_share_two_gpus_and_no_gpu_has_two_servers(home: Home, two: list[subprocess.Popen[str]]) -> None:
    configure(home, "first", [benchmark("a", seconds=1.5), benchmark("b", seconds=1.5)], [0, 1])
    configure(home, "second", [benchmark("c", seconds=1.0), benchmark("d", seconds=1.0)], [1, 0])
    two += [home.start(*RUN, name) for name in ("first", "second")]
    most: Counter[str] = Counter()

    def have_ended() -> bool:
        nonlocal most
        most |= servers_per_gpu(home)
        return all(process.poll() is not None for process in two)

    wait_for(have_ended, "both runs end", timeout=60)
    assert [process.returncode for process in two] == [0, 0]
    assert most == {"0": 1, "1": 1}


def test_a_run_takes_the_gpu_that_another_leaves_free(home: Home, two: list[subprocess.Popen[str]]) -> None:
    configure(home, "first", [benchmark("a", seconds=60)], [0, 1])
    configure(home, "second", [benchmark("b"), benchmark("c")], [0, 1])
    two.append(home.start(*RUN, "first"))
    wait_for(lambda: evaluating(home), "the first evaluates")
    assert home.run(*RUN, "second").returncode == 0
    assert two[0].poll() is None
    kill(two[0], signal.SIGINT)
    assert two[0].wait(timeout=20) == 130


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=["ended", "killed"])
def test_a_run_that_waits_goes_on_when_the_other_is_over(
    home: Home, two: list[subprocess.Popen[str]], end: signal.Signals
) -> None:
    configure(home, "first", [benchmark("a", seconds=60)], [0])
    configure(home, "second", [benchmark("b")], [0])
    two.append(home.start(*RUN, "first"))
    first = wait_for(lambda: evaluating(home), "the first evaluates")
    two.append(home.start(*RUN, "second"))
    said = read_until(two[1], "Waiting")
    assert f"Waiting for 1 free GPU (Ctrl-C ends it): GPU 0 by invocation {first} of " in said
    assert servers_per_gpu(home) == {"0": 1}

    kill(two[0], end)

    _, err = two[1].communicate(timeout=30)
    assert two[1].returncode == 0, err
    assert "Waiting" not in err


def test_ctrl_c_ends_the_waiting(home: Home, two: list[subprocess.Popen[str]]) -> None:
    configure(home, "first", [benchmark("a", seconds=60)], [0])
    configure(home, "second", [benchmark("b")], [0])
    two.append(home.start(*RUN, "first"))
    wait_for(lambda: evaluating(home), "the first evaluates")
    two.append(home.start(*RUN, "second"))
    read_until(two[1], "Waiting")
    kill(two[1], signal.SIGINT)
    two[1].communicate(timeout=10)
    assert two[1].returncode == 130
    assert servers_per_gpu(home) == {"0": 1}
