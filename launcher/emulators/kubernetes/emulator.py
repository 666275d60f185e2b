"""The running emulator: an API server on a loopback port, in a thread of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from starlette.applications import Starlette

from launcher.emulators.common.faults import Fault
from launcher.emulators.common.front import RequestRecord
from launcher.emulators.common.loopback import Loopback, World
from launcher.emulators.kubernetes.api import ApiServer
from launcher.emulators.kubernetes.cluster import Cluster
from launcher.emulators.kubernetes.config import Config
from launcher.emulators.kubernetes.kinds import BY_KIND, GATEWAYS, QUOTAS, Kind
from launcher.emulators.kubernetes.running import Simulation
from launcher.emulators.kubernetes.selectors import Json
from launcher.platforms.local.ports import HOST


@dataclass(frozen=True, kw_only=True)
class Made:
    """One object that was made through the API, present or gone. Times in seconds since 1970."""

    kind: str
    name: str
    manifest: Json
    gone: bool
    made: float
    over: float
    """From when its end was asked for, or it had ended; infinite if neither."""


class KubernetesEmulator(Loopback):
    """`with KubernetesEmulator(config) as emulator: emulator.kubeconfig`.

    `port` is that of the API server. `simulations`: how to simulate containers, by patterns of their images, instead
    of running them.
    """

    def __init__(
        self, config: Config | None = None, *, port: int = 0, simulations: Mapping[str, Simulation] | None = None
    ) -> None:
        self.config = config or Config()
        super().__init__("kubernetes", port=port, ports=1, root=self.config.root, tick=self.config.timing.tick)
        self._simulations = simulations or {}
        self._cluster: Cluster
        self._api: ApiServer

    @property
    def url(self) -> str:
        """Base URL of the API server."""
        return self._address()

    @property
    def requests(self) -> tuple[RequestRecord, ...]:
        """All requests so far."""
        return tuple(self._api.requests)

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig whose user may do everything."""
        return self.kubeconfig_of(self.config.users[0].token)

    def kubeconfig_of(self, token: str, namespace: str = "default", *, tls: bool = False) -> Path:
        """A kubeconfig of a token; with `tls` also for clients that show none to a server without, as kubectl."""
        cluster = {"server": self.url}
        if tls:
            port = self._in_loop(self._cluster.accounts.secured)
            authority = str(self._cluster.accounts.authority)
            cluster = {"server": f"https://{HOST}:{port}", "certificate-authority": authority}
        path = self.root / f"kubeconfig-{token}.yaml"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "emulated",
            "clusters": [{"name": "emulated", "cluster": cluster}],
            "users": [{"name": "me", "user": {"token": token}}],
            "contexts": [
                {"name": "emulated", "context": {"cluster": "emulated", "user": "me", "namespace": namespace}}
            ],
        }
        path.write_text(yaml.safe_dump(document))
        return path

    def objects(self, kind: str, api_version: str = "v1") -> list[Json]:
        """All objects of a kind that exist."""
        found = BY_KIND[api_version, kind]
        return self._in_loop(lambda: [*self._cluster.store.all(found)])

    def made(self) -> list[Made]:
        """Every object that was ever made through the API, in order."""

        def look() -> list[Made]:
            present = {thing["metadata"]["uid"] for _, thing in self._cluster.store.everything()}
            return [self._made(kind, thing, present) for kind, thing in self._cluster.ever]

        return self._in_loop(look)

    def _made(self, kind: Kind, thing: Json, present: set[str]) -> Made:
        name, uid = thing["metadata"]["name"], thing["metadata"]["uid"]
        store = self._cluster.store
        return Made(
            kind=kind.kind,
            name=name,
            manifest=thing,
            gone=uid not in present,
            made=store.born[uid],
            over=store.over.get(uid, math.inf),
        )

    def left(self) -> list[str]:
        """What carries the mark of the launcher, and pods of it, in words."""

        def look() -> list[str]:
            found = []
            for kind, thing in self._cluster.store.everything():
                labels = thing["metadata"].get("labels") or {}
                if "nv-eval/invocation" in labels:
                    found.append(f"{kind.kind} {thing['metadata']['name']}")
            return found

        return self._in_loop(look)

    def lose_node(self, name: str) -> None:
        """A node dies and is taken out of the cluster."""
        self._in_loop(lambda: self._cluster.lose_node(name))

    def inject(self, *faults: Fault) -> None:
        """More faults, from now on."""
        self._in_loop(lambda: self._cluster.faults.add(faults))

    def limit(self, hard: Mapping[str, str]) -> None:
        """A quota of the namespace default from now on."""
        quota = {"metadata": {"name": "team", "namespace": "default"}, "spec": {"hard": dict(hard)}}
        self._in_loop(lambda: self._cluster.store.create(QUOTAS, quota))

    def gateway_port(self, name: str) -> int:
        """Where a Gateway of the config listens."""
        found = self._in_loop(lambda: self._cluster.store.get(GATEWAYS, "default", name))
        return int(found["spec"]["listeners"][0]["port"])

    def outage(self, seconds: float) -> None:
        """The API server is killed, and is back so many seconds later: connections break, nobody answers meanwhile."""

        def begin() -> None:
            self._api.down_until = self.clock.now() + seconds
            for connection in [*self._servers[0].server_state.connections]:
                connection.transport.abort()

        self._in_loop(begin)

    def forget_changes(self) -> None:
        """Watches from before now are refused with 410."""
        self._in_loop(self._cluster.store.forget)

    def add_account(self, name: str, namespace: str = "default") -> str:
        """A service account and its token."""
        return self._in_loop(lambda: self._cluster.add_account(name, namespace))

    def used(self) -> dict[str, float]:
        """What all pods request together."""
        return self._in_loop(self._cluster.used)

    def _open(self) -> tuple[World, Sequence[Starlette]]:
        self._cluster = Cluster(self.config, self.clock, self._root, self._simulations, api=lambda: self._ports[0])
        self._api = ApiServer(self._cluster, self._disconnect)
        return self._cluster, (self._api.application(),)

    async def _release(self) -> None:
        await self._cluster.network.close()
        await self._cluster.accounts.close()
