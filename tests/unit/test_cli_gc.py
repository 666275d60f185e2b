"""`nv-eval gc`: where it looks, what it lists of money and time, and what it says of what it has removed."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import leftovers
from launcher.orchestrator.garbage import Why
from launcher.orchestrator.removal import Cleared
from launcher.platforms.base import Leftover, ResourceState
from tests.fakes.platform import FakePlatform
from tests.unit.conftest import Desk

PAGE = Path(__file__).resolve().parents[2] / "docs/gc.md"


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("DEEPINFRA_", "LEPTON_", "DOCKER_")):
            monkeypatch.delenv(name)


def endpoint(name: str, **keys: Any) -> Leftover:
    return Leftover(kind="endpoint", name=name, id=name, invocation="a1b2c3d4", state=ResourceState.RUNNING, **keys)


@dataclass
class Account(FakePlatform):
    """An account with a meter, in which everything carries its expiry."""

    name: str = "deepinfra"
    things: list[Leftover] = field(default_factory=list)

    async def sweep(self, invocation: str = "") -> list[Leftover]:
        return [thing for thing in self.things if thing.invocation.startswith(invocation)]

    async def remove(self, leftover: Leftover) -> None:
        self.things = [thing for thing in self.things if thing.id != leftover.id]


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    """A forgotten endpoint, one that is wanted, and one of which nothing is known."""
    told = Account(
        things=[
            endpoint("forgotten", expires_in=-3 * 3600.0, expiry_is_ours=True, age=64 * 3600, usd_per_hour=4, usd=256),
            endpoint("gone", expires_in=-60.0, expiry_is_ours=True),
            endpoint("wanted", expires_in=2 * 3600.0, expiry_is_ours=True, age=600.0, usd_per_hour=4.0, usd=0.6667),
        ]
    )
    monkeypatch.setattr("launcher.orchestrator.removal.open_platform", lambda *_: told)
    return told


def test_the_listing_says_what_each_thing_costs_has_cost_and_when_it_expires(desk: Desk, account: Account) -> None:
    code, out, _ = desk.nv_eval("gc", "-v", "--place", "deepinfra")

    rows = {line.split("  ")[2].strip(): line for line in map(collapsed, out.splitlines())}
    assert code == 0
    assert rows["name"].endswith("  state  age  price  cost  expires  why")
    assert rows["forgotten"].endswith("running  64 h  4.00 USD/h  256.00 USD  3 h ago  it has expired")
    assert rows["wanted"].endswith("running  10 min  4.00 USD/h  0.67 USD  in 2 h  it is wanted until it expires")
    assert rows["gone"].endswith("running  1 min ago  it has expired")
    assert out.endswith("Nothing was removed; to remove it, repeat the command with --yes\n")


def collapsed(line: str) -> str:
    """A row with two spaces between its cells."""
    cells = [cell.strip() for cell in line.split("  ") if cell.strip()]
    return "  ".join(cells if len(cells) > 2 else [*cells, "", "", ""])


def test_the_report_says_what_the_removed_things_have_cost(desk: Desk, account: Account) -> None:
    code, out, _ = desk.nv_eval("gc", "--yes", "--place", "deepinfra")

    assert code == 0
    assert [thing.name for thing in account.things] == ["wanted"]
    assert out.endswith(
        "Removed 2 things from deepinfra\n  endpoint forgotten: 256.00 USD\nWhat was removed has cost 256.00 USD\n"
    )


def test_json_has_the_sums(desk: Desk, account: Account) -> None:
    dry = json.loads(desk.nv_eval("gc", "--json", "--place", "deepinfra")[1])
    done = json.loads(desk.nv_eval("gc", "--json", "--yes", "--place", "deepinfra")[1])

    assert {thing["name"]: thing["why"] for thing in dry["garbage"]} == {"forgotten": "expired", "gone": "expired"}
    assert {thing["name"]: thing["why"] for thing in dry["kept"]} == {"wanted": "not_expired"}
    assert (dry["removed_usd"], dry["places"][0]["usd"]) == (None, None)
    assert (done["removed_usd"], done["places"][0]["usd"]) == (256.0, 256.0)


def test_every_key_of_the_json_is_documented(desk: Desk, account: Account) -> None:
    found = json.loads(desk.nv_eval("gc", "--json", "--place", "deepinfra")[1])
    page = PAGE.read_text()

    keys = {*found, *leftovers.place_as_json(Cleared(platform="x")), *found["garbage"][0]}
    assert {key for key in keys - {"schema"} if f"`{key}`" not in page} == set()
    assert {why for why in Why if f"`{why}`" not in page} == set()
    assert set(asdict(account.things[0])) - keys == {"launcher_alive", "is_record"}


# --- where ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("--place", "deepinfra"),
        ("--place", "local", "--place", "deepinfra"),
        ("deployment=deepinfra", "deployment.model_id=m"),
        ("execution=local", "--place", "deepinfra"),
    ],
)
@pytest.mark.parametrize("command", [("gc",), ("cleanup", "abcdef01")], ids=["gc", "cleanup"])
def test_deepinfra_can_be_chosen_in_several_ways(desk: Desk, command: tuple[str, ...], words: tuple[str, ...]) -> None:
    code, out, err = desk.nv_eval(*command, *words)

    assert code in (3, 7) and out == ""
    assert err.startswith("nv-eval: DeepInfra: no API key; make one at https://deepinfra.com/dash/api_keys")
    assert err.count("\n") == 1


def test_without_a_choice_what_cannot_be_looked_at_is_told(desk: Desk) -> None:
    code, _, err = desk.nv_eval("gc")

    assert code == 0
    assert "nv-eval: lepton was not looked at: no workspace" in err
    assert "nv-eval: deepinfra was not looked at: no API key" in err


def test_a_place_that_there_is_not_is_refused(desk: Desk) -> None:
    code, _, err = desk.nv_eval("gc", "--place", "moon")

    assert code == 2
    assert "argument --place: invalid choice: 'moon'" in err
