"""Patches, selectors and amounts, as Kubernetes documents them.

kubernetes.io/docs: tasks/manage-kubernetes-objects/update-api-object-kubectl-patch, concepts/overview/
working-with-objects/labels, reference/kubernetes-api/common-definitions/quantity; RFC 6902 and 7386.
"""

from __future__ import annotations

from typing import Any

import pytest

from launcher.emulators.kubernetes.errors import ApiError
from launcher.emulators.kubernetes.patches import json_patch, leaves, merge, strategic, without
from launcher.emulators.kubernetes.quantities import number, requested, shown
from launcher.emulators.kubernetes.selectors import matches, selector

Json = dict[str, Any]
POD: Json = {
    "spec": {
        "containers": [
            {"name": "one", "image": "a", "env": [{"name": "X", "value": "1"}]},
            {"name": "two", "image": "b"},
        ],
        "tolerations": [{"key": "gpu"}],
    }
}

# --- JSON patch: RFC 6902 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "after"),
    [
        ({"op": "add", "path": "/b", "value": 2}, {"a": {"x~y": 1}, "list": [1, 2], "b": 2}),
        ({"op": "add", "path": "/list/0", "value": 0}, {"a": {"x~y": 1}, "list": [0, 1, 2]}),
        ({"op": "add", "path": "/list/-", "value": 3}, {"a": {"x~y": 1}, "list": [1, 2, 3]}),
        ({"op": "replace", "path": "/a/x~0y", "value": 5}, {"a": {"x~y": 5}, "list": [1, 2]}),
        ({"op": "remove", "path": "/list/1"}, {"a": {"x~y": 1}, "list": [1]}),
        ({"op": "test", "path": "/a/x~0y", "value": 1}, {"a": {"x~y": 1}, "list": [1, 2]}),
    ],
)
def test_operations_of_a_json_patch(operation: Json, after: Json) -> None:
    before = {"a": {"x~y": 1}, "list": [1, 2]}

    assert json_patch(before, [operation]) == after
    assert before == {"a": {"x~y": 1}, "list": [1, 2]}, "what is patched stays as it was"


def test_a_slash_in_a_key_is_written_as_tilde_one() -> None:
    patch = [{"op": "replace", "path": "/labels/nv-eval~1name", "value": "new"}]

    assert json_patch({"labels": {"nv-eval/name": "old"}}, patch) == {"labels": {"nv-eval/name": "new"}}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/a", "value": 2},
        {"op": "test", "path": "/none", "value": 2},
        {"op": "remove", "path": "/none"},
        {"op": "replace", "path": "/none", "value": 1},
        {"op": "add", "path": "/none/deep", "value": 1},
        {"op": "remove", "path": "/list/7"},
        {"op": "add", "path": "/list/7", "value": 1},
        {"op": "invent", "path": "/a"},
    ],
)
def test_an_operation_that_cannot_be_done_refuses_the_whole_patch(operation: Json) -> None:
    before = {"a": 1, "list": [1]}

    with pytest.raises(ApiError) as caught:
        json_patch(before, [{"op": "add", "path": "/b", "value": 1}, operation])

    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    assert before == {"a": 1, "list": [1]}


def test_move_and_copy() -> None:
    assert json_patch({"a": 1}, [{"op": "move", "from": "/a", "path": "/b"}]) == {"b": 1}
    assert json_patch({"a": {"x": 1}}, [{"op": "copy", "from": "/a", "path": "/b"}]) == {"a": {"x": 1}, "b": {"x": 1}}


# --- merge patch: the cases of RFC 7386, appendix A -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches_of_the_rfc(before: Any, patch: Any, after: Any) -> None:
    assert merge(before, patch) == after


# --- strategic merge patch --------------------------------------------------------------------------------------------


def test_containers_are_merged_by_name_and_their_variables_too() -> None:
    patch = {"spec": {"containers": [{"name": "one", "env": [{"name": "Y", "value": "2"}]}, {"name": "three"}]}}

    containers = {one["name"]: one for one in strategic(POD, patch)["spec"]["containers"]}

    assert set(containers) == {"one", "two", "three"}
    assert containers["one"]["image"] == "a"
    assert {one["name"] for one in containers["one"]["env"]} == {"X", "Y"}


def test_a_list_without_a_merge_key_is_replaced() -> None:
    assert strategic(POD, {"spec": {"tolerations": [{"key": "new"}]}})["spec"]["tolerations"] == [{"key": "new"}]


