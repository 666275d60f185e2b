from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.plan.names import MAX_LENGTH, new_invocation_id, resource_name, task_keys

QUICK = settings(deadline=None, derandomize=True)
TASK_NAMES = st.text(max_size=80) | st.text("ab", min_size=250, max_size=300)
INVOCATION = "a1b2c3d4"


def test_a_name_says_what_it_is_of() -> None:
    assert resource_name("vllm", "arc_challenge", 1, INVOCATION) == "vllm-arc-challenge-1-a1b2c3d4"


def test_a_name_that_is_cut_ends_in_a_hash_of_what_was_cut() -> None:
    name = resource_name("vllm", "leaderboard_math_counting_and_prob_hard", 3, INVOCATION)
    assert name == "vllm-leaderboard-ma-bf777-3-a1b2c3d4"
    assert len(name) == MAX_LENGTH


def test_names_that_are_cut_at_the_same_place_differ() -> None:
    tasks = [f"leaderboard_math_counting_and_prob_{level}" for level in ("easy", "hard")]
    assert len({resource_name("vllm", task, 0, INVOCATION) for task in tasks}) == 2


@QUICK
@given(st.sampled_from(["vllm", "container", "eval"]), TASK_NAMES, st.integers(0, 999))
def test_every_platform_takes_every_name(kind: str, task: str, index: int) -> None:
    name = resource_name(kind, task, index, INVOCATION)
    assert len(name) <= MAX_LENGTH
    assert re.fullmatch(r"[a-z](?:-?[a-z0-9])*", name)
    assert name.endswith(f"-{index}-{INVOCATION}")
    assert name == resource_name(kind, task, index, INVOCATION)


@QUICK
@given(st.lists(TASK_NAMES | st.sampled_from(["a", "a-2", "a-3", "../a", ".", ".."]), max_size=8))
def test_every_task_gets_a_folder_name_of_its_own(names: list[str]) -> None:
    keys = task_keys(names)
    assert len(keys) == len(set(keys)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", key) and not key.startswith(".") for key in keys)
    assert all(len(key) <= 110 for key in keys)


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["gsm8k", "gsm8k", "gsm8k"], ["gsm8k", "gsm8k-2", "gsm8k-3"]),
        (["a-2", "a", "a"], ["a-2", "a", "a-3"]),
        (["tasks/mine", "mmlu (fr)"], ["tasks_mine", "mmlu_fr"]),
        (["…"], ["task"]),
        (["results.json", "Plan.JSON", "prepare.log"], ["task-results.json", "task-Plan.JSON", "task-prepare.log"]),
        (["task-results.json", "results.json"], ["task-results.json", "task-results.json-2"]),
    ],
)
def test_task_keys_stay_close_to_the_tasks_names(names: list[str], keys: list[str]) -> None:
    assert task_keys(names) == keys


def test_an_invocation_id_can_begin_any_name() -> None:
    ids = {new_invocation_id() for _ in range(200)}
    assert len(ids) == 200
    assert all(re.fullmatch(r"[a-f][0-9a-f]{7}", made) for made in ids)
