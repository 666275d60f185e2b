"""A client of the emulated account as tests need it; all its traffic is checked against the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from launcher.emulators.deepinfra import Config, DeepInfraEmulator, Timing
from tests.contract.deepinfra.validation import Contract, Validated
from tests.contract.lepton.plane import wait_for

Json = dict[str, Any]
QUICK = Timing(tick=0.01, restart_delay=0.05)


class Plane:
    """One account, seen through its API. `key` None: no header."""

    def __init__(self, emulator: DeepInfraEmulator, *, key: str | None = "") -> None:
        self.emulator = emulator
        self.contract = Contract()
        headers = {} if key is None else {"Authorization": f"Bearer {key or emulator.key}"}
        transport = Validated(self.contract, httpx.HTTPTransport())
        self.http = httpx.Client(base_url=emulator.url, headers=headers, transport=transport, trust_env=False)

    def ok(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of a good answer."""
        answer = self.http.request(method, path, **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def refused(self, method: str, path: str, **options: Any) -> tuple[int, str]:
        """Status and message of a refusal."""
        answer = self.http.request(method, path, **options)
        assert answer.is_error, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.status_code, message(answer.json())

    def create(self, name: str = "tiny", **keys: Any) -> str:
        """A deployment; returns its id."""
        return str(self.ok("POST", "/deploy/llm", json=wanted(name, **keys))["deploy_id"])

    def create_running(self, name: str = "tiny", **keys: Any) -> str:
        """A deployment that runs; returns its id."""
        id_ = self.create(name, **keys)
        self.wait(id_, "running")
        return id_

    def details(self, id_: str) -> Json:
        """What the API says of it."""
        found: Json = self.ok("GET", f"/deploy/{id_}")
        return found

    def status(self, id_: str) -> str:
        """Its status."""
        return str(self.details(id_)["status"])

    def wait(self, id_: str, status: str) -> None:
        """Until it has a status."""
        wait_for(lambda: self.status(id_) == status)

    def running(self, id_: str) -> int:
        """How many of its instances run."""
        return int(self.details(id_)["instances"]["running"])

    def listed(self, **query: str) -> list[str]:
        """Ids of the language models in the list."""
        return [row["deploy_id"] for row in self.ok("GET", "/deploy/list", params=query) if row["type"] == "llm"]

    def complete(self, model: str, **fields: Any) -> Json:
        """A completion of one token."""
        asked = {"model": model, "prompt": "Hello there", "max_tokens": 1, **fields}
        found: Json = self.ok("POST", "/v1/openai/completions", json=asked)
        return found


def wanted(name: str = "tiny", **keys: Any) -> Json:
    """The body that asks for a deployment."""
    return {"model_name": name, "gpu": "H100-80GB", "hf": {"repo": "acme/tiny-llm"}, **keys}


def message(body: Json) -> str:
    """The text of an error in any shape."""
    found = body.get("error", body.get("detail"))
    if isinstance(found, list):
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found)
    return str(found.get("message", found.get("error"))) if isinstance(found, dict) else str(found)


@contextmanager
def plane(*servers: Any, simulations: Any = None, key: str | None = "", **config: Any) -> Iterator[Plane]:
    """A running account; `config` are keys of the Config."""
    settings = Config(**{"timing": QUICK, "servers": servers, **config})
    with DeepInfraEmulator(settings, simulations=simulations) as emulator:
        found = Plane(emulator, key=key)
        with found.http:
            yield found