def test_directives_delete_and_replace() -> None:
    deleted = strategic(POD, {"spec": {"containers": [{"name": "one", "$patch": "delete"}]}})
    replaced = strategic(POD, {"spec": {"containers": [{"$patch": "replace"}, {"name": "new"}]}})
    whole = strategic({"strategy": {"type": "A", "rolling": {}}}, {"strategy": {"$patch": "replace", "type": "B"}})

    assert [one["name"] for one in deleted["spec"]["containers"]] == ["two"]
    assert replaced["spec"]["containers"] == [{"name": "new"}]
    assert whole == {"strategy": {"type": "B"}}


def test_retain_keys_and_delete_from_primitive_list() -> None:
    before = {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}, "finalizers": ["a", "b"]}

    kept = strategic(before, {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}})
    fewer = strategic(before, {"$deleteFromPrimitiveList/finalizers": ["a"]})

    assert kept["strategy"] == {"type": "Recreate"}
    assert fewer["finalizers"] == ["b"]
    assert strategic(before, {"finalizers": ["b", "c"]})["finalizers"] == ["a", "b", "c"]


def test_null_takes_a_field_out() -> None:
    assert strategic({"data": {"a": "1", "b": "2"}}, {"data": {"a": None}}) == {"data": {"b": "2"}}


# --- what a manager has applied ---------------------------------------------------------------------------------------


def test_fields_of_a_manifest_are_told_by_path_and_merge_key() -> None:
    found = dict(leaves({"spec": {"replicas": 1, "containers": [{"name": "one", "image": "a"}]}}))

    assert found[("spec", "replicas")] == 1
    assert found[("spec", "containers", "name=one", "image")] == "a"


def test_a_field_is_taken_out_by_the_same_path_and_what_is_missing_is_not_missed() -> None:
    thing = {"spec": {"containers": [{"name": "one", "image": "a"}, {"name": "two"}]}}

    without(thing, ("spec", "containers", "name=one", "image"))
    without(thing, ("spec", "containers", "name=two"))
    without(thing, ("spec", "nothing", "here"))

    assert thing == {"spec": {"containers": [{"name": "one"}]}}


# --- selectors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ["web", "db", "bare"]),
        ("app=web", ["web"]),
        ("app==web", ["web"]),
        ("app!=web", ["db", "bare"]),
        ("app", ["web", "db"]),
        ("!app", ["bare"]),
        ("app in (web, db),tier", ["db"]),
        ("app notin (web)", ["db", "bare"]),
        ("app=web,tier=x", []),
    ],
)
def test_label_selectors(text: str, found: list[str]) -> None:
    things = [
        {"metadata": {"name": "web", "labels": {"app": "web"}}},
        {"metadata": {"name": "db", "labels": {"app": "db", "tier": "x"}}},
        {"metadata": {"name": "bare"}},
    ]

    assert [thing["metadata"]["name"] for thing in things if selector(text, "")(thing)] == found


def test_field_selectors() -> None:
    pod = {"metadata": {"name": "a", "namespace": "n"}, "spec": {"nodeName": "x"}, "status": {"phase": "Running"}}

    assert selector("", "metadata.name=a,status.phase=Running")(pod)
    assert selector("", "spec.nodeName!=y")(pod)
    assert not selector("", "status.phase==Failed")(pod)


def test_text_that_is_no_selector_is_refused() -> None:
    with pytest.raises(ApiError) as caught:
        selector("app is web", "")

    assert (caught.value.code, caught.value.reason) == (400, "BadRequest")


def test_a_selector_of_a_spec_selects_nothing_when_it_is_empty() -> None:
    assert matches({"app": "x"}, {"app": "x", "more": "y"})
    assert matches({"matchLabels": {"app": "x"}}, {"app": "x"})
    assert not matches({"app": "x"}, {"app": "y"})
    assert not matches({}, {"app": "x"})


# --- amounts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [("500m", 0.5), ("2", 2), (8, 8), ("1Ki", 1024), ("1k", 1000), ("1.5Gi", 1.5 * 2**30), ("2T", 2e12), ("1e3", 1000)],
)
def test_quantities(text: str | int, value: float) -> None:
    assert number(text) == pytest.approx(value)


def test_a_limit_counts_as_the_request_where_there_is_none() -> None:
    first = {"resources": {"limits": {"nvidia.com/gpu": "2", "cpu": "4"}, "requests": {"cpu": "500m"}}}
    pod = {"spec": {"containers": [first, {"resources": {"requests": {"cpu": "1"}}}, {}]}}

    assert requested(pod) == {"nvidia.com/gpu": 2.0, "cpu": 1.5}
    assert shown(2.0) == "2"
