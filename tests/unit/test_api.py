"""The Python API: from a script and from a notebook, whole runs with a real server and a real benchmark."""

from __future__ import annotations

import asyncio
import os
import pydoc
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher import LauncherError, Plan, load_config, plan, preflight, run
from launcher.errors import ConfigError, PreflightError
from launcher.orchestrator.state import TaskState
from launcher.platforms.base import CheckState
from tests.e2e.cli import Home
from tests.e2e.scenario import benchmark, serve, write_config
from tests.unit.conftest import Desk

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the plan of one short benchmark on a small server."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def make(*overrides: str, **settings: Any) -> Plan:
        write_config(Home(desk.cwd), [benchmark("one", **settings)], serve())
        return plan(load_config("config", config_dir=".", overrides=overrides))

    return make


def test_it_runs_inside_a_running_loop_as_in_a_notebook(config: Any) -> None:
    async def cell() -> tuple[list[CheckState], int]:
        made = config()
        return [check.state for check in preflight(made)], run(made).exit_code

    checks, exit_code = asyncio.run(cell())

    assert set(checks) == {CheckState.OK}
    assert exit_code == 0


def test_ctrl_c_in_a_notebook_ends_the_run_cleanly_and_gives_its_handler_back(config: Any) -> None:
    threads = set()

    def watcher(tasks: list[TaskState], now: float) -> None:
        if tasks[0].evaluating_at is not None and not threads:
            threads.add(threading.current_thread())
            os.kill(os.getpid(), signal.SIGINT)

    async def cell() -> launcher.RunResult:
        before = signal.getsignal(signal.SIGINT)
        done = run(config(seconds=60), watcher=watcher)
        assert signal.getsignal(signal.SIGINT) is before
        return done

    done = asyncio.run(cell())

    assert threads.isdisjoint({threading.main_thread()})
    assert [(task.status, task.reason) for task in done.record.tasks] == [("stopped", "stopped")]
    assert done.exit_code == 130


def test_an_error_comes_out_of_a_notebook_s_run_as_it_is(config: Any) -> None:
    async def cell() -> None:
        run(config("execution.output_dir=/proc/x"))

    with pytest.raises(PreflightError, match="belongs to the kernel"):
        asyncio.run(cell())


def test_a_plan_runs_once(config: Any) -> None:
    made = config()
    assert run(made).exit_code == 0

    with pytest.raises(LauncherError, match=rf"invocation {made.invocation} has run already; make a new plan"):
        run(made)


def test_a_results_folder_that_cannot_be_made_is_a_plan_that_cannot_run_here(config: Any, desk: Desk) -> None:
    made = replace(config(), invocation="x" * 300)  # no check sees that: the name is too long

    with pytest.raises(PreflightError, match=r"cannot write results: File name too long; set execution\.output_dir"):
        run(made)


def test_an_override_that_is_wrong_is_not_blamed_on_a_command_line(desk: Desk) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("default", overrides=["evaluation.limitt=5"])

    assert caught.value.problems[0].startswith("override: evaluation.limitt: ")


def test_help_and_dir_list_the_functions() -> None:
    text = pydoc.plain(pydoc.render_doc(launcher))

    for name in ("load_config", "plan", "preflight", "record", "results", "run", "status"):
        assert name in dir(launcher)
        assert re.search(rf"^    {name}\(", text, re.MULTILINE), name


def test_help_and_dir_cost_no_import_before_they_are_asked() -> None:
    code = "import sys, launcher; dir(launcher); sys.exit('hydra' in sys.modules or 'launcher.api' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_documented_example_runs(desk: Desk, config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    config()
    (desk.cwd / "config.yaml").rename(desk.cwd / "mine.yaml")
    example = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL)
    assert example is not None

    exec(compile(example.group(1), "docs/api.md", "exec"), {})

    said = capsys.readouterr().out
    assert f"0 {desk.cwd}/results/" in said
    assert "one scored completed" in said
    assert re.search(r"one +acc +0\.5", said)
