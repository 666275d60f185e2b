"""Endpoints of the emulated workspace, in both families."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from launcher.emulators.lepton import After, LeptonEmulator, NodeGroup, Timing
from tests.contract.lepton.plane import Plane, emulator, endpoint, wait_for


@pytest.fixture(scope="module")
def running() -> Iterator[LeptonEmulator]:
    with emulator(secrets={"KEY": "value-of-the-key"}, image_pull_secrets=("ngc",)) as found:
        yield found


@pytest.fixture
def plane(running: LeptonEmulator) -> Iterator[Plane]:
    with Plane(running) as found:
        yield found


def test_creation_answers_201_with_everything_the_server_fills_in(plane: Plane) -> None:
    answer = plane.http.post("/deployments", json=endpoint("born"))

    assert answer.status_code == 201
    body = answer.json()
    assert body["metadata"]["id"] == body["metadata"]["name"] == "born"
    assert {"created_at", "version", "semantic_version", "owner"} <= set(body["metadata"])
    assert body["status"]["state"] in ("Starting", "Ready")
    assert body["status"]["endpoint"]["external_endpoint"] == f"{plane.emulator.data_plane}/ws1-born"


def test_a_name_is_taken_until_the_deletion_is_over(plane: Plane) -> None:
    plane.create_ready("twice")

    assert plane.refused("POST", "/deployments", json=endpoint("twice"))[0] == 409
    plane.ok("DELETE", "/deployments/twice")
    wait_for(lambda: plane.state("twice") == "gone")
    plane.create("twice")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"resource_requirement": {"resource_shape": "gpu.none"}}, "shape gpu.none not found"),
        ({"resource_requirement": {"affinity": {"allowed_dedicated_node_groups": ["h100-pool"]}}}, "node group"),
        ({"envs": [{"name": "LEPTON_JOB_NAME", "value": "x"}]}, "reserved"),
        ({"envs": [{"name": "1ST", "value": "x"}]}, "invalid environment variable name"),
        ({"mounts": [{"from": "node-nfs:lepton-shared-fs", "mount_path": "/usr/local/"}]}, "system folder"),
        ({"mounts": [{"from": "node-nfs:other", "mount_path": "/data"}]}, "volume node-nfs:other not found"),
        ({"mounts": [{"path": "/../x", "from": "node-local", "mount_path": "/data"}]}, "must not contain"),
        ({"resource_requirement": {"min_replicas": 2, "max_replicas": 1}}, "max_replicas"),
        ({"resource_requirement": {"min_replicas": 2000}}, "exceeds quota"),
        ({"auto_scaler": {"target_gpu_utilization_percentage": 101}}, "<= 100"),
        ({"api_tokens": [{"value": "***"}]}, "not a token"),
        ({"ingress_timeout_seconds": 10}, ">= 300"),
    ],
)
def test_a_spec_that_is_not_valid_is_refused(plane: Plane, spec: dict[str, object], says: str) -> None:
    status, message = plane.refused("POST", "/deployments", json=endpoint("refused", **spec))

    assert status == 400
    assert says in message
    assert "refused" not in [item.name for item in plane.emulator.state().endpoints]


@pytest.mark.parametrize("name", ["Big", "1st", "ends-", "a" * 37, "a_b"])
def test_names_follow_the_rule(plane: Plane, name: str) -> None:
    assert "invalid name" in plane.refused("POST", "/deployments", json=endpoint(name))[1]


def test_patch_merges_objects_and_replaces_arrays(plane: Plane) -> None:
    plane.create("merged", envs=[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], log={"x": 1})

    patch = {"spec": {"envs": [{"name": "C", "value": "3"}], "log": {"y": 2}, "resource_requirement": None}}
    spec = plane.ok("PATCH", "/deployments/merged", json=patch)["spec"]

    assert spec["envs"] == [{"name": "C", "value": "3"}]
    assert spec["log"] == {"x": 1, "y": 2}
    assert "resource_requirement" not in spec


def test_a_dry_run_says_what_would_be_and_changes_nothing(plane: Plane) -> None:
    plane.create("dry", ingress_timeout_seconds=300)

    patch = {"spec": {"ingress_timeout_seconds": 600}}
    would = plane.ok("PATCH", "/deployments/dry?dryrun=true", json=patch)

    assert would["spec"]["ingress_timeout_seconds"] == 600
    assert plane.ok("GET", "/deployments/dry")["spec"]["ingress_timeout_seconds"] == 300


def test_a_patch_that_changes_nothing_is_refused(plane: Plane) -> None:
    plane.create("same", ingress_timeout_seconds=300)

    refusal = plane.http.patch("/deployments/same", json={"spec": {"ingress_timeout_seconds": 300}})

    assert refusal.status_code == 400
    assert refusal.json() == {"code": "InvalidRequest", "message": "no valid field to update"}


def test_zero_replicas_stop_it_and_one_starts_it_again(plane: Plane) -> None:
    url = plane.create_ready("stopped")

    plane.ok("PATCH", "/deployments/stopped", json={"spec": {"resource_requirement": {"min_replicas": 0}}})
    wait_for(lambda: plane.state("stopped") == "Stopped")
    assert plane.ok("GET", "/deployments/stopped")["status"]["state"] == "Not Ready"
    assert plane.http.get(url).status_code == 503

    plane.ok("PATCH", "/deployments/stopped", json={"spec": {"resource_requirement": {"min_replicas": 1}}})
    wait_for(lambda: plane.state("stopped") == "Ready")


def test_scaling_and_restarting_change_the_replicas(plane: Plane) -> None:
    plane.create_ready("scaled")
    first = plane.ok("GET", "/deployments/scaled/replicas")

    plane.ok("PATCH", "/deployments/scaled", json={"spec": {"resource_requirement": {"min_replicas": 3}}})
    wait_for(lambda: plane.state("scaled") == "Ready")
    scaled = plane.ok("GET", "/deployments/scaled/replicas")
    assert [replica["id"] for replica in scaled][:1] == [replica["id"] for replica in first]
    assert len(scaled) == 3

    plane.ok("PUT", "/deployments/scaled/restart")
    wait_for(lambda: plane.state("scaled") == "Ready")
    restarted = {replica["id"] for replica in plane.ok("GET", "/deployments/scaled/replicas")}
    assert restarted.isdisjoint(replica["id"] for replica in scaled)


def test_no_traffic_for_its_time_out_scales_to_zero(plane: Plane) -> None:
    url = plane.create_ready("idle", auto_scaler={"scale_down": {"no_traffic_timeout": 3600}})

    plane.emulator.advance(3000)
    assert plane.http.get(url).status_code == 200
    plane.emulator.advance(3000)
    assert plane.state("idle") == "Ready"
    plane.emulator.advance(3601)
    wait_for(lambda: plane.state("idle") == "Stopped")
    events = plane.ok("GET", "/deployments/idle/events")
    assert "ScaledDownNoTraffic" in [event["reason"] for event in events]


def test_not_ready_for_its_time_out_scales_to_zero(plane: Plane) -> None:
    health = {"readiness": {"require_approval": True}}
    plane.create("slow", health=health, auto_scaler={"scale_down": {"not_ready_timeout": 600}})

    plane.emulator.advance(590)
    assert plane.state("slow") == "Starting"
    plane.emulator.advance(20)
    wait_for(lambda: plane.state("slow") == "Stopped")


def test_an_approval_comes_before_ready(plane: Plane) -> None:
    plane.create("asks", health={"readiness": {"require_approval": True}})

    def reasons() -> list[str]:
        issues = plane.ok("GET", "/deployments/asks/readiness")
        return [issue["reason"] for found in issues.values() for issue in found]

    wait_for(lambda: reasons() == ["RequireReadinessApproval"])
    assert plane.state("asks") == "Starting"
    plane.emulator.approve("asks")
    wait_for(lambda: plane.state("asks") == "Ready")
    assert reasons() == ["Ready"]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"envs": [{"name": "K", "value_from": {"secret_name_ref": "LOST"}}]}, "secret LOST not found"),
        ({"image_pull_secrets": ["lost"]}, "image pull secret lost not found"),
    ],
)
def test_an_unknown_secret_is_a_config_error_of_the_replica(plane: Plane, spec: dict[str, object], says: str) -> None:
    name = f"config-{len(says)}"
    plane.create(name, image="real", **spec)

    wait_for(lambda: plane.state(name) == "Not Ready")
    ((issue,),) = plane.ok("GET", f"/deployments/{name}/readiness").values()
    assert issue["reason"] == "ConfigError"
    assert says in issue["message"]


def test_states_can_wait_for_reads_and_for_seconds() -> None:
    timing = Timing(endpoint_start=After(reads=3), endpoint_delete=After(seconds=60))
    with emulator(timing=timing) as slow, Plane(slow) as plane:
        plane.create("patient")
        assert [plane.state("patient") for _ in range(2)] == ["Starting", "Starting"]
        wait_for(lambda: plane.state("patient") == "Ready")

        plane.ok("DELETE", "/deployments/patient")
        slow.advance(50)
        assert plane.state("patient") == "Deleting"
        assert plane.ok("GET", "/deployments/patient")["status"]["endpoint"]["external_endpoint"] == ""
        slow.advance(20)
        assert plane.state("patient") == "gone"
        states = [state for _, state in slow.state().endpoints[0].states]
        assert states == ["Starting", "Ready", "Deleting"]
        assert slow.state().alive == ()


def test_a_full_node_group_makes_the_next_endpoint_wait() -> None:
    with emulator(node_groups=(NodeGroup(accelerators=1),)) as small, Plane(small) as plane:
        plane.create_ready("first")
        plane.create("second")
        wait_for(lambda: "NoCapacity" in plane.http.get("/deployments/second/readiness").text)
        plane.ok("DELETE", "/deployments/first")
        wait_for(lambda: plane.state("second") == "Ready")


def test_node_groups_do_not_share_their_capacity() -> None:
    groups = (NodeGroup(id="a", name="a", accelerators=1), NodeGroup(id="b", name="b", accelerators=1))
    with emulator(node_groups=groups) as small, Plane(small) as plane:
        for name, group in (("one", "a"), ("two", "b"), ("three", "b")):
            affinity = {"affinity": {"allowed_dedicated_node_groups": [group]}}
            plane.create(name, resource_requirement=affinity)
        wait_for(lambda: plane.state("one") == plane.state("two") == "Ready")
        wait_for(lambda: "NoCapacity" in plane.http.get("/deployments/three/readiness").text)

        plane.ok("DELETE", "/deployments/one")
        wait_for(lambda: plane.state("one") == "gone")
        assert plane.state("three") == "Starting", "what is free in another group is no use"
        plane.ok("DELETE", "/deployments/two")
        wait_for(lambda: plane.state("three") == "Ready")


def test_cost_is_minutes_times_replicas_times_price() -> None:
    with emulator() as priced, Plane(priced) as plane:
        plane.create_ready("paid", resource_requirement={"min_replicas": 2})
        priced.advance(3600)
        plane.ok("DELETE", "/deployments/paid")
        wait_for(lambda: plane.state("paid") == "gone")
        priced.advance(3600)

        (line,) = priced.meter().lines
        assert line.replica_minutes == pytest.approx(120, abs=0.5)
        assert priced.meter().usd == pytest.approx(6.0, abs=0.05)


def test_unknown_secrets_can_be_refused_at_once() -> None:
    with emulator(refuse_unknown_secrets=True) as strict, Plane(strict) as plane:
        body = endpoint("strict", envs=[{"name": "K", "value_from": {"secret_name_ref": "LOST"}}])
        assert plane.refused("POST", "/deployments", json=body) == (400, "secret LOST not found")


def component(**changes: object) -> dict[str, object]:
    ports = [{"container_port": 8000, "protocol": "TCP"}]
    base = {"name": "default", "image": "sim", "command": ["serve"], "ports": ports, "resource_shape": "gpu.1xh100"}
    return {**base, **changes}


@pytest.fixture(scope="module")
def modern() -> Iterator[Plane]:
    with emulator(new_deployment_api=True, secure_endpoint_defaults=True) as found, Plane(found) as plane:
        yield plane


def test_the_new_family_speaks_in_components(modern: Plane) -> None:
    body = {
        "metadata": {"name": "new", "lepton_metadata": {"visibility": "private"}},
        "spec": {"components": [component(envs=[{"name": "A", "value": "1"}])], "api_tokens": [{"value": "tok-1"}]},
    }
    created = modern.ok("POST", "/endpoints", json=body)

    assert created["metadata"]["lepton_metadata"]["visibility"] == "private"
    assert created["spec"]["components"][0]["envs"] == [{"name": "A", "value": "1"}]
    assert created["status"]["external_url"] == f"{modern.emulator.data_plane}/ws1-new"
    wait_for(lambda: modern.state("new") == "Ready")
    for missing in ("readiness", "termination"):
        assert modern.refused("GET", f"/endpoints/new/{missing}")[0] == 404
    assert modern.ok("GET", "/endpoints/new/history")[-1]["state"] == "Ready"


def test_a_workspace_on_the_new_api_refuses_legacy_creation(modern: Plane) -> None:
    assert modern.refused("POST", "/deployments", json=endpoint("old"))[0] == 400


def test_a_new_patch_replaces_components_whole(modern: Plane) -> None:
    first = component(envs=[{"name": "A", "value": "1"}], autoscaling={"target_gpu_utilization_percentage": 50})
    modern.ok("POST", "/endpoints", json={"metadata": {"name": "whole"}, "spec": {"components": [first]}})

    zero = {"spec": {"components": [{**first, "min_replicas": 0}]}}
    assert "at least 1" in modern.refused("PATCH", "/endpoints/whole", json=zero)[1]
    patched = modern.ok("PATCH", "/endpoints/whole", json={"spec": {"components": [component(min_replicas=0)]}})

    assert "envs" not in patched["spec"]["components"][0]
    wait_for(lambda: modern.state("whole") == "Stopped")


def test_secure_defaults_make_one_token_and_show_it_once(modern: Plane) -> None:
    created = modern.ok(
        "POST", "/endpoints", json={"metadata": {"name": "safe"}, "spec": {"components": [component()]}}
    )
    (token,) = created["spec"]["api_tokens"]
    wait_for(lambda: modern.state("safe") == "Ready")

    url = created["status"]["external_url"]
    assert modern.http.get(url, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert modern.http.get(url, headers={"Authorization": f"Bearer {token['value']}"}).status_code == 200
    assert modern.ok("GET", "/endpoints/safe")["spec"]["api_tokens"] == [{"value": "***"}]


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        ({"api_tokens": []}, "clearing api_tokens"),
        ({"allow_unauthenticated_access": True}, "cannot be combined"),
        ({"api_tokens": [{"value": "***"}]}, "not a token"),
    ],
)
def test_secure_defaults_guard_changes_of_access(modern: Plane, patch: dict[str, object], says: str) -> None:
    if modern.state("guarded") == "gone":
        modern.ok("POST", "/endpoints", json={"metadata": {"name": "guarded"}, "spec": {"components": [component()]}})

    status, message = modern.refused("PATCH", "/endpoints/guarded", json={"spec": patch})

    assert (status, says in message) == (400, True), message


def test_access_can_be_opened_on_purpose(modern: Plane) -> None:
    modern.ok("POST", "/endpoints", json={"metadata": {"name": "open"}, "spec": {"components": [component()]}})
    modern.ok("PATCH", "/endpoints/open", json={"spec": {"allow_unauthenticated_access": True, "api_tokens": []}})
    wait_for(lambda: modern.state("open") == "Ready")

    url = modern.ok("GET", "/endpoints/open")["status"]["external_url"]
    assert modern.http.get(f"{url}/v1/x", headers={"Authorization": ""}).text == "/v1/x"
