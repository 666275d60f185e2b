"""`nv-eval endpoints` as it reads the journal and talks to a platform, without any server."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from launcher.cli import complete
from launcher.config.validate import validate
from launcher.errors import PlatformError
from launcher.orchestrator import endpoints, operating
from launcher.orchestrator.journal import Fact, Journal
from launcher.plan.endpoint import build
from launcher.plan.model import EndpointPlan, Plan
from launcher.platforms.base import Capacity, Metrics, Observation
from tests.unit.conftest import Desk

KEY = "MY_ENDPOINT_KEY"
Keep = Callable[..., Journal]


@pytest.fixture
def keep(desk: Desk) -> Keep:
    """Records an endpoint with `facts` of its life; this process is its keeper unless `held` is false."""

    def begin(
        invocation: str,
        *facts: tuple[Fact, dict[str, Any]],
        held: bool = True,
        ttl: float = 3600.0,
        shape: str | None = None,
    ) -> Journal:
        journal, plan = Journal.default(), shaped(planned(invocation, ttl), shape)
        journal.begin(
            invocation,
            execution="local",
            deployment="container",
            folder=str(desk.cwd / invocation),
            tasks=["endpoint"],
            plan=msgspec.json.encode(plan),
            hold=held,
        )
        endpoints.begin_to_keep(plan, journal)
        journal.record(invocation, Fact.RUN_STARTED)
        for kind, data in facts:
            task = None if kind is Fact.RUN_ENDED else "endpoint"
            journal.record(invocation, kind, task, name_of(plan) if task else "", **data)
        return journal

    return begin


def planned(invocation: str, ttl: float = 3600.0) -> Plan:

    config = {
        "deployment": {"type": "container", "model_id": "m", "command": ["serve"]},
        "target": {"api_endpoint": {"api_key_name": KEY}},
    }
    return build(validate(config), ttl=ttl, now=time.time(), invocation=invocation)


def shaped(plan: Plan, shape: str | None) -> Plan:
    (task,) = plan.tasks
    assert task.endpoint is not None
    return replace(plan, tasks=(replace(task, endpoint=replace(task.endpoint, shape=shape)),))


def name_of(plan: Plan) -> str:
    endpoint = plan.tasks[0].endpoint
    assert isinstance(endpoint, EndpointPlan)
    return endpoint.name


CREATED = (Fact.INTEND_CREATE_ENDPOINT, {}), (Fact.ENDPOINT_CREATED, {})
UP = (Fact.ENDPOINT_UP, {"url": "http://h:1", "model": "later", "usd_per_hour": 2.5}), (Fact.TASK_EVALUATING, {})
STOPPED = (
    (Fact.TASK_ENDED, {"reason": "stopped"}),
    (Fact.TASK_GONE, {}),
    (Fact.RUN_ENDED, {"exit_code": 130, "leftovers": []}),
)


def listed(desk: Desk, *arguments: str) -> dict[str, dict[str, Any]]:
    code, out, _ = desk.nv_eval("endpoints", "ls", "--json", *arguments)
    document = json.loads(out)
    assert (code, document["schema"]) == (0, "nv-eval.endpoints/1")
    return {one["id"]: one for one in document["endpoints"]}


def test_ls_shows_what_is_up_as_the_journal_knows_it(desk: Desk, keep: Keep) -> None:
    keep("aaaa1111", *CREATED, *UP)
    keep("bbbb2222", *CREATED)
    keep("cccc3333", *CREATED, *UP, *STOPPED)
    keep("dddd4444", *CREATED, *UP, held=False)

    found = listed(desk)

    assert {id_: one["state"] for id_, one in found.items()} == {
        "aaaa1111": "up",
        "bbbb2222": "starting",
        "dddd4444": "keeper_gone",
    }
    assert (found["aaaa1111"]["base_url"], found["aaaa1111"]["model"]) == ("http://h:1/v1", "later")
    assert (found["aaaa1111"]["key_name"], found["aaaa1111"]["usd_per_hour"]) == (KEY, 2.5)
    assert found["bbbb2222"]["url"] is None
    assert listed(desk, "--all")["cccc3333"]["state"] == "down"


def test_ls_for_people_has_a_row_for_each_and_says_when_time_is_over(desk: Desk, keep: Keep) -> None:
    assert "start one with: nv-eval endpoints up" in desk.nv_eval("endpoints", "ls")[1]
    keep("aaaa1111", *CREATED, *UP, ttl=-5.0)
    keep("dddd4444", *CREATED, held=False)

    _, out, _ = desk.nv_eval("endpoints", "ls")

    head, *rows = out.splitlines()
    assert head.startswith("id ") and len(rows) == 2
    assert "keeper gone, server ended with it" in rows[0]
    assert "http://h:1/v1" in rows[1] and " over " in rows[1] and " 2.50 USD/h " in rows[1]
    assert "USD/h" not in rows[0]


def test_an_end_that_was_not_asked_for_is_told_by_its_reason(desk: Desk, keep: Keep) -> None:
    died = (Fact.TASK_ENDED, {"reason": "endpoint_died", "detail": "exit code 3"})
    name = name_of(planned("aaaa1111"))
    keep("aaaa1111", *CREATED, *UP, died, (Fact.RUN_ENDED, {"exit_code": 5, "leftovers": [name]}))

    (found,) = listed(desk).values()

    assert (found["state"], found["detail"], found["alive"]) == ("endpoint_died", "exit code 3", None)
    code, _, err = desk.nv_eval("endpoints", "down", "aaaa")
    assert (code, name in err, "nv-eval cleanup aaaa1111" in err) == (5, True, True)


def test_a_run_is_no_endpoint(desk: Desk) -> None:
    Journal.default().begin("eeee5555", execution="local", deployment="vllm", folder="", tasks=["t"], hold=False)

    for action in ("down", "logs", "metrics", "key"):
        code, out, err = desk.nv_eval("endpoints", action, "eeee")
        assert (code, out, err.count("\n")) == (6, "", 1)
        assert "is a run" in err
    assert listed(desk, "--all") == {}


def test_it_is_not_resumed_however_it_ended(desk: Desk, keep: Keep) -> None:
    keep("aaaa1111", *CREATED, *UP, (Fact.RUN_ENDED, {"exit_code": 0, "leftovers": []}))

    code, out, err = desk.nv_eval("resume", "aaaa")

    assert (code, out) == (3, "")
    assert "keeps an endpoint, which is not resumed" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("up", "--ttl", "0"), "must be above 0"),
        (("up", "--ttl", "1e17s"), "at most 30 d"),
        (("up", "--ttl", "31d"), "at most 30 d"),
        (("up", "--ttl", "nan"), "is no time"),
        (("up", "--ttl=-5s"), "is no time"),
        (("up", "--ttl", "soon"), "is no time"),
        (("up", "deployment=none"), "makes no endpoint"),
        (("scale", "x", "--min", "3", "--max", "2"), "no less than --min"),
        (("scale", "x", "--min", "0", "--max", "0"), "at least 1"),
        (("dwon", "x"), "invalid choice"),
        (("ls", "--josn"), "did you mean --json"),
        (("down",), "required: ID"),
    ],
)
def test_a_mistake_is_one_line(desk: Desk, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = desk.nv_eval("endpoints", *arguments)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


class Cloud:
    """A platform that scales and counts."""

    name = "cloud"
    close_ends_all = False

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    async def open(self, plan: Plan, folder: Path) -> Capacity:
        self.heard.append(("open", plan.invocation))
        return Capacity()

    async def observe(self) -> Observation:
        return Observation()

    async def scale(self, name: str, *, least: int, most: int) -> None:
        self.heard.append(("scale", name, least, most))

    async def metrics(self, name: str, *, since: float) -> Metrics:
        return Metrics(requests=7, latency_p95_ms=12.5)

    async def close(self, *, at_once: bool = False) -> None:
        self.heard.append(("close", at_once))


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    made = Cloud()
    monkeypatch.setattr(operating, "open_endpoints", lambda _: made)
    return made


def test_scaling_is_asked_of_the_platform_after_the_journal_knows(desk: Desk, keep: Keep, cloud: Cloud) -> None:
    journal = keep("aaaa1111", *CREATED, *UP)

    code, out, _ = desk.nv_eval("endpoints", "scale", "aaaa", "--min", "1", "--max", "3")

    name = name_of(planned("aaaa1111"))
    assert (code, out) == (0, "aaaa1111: 1 to 3 replicas\n")
    assert cloud.heard == [("open", "aaaa1111"), ("scale", name, 1, 3), ("close", True)]
    last = journal.last("aaaa1111", Fact.INTEND_SCALE_ENDPOINT)
    assert last is not None and last.data == {"least": 1, "most": 3, "usd_per_hour": None}


@pytest.mark.parametrize(("price", "said"), [(3.5, " (up to 31.50 USD/h)"), (None, ""), (PlatformError("busy"), "")])
def test_scaling_says_what_the_most_replicas_may_cost(
    desk: Desk, keep: Keep, monkeypatch: pytest.MonkeyPatch, price: float | PlatformError | None, said: str
) -> None:
    async def ask(_: Cloud, shape: str) -> float | None:
        assert shape == "2xH100"
        if isinstance(price, PlatformError):
            raise price
        return price

    monkeypatch.setattr(Cloud, "price", ask, raising=False)
    monkeypatch.setattr(operating, "open_endpoints", lambda _: Cloud())
    keep("aaaa1111", *CREATED, *UP, shape="2xH100")

    code, out, _ = desk.nv_eval("endpoints", "scale", "aaaa", "--min", "9", "--max", "9")

    assert (code, out) == (0, f"aaaa1111: 9 to 9 replicas{said}\n")
    assert listed(desk)["aaaa1111"]["usd_per_hour"] == (31.5 if said else None)


def test_metrics_show_what_is_counted(desk: Desk, keep: Keep, cloud: Cloud) -> None:
    keep("aaaa1111", *CREATED, *UP)

    assert desk.nv_eval("endpoints", "metrics", "aaaa")[1].split() == ["requests", "7", "latency", "p95", "ms", "12.5"]
    document = json.loads(desk.nv_eval("endpoints", "metrics", "aaaa", "--since", "2h", "--json")[1])
    assert (document["requests"], document["errors"], document["since"]) == (7, None, 7200)


def test_the_key_is_told_to_who_asks_for_it(desk: Desk, keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    keep("aaaa1111", *CREATED, *UP)
    assert desk.nv_eval("endpoints", "key", "aaaa")[0] == 7

    monkeypatch.setenv(KEY, "nve-canary-0001")

    assert desk.nv_eval("endpoints", "key", "aaaa")[:2] == (0, "nve-canary-0001\n")


def test_completion_offers_endpoints_and_only_those_that_are_there(desk: Desk, keep: Keep) -> None:

    keep("aaaa1111", *CREATED, *UP)
    keep("cccc3333", *CREATED, *UP, *STOPPED)
    Journal.default().begin("eeee5555", execution="local", deployment="vllm", folder="", tasks=["t"], hold=False)

    def offered(command: str) -> list[str]:
        return complete._completer("invocations")("", argparse.Namespace(command=command))

    assert offered("endpoints") == ["aaaa1111"]
    assert offered("stop") == ["eeee5555", "cccc3333", "aaaa1111"]
