"""What squeue says of jobs, in the forms of all versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import PlatformError
from launcher.platforms.slurm import queue, words
from launcher.platforms.slurm.preflight import minutes_of, read

DATA = Path(__file__).parent / "data" / "slurm"


def test_json_of_22_05_has_plain_values() -> None:
    jobs = queue.parse_json((DATA / "squeue_22.05.json").read_text())

    assert [(job.id, job.state, job.is_active) for job in jobs] == [(2, "CANCELLED", False), (3, "RUNNING", True)]
    assert jobs[1].invocation == "a1b2c3d4"
    assert jobs[1].nodes == "n1"
    assert jobs[1].submitted > 1_600_000_000


def test_json_from_23_11_on_has_lists_and_objects() -> None:
    entry = {
        "job_id": 7,
        "name": "vllm-gsm8k-0-a1b2c3d4",
        "job_state": ["CANCELLED", "COMPLETING"],
        "state_reason": "None",
        "comment": "nv-eval:a1b2c3d4:together",
        "nodes": "gpu[1-2]",
        "submit_time": {"set": True, "infinite": False, "number": 1700000000},
        "end_time": {"set": False, "infinite": True, "number": 0},
        "exit_code": {"status": ["SUCCESS"], "return_code": {"set": True, "infinite": False, "number": 0}},
    }

    (job,) = queue.parse_json(json.dumps({"jobs": [entry], "meta": {}}))

    assert (job.state, job.is_active, job.reason) == ("CANCELLED", True, "")
    assert (job.submitted, job.ends) == (1700000000.0, 0.0)


def test_the_same_job_is_read_from_the_json_of_every_version() -> None:
    """21.08 and 22.05 have plain values, 23.02 objects for some numbers, 23.11 and later lists of states."""

    def number(value: int, *, is_set: bool = True) -> dict[str, Any]:
        return {"set": is_set, "infinite": False, "number": value}

    common = {"job_id": 7, "name": "vllm-gsm8k-0-a1b2c3d4", "comment": "nv-eval:a1b2c3d4:together", "nodes": "n1"}
    plain = {"submit_time": 1700000000, "end_time": 0, "array_job_id": 0, "array_task_id": None}
    objects = {
        "submit_time": number(1700000000),
        "end_time": number(0),
        "array_job_id": number(0),
        "array_task_id": number(0, is_set=False),
    }
    shapes = {
        "21.08": {**common, **plain, "job_state": "PENDING", "state_reason": "Priority", "array_task_string": ""},
        "22.05": {**common, **plain, "job_state": "PENDING", "state_reason": "Priority", "array_task_string": ""},
        "23.02": {
            **common,
            **plain,
            "array_job_id": number(0),
            "array_task_id": number(0, is_set=False),
            "job_state": "PENDING",
            "state_reason": "Priority",
        },
        "23.11": {**common, **objects, "job_state": ["PENDING"], "state_reason": "Priority"},
        "24.05": {**common, **objects, "job_state": ["PENDING"], "state_reason": "Priority", "array_task_string": ""},
        "25.05": {**common, **objects, "job_state": ["PENDING"], "state_reason": "Priority", "segment_size": 0},
    }

    read = {version: queue.parse_json(json.dumps({"jobs": [entry]})) for version, entry in shapes.items()}

    expected = queue.QueuedJob(
        id=7,
        name="vllm-gsm8k-0-a1b2c3d4",
        states=("PENDING",),
        reason="Priority",
        comment="nv-eval:a1b2c3d4:together",
        nodes="n1",
        submitted=1700000000.0,
    )
    assert read == {version: [expected] for version in shapes}


def test_elements_of_an_array_are_jobs_in_both_forms_whether_they_run_or_wait() -> None:
    number = {"set": True, "infinite": False, "number": 12}
    none = {"set": False, "infinite": False, "number": 0}
    shared = {"name": "array-77aa-a1b2c3d4", "comment": "nv-eval:a1b2c3d4:together", "array_job_id": number}
    entries = [
        {**shared, "job_id": 12, "job_state": ["PENDING"], "array_task_id": none, "array_task_string": "1,3-4%2"},
        {**shared, "job_id": 13, "job_state": ["RUNNING"], "array_task_id": {**number, "number": 0}},
        {"job_id": 9, "job_state": ["RUNNING"], "name": "x", "array_job_id": none, "array_task_string": ""},
    ]
    text = "12_1|PENDING|Resources|1|N/A||nv-eval:a1b2c3d4:together|array-77aa-a1b2c3d4\n"

    jobs = queue.parse_json(json.dumps({"jobs": entries}))
    names = {"array-77aa-a1b2c3d4": ["a", "b", "c", "d"]}

    assert [job.label for job in jobs] == ["12_1", "12_3", "12_4", "12_0", "9"]
    assert [job.label for job in queue.parse_text(text)] == ["12_1"]
    assert [(job.name, job.state) for job in queue.named(jobs, names)] == [
        ("b", "PENDING"),
        ("d", "PENDING"),
        ("a", "RUNNING"),
        ("x", "RUNNING"),
    ], "the fifth is no job of this invocation"


def test_a_comment_of_21_08_is_an_object_in_some_builds_and_its_text_counts() -> None:
    entry = {"job_id": 1, "job_state": "PENDING", "comment": {"user": "nv-eval:b0b0b0b0:job"}, "name": "x"}

    (job,) = queue.parse_json(json.dumps({"jobs": [entry]}))

    assert job.invocation == "b0b0b0b0"


def test_text_has_the_same_and_names_may_hold_the_separator() -> None:
    line = "12|PENDING|Resources|1796084473|N/A||nv-eval:a1b2c3d4:together|eval|odd\n"

    (job,) = queue.parse_text(line)

    assert (job.id, job.state, job.reason, job.name) == (12, "PENDING", "Resources", "eval|odd")
    assert (job.submitted, job.ends) == (1796084473.0, 0.0)


@pytest.mark.parametrize("text", ["", "slurm_load_jobs error", '{"errors": []}', '{"jobs": [{"name": "x"}]}', "[]"])
def test_json_that_is_no_list_of_jobs_is_an_error_and_not_an_empty_queue(text: str) -> None:
    with pytest.raises(PlatformError, match="no list of jobs"):
        queue.parse_json(text)


def test_text_that_is_no_job_is_an_error_and_not_an_empty_queue() -> None:
    with pytest.raises(PlatformError, match="what is no job"):
        queue.parse_text("slurm_load_jobs error: Unable to contact slurm controller\n")


def test_jobs_of_others_are_not_ours_and_a_name_counts_where_comments_are_not_kept() -> None:
    jobs = [
        queue.QueuedJob(id=1, name="vllm-x-0-a1b2c3d4", states=("RUNNING",), comment="nv-eval:a1b2c3d4:together"),
        queue.QueuedJob(id=2, name="vllm-x-0-a1b2c3d4", states=("RUNNING",), comment="(null)"),
        queue.QueuedJob(id=3, name="train", states=("RUNNING",), comment="(null)"),
        queue.QueuedJob(id=4, name="vllm-x-0-b0b0b0b0", states=("RUNNING",), comment="nv-eval:b0b0b0b0:together"),
    ]

    assert [job.id for job in queue.ours(jobs, "a1b2c3d4")] == [1, 2]
    assert queue.newest(jobs)["vllm-x-0-a1b2c3d4"].id == 2


@pytest.mark.parametrize(
    ("text", "version"), [("slurm-wlm 22.05.8", (22, 5, 8)), ("slurm 24.11.0-0rc1", (24, 11, 0)), ("what?", ())]
)
def test_versions_are_read(text: str, version: tuple[int, ...]) -> None:
    assert queue.version_of(text) == version


@pytest.mark.parametrize(
    ("text", "minutes"), [("infinite", None), ("1:00:00", 60), ("1-00:00:00", 1440), ("30:00", 30), ("1:30", 1.5)]
)
def test_time_limits_of_partitions_are_read(text: str, minutes: float | None) -> None:
    assert minutes_of(text) == minutes


def test_an_examination_is_read_whole() -> None:
    cluster = read(
        "version slurm-wlm 22.05.8\npartition batch|1-00:00:00|up|gpu:h100:8(S:0-1)\n"
        "partition batch|1-00:00:00|up|gpu:h100:4|down*\npartition cpu|infinite|down|(null)|idle\n"
        "folder no /home\nfilesystem nfs\npyxis\n"
    )

    assert [(found.name, found.minutes, found.is_up, found.gpus, found.is_away) for found in cluster.partitions] == [
        ("batch", 1440, True, 8, False),
        ("batch", 1440, True, 4, True),
        ("cpu", None, False, 0, False),
    ]
    assert (cluster.folder_problem, cluster.filesystem, cluster.words) == ("/home", "nfs", {"pyxis"})


@pytest.mark.parametrize("reason", sorted(words.NEVER))
def test_a_job_that_can_never_start_is_told_from_one_that_waits(reason: str) -> None:
    assert words.waiting("PENDING", reason) == (f"{reason}: {words.NEVER[reason]}", True)
    assert words.waiting("PENDING", "Resources") == ("Resources: waits for free nodes", False)
    assert words.waiting("PENDING", "SomethingNew") == ("SomethingNew", False)


def test_what_sbatch_refuses_comes_with_what_to_do() -> None:
    said = "sbatch: error: Batch job submission failed: Requested node configuration is not available\n"

    assert words.refused(said).startswith(
        "Slurm refuses it: Requested node configuration is not available; no node has"
    )
    assert words.refused("sbatch: error: odd") == "Slurm refuses it: odd"
