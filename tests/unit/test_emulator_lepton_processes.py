"""Endpoints and jobs that really run, and the data plane in front of them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from launcher.emulators.lepton import LeptonEmulator
from tests.contract.lepton.plane import SERVE, TOKEN, Plane, emulator, wait_for

MOUNT = {"path": "/runs", "from": "node-nfs:lepton-shared-fs", "mount_path": "/results"}
KEY = "endpoint-token-000001"


@pytest.fixture(scope="module")
def running() -> Iterator[LeptonEmulator]:
    with emulator(secrets={"GREETINGS": "hello-secret", "TOKENS": "token-in-a-secret"}) as found:
        yield found


@pytest.fixture
def plane(running: LeptonEmulator) -> Iterator[Plane]:
    with Plane(running) as found:
        yield found


def serve(plane: Plane, name: str, *command: str, **spec: object) -> str:
    """A real server; its URL once it is ready."""
    container = {"image": "real", "command": list(command or SERVE), "ports": [{"container_port": 8000}]}
    return plane.create_ready(name, container=container, **spec)


def get(url: str, token: str | None = None, **headers: str) -> httpx.Response:
    authorization = {} if token is None else {"authorization": f"Bearer {token}"}
    return httpx.get(url, headers={**authorization, **headers}, trust_env=False)


def test_a_server_answers_through_the_data_plane_with_its_secret(plane: Plane) -> None:
    envs = [{"name": "GREETING", "value_from": {"secret_name_ref": "GREETINGS"}}]
    url = serve(plane, "serves", envs=envs, api_tokens=[{"value": KEY}])

    assert get(f"{url}/v1/models?a=1&b=%2F", KEY).text == f"/v1/models?a=1&b=%2F hello-secret Bearer {KEY}"
    big = b"x" * 3_000_000
    assert httpx.post(url, content=big, headers={"authorization": f"Bearer {KEY}"}, trust_env=False).content == big


def test_only_its_own_tokens_and_the_workspaces_open_an_endpoint(plane: Plane) -> None:
    tokens = [{"value": KEY}, {"value_from": {"token_name_ref": "TOKENS"}}]
    url = plane.create_ready("guarded", api_tokens=tokens)

    assert [get(url, token).status_code for token in (None, "wrong", KEY, "token-in-a-secret", TOKEN)] == [
        401, 401, 200, 200, 200,
    ]  # fmt: skip


def test_an_endpoint_without_tokens_is_public(plane: Plane) -> None:
    assert get(f"{plane.create_ready('public')}/v1/x").text == "/v1/x"


def test_addresses_can_be_shut_out(plane: Plane) -> None:
    assert get(plane.create_ready("far", auth_config={"ip_allowlist": ["10.0.0.0/8"]})).status_code == 403
    assert get(plane.create_ready("near", auth_config={"ip_allowlist": ["127.0.0.1"]})).status_code == 200


def test_the_authorization_header_can_be_kept_from_the_container(plane: Plane) -> None:
    auth = {"lepton_workspace_token_auth": {"remove_authorization_header": True}}
    url = serve(plane, "hides", auth_config=auth)

    assert get(url, TOKEN).text.endswith("None")


def test_a_header_chooses_the_replica(plane: Plane) -> None:
    routing = {"enable_header_based_replica_routing": True}
    url = plane.create_ready("pinned", routing_policy=routing, resource_requirement={"min_replicas": 2})
    first, _ = plane.ok("GET", "/deployments/pinned/replicas")

    assert get(url, **{"x-lepton-replica-target": first["id"]}).status_code == 200
    assert get(url, **{"x-lepton-replica-target": "no-such-replica"}).status_code == 503


def test_the_data_plane_answers_503_until_the_port_is_open(plane: Plane) -> None:
    never = ["/bin/sh", "-c", "echo loading; exec sleep 60"]
    container = {"image": "real", "command": never, "ports": [{"container_port": 8000}]}
    url = plane.create("loads", container=container)["status"]["endpoint"]["external_endpoint"]

    wait_for(lambda: plane.log(deployment="loads") == ["loading"])
    assert get(url).status_code == 503
    assert plane.state("loads") == "Starting"
    assert get(f"{plane.emulator.data_plane}/ws1-nobody").status_code == 404


def test_a_container_that_never_opens_its_port_is_killed_and_started_again(plane: Plane) -> None:
    container = {"image": "real", "command": ["sleep", "60"], "ports": [{"container_port": 8000}]}
    plane.create("hangs", container=container, health={"liveness": {"initial_delay_seconds": 100}})
    (replica,) = plane.ok("GET", "/deployments/hangs/replicas")
    wait_for(lambda: "hangs" in [line.name for line in plane.emulator.meter().lines])

    plane.emulator.advance(161)

    wait_for(lambda: plane.ok("GET", "/deployments/hangs/termination") != {})
    (termination,) = plane.ok("GET", "/deployments/hangs/termination")[replica["id"]]
    assert termination["exit_code"] == 137


def test_a_crashing_container_is_started_again_and_its_ends_are_told(plane: Plane) -> None:
    container = {
        "image": "real",
        "command": ["/bin/sh", "-c", "echo no weights; exit 7"],
        "ports": [{"container_port": 8000}],
    }
    plane.create("crashes", container=container)

    def ends() -> list[dict[str, object]]:
        return [end for found in plane.ok("GET", "/deployments/crashes/termination").values() for end in found]

    wait_for(lambda: len(ends()) >= 2)
    assert {end["exit_code"] for end in ends()} == {7}
    assert plane.state("crashes") == "Not Ready"
    assert plane.log(deployment="crashes")[:2] == ["no weights"] * 2


def test_an_unknown_program_is_told_as_the_end_of_the_container(plane: Plane) -> None:
    container = {"image": "real", "command": ["no-such-program"], "ports": [{"container_port": 8000}]}
    plane.create("missing", container=container)

    wait_for(lambda: plane.ok("GET", "/deployments/missing/termination") != {})
    ((end, *_),) = plane.ok("GET", "/deployments/missing/termination").values()
    assert end["exit_code"] == 127
    assert "cannot execute no-such-program" in end["message"]


def test_a_job_writes_to_the_volume_and_sees_what_lepton_sets(plane: Plane) -> None:
    script = 'echo "{\\"who\\": \\"$LEPTON_JOB_NAME\\"}" > /results/out.json; echo $LEPTON_JOB_WORKER_INDEX'
    id = plane.submit("writes", "/bin/bash", "-c", script, image="real", mounts=[MOUNT])

    assert plane.finish(id) == "Completed"
    assert plane.ok("GET", "/storage/default/runs/out.json") == {"who": id}
    assert plane.log(job=id) == ["0"]


def test_a_live_log_stays_open_until_the_process_ends(plane: Plane) -> None:
    wait = "echo first; while [ ! -e /results/go ]; do sleep 0.02; done; echo last"
    id = plane.submit("talks", "/bin/bash", "-c", wait, image="real", mounts=[MOUNT])
    wait_for(lambda: plane.job_state(id) == "Running")
    (replica,) = plane.ok("GET", f"/jobs/{id}/replicas")

    with plane.http.stream("GET", f"/jobs/{id}/replicas/{replica['id']}/log") as log:
        lines = log.iter_lines()
        assert next(lines) == "first"
        (plane.emulator.volume() / "runs" / "go").touch()
        assert list(lines) == ["last"]


def test_a_replica_that_has_not_started_has_no_log_yet(plane: Plane) -> None:
    id = plane.submit("far-off", time_schedule={"start_at": plane.emulator.clock.now() + 1000})
    (replica,) = plane.ok("GET", f"/jobs/{id}/replicas")

    assert plane.refused("GET", f"/jobs/{id}/replicas/{replica['id']}/log")[0] == 412
    assert plane.refused("GET", f"/jobs/{id}/replicas/none/log")[0] == 404


def test_a_new_image_replaces_the_process(plane: Plane) -> None:
    url = serve(plane, "updated", envs=[{"name": "GREETING", "value": "one"}])
    assert " one " in get(url).text

    plane.ok("PATCH", "/deployments/updated", json={"spec": {"envs": [{"name": "GREETING", "value": "two"}]}})
    wait_for(lambda: plane.state("updated") == "Ready" and " two " in get(url).text)
    states = next(item for item in plane.emulator.state().endpoints if item.name == "updated").states
    assert [state for _, state in states] == ["Starting", "Ready", "Updating", "Ready"]


def test_a_start_that_this_machine_cannot_do_is_a_system_error(plane: Plane) -> None:
    (plane.emulator.volume() / "a-file").write_text("not a folder")
    mount = {"path": "/a-file", "from": "node-nfs:lepton-shared-fs", "mount_path": "/data"}
    plane.create("unlucky", image="real", mounts=[mount])

    wait_for(lambda: plane.state("unlucky") == "Not Ready")
    assert "SystemError" in plane.http.get("/deployments/unlucky/readiness").text
