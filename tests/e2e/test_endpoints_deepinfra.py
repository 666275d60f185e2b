"""`nv-eval endpoints` on DeepInfra: rented, called, scaled, counted, given back, with its expiry in its name."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import yaml

from launcher.orchestrator import endpoints
from launcher.orchestrator.journal import Journal
from tests.e2e.cli import Home, wait_for
from tests.e2e.deepinfra_account import Account, emulated

pytestmark = pytest.mark.e2e


@pytest.fixture
def account(home: Home) -> Iterator[Account]:
    with emulated() as running:
        running.point(home)
        yield running


def up(home: Home, *arguments: str) -> dict[str, Any]:
    """Start an endpoint; what `up --json` says of it."""
    config = {
        "execution": {"type": "local", "output_dir": "results"},
        "deployment": {"type": "deepinfra", "model_id": "meta-llama/Llama-2-7b-chat-hf"},
    }
    (home.folder / "config.yaml").write_text(yaml.safe_dump(config))
    done = home.run("endpoints", "up", "--json", "--config-dir", ".", "--config-name", "config", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads(done.stdout)["endpoints"]
    return dict(found)


def kept(home: Home, invocation: str) -> dict[str, Any]:
    """What `nv-eval gc` says of the deployment, which is no garbage."""
    found = json.loads(home.run("gc", "--json").stdout)["kept"]
    (deployment,) = (left for left in found if left["platform"] == "deepinfra" and left["invocation"] == invocation)
    return dict(deployment)


def test_it_is_rented_called_scaled_counted_and_given_back(home: Home, account: Account) -> None:
    endpoint = up(home, "--ttl", "2h")
    invocation, key = endpoint["id"], home.run("endpoints", "key", endpoint["id"]).stdout.strip()

    assert endpoint["model"].startswith("deploy_id:") and endpoint["usd_per_hour"] > 0
    client = openai.OpenAI(base_url=endpoint["base_url"], api_key=key)
    assert client.completions.create(model=endpoint["model"], prompt="Hello", max_tokens=4).choices[0].text
    client.close()

    assert kept(home, invocation)["expires_in"] == pytest.approx(2 * 3600, abs=180)
    assert home.run("endpoints", "scale", invocation, "--min", "1", "--max", "2").returncode == 0
    counted = json.loads(home.run("endpoints", "metrics", invocation, "--json").stdout)
    assert counted["requests"] >= 1
    assert home.run("endpoints", "logs", invocation).returncode == 0

    assert home.run("endpoints", "down", invocation).stdout == f"{invocation}: stopped\n"
    assert account.left() == []


def test_its_keeper_killed_it_is_kept_until_it_is_taken_down(home: Home, account: Account) -> None:
    invocation = up(home)["id"]
    journal = Journal(home.folder / "state" / "journal.db")
    lease = journal.lease(invocation)
    assert lease is not None
    os.kill(lease.pid, signal.SIGKILL)
    wait_for(lambda: not lease.process_lives, "the keeper is gone")

    (status,) = endpoints.every(journal)
    assert (status.state, status.alive) == ("keeper_gone", None)
    assert kept(home, invocation)["why"] not in ("launcher_gone", "run_ended")
    assert home.run("endpoints", "down", invocation).returncode == 0
    assert account.left() == []
