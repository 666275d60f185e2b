"""Jobs of the emulated workspace, and their collected logs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from launcher.emulators.lepton import LeptonEmulator
from tests.contract.lepton.plane import Plane, emulator, job, wait_for


@pytest.fixture(scope="module")
def running() -> Iterator[LeptonEmulator]:
    with emulator() as found:
        yield found


@pytest.fixture
def plane(running: LeptonEmulator) -> Iterator[Plane]:
    with Plane(running) as found:
        yield found


@pytest.mark.parametrize("key", ["id", "name"])
def test_the_server_adds_a_suffix_to_the_name(plane: Plane, key: str) -> None:
    body = {**job("suffix", "run", "0", "0", "x"), "metadata": {key: "suffix"}}

    first, second = (plane.ok("POST", "/jobs", json=body)["metadata"] for _ in range(2))

    assert first["name"] == second["name"] == "suffix"
    assert first["id"] != second["id"]
    assert first["id"].startswith("suffix-")
    assert len(first["id"]) == len("suffix-") + 4


def test_a_job_that_ends_well_is_completed(plane: Plane) -> None:
    id = plane.submit("good", "run", "0.05", "0", "done\n")

    assert plane.finish(id) == "Completed"
    status = plane.ok("GET", f"/jobs/{id}")["status"]
    assert (status["succeeded"], status["failed"], status["active"]) == (1, 0, 0)
    assert status["completion_time"] >= status["creation_time"]
    assert [state for _, state in plane.emulator.state().jobs[-1].states][-1] == "Completed"


def test_the_exit_code_of_a_failed_job_is_in_its_events(plane: Plane) -> None:
    id = plane.submit("bad", "run", "0", "3", "oh\n")

    assert plane.finish(id) == "Failed"
    assert "Failed: exit code 3" in [event["reason"] for event in plane.ok("GET", f"/jobs/{id}/events")]


def test_retries_of_workers_and_of_the_whole_job_are_counted(plane: Plane) -> None:
    id = plane.submit("again", "run", "0", "1", "try\n", max_failure_retry=1, max_job_failure_retry=1)

    assert plane.finish(id) == "Failed"
    status = plane.ok("GET", f"/jobs/{id}")["status"]
    assert [run["failed"] for run in status["job_history"]] == [2]
    assert status["failed"] == 2
    assert plane.log(job=id) == ["try"] * 4
    assert plane.log(job_history_name=status["job_history"][0]["job_name"]) == ["try"] * 2


def test_workers_run_no_more_at_once_than_allowed(plane: Plane) -> None:
    id = plane.submit("wide", "run", "0.05", "0", "one\n", completions=3, parallelism=2)

    seen = set()
    wait_for(
        lambda: bool(seen.add(plane.ok("GET", f"/jobs/{id}")["status"]["active"]) or plane.job_state(id) == "Completed")
    )
    assert max(seen) == 2
    assert plane.log(job=id) == ["one"] * 3
    assert len(plane.ok("GET", f"/jobs/{id}/replicas")) == 3


def test_a_stopped_job_can_be_started_again(plane: Plane) -> None:
    id = plane.submit("halt")
    wait_for(lambda: plane.job_state(id) == "Running")

    plane.ok("PATCH", f"/jobs/{id}", json={"spec": {"stopped": True}})
    wait_for(lambda: plane.job_state(id) == "Stopped")
    plane.ok("PATCH", f"/jobs/{id}", json={"spec": {"stopped": False}})
    wait_for(lambda: plane.job_state(id) == "Running")
    assert [run["state"] for run in plane.ok("GET", f"/jobs/{id}")["status"]["job_history"]] == ["Stopped"]


def test_a_deleted_job_is_gone_later(plane: Plane) -> None:
    id = plane.submit("leaves")

    plane.ok("DELETE", f"/jobs/{id}")
    assert plane.job_state(id) in ("Deleting", "gone")
    wait_for(lambda: plane.job_state(id) == "gone")
    assert next(item for item in plane.emulator.state().jobs if item.id == id).gone


def test_after_its_ttl_only_the_archive_shows_a_job() -> None:
    with emulator() as aging, Plane(aging) as plane:
        id = plane.submit("old", "run", "0", "0", "x\n", ttl_seconds_after_finished=600)
        plane.finish(id)
        aging.advance(601)

        def listed(mode: str) -> list[str]:
            found = plane.ok("GET", "/jobs", params={"job_query_mode": mode})["jobs"]
            return [found["metadata"]["id"] for found in found]

        assert (listed("alive_only"), listed("archive_only"), listed("alive_and_archive")) == ([], [id], [id])
        assert plane.refused("GET", f"/jobs/{id}", params={"job_query_mode": "alive_only"})[0] == 404
        assert plane.job_state(id) == "Archived"


def test_pages_end_with_an_empty_one() -> None:
    with emulator() as many, Plane(many) as plane:
        ids = [plane.submit(f"page-{number}") for number in range(5)]

        pages = [plane.ok("GET", "/jobs", params={"page": page, "page_size": 2}) for page in (1, 2, 3, 4)]

        assert [[job["metadata"]["id"] for job in page["jobs"]] for page in pages] == [ids[:2], ids[2:4], ids[4:], []]
        assert {page["total"] for page in pages} == {5}


def test_filters_of_the_list(plane: Plane) -> None:
    body = job("labelled")
    body["metadata"]["labels"] = {"invocation": "abc"}
    id = plane.ok("POST", "/jobs", json=body)["metadata"]["id"]
    wait_for(lambda: plane.job_state(id) == "Running")

    def found(**query: str) -> bool:
        return id in [job["metadata"]["id"] for job in plane.ok("GET", "/jobs", params=query)["jobs"]]

    assert found(q="label")
    assert not found(q="other")
    assert found(query="invocation=abc")
    assert not found(query="invocation=xyz")
    assert found(status="Running")
    assert not found(status="Failed")
    assert not found(created_by="you@example.com")


def test_a_job_waits_for_its_start_time(plane: Plane) -> None:
    start = plane.emulator.clock.now() + 1000
    id = plane.submit("later", "run", "0", "0", "x\n", time_schedule={"start_at": start})

    assert plane.job_state(id) == "Awaiting"
    plane.emulator.advance(1001)
    assert plane.finish(id) == "Completed"


def test_collected_lines_lie_in_the_window_and_come_in_the_order_asked_for(plane: Plane) -> None:
    begin = int(plane.emulator.clock.now() * 1e9)
    id = plane.submit("prints", "run", "0", "0", "a\nb\nlast without end")
    plane.finish(id)
    end = int(plane.emulator.clock.now() * 1e9)

    def values(**query: object) -> list[tuple[int, str]]:
        answer = plane.ok("GET", "/logs", params={"job": id, "start": begin, "end": end, **query})
        return [(int(time), text) for stream in answer["data"]["result"] for time, text in stream["values"]]

    forward, backward = values(direction="forward"), values()
    assert [text for _, text in forward] == ["a", "b", "last without end"]
    assert forward == backward[::-1] == sorted(forward)
    assert all(begin <= time < end for time, _ in forward)
    assert values(direction="forward", limit=1) == forward[:1]
    assert values(end=forward[1][0]) == forward[:1]
    assert values(q="last") == forward[2:]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"start": "5"}, "must come together"),
        ({"limit": "10001"}, "at most 10000"),
        ({"start": "x", "end": "9"}, "must be a number"),
    ],
)
def test_a_log_query_that_is_not_valid_is_refused(plane: Plane, query: dict[str, str], says: str) -> None:
    status, message = plane.refused("GET", "/logs", params={"job": "any", **query})

    assert status == 400
    assert says in message


def test_logs_that_are_not_collected_are_not_found(plane: Plane) -> None:
    id = plane.submit("silent", "run", "0", "0", "x\n", log={"enable_collection": False})
    plane.finish(id)

    assert plane.log(job=id) == []


def test_a_job_that_names_an_unknown_secret_fails_with_the_reason(plane: Plane) -> None:
    id = plane.submit("keyless", "run", "0", "0", "x", envs=[{"name": "K", "value_from": {"secret_name_ref": "LOST"}}])

    assert plane.finish(id) == "Failed"
    assert any("secret LOST not found" in event["reason"] for event in plane.ok("GET", f"/jobs/{id}/events"))
