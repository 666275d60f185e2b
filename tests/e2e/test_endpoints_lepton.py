"""`nv-eval endpoints` in a Lepton workspace: kept by a process here, with its expiry in the workspace."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from launcher.config.execution import Lepton
from launcher.emulators.lepton import Config, LeptonEmulator
from launcher.orchestrator import endpoints
from launcher.orchestrator.journal import Journal
from launcher.platforms.base import Leftover
from launcher.platforms.lepton.credentials import Credentials
from launcher.platforms.lepton.platform import LeptonPlatform
from tests.e2e.cli import Home, wait_for
from tests.e2e.lepton import TOKEN
from tests.e2e.scenario import serve

pytestmark = pytest.mark.e2e


@pytest.fixture
def workspace() -> Iterator[LeptonEmulator]:
    with LeptonEmulator(Config()) as running:
        yield running


def up(home: Home, workspace: LeptonEmulator, *arguments: str) -> dict[str, Any]:
    """Start an endpoint there; what `up --json` says of it."""
    home.extra |= {
        "LEPTON_WORKSPACE_ID": workspace.config.workspace,
        "LEPTON_WORKSPACE_TOKEN": TOKEN,
        "LEPTON_WORKSPACE_URL": workspace.url,
    }
    config = {
        "execution": {
            "type": "lepton",
            "node_group": "h100-pool",
            "resource_shape": "gpu.1xh100",
            "output_dir": "results",
        },
        "deployment": serve(image="test/server:1", port=8000),
        "pricing": {"usd_per_hour": {"gpu.1xh100": 3.5}},
    }
    (home.folder / "config.yaml").write_text(yaml.safe_dump(config))
    done = home.run("endpoints", "up", "--json", "--config-dir", ".", "--config-name", "config", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads(done.stdout)["endpoints"]
    return dict(found)


def swept(workspace: LeptonEmulator) -> list[Leftover]:
    """What `nv-eval gc` sees of ours there."""

    async def look() -> list[Leftover]:
        access = Credentials(workspace=workspace.config.workspace, token=TOKEN, url=workspace.url)
        platform = LeptonPlatform(Lepton(), credentials=access)
        try:
            return await platform.sweep()
        finally:
            await platform.close()

    return asyncio.run(look())


def test_it_answers_to_its_key_carries_its_expiry_and_is_taken_down(home: Home, workspace: LeptonEmulator) -> None:
    endpoint = up(home, workspace, "--ttl", "30min")
    invocation = endpoint["id"]
    assert endpoint["usd_per_hour"] == 3.5

    key = home.run("endpoints", "key", invocation).stdout.strip()
    body = json.dumps({"model": endpoint["model"], "prompt": "Hello", "max_tokens": 4}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    asked = urllib.request.Request(f"{endpoint['base_url']}/completions", body, headers)
    assert json.load(urllib.request.urlopen(asked, timeout=10))["choices"][0]["text"]

    (left,) = swept(workspace)
    assert left.expiry_is_ours and left.expires_in is not None
    assert left.expires_in == pytest.approx(endpoint["expires_in"], abs=60)
    refused = home.run("endpoints", "scale", invocation, "--min", "1", "--max", "2")
    assert (refused.returncode, refused.stderr.count("\n")) == (7, 1)

    following = home.start("endpoints", "logs", "-f", invocation)
    assert following.stdout is not None and "listening on" in following.stdout.readline()
    assert home.run("endpoints", "down", invocation).stdout == f"{invocation}: stopped\n"
    following.communicate(timeout=20)
    assert following.returncode == 0
    assert workspace.state().alive == ()


def test_its_keeper_killed_it_stays_until_it_is_taken_down(home: Home, workspace: LeptonEmulator) -> None:
    invocation = up(home, workspace)["id"]
    journal = Journal(home.folder / "state" / "journal.db")
    lease = journal.lease(invocation)
    assert lease is not None
    os.kill(lease.pid, signal.SIGKILL)
    wait_for(lambda: not lease.process_lives, "the keeper is gone")

    (status,) = endpoints.every(journal)
    assert (status.state, status.alive) == ("keeper_gone", None)
    (left,) = swept(workspace)
    assert left.expiry_is_ours and left.expires_in is not None and left.expires_in > 0

    done = home.run("endpoints", "down", invocation)
    assert (done.returncode, done.stdout) == (0, f"{invocation}: its launcher was gone; nothing of it is left\n")
    assert workspace.state().alive == ()
