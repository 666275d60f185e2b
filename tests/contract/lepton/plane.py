"""A client of the emulated control plane as tests need it: documents in, documents out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import httpx

from launcher.emulators.lepton import Config, LeptonEmulator, Script, Simulation, Timing
from launcher.emulators.lepton.container import Command

Json = dict[str, Any]
TOKEN = "nvapi-loopbacktoken0001"
LIMIT = 10.0
QUICK = Timing(tick=0.02, restart_delay=0.05)
SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.answer(body)
    def do_GET(self):
        self.answer(f"{self.path} {os.environ.get('GREETING')} {self.headers.get('authorization')}".encode())
    def answer(self, body):
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        print("request", self.path, flush=True)
print("listening", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""
SERVE = [sys.executable, "-c", SERVER, "--port", "8000"]


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers everything with its path."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def simulate(command: Command) -> Script:
    """Commands `serve`, `run SECONDS EXIT_CODE TEXT`."""
    match command.argv:
        case ("run", seconds, code, text):
            return Script(seconds=float(seconds), exit_code=int(code), output=text)
        case _:
            return Script(application=hello)


SIMULATED: dict[str, Simulation] = {"sim": simulate}


class Plane:
    """The control plane of an emulator."""

    def __init__(self, emulator: LeptonEmulator, *, token: str = TOKEN) -> None:
        self.emulator = emulator
        headers = {"Authorization": f"Bearer {token}"}
        self.http = httpx.Client(base_url=emulator.url, headers=headers, trust_env=False, verify=False)
        self.family = "/endpoints" if emulator.config.new_deployment_api else "/deployments"

    def __enter__(self) -> Plane:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def ok(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of a good answer; None for an empty one."""
        answer = self.http.request(method, path, **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def refused(self, method: str, path: str, **options: Any) -> tuple[int, str]:
        """Status and message of a refusal."""
        answer = self.http.request(method, path, **options)
        assert answer.is_error, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.status_code, answer.json()["message"]

    def state(self, name: str) -> str:
        """Phase of an endpoint; `gone` after its end."""
        answer = self.http.get(f"{self.family}/{name}")
        if answer.status_code == 404:
            return "gone"
        status = answer.json()["status"]
        return str(status.get("phase") or status["state"])

    def job_state(self, id: str) -> str:
        """State of a job; `gone` after its end."""
        answer = self.http.get(f"/jobs/{id}")
        return "gone" if answer.status_code == 404 else str(answer.json()["status"]["state"])

    def create(self, name: str, **spec: Any) -> Json:
        """An endpoint in the legacy family."""
        document: Json = self.ok("POST", "/deployments", json=endpoint(name, **spec))
        return document

    def create_ready(self, name: str, **spec: Any) -> str:
        """An endpoint that is ready; returns its URL."""
        self.create(name, **spec)
        wait_for(lambda: self.state(name) == "Ready")
        return str(self.ok("GET", f"/deployments/{name}")["status"]["endpoint"]["external_endpoint"])

    def submit(self, name: str, *command: str, **spec: Any) -> str:
        """A job; returns its id."""
        return str(self.ok("POST", "/jobs", json=job(name, *command, **spec))["metadata"]["id"])

    def finish(self, id: str) -> str:
        """The final state of a job."""
        wait_for(lambda: self.job_state(id) in ("Completed", "Failed"))
        return self.job_state(id)

    def log(self, **query: Any) -> list[str]:
        """Collected lines, oldest first."""
        found = self.ok("GET", "/logs", params={"direction": "forward", **query})
        return [text for stream in found["data"]["result"] for _, text in stream["values"]]


def endpoint(name: str, *command: str, image: str = "sim", **spec: Any) -> Json:
    """The document of an endpoint."""
    container = {"image": image, "command": list(command or ("serve",)), "ports": [{"container_port": 8000}]}
    resources = {"resource_shape": "gpu.1xh100", **spec.pop("resource_requirement", {})}
    return {"metadata": {"name": name}, "spec": {"container": container, "resource_requirement": resources, **spec}}


def job(name: str, *command: str, image: str = "sim", **spec: Any) -> Json:
    """The document of a job; without a command it runs until it is stopped."""
    container = {"image": image, "command": list(command or ("serve",))}
    return {"metadata": {"id": name}, "spec": {"resource_shape": "cpu.small", "container": container, **spec}}


def wait_for(condition: Callable[[], bool], limit: float = LIMIT) -> None:
    """Poll until it holds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def emulator(**config: Any) -> LeptonEmulator:
    """An emulator whose image `sim` is simulated; it looks often."""
    return LeptonEmulator(Config(**{"timing": QUICK, **config}), simulations=SIMULATED)
