"""The command line as a program: what it prints, what it answers to mistakes, what it does not load."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.cli.main import COMMANDS, main

SLOW = ("asyncio", "difflib", "random", "socket", "urllib.request")
"""Of the standard library, what takes more than a millisecond and a status can do without."""
HEAVY = ("hydra", "omegaconf", "pandas", "pyarrow", "httpx", "kubernetes", "rich", "lm_eval", "docker")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NV_EVAL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launcher.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


# --- what it loads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["status"], ["version"], ["stop", "--help"]], ids=" ".join)
def test_quick_commands_load_no_heavy_package(arguments: list[str]) -> None:
    loaded = loaded_by(*arguments)

    assert "launcher" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_a_status_loads_no_more_than_it_shows() -> None:
    loaded = loaded_by("status")

    assert [name for name in (*SLOW, "launcher.orchestrator.sweeps", "launcher.cli.sweep_text") if name in loaded] == []


def loaded_by(*arguments: str) -> list[str]:
    """Modules that a command has loaded when it ends."""
    script = f"""
import atexit, sys
before = set(sys.modules)
atexit.register(lambda: print("LOADED", *sorted(set(sys.modules) - before)))
from launcher.cli.main import main
sys.exit(main({list(arguments)!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    first, *loaded = done.stdout.splitlines()[-1].split()
    assert first == "LOADED"
    return loaded


# --- a user without any run ---------------------------------------------------------------------------------------


def test_the_program_lists_its_commands() -> None:
    done = program("--help")

    assert done.returncode == 0
    assert [name for name in COMMANDS if f"    {name}" not in done.stdout] == []


def test_a_mistake_goes_to_standard_error_without_a_traceback() -> None:
    done = program("rnu")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "nv-eval: nv-eval rnu: no such command; did you mean run?\n"


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m launcher.cli.main ls tasks | head -1; exit ${{PIPESTATUS[0]}}"

    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("task ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_a_line_and_no_defect() -> None:
    command = f"{sys.executable} -m launcher.cli.main ls executions > /dev/full"

    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert done.stderr == "nv-eval: cannot be written: No space left on device; make room and repeat the command\n"


def test_version_says_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--json"]) == 0

    versions = json.loads(capsys.readouterr().out)

    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert versions["hydra-core"].startswith("1.3")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith(f"nv-eval {versions['nv-eval']}\n")


def test_an_empty_home_has_no_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "runs"]) == 0
    assert capsys.readouterr().out == "No runs.\n"

    assert main(["ls", "runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema": "nv-eval.ls-runs/1", "runs": []}

    assert main(["status"]) == 0
    assert capsys.readouterr().out == "No invocation yet; start one with: nv-eval run\n"

    for command in ("results", "logs"):
        assert main([command]) == 6
        assert capsys.readouterr().err == "nv-eval: no invocation yet; start one with: nv-eval run\n"


@pytest.mark.parametrize("command", ["status", "results", "logs", "stop"])
def test_an_unknown_invocation_is_named_with_what_to_do(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "abcd"]) == 6

    assert capsys.readouterr().err == "nv-eval: abcd: no such invocation; see: nv-eval ls runs\n"


def test_deployments_and_executions_are_listed_with_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "deployments", "--json"]) == 0
    rows = {row["deployment"]: row["what"] for row in json.loads(capsys.readouterr().out)["deployments"]}
    assert rows["vllm"] == "vLLM (`vllm serve`)"

    assert main(["ls", "executions"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["execution", "what", "runs"]
    assert lines[1].split() == ["local", "This", "machine", "yes"]


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rum"], "nv-eval rum: no such command; did you mean run?"),
        (["run", "--dryrun"], "nv-eval run: unknown option --dryrun; did you mean --dry-run?"),
        (["run", "--jsn=1"], "nv-eval run: unknown option --jsn; did you mean --json?"),
        (["version", "more"], "nv-eval version: unexpected argument more"),
        (["run", "--config-name"], "nv-eval run: argument --config-name/-cn: expected one argument"),
        (["completion", "tcsh"], "nv-eval completion: argument shell: invalid choice: 'tcsh'"),
        (["run", "--config-name", "defalt"], "--config-name defalt: no such config; did you mean default?"),
        (["run", "deployment=vlm"], "command line: deployment=vlm: no such option of deployment; did you mean vllm?"),
        (
            ["run", "-m", "evaluation.lmit=1,2"],
            "sweep: point 1 (evaluation.lmit=1): command line: evaluation.lmit: unknown key",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_with_the_nearest_name(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    assert main(arguments) == 2

    captured = capsys.readouterr()
    assert captured.err.startswith(f"nv-eval: {message}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not home.exists()


def test_with_json_an_error_is_an_object_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--json", "evaluation.limmit=3"]) == 2

    captured = capsys.readouterr()
    assert captured.err == ""
    assert json.loads(captured.out) == {
        "error": "ConfigError",
        "exit_code": 2,
        "message": "command line: evaluation.limmit: unknown key; did you mean limit?",
    }


# --- configs ------------------------------------------------------------------------------------------------------


def test_override_option_and_bare_override_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for arguments in (
        ["limits.max_gpus=3", "evaluation.seed=7"],
        ["-o", "limits.max_gpus=3", "--override", "evaluation.seed=7"],
    ):
        assert main(["run", *arguments, "--cfg", "job"]) == 0
        printed.append(capsys.readouterr().out)

    assert printed[0] == printed[1]
    assert "max_gpus: 3" in printed[0] and "seed: 7" in printed[0]


def test_overrides_may_stand_before_and_behind_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "evaluation.seed=7", "--cfg", "job", "limits.max_gpus=3", "--package", "limits"]) == 0

    assert capsys.readouterr().out.splitlines() == ["# @package limits", "max_gpus: 3"]


def test_cfg_resolves_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "limits.max_gpus=3", "limits.max_parallel_endpoints=${limits.max_gpus}", "--cfg", "job"]

    assert main(arguments) == 0
    assert "max_parallel_endpoints: ${limits.max_gpus}" in capsys.readouterr().out

    assert main([*arguments, "--resolve"]) == 0
    assert "max_parallel_endpoints: 3" in capsys.readouterr().out


def test_cfg_never_shows_a_secret(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")

    assert main(["run", "deployment.envs={HF_TOKEN:${oc.env:HF_TOKEN}}", "--cfg", "job", "--resolve"]) == 0

    out = capsys.readouterr().out
    assert "HF_TOKEN" in out
    assert "hf_canary" not in out


@pytest.fixture
def root_logger_as_before() -> Iterator[None]:
    """Hydra's --info sets up logging for a program that is about to end; here others come after it."""
    before, level = list(logging.root.handlers), logging.root.level
    yield
    logging.root.handlers[:] = before
    logging.root.setLevel(level)


@pytest.mark.usefixtures("root_logger_as_before")
def test_info_shows_the_search_path(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["run", "--config-dir", str(tmp_path), "--info", "searchpath"]) == 0

    out = capsys.readouterr().out
    assert str(tmp_path) in out
    assert out.index(str(tmp_path)) < out.index("nv-eval")


def test_a_dry_run_creates_nothing(capsys: pytest.CaptureFixture[str], home: Path, tmp_path: Path) -> None:
    assert main(["run", "--dry-run", "--json", "evaluation.limit=1"]) in (0, 3)

    assert set(json.loads(capsys.readouterr().out)) == {"plan", "checks"}
    assert not home.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_shells_code(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0

    assert "nv-eval" in capsys.readouterr().out


def test_a_defect_is_said_in_a_line_and_shown_when_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> int:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("launcher.cli.version_command.run", broken)

    assert main(["version"]) == 1
    assert capsys.readouterr().err == ("nv-eval: internal error: ZeroDivisionError: oops; add -v for the traceback\n")
    with pytest.raises(ZeroDivisionError):
        main(["version", "-v"])


def test_state_goes_where_the_environment_says(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert main(["ls", "runs"]) == 0
    assert (home / "journal.db").stat().st_mode & 0o777 == 0o600

    monkeypatch.delenv("NV_EVAL_HOME")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert main(["ls", "runs"]) == 0
    assert (tmp_path / "xdg" / "nv-eval" / "journal.db").is_file()
    assert os.listdir(tmp_path / "xdg") == ["nv-eval"]
