"""What can go wrong at the emulated DeepInfra, and servers that really run there."""

from __future__ import annotations

import os
import signal
import sys

import httpx
import pytest

from launcher.emulators.deepinfra import (
    After,
    Fails,
    FalseRefusal,
    LateEffect,
    LateListing,
    LoseAnswer,
    NoCapacity,
    Refuse,
    Server,
    Shape,
    SlowDelete,
    Stops,
    StuckDownload,
)
from launcher.platforms.local import supervised
from tests.contract.deepinfra.plane import plane, wanted
from tests.contract.lepton.plane import wait_for

SERVER = """
import http.server, os, sys
print("token", os.environ.get("HF_TOKEN"), "args", *sys.argv[2:], flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = b'{"choices": [], "model": "inner"}'
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
REAL = Server(argv=(sys.executable, "-S", "-c", SERVER, "{port}", "{args}"))


def test_faults_hold_a_deployment_up_until_they_are_over_or_for_ever() -> None:
    faults = (
        NoCapacity(resource="waits", seconds=100),
        NoCapacity(resource="never"),
        StuckDownload(resource="loads", seconds=100),
    )
    with plane(faults=faults) as desk:
        waits, never, loads = (desk.create(name) for name in ("waits", "never", "loads"))
        desk.wait(loads, "downloading")
        assert (desk.status(waits), desk.status(never)) == ("initializing", "initializing")

        desk.emulator.advance(101)

        desk.wait(waits, "running")
        desk.wait(loads, "running")
        assert desk.details(never)["instances"] == {"running": 0, "pending": 1}


@pytest.mark.parametrize("at", ["initializing", "downloading", "deploying", "running"])
def test_a_deployment_fails_where_it_is_told_to(at: str) -> None:
    with plane(faults=(Fails(resource="bad", at=at, reason="CUDA out of memory", times=1),)) as desk:
        id_ = desk.create("bad")
        desk.wait(id_, "failed")
        assert desk.details(id_)["fail_reason"] == "CUDA out of memory"
        assert desk.emulator.state().alive[0].states[-2][1] == at
        desk.ok("DELETE", f"/deploy/{id_}")
        desk.create_running("bad")


def test_a_deployment_stops_by_itself_and_costs_nothing_more() -> None:
    with plane(faults=(Stops(seconds=3600),)) as desk:
        id_ = desk.create_running()
        desk.emulator.advance(3601)
        desk.wait(id_, "stopped")
        assert desk.emulator.meter().of(id_).seconds == pytest.approx(3601, abs=20)
        assert desk.running(id_) == 0


def test_a_slow_delete_costs_until_it_is_done() -> None:
    with plane(faults=(SlowDelete(after=After(seconds=3600)),)) as desk:
        id_ = desk.create_running()
        for _ in range(2):
            desk.ok("DELETE", f"/deploy/{id_}")
        assert desk.listed() == [id_]
        desk.emulator.advance(3601)
        wait_for(lambda: desk.listed() == [])
        assert desk.emulator.meter().usd == pytest.approx(1.79, abs=0.02)


def test_the_list_may_lag_behind() -> None:
    with plane(faults=(LateListing(seconds=60),)) as desk:
        id_ = desk.create_running()
        assert desk.listed() == []
        desk.emulator.advance(61)
        assert desk.listed() == [id_]


@pytest.mark.parametrize("status", [401, 402, 409, 422, 423, 429, 500, 502, 503])
def test_a_route_can_be_refused_with_any_status(status: int) -> None:
    fault = Refuse(route="POST /deploy/llm", status=status, retry_after=7, shape=Shape.DETAIL, times=1)
    with plane(faults=(fault,)) as desk:
        send = {"json": wanted(), "headers": {"xi-api-key": desk.emulator.key}, "trust_env": False}
        refused = httpx.post(f"{desk.emulator.url}/deploy/llm", **send)

        assert (refused.status_code, refused.headers["retry-after"]) == (status, "7")
        assert refused.json() == {"detail": {"error": "try again later"}}
        assert desk.emulator.state().deployments == ()
        desk.create()


def test_refusals_of_inference_have_the_shape_of_openai() -> None:
    with plane(faults=(Refuse(route="POST /v1/openai/*", resource="tiny", status=500, message="oops"),)) as desk:
        asked = {"model": f"deploy_id:{desk.create_running()}", "prompt": "Hi"}
        answer = desk.http.post("/v1/openai/completions", json=asked)

        assert (answer.status_code, answer.json()["error"]["message"]) == (500, "oops")
        assert desk.emulator.calls[-1].status == 500


def test_a_lost_answer_has_its_effect() -> None:
    with plane(faults=(LoseAnswer(route="POST /deploy/llm", times=1),)) as desk:
        with pytest.raises(httpx.RemoteProtocolError):
            desk.create()
        assert desk.emulator.requests[0].lost
        assert len(desk.listed()) == 1


def test_a_refusal_can_be_false() -> None:
    with plane(faults=(FalseRefusal(route="POST /deploy/llm", status=503, seconds=60, times=1),)) as desk:
        assert desk.refused("POST", "/deploy/llm", json=wanted())[0] == 503
        assert desk.listed() == []
        desk.emulator.advance(61)
        assert len(desk.listed()) == 1
        assert desk.refused("POST", "/deploy/llm", json=wanted())[0] == 409


def test_an_effect_can_come_after_the_client_has_gone() -> None:
    with plane(faults=(LateEffect(route="POST /deploy/llm", seconds=0.2, times=1),)) as desk:
        with pytest.raises(httpx.ReadTimeout):
            desk.http.post("/deploy/llm", json=wanted(), timeout=0.05)
        wait_for(lambda: len(desk.listed()) == 1)


def test_faults_can_be_added_later() -> None:
    with plane() as desk:
        desk.emulator.inject(Refuse(route="GET /v1/me", times=1))
        assert desk.refused("GET", "/v1/me")[0] == 503
        assert desk.ok("GET", "/v1/me")


def test_a_real_server_gets_its_arguments_and_the_token_and_answers() -> None:
    with plane(REAL) as desk:
        id_ = desk.create_running(hf={"repo": "acme/tiny-llm", "token": "hf_x"}, extra_args=["--max-model-len", "512"])
        assert desk.complete(f"deploy_id:{id_}") == {"choices": [], "model": f"deploy_id:{id_}"}
        wait_for(lambda: desk.ok("GET", f"/v1/logs/query?deploy_id={id_}")["entries"])
        ((_, line),) = desk.ok("GET", f"/v1/logs/query?deploy_id={id_}")["entries"]
        assert line == "token hf_x args --max-model-len 512"

        desk.ok("DELETE", f"/deploy/{id_}")
        wait_for(lambda: pids_of(id_) == [])


def test_a_server_that_does_not_start_fails_its_deployment_with_its_last_line() -> None:
    broken = Server(argv=("/bin/sh", "-c", "echo loading; echo no weights >&2; exit 3"))
    with plane(broken) as desk:
        id_ = desk.create()
        desk.wait(id_, "failed")
        assert desk.details(id_)["fail_reason"].endswith("exited with code 3; its last line: no weights")
        assert desk.emulator.meter().usd == 0


def test_an_instance_that_dies_is_replaced() -> None:
    with plane(REAL) as desk:
        id_ = desk.create_running()
        (pid,) = pids_of(id_)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: pids_of(id_) not in ([], [pid]) and desk.running(id_) == 1)
        assert desk.status(id_) == "running"
        assert desk.complete(f"deploy_id:{id_}")


def pids_of(deploy_id: str) -> list[int]:
    """Processes of a deployment's servers."""
    return [process.pid for mark, process in supervised.marked() if mark.name.startswith(f"{deploy_id}-")]
