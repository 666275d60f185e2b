"""`nv-eval emulate lepton`: what it prints, what it reads, and that nothing outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from launcher.cli.main import main
from launcher.emulators.lepton import Config, LeptonEmulator, NoCapacity, Shape
from launcher.emulators.lepton.config import load
from launcher.errors import ConfigError, PlatformError
from tests.contract.lepton.plane import TOKEN, wait_for

CONFIG = """
workspace: ws9
secrets: {HF_TOKEN: abc}
shapes:
  - {id: gpu.tiny, accelerators: 1, usd_per_hour: 2.5}
timing: {tick: 0.02, endpoint_start: {reads: 2}}
faults:
  - {kind: no_capacity, resource: "first*", seconds: 30}
"""


def test_a_config_file_has_the_keys_of_config(tmp_path: Path) -> None:
    path = tmp_path / "emulator.yaml"
    path.write_text(CONFIG)

    config = load(path)

    assert config.workspace == "ws9"
    assert config.shapes == (Shape(id="gpu.tiny", accelerators=1, usd_per_hour=2.5),)
    assert config.timing.endpoint_start.reads == 2
    assert config.faults == (NoCapacity(resource="first*", seconds=30),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("workspce: x", "unknown key workspce; did you mean workspace?"),
        ("faults: [{kind: no_capcity}]", "unknown kind no_capcity; did you mean no_capacity?"),
        ("quota_accelerators: many", "quota_accelerators"),
        ("faults: [{kind: crash, exit_code: x}]", "exit_code"),
        ("a: [", "expected"),
        ("- 1", "Expected `object`"),
        ("tokens: []", "tokens: names none"),
        ("faults: [{kind: [1]}]", "unknown kind [1]"),
        ("faults: [{kind: crash, exit_cod: 3}]", "faults: crash: unknown key exit_cod; did you mean exit_code?"),
        ("workspace: 2024-99-99", "month"),
    ],
)
def test_a_broken_config_file_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "emulator.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError) as error:
        load(path)

    assert says in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_config_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "emulator.yaml"
    path.write_bytes(b"workspace: caf\xe9")

    with pytest.raises(ConfigError, match=r"emulator.yaml: .*utf-8"):
        load(path)


@pytest.mark.parametrize("port", ["99999", "-1", "http"])
def test_what_is_no_port_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emulate", "lepton", f"--port={port}"]) == 2
    assert f"'{port}' is no port" in capsys.readouterr().err


def test_a_root_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="root: cannot make"):
        LeptonEmulator(Config(root=str(tmp_path / "file" / "root"))).__enter__()


def test_a_root_that_shells_trip_over_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="characters"):
        LeptonEmulator(Config(root=str(tmp_path / "it's"))).__enter__()


def test_a_port_in_use_is_told() -> None:
    with LeptonEmulator() as first:
        port = int(first.url.split(":")[2].partition("/")[0])
        with pytest.raises(PlatformError, match=f"cannot listen on 127.0.0.1:{port}"):
            LeptonEmulator(port=port).__enter__()


@contextmanager
def emulate(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command and the base URL it prints."""
    command = [sys.executable, "-m", "launcher.cli.main", "emulate", "lepton", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            exports = [process.stdout.readline().strip().removeprefix("export ") for _ in range(3)]
            lines = dict(line.split("=", 1) for line in exports)
            assert lines["LEPTON_WORKSPACE_TOKEN"] == TOKEN
            assert lines["LEPTON_WORKSPACE_URL"].endswith(f"/api/v2/workspaces/{lines['LEPTON_WORKSPACE_ID']}")
            yield process, lines["LEPTON_WORKSPACE_URL"]
        finally:
            process.kill()


def run_forever(url: str, folder: Path) -> int:
    """A job whose process starts another one and writes its pid; returns that pid."""
    pid = folder / "pid"
    command = ["/bin/bash", "-c", f"setsid sleep 600 & echo $! > {pid}.tmp; mv {pid}.tmp {pid}; wait"]
    body = {"metadata": {"id": "stays"}, "spec": {"container": {"image": "x", "command": command}}}
    httpx.post(f"{url}/jobs", json=body, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False)
    wait_for(pid.exists)
    return int(pid.read_text())


def test_the_built_in_table_runs_jobs_of_any_image_with_this_python(tmp_path: Path) -> None:
    told = tmp_path / "prefix"
    command = ["/bin/bash", "-c", f"python3 -c 'import sys; print(sys.prefix)' > {told}.tmp; mv {told}.tmp {told}"]
    with emulate() as (_, url):
        body = {"metadata": {"id": "j"}, "spec": {"container": {"image": "python:3.11-slim", "command": command}}}
        httpx.post(f"{url}/jobs", json=body, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False)
        wait_for(told.exists)

    assert told.read_text().strip() == sys.prefix


def test_what_it_prints_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    (tmp_path / "emulator.yaml").write_text("node_groups: [{id: a-1, name: a, shapes: [gpu.1xh100]}]\n")
    command = [sys.executable, "-m", "launcher.cli.main", "emulate", "lepton", "--images", "none"]
    with subprocess.Popen([*command, "--config", str(tmp_path / "emulator.yaml")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        printed = b"".join(process.stdout.readline() for _ in range(5)).decode()
        process.terminate()

    pasted = subprocess.run(
        ["sh", "-eu", "-c", f'{printed}echo "$LEPTON_WORKSPACE_ID"'], capture_output=True, text=True, check=False
    )

    assert (pasted.stdout, pasted.stderr) == ("ws1\n", "")
    assert "# node group a: gpu.1xh100\n" in printed


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_every_process_dies_with_the_emulator(tmp_path: Path, number: signal.Signals) -> None:
    config = tmp_path / "emulator.yaml"
    config.write_text(f"root: {tmp_path}/root\n")
    with emulate("--config", str(config)) as (process, url):
        pid = run_forever(url, tmp_path)
        assert is_alive(pid)

        os.kill(process.pid, number)

        assert process.wait(10) == (-number if number == signal.SIGKILL else 0)
        wait_for(lambda: not is_alive(pid))
