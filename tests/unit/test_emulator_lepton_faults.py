"""Faults by configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from launcher.emulators.common.faults import Fault, FaultBook
from launcher.emulators.lepton import (
    After,
    BadConfig,
    Crash,
    DelayLogs,
    ErrorState,
    HoldName,
    LateEffect,
    LateListing,
    LeptonEmulator,
    LoseAnswer,
    NoCapacity,
    Refuse,
    SlowAnswer,
    SlowDelete,
    SlowStart,
)
from tests.contract.lepton.plane import Plane, emulator, endpoint, job, wait_for


@pytest.fixture(scope="module")
def faulty() -> Iterator[LeptonEmulator]:
    with emulator() as found:
        yield found


@pytest.fixture
def plane(faulty: LeptonEmulator) -> Iterator[Plane]:
    with Plane(faulty) as found:
        yield found


def issue(plane: Plane, name: str) -> tuple[str, str]:
    ((found,),) = plane.ok("GET", f"/deployments/{name}/readiness").values()
    return found["reason"], found["message"]


def test_start_faults_hit_the_resource_they_name(faulty: LeptonEmulator, plane: Plane) -> None:
    faults = (
        NoCapacity(resource="nocap"),
        NoCapacity(resource="queue", queueing=True),
        BadConfig(resource="badcfg", message="failed to pull image: not found"),
        BadConfig(resource="badsys", reason="SystemError", message="node is broken"),
        ErrorState(resource="err"),
        SlowStart(resource="slow", after=After(seconds=1000)),
        NoCapacity(resource="later", seconds=500),
    )
    faulty.inject(*faults)
    plane.create_ready("fine")
    for name in ("nocap", "queue", "badcfg", "badsys", "err", "slow", "later"):
        plane.create(name)
    wait_for(lambda: plane.state("err") == "Error" and plane.state("badcfg") == plane.state("badsys") == "Not Ready")

    assert issue(plane, "nocap")[0] == "NoCapacity"
    assert issue(plane, "queue")[0] == "Queueing"
    assert issue(plane, "badcfg") == ("ConfigError", "failed to pull image: not found")
    assert issue(plane, "badsys") == ("SystemError", "node is broken")
    assert [plane.state(name) for name in ("nocap", "queue", "slow", "later")] == ["Starting"] * 4

    faulty.advance(600)
    wait_for(lambda: plane.state("later") == "Ready")
    faulty.advance(10**6)
    wait_for(lambda: plane.state("slow") == "Ready")
    assert plane.state("nocap") == "Starting"


def test_a_crash_loop_can_end(faulty: LeptonEmulator, plane: Plane) -> None:
    fault = Crash(resource="loop", times=2, exit_code=9, message="CUDA error")
    faulty.inject(fault)
    plane.create("loop")
    wait_for(lambda: len(terminations(plane, "loop")) == 2)
    assert {end["exit_code"] for end in terminations(plane, "loop")} == {9}
    assert plane.log(deployment="loop")[:2] == ["CUDA error"] * 2
    wait_for(lambda: plane.state("loop") == "Ready")


def terminations(plane: Plane, name: str) -> list[dict[str, Any]]:
    return [end for ends in plane.ok("GET", f"/deployments/{name}/termination").values() for end in ends]


def test_faults_reach_jobs_by_their_name_without_suffix(faulty: LeptonEmulator, plane: Plane) -> None:
    faults = (NoCapacity(resource="stuck", queueing=True), BadConfig(resource="bad", message="no such image"))
    faulty.inject(*faults)
    stuck, bad = plane.submit("stuck"), plane.submit("bad")

    wait_for(lambda: plane.job_state(stuck) == "Queueing")
    assert plane.finish(bad) == "Failed"


def test_a_slow_deletion_and_a_held_name(faulty: LeptonEmulator, plane: Plane) -> None:
    faults = (SlowDelete(resource="x", after=After(seconds=100)), HoldName(resource="x", seconds=50))
    faulty.inject(*faults)
    plane.create_ready("x")
    plane.ok("DELETE", "/deployments/x")
    faulty.advance(90)
    assert plane.state("x") == "Deleting"
    faulty.advance(20)
    assert plane.state("x") == "gone"
    assert plane.refused("POST", "/deployments", json=endpoint("x"))[0] == 409
    faulty.advance(60)
    plane.create("x")


def test_bursts_of_refusals_pass(faulty: LeptonEmulator, plane: Plane) -> None:
    faults = (
        Refuse(route="GET /jobs", times=2, status=429, retry_after=7),
        Refuse(route="DELETE *", resource="tough", times=2, status=500),
        Refuse(route="POST /jobs", resource="burst", skip=1, times=1, status=503),
    )
    faulty.inject(*faults)
    answers = [plane.http.get("/jobs") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["retry-after"] == "7"

    plane.create_ready("tough")
    assert [plane.http.delete("/deployments/tough").status_code for _ in range(3)] == [500, 500, 200]

    assert [plane.http.post("/jobs", json=job("burst")).status_code for _ in range(3)] == [201, 503, 201]
    assert [item.name for item in faulty.state().jobs].count("burst") == 2


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH"])
def test_an_answer_can_get_lost_after_its_effect(method: str, faulty: LeptonEmulator, plane: Plane) -> None:
    name = f"maybe-{method.lower()}"
    if method != "POST":
        plane.create_ready(name)
    faulty.inject(LoseAnswer(route=f"{method} /deployments*", resource=name, times=1))
    path = "/deployments" if method == "POST" else f"/deployments/{name}"
    body = endpoint(name) if method == "POST" else {"spec": {"resource_requirement": {"min_replicas": 0}}}

    with pytest.raises(httpx.RemoteProtocolError):
        plane.http.request(method, path, json=body)

    wanted = {"POST": "Ready", "DELETE": "gone", "PATCH": "Stopped"}[method]
    wait_for(lambda: plane.state(name) == wanted)
    assert [record.lost for record in faulty.requests if record.method == method][-1]
    assert [item.name for item in faulty.state().endpoints].count(name) == 1


def test_a_slow_answer_comes_after_its_effect(faulty: LeptonEmulator, plane: Plane) -> None:
    faulty.inject(SlowAnswer(route="POST /deployments", resource="tardy", seconds=30))
    with pytest.raises(httpx.ReadTimeout):
        plane.http.post("/deployments", json=endpoint("tardy"), timeout=0.1)

    wait_for(lambda: plane.state("tardy") == "Ready")


def test_a_request_can_have_its_effect_when_its_client_is_gone(faulty: LeptonEmulator, plane: Plane) -> None:
    faulty.inject(LateEffect(route="POST /deployments", resource="queued", seconds=0.3))
    with pytest.raises(httpx.ReadTimeout):
        plane.http.post("/deployments", json=endpoint("queued"), timeout=0.1)

    assert plane.state("queued") == "gone"
    wait_for(lambda: plane.state("queued") == "Ready")


def test_lists_can_be_behind(faulty: LeptonEmulator, plane: Plane) -> None:
    faulty.inject(LateListing(resource="unseen", seconds=100))
    plane.create_ready("unseen")
    id = plane.submit("unseen")

    def listed() -> set[str]:
        endpoints = {found["metadata"]["name"] for found in plane.ok("GET", "/deployments")}
        return endpoints | {found["metadata"]["id"] for found in plane.ok("GET", "/jobs")["jobs"]}

    assert not {"unseen", id} & listed()
    assert plane.job_state(id) == "Running"
    faulty.advance(101)
    assert {"unseen", id} <= listed()


def test_collected_logs_can_lag(faulty: LeptonEmulator, plane: Plane) -> None:
    faulty.inject(DelayLogs(resource="lags", seconds=100))
    id = plane.submit("lags", "run", "0", "0", "line\n")
    plane.finish(id)

    assert plane.log(job=id) == []
    faulty.advance(101)
    assert plane.log(job=id) == ["line"]


def test_a_burst_can_last_for_a_while() -> None:
    now = 100.0
    book = FaultBook([Fault(lasts=10.0, skip=1)], 0, lambda: now)

    def strikes(at: float) -> bool:
        nonlocal now
        now = at
        return book.pick(Fault, "x") is not None

    assert [strikes(at) for at in (100, 200, 205, 211, 300)] == [False, True, True, False, False]


def test_events_tell_of_start_faults_also_where_nothing_else_does() -> None:
    faults = (BadConfig(resource="bad", message="secret x not found"), NoCapacity(resource="full", seconds=0.2))
    with emulator(new_deployment_api=True, faults=faults) as modern, Plane(modern) as plane:
        for name in ("bad", "full"):
            component = {"name": "default", "image": "sim", "command": ["serve"], "resource_shape": "gpu.1xh100"}
            plane.ok("POST", "/endpoints", json={"metadata": {"name": name}, "spec": {"components": [component]}})
        wait_for(lambda: plane.state("full") == "Ready" and plane.state("bad") == "NotReady")

        assert reasons(plane, "bad")[-1] == "ConfigError: secret x not found"
        assert reasons(plane, "full")[1:] == ["NoCapacity: no node has room for gpu.1xh100", "Started"]


def reasons(plane: Plane, name: str) -> list[str]:
    return [event["reason"] for event in plane.ok("GET", f"/endpoints/{name}/events")]


def test_the_same_seed_gives_the_same_faults() -> None:
    def strikes(seed: int) -> list[bool]:
        book = FaultBook([Fault(probability=0.5)], seed)
        return [book.pick(Fault, "x") is not None for _ in range(64)]

    assert strikes(1) == strikes(1)
    assert strikes(1) != strikes(2)
    assert {True, False} == set(strikes(1))
