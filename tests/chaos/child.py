"""Processes that run the launcher and die when they are told to: forked from a warm one, so that they cost little."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import pkgutil
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import msgspec

from launcher import api
from launcher.cli import main as command_line
from launcher.plan.model import Plan
from tests.chaos.points import Act, Point, Watch

PATIENCE = 60.0
"""Seconds after which a child that does not end is a failure."""
UNDEFINED = 70
"""Exit code of a child that ended with a traceback."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What one child does: `arguments` of nv-eval or, with none, run `plan`. `knobs`: values for `module:name`."""

    home: Path
    invocation: str
    output: Path
    """File for what it prints; its trace lies beside it."""
    arguments: tuple[str, ...] = ()
    plan: bytes = b""
    environment: Mapping[str, str] = field(default_factory=dict)
    knobs: Mapping[str, Any] = field(default_factory=dict)
    awaited: Point | None = None
    act: Act = Act.KILL

    @property
    def trace(self) -> Path:
        """Where the points are written down."""
        return self.output.with_suffix(".points")


def start(assignment: Assignment) -> ForkServerProcess:
    """Start a child."""
    process = _context().Process(target=_main, args=(assignment,))
    with _LOCK:
        process.start()
    return process


def finish(process: ForkServerProcess) -> int:
    """The exit code of a child, negative for a signal. One that does not end is killed and fails the test."""
    has_ended = bool(wait([process.sentinel], PATIENCE))
    with _LOCK:
        if not has_ended:
            process.kill()
        process.join()
        code = process.exitcode
        process.close()
    assert has_ended, f"a child did not end within {PATIENCE:.0f} s"
    assert code is not None
    return code


_LOCK = threading.Lock()
"""multiprocessing looks at all children whenever it starts one: two threads would take each other's exit codes."""


def _context() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.chaos.warm"])
    return context


def _main(assignment: Assignment) -> None:
    os.chdir(assignment.home)
    os.environ.update(assignment.environment)
    with assignment.output.open("w", buffering=1) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        sys.stdout = sys.stderr = output
        faulthandler.enable(output)
        for name, value in assignment.knobs.items():
            module, _, path = name.partition(":")
            owner, _, attribute = path.rpartition(".")
            target = pkgutil.resolve_name(f"{module}:{owner}")
            assert hasattr(target, attribute), f"no {name}"
            setattr(target, attribute, value)
        folder = assignment.home / "results"
        trace, awaited = assignment.trace, assignment.awaited
        Watch(assignment.invocation, folder, trace, awaited, assignment.act).install()
        code = UNDEFINED
        with contextlib.suppress(SystemExit):
            try:
                code = _work(assignment)
            except Exception:
                traceback.print_exc()
        output.flush()
    os._exit(code)


def _work(assignment: Assignment) -> int:
    if assignment.arguments:
        return command_line.main(list(assignment.arguments))
    return api.run(msgspec.json.decode(assignment.plan, type=Plan), say=print).exit_code
