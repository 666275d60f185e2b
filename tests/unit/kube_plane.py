"""An emulated cluster without a network: requests go to its application, and time passes when a test says so."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx

from launcher.emulators.common.clock import Clock
from launcher.emulators.common.simulated import Script
from launcher.emulators.kubernetes.api import ApiServer
from launcher.emulators.kubernetes.cluster import Cluster
from launcher.emulators.kubernetes.config import Config

Json = dict[str, Any]
ADMIN = "loopback-admin"
CORE, APPS, BATCH = (
    "/api/v1/namespaces/default",
    "/apis/apps/v1/namespaces/default",
    "/apis/batch/v1/namespaces/default",
)
CONTENT = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


class Plane:
    """One cluster. Pods of images `sim/*` are simulated: they run until they are stopped, `sim/job` for a second."""

    def __init__(self, root: Path, config: Config | None = None) -> None:
        self.clock = Clock()
        simulations = {"sim/job": lambda _: Script(output="done\n", seconds=1.0), "sim/*": lambda _: Script()}
        self.cluster = Cluster(config or Config(), self.clock, root, simulations)
        self.server = ApiServer(self.cluster, lambda _: None)
        self._transport = httpx.ASGITransport(self.server.application())

    def ask(self, method: str, path: str, body: Any = None, *, token: str = ADMIN, **headers: str) -> httpx.Response:
        """One request."""
        sent = {"Authorization": f"Bearer {token}", **{name.replace("_", "-"): text for name, text in headers.items()}}
        content = None if body is None else json.dumps(body)

        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://cluster.test") as client:
                return await client.request(method, path, content=content, headers=sent)

        return asyncio.run(send())

    def ok(self, method: str, path: str, body: Any = None, **headers: str) -> Json:
        """What one that succeeds answers."""
        answer = self.ask(method, path, body, **headers)
        assert answer.is_success, answer.text
        found: Json = answer.json()
        return found

    def refused(
        self, method: str, path: str, body: Any = None, *, token: str = ADMIN, **headers: str
    ) -> tuple[int, str, str]:
        """Code, reason and message of the Status that one is refused with."""
        answer = self.ask(method, path, body, token=token, **headers)
        status = answer.json()
        assert (status["kind"], status["status"], status["code"]) == ("Status", "Failure", answer.status_code)
        return answer.status_code, status["reason"], status["message"]

    def patch(self, kind: str, path: str, body: Any) -> Json:
        """A patch of a kind."""
        return self.ok("PATCH", path, body, content_type=CONTENT[kind])

    def watch(self, path: str, version: str | int, query: str = "") -> list[Json]:
        """The events of a watch that ends at once."""
        url = f"{path}?watch=true&timeoutSeconds=0.2&resourceVersion={version}{query}"
        return [json.loads(line) for line in self.ask("GET", url).text.splitlines()]

    def tick(self, times: int = 3) -> None:
        """Let the controllers look so many times."""

        async def look() -> None:
            for _ in range(times):
                self.cluster.tick()

        asyncio.run(look())

    def names(self, path: str, query: str = "") -> list[str]:
        """Names of what a list has."""
        return [item["metadata"]["name"] for item in self.ok("GET", f"{path}{query}")["items"]]


def config_map(name: str, **metadata: Any) -> Json:
    """The simplest object."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": {"a": "1"}}


def template(image: str = "sim/server", **labels: str) -> Json:
    """Of a pod."""
    return {"metadata": {"labels": labels or {"app": "x"}}, "spec": {"containers": [{"name": "main", "image": image}]}}


def deployment(name: str, **spec: Any) -> Json:
    """One that runs a simulated server."""
    wanted = {"replicas": 1, "selector": {"matchLabels": {"app": "x"}}, "template": template()}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {**wanted, **spec}}


def job(name: str, image: str = "sim/job", **spec: Any) -> Json:
    """One whose pod runs once."""
    pod = template(image)
    pod["spec"]["restartPolicy"] = "Never"
    wanted = {"backoffLimit": 0, "template": pod, **spec}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": wanted}
