"""The forgotten weekend: what the timer's own line does with a deployment that nobody has deleted."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from launcher.emulators.deepinfra import DeepInfraEmulator
from launcher.platforms.deepinfra.names import expiring
from tests.e2e.cli import Home, wait_for
from tests.fakes.timers import as_cron_reads, programs, run_like_a_timer

pytestmark = pytest.mark.e2e

HOUR = 3600.0
WEEKEND = 64 * HOUR
"""From Friday, 17:00, to Monday, 9:00."""


@pytest.fixture
def emulator() -> Iterator[DeepInfraEmulator]:
    with DeepInfraEmulator() as running:
        yield running


@pytest.fixture
def machine(home: Home) -> Home:
    """A machine with a cron and without the user's systemd."""
    home.extra["PATH"] = f"{programs(home.folder / 'bin')}:/usr/bin:/bin"
    return home


def rent(emulator: DeepInfraEmulator, invocation: str, *, lifetime: float, now: float) -> str:
    """Two GPUs, as a launcher on another machine does; returns the id of the deployment."""
    body = {
        "model_name": expiring(f"nv-eval-ifeval-0-{invocation}-x{{expiry}}", lifetime, now),
        "gpu": "H100-80GB",
        "num_gpus": 2,
        "max_batch_size": 16,
        "hf": {"repo": "some/model"},
        "settings": {"min_instances": 1, "max_instances": 1},
        "extra_args": [],
    }
    key = {"Authorization": f"Bearer {emulator.key}"}
    answer = httpx.post(f"{emulator.url}/deploy/llm", json=body, headers=key, trust_env=False)
    assert answer.is_success, answer.text
    deploy_id = str(answer.json()["deploy_id"])
    wait_for(lambda: status(emulator, deploy_id) == "running", "it runs")
    return deploy_id


def status(emulator: DeepInfraEmulator, deploy_id: str) -> str:
    return next(item.status for item in emulator.state().deployments if item.id == deploy_id)


def test_what_was_forgotten_over_the_weekend_is_deleted_by_its_expiry_and_its_cost_is_told(
    machine: Home, emulator: DeepInfraEmulator
) -> None:
    keys = machine.folder / "my keys.env"
    keys.write_text(f"DEEPINFRA_API_KEY={emulator.key}\nDEEPINFRA_BASE_URL={emulator.url}\n")
    keys.chmod(0o600)
    done = machine.run("gc", "--install", "--yes", "--place", "deepinfra", "--env-file", str(keys))
    assert done.returncode == 0, done.stderr
    line = (machine.folder / "bin/table").read_text()
    friday = time.time() - WEEKEND
    forgotten = rent(emulator, "a1b2c3d4", lifetime=4 * HOUR, now=friday)
    wanted = rent(emulator, "b1b2c3d4", lifetime=4 * HOUR, now=time.time())
    emulator.advance(WEEKEND)

    log = run_like_a_timer(as_cron_reads(line), machine.folder / "state/gc.log")

    assert (status(emulator, forgotten), status(emulator, wanted)) == ("deleted", "running")
    usd = next(found.usd for found in emulator.meter().lines if found.deploy_id == forgotten)
    assert usd == pytest.approx(WEEKEND / HOUR * 2 * 1.79, rel=0.001)
    assert f"  endpoint nv-eval-ifeval-0-a1b2c3d4: {usd:.2f} USD\nWhat was removed has cost {usd:.2f} USD\n" in log
    assert re.search(r"(60 h|59 h 59 min) ago .* it has expired", log)
    assert emulator.key not in log + line + done.stdout + done.stderr


def test_a_timer_whose_keys_are_gone_says_so_in_its_log(machine: Home, tmp_path: Path) -> None:
    keys = tmp_path / "keys.env"
    keys.write_text("DEEPINFRA_API_KEY=di-somekey00000001\n")
    keys.chmod(0o600)
    machine.run("gc", "--install", "--yes", "--place", "deepinfra", "--env-file", str(keys))
    line = (machine.folder / "bin/table").read_text()
    keys.unlink()

    with pytest.raises(subprocess.CalledProcessError, match="returned non-zero exit status 2"):
        run_like_a_timer(as_cron_reads(line), machine.folder / "state/gc.log")

    assert f"--env-file {keys}: cannot be read: No such file" in (machine.folder / "state/gc.log").read_text()
