"""`nv-eval emulate deepinfra`: what it prints, what it reads, and that nothing outlives it."""

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

from launcher.emulators.deepinfra import Config, Gpu, NoCapacity
from launcher.emulators.deepinfra.config import load
from launcher.emulators.deepinfra.rehearsal import rehearsal
from launcher.errors import ConfigError
from tests.contract.deepinfra.plane import wanted
from tests.contract.lepton.plane import wait_for

CONFIG = """
owner: acme
gpus:
  - {type: H100-80GB, usd_per_hour: 2.5, available: false}
timing: {tick: 0.02, initializing: {reads: 2}}
faults:
  - {kind: no_capacity, resource: "first*", seconds: 30}
"""


def test_a_config_file_has_the_keys_of_config(tmp_path: Path) -> None:
    path = tmp_path / "emulator.yaml"
    path.write_text(CONFIG)

    config = load(path)

    assert (config.owner, config.timing.initializing.reads) == ("acme", 2)
    assert config.gpus == (Gpu(type="H100-80GB", usd_per_hour=2.5, available=False),)
    assert config.faults == (NoCapacity(resource="first*", seconds=30),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ownr: x", "unknown key ownr; did you mean owner?"),
        ("keys: []", "keys: names none"),
        ("faults: [{kind: stuck_downlod}]", "did you mean stuck_download?"),
    ],
)
def test_a_broken_config_file_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "emulator.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=r"emulator\.yaml") as error:
        load(path)

    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_in_a_rehearsal_every_model_becomes_the_small_one() -> None:
    (server,) = rehearsal(Config()).servers

    assert server.pattern == "*"
    assert server.argv[1:4] == ("-m", "launcher.emulators.stand_in", "{port}")
    assert server.argv[-2:] == ("--served-model-name", "{model}")


@contextmanager
def emulate(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The command and the variables it prints."""
    command = [sys.executable, "-m", "launcher.cli.main", "emulate", "deepinfra", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            exports = [process.stdout.readline().strip().removeprefix("export ") for _ in range(2)]
            yield process, dict(line.split("=", 1) for line in exports)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_every_process_dies_with_the_emulator(tmp_path: Path, number: signal.Signals) -> None:
    pid = tmp_path / "pid"
    script = f"setsid sleep 600 & echo $! > {pid}.tmp; mv {pid}.tmp {pid}; wait"
    config = tmp_path / "emulator.yaml"
    config.write_text(f"servers: [{{argv: [/bin/bash, -c, {script!r}]}}]\nroot: {tmp_path}/root\n")
    with emulate("--images", "none", "--config", str(config)) as (process, env):
        headers = {"Authorization": f"Bearer {env['DEEPINFRA_API_KEY']}"}
        url = f"{env['DEEPINFRA_BASE_URL']}/deploy/llm"
        assert httpx.post(url, json=wanted(), headers=headers, trust_env=False).is_success
        wait_for(pid.exists)
        assert is_alive(int(pid.read_text()))

        os.kill(process.pid, number)

        assert process.wait(10) == (-number if number == signal.SIGKILL else 0)
        wait_for(lambda: not is_alive(int(pid.read_text())))


def test_what_it_prints_can_be_pasted_into_a_shell() -> None:
    command = [sys.executable, "-m", "launcher.cli.main", "emulate", "deepinfra", "--images", "none"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        printed = ""
        while "Paste" not in printed:
            printed += next(lines)
        process.terminate()

    pasted = subprocess.run(
        ["sh", "-eu", "-c", f'{printed}echo "$DEEPINFRA_API_KEY"'], capture_output=True, text=True, check=False
    )
    assert (pasted.stdout, pasted.stderr) == ("di-loopbackkey0001\n", "")
    assert "# H100-80GB: 1.79 USD per GPU and hour\n" in printed


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
