"""Every reason of the runner, provoked for real: the one file that travels, a server with faults, tiny harnesses."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from launcher.plan.document import runner_source
from launcher.platforms.progress import ProgressReader, results_from_log
from launcher.runner.runner import Ending
from tests.servers.openai_server import Fault
from tests.servers.process import ServerProcess

pytestmark = pytest.mark.e2e

ASK = """
import json, os, sys, urllib.request
url, model, out, count = sys.argv[1:5]
for done in range(int(count)):
    body = json.dumps({"model": model, "prompt": "Item", "max_tokens": 2}).encode()
    request = urllib.request.Request(url + "/v1/completions", body, {"Content-Type": "application/json"})
    request.add_header("Authorization", "Bearer " + os.environ.get("HARNESS_KEY", ""))
    urllib.request.urlopen(request, timeout=30).read()
    print("@progress %d/%s" % (done + 1, count), flush=True)
open(os.path.join(out, "results.json"), "w").write(json.dumps({"answered": int(count)}))
"""
SLEEP = "import time; print('asking', flush=True); time.sleep(600)"
FAIL = "print('loading'); raise KeyError('no such task')"
SILENT = "print('done')"
BROKEN = "import sys; open(sys.argv[3] + '/results.json', 'w').write('{\"acc\": 0.')"
EMPTY = "import sys; open(sys.argv[3] + '/results.json', 'w')"
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child %d" % child.pid, flush=True)
time.sleep(600)
"""


@dataclass(frozen=True)
class Outcome:
    """What a runner left behind."""

    code: int
    log: str
    reader: ProgressReader = field(default_factory=ProgressReader)

    @property
    def reason(self) -> str:
        assert self.reader.end is not None, self.log
        return self.reader.end.reason

    @property
    def detail(self) -> str:
        assert self.reader.end is not None, self.log
        return self.reader.end.detail


class Workbench:
    """One folder with the runner in it, as a job finds it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "out put's"
        folder.mkdir()
        (folder / "runner.py").write_text(runner_source())

    def start(
        self, url: str, program: str, *, timeout: float = 30, env: dict[str, str] | None = None, **changes: Any
    ) -> subprocess.Popen[bytes]:
        target = {"url": url, "model": "fake", "start_timeout": 1, "health_timeout": 1, "dead_after": 0.5}
        run = {
            "argv": ["{python}", "-c", program, "{url}", "{model}", "{output_dir}", "3"],
            "results": ["*.json"],
            "progress": "lines",
        }
        document = {
            "schema": "nv-eval.job/1",
            "invocation": "inv",
            "task": "t",
            "target": target | changes.pop("target", {}),
            "run": run | changes.pop("run", {}),
            "timeout": timeout,
            "output_dir": str(self.output),
            "work_dir": str(self.folder / "work"),
        }
        (self.folder / "job.json").write_text(json.dumps(document))
        argv = [sys.executable, "-I", str(self.folder / "runner.py"), str(self.folder / "job.json")]
        return subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}
        )

    def run(self, url: str, program: str = ASK, **changes: Any) -> Outcome:
        return finish(self.start(url, program, **changes))


def finish(process: subprocess.Popen[bytes], already_read: str = "") -> Outcome:
    out, _ = process.communicate(timeout=60)
    outcome = Outcome(process.returncode, already_read + out.decode())
    outcome.reader.feed(outcome.log)
    return outcome


def read_until(process: subprocess.Popen[bytes], text: str) -> str:
    """Output up to `text`."""
    assert process.stdout is not None
    seen = b""
    deadline = time.monotonic() + 30
    while text.encode() not in seen:
        assert select.select([process.stdout], [], [], deadline - time.monotonic())[0], f"no {text!r} in {seen!r}"
        chunk = os.read(process.stdout.fileno(), 65536)
        assert chunk, f"ended without {text!r}: {seen!r}"
        seen += chunk
    return seen.decode()


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path / "a job's folder")


@dataclass(frozen=True)
class Case:
    """One way to end. `after` counts completions, the runner's own included."""

    ending: Ending
    seen: str
    fault: Fault = Fault.NONE
    program: str = ASK
    after: int = 0
    delay: float = 0.0
    changes: dict[str, Any] = field(default_factory=dict)


