"""What may differ between a run and its resume."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.plan.changes import Change, changes

BEFORE: dict[str, Any] = {
    "execution": {"type": "lepton", "output_dir": "a", "job_ttl": 60},
    "deployment": {"model_id": "m", "start_timeout": 100, "envs": {}},
    "evaluation": {"timeout": 10, "limit": None, "tasks": [{"name": "x", "timeout": 1}, {"name": "y"}]},
    "limits": {"max_cost_usd": None},
}


def after(section: str, **keys: Any) -> dict[str, Any]:
    return {**BEFORE, section: {**BEFORE[section], **keys}}


def test_a_config_differs_in_nothing_from_itself():
    assert changes(BEFORE, BEFORE) == []


def test_a_list_and_a_tuple_of_the_same_are_the_same():
    assert changes(BEFORE, after("evaluation", tasks=tuple(BEFORE["evaluation"]["tasks"]))) == []


@pytest.mark.parametrize(
    ("section", "keys", "text"),
    [
        ("limits", {"max_cost_usd": 40.0}, "limits.max_cost_usd: unset -> 40.0"),
        ("execution", {"output_dir": "b"}, "execution.output_dir: a -> b"),
        ("deployment", {"start_timeout": 7}, "deployment.start_timeout: 100 -> 7"),
        ("evaluation", {"timeout": 20}, "evaluation.timeout: 10 -> 20"),
        (
            "evaluation",
            {"tasks": [{"name": "x", "timeout": 9}, {"name": "y"}]},
            "evaluation.tasks.0.timeout: 1 -> 9",
        ),
    ],
)
def test_what_changes_only_how_a_run_goes_is_operational(section: str, keys: dict[str, Any], text: str):
    (change,) = changes(BEFORE, after(section, **keys))
    assert change.is_operational and str(change) == text


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("deployment", {"model_id": "other"}),
        ("deployment", {"envs": {"A": "1"}}),
        ("evaluation", {"limit": 5}),
        ("evaluation", {"tasks": [{"name": "x", "timeout": 1}]}),
        ("evaluation", {"tasks": [{"name": "x", "timeout": 1}, {"name": "z"}]}),
        ("evaluation", {"tasks": [{"name": "x", "timeout": 1, "limit": 3}, {"name": "y"}]}),
        ("execution", {"type": "local"}),
    ],
)
def test_what_changes_what_is_measured_is_not(section: str, keys: dict[str, Any]):
    found = changes(BEFORE, after(section, **keys))
    assert found and not any(change.is_operational for change in found)


def test_a_key_that_is_new_or_missing_is_a_change():
    assert [str(change) for change in changes({"a": 1}, {"b": 2})] == ["a: 1 -> unset", "b: unset -> 2"]


def test_long_values_are_cut_where_they_are_shown():
    assert len(str(Change("k", "x" * 500, None))) < 80
