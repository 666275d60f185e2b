"""Who may enter the emulated workspace, what it has, and its files."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from launcher.emulators.lepton import LeptonEmulator, NodeGroup, Timing, Token
from tests.contract.lepton.plane import TOKEN, Plane, emulator, endpoint


@pytest.fixture(scope="module")
def running() -> Iterator[LeptonEmulator]:
    tokens = (Token(), Token(value="nvapi-expiredtoken0001", expires_at=time.time() - 1))
    groups = (NodeGroup(), NodeGroup(id="cpu-pool-1", name="cpu-pool", shapes=("cpu.small",)))
    with emulator(tokens=tokens, foreign_tokens=("nvapi-foreigntoken",), node_groups=groups) as found:
        yield found


@pytest.fixture
def plane(running: LeptonEmulator) -> Iterator[Plane]:
    with Plane(running) as found:
        yield found


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer nvapi-wrong", 401),
        ("Bearer nvapi-expiredtoken0001", 401),
        ("Basic abc", 401),
        ("", 401),
        ("Bearer nvapi-foreigntoken", 403),
        (f"Bearer {TOKEN}", 200),
    ],
)
def test_tokens_open_their_workspace_only(plane: Plane, header: str, status: int) -> None:
    assert plane.http.get("/workspace", headers={"Authorization": header}).status_code == status


def test_another_workspace_is_not_found(plane: Plane) -> None:
    assert plane.http.get(plane.emulator.url.replace("ws1", "ws12") + "/workspace").status_code == 404
    assert plane.http.get("/no-such-route").status_code == 404


def test_the_workspace_says_what_both_client_generations_need(plane: Plane) -> None:
    body = plane.ok("GET", "/workspace")

    assert body["features"] == {"enable_new_deployment_api": False, "enable_secure_endpoint_defaults": False}
    assert body["service_quota"]["limit"] == {"kv_store_num": 0, "queue_num": 0}
    assert body["workloads"]["num_photons"] == 0
    assert body["supported_shapes"]["gpu.8xh100"]["accelerator_num"] == 8
    assert plane.ok("GET", plane.emulator.url)["display_name"] == "ws1"


def test_the_quota_counts_what_was_created_a_moment_ago_and_frees_what_was_scaled_down() -> None:
    rarely = Timing(tick=5.0)
    with emulator(timing=rarely, quota_accelerators=2) as running, Plane(running) as plane:
        plane.create("first")
        plane.create("second")

        assert "exceeds quota" in plane.refused("POST", "/deployments", json=endpoint("third"))[1]
        plane.ok("PATCH", "/deployments/first", json={"spec": {"resource_requirement": {"min_replicas": 0}}})
        plane.create("third")
        assert "exceeds quota" in plane.refused("POST", "/deployments", json=endpoint("fourth"))[1]


def test_used_quota_follows_the_endpoints(plane: Plane) -> None:
    plane.create("uses", resource_requirement={"min_replicas": 2})

    assert plane.ok("GET", "/workspace")["resource_quota"]["used"]["accelerator_num"] == 2


def test_tokens_are_listed_masked_with_their_ends_in_milliseconds(plane: Plane) -> None:
    first, second = plane.ok("GET", "/tokens")

    assert first == {"masked_value": "nvapi-lo...0001", "expires_at": None}
    assert second["expires_at"] > time.time() * 500


def test_shapes_depend_on_the_node_group(plane: Plane) -> None:
    def shapes(**query: str) -> set[str]:
        return {shape["metadata"]["id"] for shape in plane.ok("GET", "/shapes", params=query)}

    assert shapes(node_groups="cpu-pool-1") == {"cpu.small"}
    assert shapes(node_groups="h100-pool-ab12cd34") == {"cpu.small", "gpu.1xh100", "gpu.8xh100"}
    here = {"affinity": {"allowed_dedicated_node_groups": ["cpu-pool-1"]}}
    body = endpoint("misplaced", resource_requirement=here)
    assert "not available in node group" in plane.refused("POST", "/deployments", json=body)[1]


def test_node_groups_name_their_volumes(plane: Plane) -> None:
    group = plane.ok("GET", "/dedicated-node-groups/h100-pool-ab12cd34")

    assert group["metadata"]["name"] == "h100-pool"
    assert {"from": "nfs", "name": "lepton-shared-fs", "size_in_gb": 1000} in group["spec"]["volumes"]
    assert plane.ok("GET", "/dedicated-node-groups/h100-pool-ab12cd34/nodes")[0]["spec"]["unschedulable"] is False


def test_secrets_are_written_and_never_read_back(plane: Plane) -> None:
    plane.ok("POST", "/usersecrets", json=[{"name": "MINE", "value": "canary-value", "tags": ["a"]}])

    answer = plane.http.get("/usersecrets")
    assert {"name": "MINE", "tags": ["a"], "visibility": None} in answer.json()
    assert "canary-value" not in answer.text
    assert plane.refused("POST", "/usersecrets", json=[{"name": "MINE", "value": "x"}])[0] == 409
    plane.create("holds", envs=[{"name": "K", "value_from": {"secret_name_ref": "MINE"}}])
    assert plane.refused("DELETE", "/usersecrets/MINE") == (400, "secret MINE is in use")
    assert plane.refused("DELETE", "/usersecrets/OTHER")[0] == 404


def test_image_pull_secrets_are_made_and_removed(plane: Plane) -> None:
    spec = {"registry_server": "https://nvcr.io", "username": "$oauthtoken", "password": "canary-value", "email": ""}
    body = {"metadata": {"name": "ngc", "id": "ngc"}, "spec": spec}

    assert plane.http.post("/imagepullsecrets", json=body).status_code == 201
    assert plane.refused("POST", "/imagepullsecrets", json=body)[0] == 409
    assert "canary-value" not in plane.http.get("/imagepullsecrets").text
    plane.ok("DELETE", "/imagepullsecrets/ngc")
    assert plane.ok("GET", "/imagepullsecrets") == []


def test_bodies_that_are_no_documents_are_refused(plane: Plane) -> None:
    assert plane.refused("POST", "/jobs", content=b"{")[0] == 400
    assert plane.refused("POST", "/jobs", json=[1])[0] == 400
    assert plane.refused("POST", "/jobs", json={"metadata": {"id": "x"}, "spec": 7})[0] == 400


def test_files_come_and_go_on_a_volume(plane: Plane) -> None:
    base = "/storage/default/results/abc"
    assert plane.http.put(base).status_code == 201
    assert plane.http.post(f"{base}/a.json", files={"file": b"{}"}).status_code == 201

    assert plane.http.get(f"{base}/a.json").content == b"{}"
    assert plane.ok("GET", base) == [{"type": "file", "name": "a.json", "path": "/results/abc/a.json"}]
    assert plane.http.get("/storage/lepton-shared-fs/results/abc/a.json").status_code == 200
    assert (plane.emulator.volume() / "results/abc/a.json").read_bytes() == b"{}"
    assert [plane.http.head(f"{base}/{name}").status_code for name in ("a.json", "b.json")] == [200, 404]


def test_storage_deletes_trees_only_when_told_to(plane: Plane) -> None:
    plane.http.put("/storage/default/tree/branch")

    assert plane.refused("DELETE", "/storage/default/tree")[0] == 400
    assert plane.refused("DELETE", "/storage/default/")[0] == 400
    plane.ok("DELETE", "/storage/default/tree", params={"removeall": "true"})
    assert plane.http.head("/storage/default/tree").status_code == 404


def test_storage_refuses_what_cannot_be(plane: Plane) -> None:
    assert plane.http.post("/storage/default/lost/a", files={"file": b"x"}).status_code == 404
    assert plane.http.get("/storage/other-volume/x").status_code == 404
    assert plane.http.get("/storage/default/..%2F..%2Fetc/passwd").status_code == 400


def test_a_workspace_can_be_without_storage_routes() -> None:
    with emulator(storage_routes=False) as bare, Plane(bare) as plane:
        assert plane.http.get("/storage").status_code == 404


def test_every_request_is_in_the_log(plane: Plane) -> None:
    before = len(plane.emulator.requests)
    plane.http.get("/jobs", params={"page": 2})
    plane.http.get("/jobs/none")

    first, second = plane.emulator.requests[before:]
    assert (first.method, first.path, first.query, first.status) == ("GET", "/jobs", "page=2", 200)
    assert (second.path, second.status) == ("/jobs/none", 404)
    assert first.time <= second.time