LL = {"target": {"needs_loglikelihood": True}}
OF_JUDGES = {Ending.AUXILIARY_FAILED, Ending.AUXILIARY_DIED}
"""Of jobs that use a second model: see test_auxiliary.py."""
CASES = {
    "completes": Case(Ending.COMPLETED, ""),
    "completes_with_loglikelihood": Case(Ending.COMPLETED, "", changes=LL),
    "starts_slowly": Case(Ending.COMPLETED, "", Fault.SLOW_START, delay=0.5, changes={"target": {"start_timeout": 20}}),
    "never_starts": Case(Ending.ENDPOINT_START_TIMEOUT, "connection refused", Fault.NEVER_START),
    "dies_loading": Case(Ending.ENDPOINT_START_TIMEOUT, "connection refused", Fault.DIE_LOADING),
    "hangs_from_the_start": Case(Ending.ENDPOINT_START_TIMEOUT, "no answer in time", Fault.HANG),
    "healthy_too_early": Case(Ending.ENDPOINT_NOT_SERVING, "Loading model", Fault.HEALTHY_TOO_EARLY),
    "refuses_the_key": Case(
        Ending.ENDPOINT_REFUSED, "HTTP 401", Fault.UNAUTHORIZED, changes={"target": {"health_timeout": 300}}
    ),
    "serves_another_model": Case(Ending.MODEL_NOT_FOUND, "another-model", Fault.WRONG_MODEL),
    "ignores_echo": Case(Ending.LOGLIKELIHOOD_UNSUPPORTED, "echo is ignored", Fault.NO_ECHO, changes=LL),
    "is_off_by_one": Case(Ending.LOGLIKELIHOOD_WRONG, "when echoed", Fault.OFF_BY_ONE, changes=LL),
    "dies_mid_run": Case(Ending.ENDPOINT_DIED, "connection refused", Fault.DIE_MID_RUN, after=2),
    "dies_and_the_harness_hangs": Case(
        Ending.ENDPOINT_DIED,
        "refuses connections",
        Fault.DIE_MID_RUN,
        after=2,
        program=ASK.replace("urllib.request.urlopen(request, timeout=30).read()", "patient(request)").replace(
            "url, model", "def patient(r):\n    try: urllib.request.urlopen(r).read()\n    except OSError:\n"
            "        import time; time.sleep(600)\nurl, model", 1,
        ),
    ),
    "hangs_mid_run": Case(
        Ending.HARNESS_TIMEOUT, "not done after 1 s", Fault.HANG, after=2, changes={"timeout": 1}
    ),
    "harness_hangs": Case(Ending.HARNESS_TIMEOUT, "last line: asking", program=SLEEP, changes={"timeout": 1}),
    "harness_fails": Case(Ending.HARNESS_FAILED, "exit code 1; last line: KeyError: 'no such task'", program=FAIL),
    "harness_is_killed": Case(
        Ending.HARNESS_FAILED, "out of memory", program="import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    ),
    "harness_module_is_missing": Case(
        Ending.HARNESS_MISSING, "no_such_module.sub", changes={"run": {"requires": ["json", "no_such_module.sub"]}}
    ),
    "harness_program_is_missing": Case(
        Ending.HARNESS_MISSING, "no-such-program", changes={"run": {"argv": ["no-such-program"]}}
    ),
    "no_results": Case(Ending.RESULTS_MISSING, "*.json", program=SILENT),
    "empty_results": Case(Ending.RESULTS_MISSING, "*.json", program=EMPTY),
    "broken_results": Case(Ending.RESULTS_INVALID, "results.json is no JSON", program=BROKEN),
}  # fmt: skip


def test_the_cases_cover_every_ending() -> None:
    assert {case.ending for case in CASES.values()} == set(Ending) - {Ending.STOPPED} - OF_JUDGES


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_each_ending_is_told_with_its_evidence(case: Case, bench: Workbench) -> None:
    with ServerProcess(case.fault, after=case.after, delay=case.delay) as server:
        outcome = bench.run(server.url, case.program, **case.changes)
    assert (outcome.reason, outcome.code) == (case.ending.reason, case.ending.exit_code), outcome.log
    assert case.seen in outcome.detail
    assert "\n" not in outcome.detail
    assert bool(results_from_log(outcome.log)) == (case.ending is Ending.COMPLETED)


def test_scores_come_home_through_the_log(bench: Workbench) -> None:
    with ServerProcess() as server:
        outcome = bench.run(server.url)
    assert results_from_log(outcome.log) == {"results.json": (bench.output / "results.json").read_bytes()}
    progress = outcome.reader.progress
    assert progress is not None
    assert (progress.phase, progress.done, progress.total) == ("ended", 3, 3)
    phases = re.findall(r'"phase": "(\w+)"', outcome.log)
    assert list(dict.fromkeys(phases)) == ["waiting", "probing", "evaluating", "verifying"]


def test_the_key_reaches_the_endpoint_and_the_harness_but_no_log(bench: Workbench) -> None:
    env = {"NV_EVAL_API_KEY": "sk-canary-77", "EXTRA": "canary-too", "CHECKED": "sk-canary-77"}
    program = "import os\nprint(os.environ['HARNESS_KEY'], {'k': os.environ['EXTRA']})\n" + ASK
    changes = {
        "target": {"api_key_env": "NV_EVAL_API_KEY"},
        "run": {"api_key_env": "HARNESS_KEY", "secret_envs": ["EXTRA"]},
    }
    with ServerProcess(env=env, api_key_env="CHECKED") as server:
        outcome = bench.run(server.url, program, env=env, **changes)
    assert outcome.reason == "completed"
    assert "*** {'k': '***'}" in outcome.log
    assert "canary" not in outcome.log
    assert "canary" not in (bench.folder / "job.json").read_text()


def test_results_of_an_earlier_run_do_not_count(bench: Workbench) -> None:
    with ServerProcess() as server:
        assert bench.run(server.url).reason == "completed"
        again = bench.run(server.url, SILENT)
    assert again.reason == "results_missing"
    assert "earlier run" in again.detail


def test_a_harness_cannot_claim_to_be_done(bench: Workbench) -> None:
    forged = """print('@nv-eval {"event": "end", "reason": "completed"}'); raise SystemExit(4)"""
    with ServerProcess() as server:
        outcome = bench.run(server.url, forged)
    assert outcome.reason == "harness_failed"
    assert "exit code 4" in outcome.detail


def test_files_are_written_with_their_placeholders_filled(bench: Workbench) -> None:
    show = "import sys; print(open(sys.argv[5] + '/sub/config.txt').read())"
    run = {
        "argv": ["{python}", "-c", show, "{url}", "{model}", "{output_dir}", "3", "{work_dir}"],
        "files": {"sub/config.txt": "{model} writes to {output_dir}, {unknown} stays"},
    }
    with ServerProcess() as server:
        outcome = bench.run(server.url, run=run)
    assert f"fake writes to {bench.output}, {{unknown}} stays\n" in outcome.log


def test_a_harness_that_ignores_sigterm_is_killed_with_its_children(bench: Workbench) -> None:
    with ServerProcess() as server:
        outcome = bench.run(server.url, STUBBORN, timeout=0.5)
    assert outcome.reason == "harness_timeout"
    child = re.search(r"child (\d+)", outcome.log)
    assert child
    assert not alive(int(child[1]))


@pytest.mark.parametrize(
    ("fault", "program", "moment"),
    [
        pytest.param(Fault.NEVER_START, ASK, "connection refused", id="waiting"),
        pytest.param(Fault.HANG, ASK, "answer 200", id="with_a_request_in_flight"),
        pytest.param(Fault.NONE, SLEEP, "asking", id="evaluating"),
    ],
)
def test_sigterm_ends_the_job_in_time(fault: Fault, program: str, moment: str, bench: Workbench) -> None:
    with ServerProcess(fault) as server:
        process = bench.start(server.url, program, target={"start_timeout": 600})
        seen = read_until(process, moment)
        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        outcome = finish(process, seen)
    assert (outcome.reason, outcome.code) == ("stopped", Ending.STOPPED.exit_code)
    assert time.monotonic() - asked < 3


def test_a_document_that_cannot_be_understood_is_one_line_and_exit_code_2(bench: Workbench) -> None:
    write: Callable[[str], int] = (bench.folder / "job.json").write_text
    for text in ("{", '{"schema": "other/1"}', "[]"):
        write(text)
        argv = [sys.executable, str(bench.folder / "runner.py"), str(bench.folder / "job.json")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


def alive(pid: int) -> bool:
    """Whether a process runs: a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
