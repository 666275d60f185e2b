"""The emulated API server as Kubernetes documents its own: kubernetes.io/docs/reference/using-api/api-concepts,
/server-side-apply, concepts/architecture/garbage-collection, concepts/overview/working-with-objects/finalizers,
concepts/policy/resource-quotas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launcher.emulators.common.faults import Refuse
from launcher.emulators.kubernetes.config import Config, Node, Timing, User
from launcher.emulators.kubernetes.faults import Deny
from tests.unit.kube_plane import APPS, BATCH, CONTENT, CORE, Plane, config_map, deployment, job, template

MAPS = f"{CORE}/configmaps"
DEPLOYMENTS = f"{APPS}/deployments"


@pytest.fixture
def plane(tmp_path: Path) -> Plane:
    return Plane(tmp_path)


# --- who asks, and for what -------------------------------------------------------------------------------------------


def test_an_unknown_token_is_refused(plane: Plane) -> None:
    assert plane.ask("GET", MAPS, token="nobody").status_code == 401


def test_what_no_role_allows_is_forbidden_and_the_refusal_names_it(tmp_path: Path) -> None:
    plane = Plane(tmp_path, Config(users=(User(), User(token="weak", name="weak", admin=False))))

    code, reason, message = plane.refused("GET", MAPS, token="weak")

    assert (code, reason) == (403, "Forbidden")
    what = 'User "weak" cannot list resource "configmaps" in API group "" in the namespace "default"'
    assert message == f"configmaps is forbidden: {what}"
    review = {"spec": {"resourceAttributes": {"verb": "list", "resource": "configmaps", "namespace": "default"}}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert plane.ask("POST", path, review, token="weak").json()["status"] == {"allowed": False}
    assert plane.ok("POST", path, review)["status"] == {"allowed": True}


def test_a_role_with_a_binding_allows_exactly_its_verbs(tmp_path: Path) -> None:
    plane = Plane(tmp_path, Config(users=(User(), User(token="weak", name="weak", admin=False))))
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"], "resourceNames": ["mine"]}]
    plane.ok("POST", f"{rbac}/roles", {"metadata": {"name": "reader"}, "rules": rules})
    binding = {"subjects": [{"kind": "User", "name": "weak"}], "roleRef": {"kind": "Role", "name": "reader"}}
    plane.ok("POST", f"{rbac}/rolebindings", {"metadata": {"name": "b"}, **binding})
    for name in ("mine", "other"):
        plane.ok("POST", MAPS, config_map(name))

    def code(method: str, path: str) -> int:
        return plane.ask(method, path, token="weak").status_code

    assert code("GET", f"{MAPS}/mine") == 200
    assert code("GET", f"{MAPS}/other") == 403
    assert code("DELETE", f"{MAPS}/mine") == 403


@pytest.mark.parametrize("path", ["/api/v1/namespaces/default/unicorns", "/apis/none/v1/things", "/nothing"])
def test_paths_that_nobody_serves_are_not_found(plane: Plane, path: str) -> None:
    assert plane.refused("GET", path)[:2] == (404, "NotFound")


def test_a_body_that_is_no_object_is_a_bad_request(plane: Plane) -> None:
    assert plane.refused("POST", MAPS, [1])[:2] == (400, "BadRequest")
    assert plane.ask("POST", MAPS, {}, content_type="application/vnd.kubernetes.protobuf").status_code == 415


# --- discovery --------------------------------------------------------------------------------------------------------


def test_discovery_lists_groups_resources_and_what_can_be_done_with_them(plane: Plane) -> None:
    groups = {group["name"]: group["preferredVersion"]["version"] for group in plane.ok("GET", "/apis")["groups"]}
    core = {one["name"]: one for one in plane.ok("GET", "/api/v1")["resources"]}
    apps = {one["name"]: one for one in plane.ok("GET", "/apis/apps/v1")["resources"]}

    assert plane.ok("GET", "/api")["versions"] == ["v1"]
    assert {"apps": "v1", "batch": "v1"}.items() <= groups.items()
    assert core["pods"]["namespaced"] and not core["nodes"]["namespaced"]
    assert core["pods"]["shortNames"] == ["po"]
    assert core["pods/log"]["verbs"] == ["get"]
    assert apps["deployments/scale"]["kind"] == "Scale"
    assert plane.ok("GET", "/version")["major"] == "1"


def test_every_group_that_discovery_names_has_a_schema(plane: Plane) -> None:
    paths = plane.ok("GET", "/openapi/v3")["paths"]

    assert {"api/v1", "apis/apps/v1", "apis/batch/v1"} <= paths.keys()
    schema = plane.ok("GET", paths["apis/batch/v1"]["serverRelativeURL"])
    kinds = [one["x-kubernetes-group-version-kind"][0]["kind"] for one in schema["components"]["schemas"].values()]
    assert "Job" in kinds


# --- objects ----------------------------------------------------------------------------------------------------------


def test_a_created_object_has_what_a_cluster_gives_it(plane: Plane) -> None:
    made = plane.ok("POST", MAPS, config_map("a", labels={"x": "y"}))

    metadata = made["metadata"]
    assert {"uid", "resourceVersion", "creationTimestamp"} <= metadata.keys()
    assert metadata["namespace"] == "default"
    assert (made["kind"], made["apiVersion"]) == ("ConfigMap", "v1")
    assert plane.ok("GET", f"{MAPS}/a") == made


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        (config_map("taken"), 409, "AlreadyExists"),
        ({"metadata": {}}, 422, "Invalid"),
        ({**config_map("x"), "kind": "Secret"}, 400, "BadRequest"),
        (config_map("x", namespace="kube-system"), 400, "BadRequest"),
        (config_map("x", resourceVersion="1"), 400, "BadRequest"),
    ],
)
def test_creations_that_are_refused(plane: Plane, body: dict[str, Any], code: int, reason: str) -> None:
    plane.ok("POST", MAPS, config_map("taken"))

    assert plane.refused("POST", MAPS, body)[:2] == (code, reason)


def test_a_namespace_that_does_not_exist_takes_nothing(plane: Plane) -> None:
    found = plane.refused("POST", "/api/v1/namespaces/none/configmaps", config_map("x"))

    assert found == (404, "NotFound", 'namespaces "none" not found')


def test_a_name_can_be_generated_and_a_dry_run_makes_nothing(plane: Plane) -> None:
    generated = {"metadata": {"generateName": "run-"}}
    name = plane.ok("POST", MAPS, generated)["metadata"]["name"]
    plane.ok("POST", f"{MAPS}?dryRun=All", config_map("never"))

    assert name.startswith("run-") and len(name) > len("run-")
    assert plane.names(MAPS) == [name]


def test_lists_are_selected_by_labels_and_fields(plane: Plane) -> None:
    for name in ("a", "b", "c"):
        plane.ok("POST", MAPS, config_map(name, labels={"name": name}))

    assert plane.names(MAPS, "?labelSelector=name%20in%20(a,b)") == ["a", "b"]
    assert plane.names(MAPS, "?labelSelector=name!=a&fieldSelector=metadata.name%3Dc") == ["c"]
    assert plane.refused("GET", f"{MAPS}?labelSelector=a%20b")[:2] == (400, "BadRequest")


def test_a_table_is_what_kubectl_asks_for(plane: Plane) -> None:
    plane.ok("POST", DEPLOYMENTS, deployment("web"))
    plane.tick(5)

    table = plane.ok("GET", DEPLOYMENTS, accept="application/json;as=Table;v=v1;g=meta.k8s.io")

    titles = [column["name"] for column in table["columnDefinitions"]]
    assert titles == ["Name", "Ready", "Up-to-date", "Available", "Age"]
    assert table["rows"][0]["cells"][:2] == ["web", "1/1"]


# --- changes ----------------------------------------------------------------------------------------------------------


def test_an_update_of_an_old_version_is_a_conflict(plane: Plane) -> None:
    old = plane.ok("POST", MAPS, config_map("a"))
    new = plane.ok("PUT", f"{MAPS}/a", {**old, "data": {"a": "2"}})

    code, reason, message = plane.refused("PUT", f"{MAPS}/a", {**old, "data": {"a": "3"}})

    assert int(new["metadata"]["resourceVersion"]) > int(old["metadata"]["resourceVersion"])
    assert (code, reason) == (409, "Conflict")
    assert "please apply your changes to the latest version" in message
    assert plane.ok("GET", f"{MAPS}/a")["data"] == {"a": "2"}


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        ("json", [{"op": "test", "path": "/data/a", "value": "1"}, {"op": "add", "path": "/data/b", "value": "2"}]),
        ("merge", {"data": {"b": "2"}}),
        ("strategic", {"data": {"b": "2"}}),
    ],
)
def test_patches_of_all_kinds(plane: Plane, kind: str, patch: Any) -> None:
    plane.ok("POST", MAPS, config_map("a"))

    assert plane.patch(kind, f"{MAPS}/a", patch)["data"] == {"a": "1", "b": "2"}


def test_a_json_patch_whose_test_fails_changes_nothing(plane: Plane) -> None:
    plane.ok("POST", MAPS, config_map("a"))
    patch = [{"op": "replace", "path": "/data/a", "value": "2"}, {"op": "test", "path": "/data/a", "value": "9"}]

    assert plane.refused("PATCH", f"{MAPS}/a", patch, content_type=CONTENT["json"])[:2] == (422, "Invalid")
    assert plane.ok("GET", f"{MAPS}/a")["data"] == {"a": "1"}


def test_status_and_spec_are_changed_apart_and_generation_counts_specs(plane: Plane) -> None:
    plane.ok("POST", DEPLOYMENTS, {**deployment("web"), "status": {"replicas": 9}})
    path = f"{DEPLOYMENTS}/web"

    scaled = plane.patch("merge", path, {"spec": {"replicas": 2}, "status": {"replicas": 7}})
    told = plane.patch("merge", f"{path}/status", {"spec": {"replicas": 5}, "status": {"readyReplicas": 1}})

    assert scaled["metadata"]["generation"] == 2
    assert scaled.get("status", {}).get("replicas") is None, "what a person says of it is no status"
    assert (told["spec"]["replicas"], told["status"]["readyReplicas"]) == (2, 1)
    assert told["metadata"]["generation"] == 2
    assert plane.patch("merge", f"{path}/scale", {"spec": {"replicas": 3}})["kind"] == "Scale"
    assert plane.ok("GET", path)["spec"]["replicas"] == 3


def test_what_is_immutable_stays(plane: Plane) -> None:
    made = plane.ok("POST", DEPLOYMENTS, deployment("web"))
    selector = {"spec": {"selector": {"matchLabels": {"app": "other"}}}}

    code, _, message = plane.refused("PATCH", f"{DEPLOYMENTS}/web", selector, content_type=CONTENT["merge"])
    renamed = plane.patch("merge", f"{DEPLOYMENTS}/web", {"metadata": {"uid": "x"}})

    assert (code, "field is immutable" in message) == (422, True)
    assert renamed["metadata"]["uid"] == made["metadata"]["uid"]


def test_a_selector_that_misses_its_own_pods_is_refused(plane: Plane) -> None:
    wrong = deployment("web", selector={"matchLabels": {"app": "other"}})

    assert plane.refused("POST", DEPLOYMENTS, wrong)[:2] == (422, "Invalid")


# --- server-side apply ------------------------------------------------------------------------------------------------


def apply(plane: Plane, manager: str, data: dict[str, str], force: str = "") -> Any:
    path = f"{MAPS}/shared?fieldManager={manager}{force}"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "data": data}
    return plane.ask("PATCH", path, body, content_type=CONTENT["apply"])


def test_apply_creates_and_then_changes_what_its_manager_set(plane: Plane) -> None:
    assert apply(plane, "one", {"a": "1", "b": "1"}).status_code == 201

    again = apply(plane, "one", {"a": "2"})

    assert again.status_code == 200
    assert again.json()["data"] == {"a": "2"}, "what a manager does not set any more goes"
    assert [one["manager"] for one in again.json()["metadata"]["managedFields"]] == ["one"]


def test_what_another_manager_set_is_a_conflict_until_it_is_forced(plane: Plane) -> None:
    apply(plane, "one", {"a": "1"})

    refused = apply(plane, "two", {"a": "2", "b": "2"})
    forced = apply(plane, "two", {"a": "2", "b": "2"}, "&force=true")

    assert (refused.status_code, refused.json()["reason"]) == (409, "Conflict")
    assert 'conflict with "one": .data.a' in refused.json()["message"]
    assert forced.json()["data"] == {"a": "2", "b": "2"}


def test_equal_values_are_shared_and_stay_until_nobody_sets_them(plane: Plane) -> None:
    apply(plane, "one", {"a": "1", "b": "1"})

    assert apply(plane, "two", {"a": "1"}).status_code == 200
    assert apply(plane, "one", {"b": "1"}).json()["data"] == {"a": "1", "b": "1"}
    assert apply(plane, "two", {"b": "1"}).json()["data"] == {"b": "1"}


def test_a_forced_field_belongs_to_who_took_it(plane: Plane) -> None:
    apply(plane, "one", {"a": "1", "b": "1"})
    apply(plane, "two", {"a": "2"}, "&force=true")

    assert apply(plane, "one", {"b": "1"}).json()["data"] == {"a": "2", "b": "1"}
    assert apply(plane, "two", {"a": "3"}).json()["data"] == {"a": "3", "b": "1"}, "nobody else sets it any more"


def test_apply_without_a_manager_is_refused(plane: Plane) -> None:
    body = config_map("shared")

    assert plane.refused("PATCH", f"{MAPS}/shared", body, content_type=CONTENT["apply"])[:2] == (400, "BadRequest")


# --- watches ----------------------------------------------------------------------------------------------------------


def test_a_watch_tells_what_came_after_its_version(plane: Plane) -> None:
    plane.ok("POST", MAPS, config_map("before"))
    version = plane.ok("GET", MAPS)["metadata"]["resourceVersion"]
    plane.ok("POST", MAPS, config_map("a"))
    plane.patch("merge", f"{MAPS}/a", {"data": {"a": "2"}})
    plane.ok("DELETE", f"{MAPS}/a")

    events = plane.watch(MAPS, version)

    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(versions) and versions[0] > int(version)


def test_a_watch_from_nowhere_begins_with_what_there_is(plane: Plane) -> None:
    plane.ok("POST", MAPS, config_map("a"))

    assert [(event["type"], event["object"]["metadata"]["name"]) for event in plane.watch(MAPS, 0)] == [("ADDED", "a")]


def test_an_object_that_is_no_longer_selected_is_deleted_for_its_watch(plane: Plane) -> None:
    version = plane.ok("GET", MAPS)["metadata"]["resourceVersion"]
    plane.ok("POST", MAPS, config_map("a", labels={"in": "yes"}))
    plane.patch("merge", f"{MAPS}/a", {"metadata": {"labels": {"in": "no"}}})

    events = plane.watch(MAPS, version, "&labelSelector=in%3Dyes")

    assert [event["type"] for event in events] == ["ADDED", "DELETED"]


def test_a_version_that_is_too_old_is_gone(plane: Plane) -> None:
    version = plane.ok("GET", MAPS)["metadata"]["resourceVersion"]
    plane.ok("POST", MAPS, config_map("a"))
    plane.cluster.store.forget()

    code, reason, message = plane.refused("GET", f"{MAPS}?watch=true&resourceVersion={version}")

    assert (code, reason, message) == (410, "Expired", f"too old resource version: {version}")
    assert plane.watch(MAPS, plane.ok("GET", MAPS)["metadata"]["resourceVersion"]) == []


def test_bookmarks_carry_the_version_alone(tmp_path: Path) -> None:
    plane = Plane(tmp_path, Config(timing=Timing(bookmark=0.0)))
    version = plane.ok("GET", MAPS)["metadata"]["resourceVersion"]

    events = plane.watch(MAPS, version, "&allowWatchBookmarks=true")

    assert events and {event["type"] for event in events} == {"BOOKMARK"}
    assert events[0]["object"]["metadata"]["resourceVersion"] == version
    assert events[0]["object"]["kind"] == "ConfigMap"


# --- deletion ---------------------------------------------------------------------------------------------------------


def test_a_precondition_protects_the_one_that_came_after(plane: Plane) -> None:
    plane.ok("POST", MAPS, config_map("a"))
    other = {"preconditions": {"uid": "another"}}

    assert plane.refused("DELETE", f"{MAPS}/a", other)[:2] == (409, "Conflict")
    assert plane.ok("DELETE", f"{MAPS}/a")["status"] == "Success"
    assert plane.refused("DELETE", f"{MAPS}/a")[:2] == (404, "NotFound")


def test_a_finalizer_holds_an_object_until_somebody_takes_it_off(plane: Plane) -> None:
    plane.ok("POST", MAPS, config_map("held", finalizers=["example.com/hold"]))

    leaving = plane.ok("DELETE", f"{MAPS}/held")
    assert leaving["metadata"]["deletionTimestamp"]
    assert plane.names(MAPS) == ["held"]
    plane.patch("merge", f"{MAPS}/held", {"metadata": {"finalizers": []}})

    assert plane.names(MAPS) == []


def owned(plane: Plane, name: str, *owners: str) -> None:
    references = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": one,
            "uid": plane.ok("GET", f"{MAPS}/{one}")["metadata"]["uid"],
        }
        for one in owners
    ]
    plane.ok("POST", MAPS, config_map(name, ownerReferences=references))


def test_dependents_go_after_their_owner_in_the_background(plane: Plane) -> None:
    plane.ok("POST", MAPS, config_map("anchor"))
    owned(plane, "child", "anchor")
    owned(plane, "grandchild", "child")

    plane.ok("DELETE", f"{MAPS}/anchor", {"propagationPolicy": "Background"})
    assert plane.names(MAPS) == ["child", "grandchild"]
    plane.tick()

    assert plane.names(MAPS) == []


def test_an_object_with_several_owners_stays_until_the_last_is_gone(plane: Plane) -> None:
    for name in ("one", "two"):
        plane.ok("POST", MAPS, config_map(name))
    owned(plane, "child", "one", "two")

    plane.ok("DELETE", f"{MAPS}/one")
    plane.tick()
    assert plane.names(MAPS) == ["two", "child"]
    plane.ok("DELETE", f"{MAPS}/two")
    plane.tick()

    assert plane.names(MAPS) == []


def test_in_the_foreground_the_owner_waits_for_its_dependents(plane: Plane) -> None:
    plane.ok("POST", MAPS, config_map("anchor"))
    owned(plane, "child", "anchor")
    plane.patch("merge", f"{MAPS}/child", {"metadata": {"finalizers": ["example.com/hold"]}})

    leaving = plane.ok("DELETE", f"{MAPS}/anchor", {"propagationPolicy": "Foreground"})
    plane.tick()
    assert leaving["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert plane.names(MAPS) == ["anchor", "child"]
    plane.patch("merge", f"{MAPS}/child", {"metadata": {"finalizers": []}})
    plane.tick()

    assert plane.names(MAPS) == []


def test_an_orphan_stays_and_forgets_its_owner(plane: Plane) -> None:
    plane.ok("POST", MAPS, config_map("anchor"))
    owned(plane, "child", "anchor")

    plane.ok("DELETE", f"{MAPS}/anchor", {"propagationPolicy": "Orphan"})
    plane.tick()

    assert plane.names(MAPS) == ["child"]
    assert not plane.ok("GET", f"{MAPS}/child")["metadata"].get("ownerReferences")


def test_a_collection_is_deleted_as_far_as_it_is_selected(plane: Plane) -> None:
    for name in ("a", "b"):
        plane.ok("POST", MAPS, config_map(name, labels={"name": name}))

    plane.ok("DELETE", f"{MAPS}?labelSelector=name%3Da")

    assert plane.names(MAPS) == ["b"]


# --- controllers ------------------------------------------------------------------------------------------------------


def test_a_deployment_has_its_pods_and_replaces_what_is_deleted(plane: Plane) -> None:
    plane.ok("POST", DEPLOYMENTS, deployment("web", replicas=2))
    plane.tick()
    first = plane.names(f"{CORE}/pods")

    plane.ok("DELETE", f"{CORE}/pods/{first[0]}", {"gracePeriodSeconds": 0})
    plane.tick(6)

    now = plane.names(f"{CORE}/pods")
    assert len(first) == len(now) == 2
    assert first[0] not in now and first[1] in now
    assert plane.ok("GET", f"{DEPLOYMENTS}/web")["status"]["readyReplicas"] == 2


def test_a_deployment_without_a_policy_takes_its_pods_along(plane: Plane) -> None:
    plane.ok("POST", DEPLOYMENTS, deployment("web"))
    plane.tick()

    plane.ok("DELETE", f"{DEPLOYMENTS}/web")
    plane.tick(8)

    assert plane.names(f"{CORE}/pods") == plane.names(f"{APPS}/replicasets") == []


def test_a_job_completes_once_and_its_log_can_be_read(plane: Plane) -> None:
    plane.ok("POST", f"{BATCH}/jobs", job("once"))
    plane.tick()
    plane.clock.advance(2)
    plane.tick()

    status = plane.ok("GET", f"{BATCH}/jobs/once")["status"]
    (pod,) = plane.names(f"{CORE}/pods", "?labelSelector=job-name%3Donce")
    assert (status["succeeded"], status["conditions"][0]["type"]) == (1, "Complete")
    assert plane.ask("GET", f"{CORE}/pods/{pod}/log").text == "done\n"


def test_a_job_fails_at_its_deadline_and_goes_after_its_time(plane: Plane) -> None:
    plane.ok("POST", f"{BATCH}/jobs", job("late", "sim/server", activeDeadlineSeconds=60, ttlSecondsAfterFinished=30))
    plane.tick()
    plane.clock.advance(61)
    plane.tick(6)
    condition = plane.ok("GET", f"{BATCH}/jobs/late")["status"]["conditions"][0]
    plane.clock.advance(31)
    plane.tick(6)

    assert (condition["type"], condition["reason"]) == ("Failed", "DeadlineExceeded")
    assert plane.names(f"{BATCH}/jobs") == plane.names(f"{CORE}/pods") == []


def test_a_job_that_is_deleted_without_a_policy_leaves_its_pods(plane: Plane) -> None:
    """batch/v1 keeps the default of old: kubernetes.io/docs/concepts/workloads/controllers/job."""
    plane.ok("POST", f"{BATCH}/jobs", job("once"))
    plane.tick()

    plane.ok("DELETE", f"{BATCH}/jobs/once")
    plane.tick(6)

    assert plane.names(f"{BATCH}/jobs") == []
    assert len(plane.names(f"{CORE}/pods")) == 1


def test_pods_wait_for_what_no_node_has_and_the_scheduler_says_what_it_is(tmp_path: Path) -> None:
    plane = Plane(tmp_path, Config(nodes=(Node(name="small", gpus=1),)))
    pod = template()
    pod["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "2"}}
    plane.ok("POST", DEPLOYMENTS, deployment("big", template=pod))
    plane.tick()

    (waiting,) = plane.ok("GET", f"{CORE}/pods")["items"]
    (condition,) = waiting["status"]["conditions"]
    assert (condition["reason"], condition["status"]) == ("Unschedulable", "False")
    assert condition["message"] == "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    assert plane.names(f"{CORE}/events", "?fieldSelector=reason%3DFailedScheduling")


# --- quota, admission, faults -----------------------------------------------------------------------------------------


def test_a_pod_beyond_the_quota_is_forbidden_in_the_words_of_kubernetes(tmp_path: Path) -> None:
    plane = Plane(tmp_path, Config(quota={"pods": "1"}))
    bare = {"metadata": {"name": "first"}, "spec": {"containers": [{"name": "c", "image": "sim/server"}]}}
    plane.ok("POST", f"{CORE}/pods", bare)

    code, reason, message = plane.refused("POST", f"{CORE}/pods", {**bare, "metadata": {"name": "second"}})

    assert (code, reason) == (403, "Forbidden")
    assert message == (
        'pods "second" is forbidden: exceeded quota: team, requested: pods=1, used: pods=1, limited: pods=1'
    )


def test_a_controller_that_may_make_no_pod_says_so_in_its_status(tmp_path: Path) -> None:
    plane = Plane(tmp_path, Config(quota={"pods": "0"}))
    plane.ok("POST", DEPLOYMENTS, deployment("web"))
    plane.tick(4)

    failures = [
        c for c in plane.ok("GET", f"{DEPLOYMENTS}/web")["status"]["conditions"] if c["type"] == "ReplicaFailure"
    ]
    assert failures and failures[0]["reason"] == "FailedCreate"
    assert "exceeded quota" in failures[0]["message"]


def test_a_webhook_that_denies_is_named(tmp_path: Path) -> None:
    plane = Plane(tmp_path, Config(faults=(Deny(route="POST */configmaps"),)))

    code, _, message = plane.refused("POST", MAPS, config_map("a"))

    assert code == 403
    assert message.startswith('admission webhook "policy.example.com" denied the request:')


def test_a_busy_server_says_when_to_come_back(tmp_path: Path) -> None:
    plane = Plane(tmp_path, Config(faults=(Refuse(status=429, retry_after=7, times=1),)))

    answer = plane.ask("GET", MAPS)

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert answer.json()["reason"] == "TooManyRequests"
    assert plane.ask("GET", MAPS).status_code == 200
