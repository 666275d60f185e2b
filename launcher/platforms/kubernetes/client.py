"""The cluster's API through the official client: its kubeconfig, credentials, TLS, connections; our one retry policy.

The official client waits for answers, so each request has a thread while it is under way. Objects are the JSON that the
API speaks: the client's classes for them cost a second to import and most of the memory of a run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

import httpx
import msgspec

from launcher.config.execution import Kubernetes
from launcher.errors import MissingExtra, PreflightError
from launcher.plan.groups import API
from launcher.platforms.http import Api, RequestFailed, RetryPolicy, make_client
from launcher.platforms.kubernetes.reach import account, default_file, has_kubeconfig, is_inside

Json = dict[str, Any]
THREADS = 24
CHUNK = 65536
CONNECT_TIME = 10.0
NOT_FOUND = 404
IN_CLUSTER = "in-cluster"
"""Name of the context of a pod's own account."""
PATHS = {
    "deployments": "/apis/apps/v1",
    "httproutes": "/apis/gateway.networking.k8s.io/v1",
    "gateways": "/apis/gateway.networking.k8s.io/v1",
    "jobs": "/apis/batch/v1",
    "leaderworkersets": f"/apis/{API}",
    "selfsubjectaccessreviews": "/apis/authorization.k8s.io/v1",
}
"""Base paths of the kinds that are not of the core."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where a cluster is and how it is entered. `api` is the official client's."""

    api: Any
    host: str
    namespace: str
    context: str
    """Name of the context; `in-cluster` for a pod's own account."""


def access(config: Kubernetes) -> Access:
    """The cluster that a config names. Raises PreflightError if there is none, MissingExtra without the client."""
    try:
        from kubernetes import client as official
        from kubernetes import config as loader
    except ModuleNotFoundError:
        raise MissingExtra("the Kubernetes client", "kubernetes") from None
    try:
        if config.context is None and config.kubeconfig is None and not has_kubeconfig() and is_inside():
            found = official.Configuration()
            files = [str(account() / name) for name in ("token", "ca.crt")]
            loader.incluster_config.InClusterConfigLoader(*files).load_and_set(found)
            namespace, context = (account() / "namespace").read_text(encoding="utf-8").strip(), IN_CLUSTER
            return _access(official.ApiClient(found), config, namespace, context)
        file = str(Path(config.kubeconfig).expanduser()) if config.kubeconfig else default_file()
        if config.kubeconfig and not Path(file).is_file():
            raise PreflightError(f"Kubernetes: execution.kubeconfig: there is no file {file}")
        contexts, current = loader.list_kube_config_contexts(config_file=file)
        chosen = next((c for c in contexts if c["name"] == config.context), None) if config.context else current
        if chosen is None:
            names = ", ".join(sorted(c["name"] for c in contexts))
            raise PreflightError(f"Kubernetes: execution.context: there is no {config.context}; the file has: {names}")
        api = loader.new_client_from_config(config_file=file, context=chosen["name"], persist_config=False)
        return _access(api, config, chosen["context"].get("namespace") or "default", chosen["name"])
    except (loader.ConfigException, OSError, ValueError, KeyError) as error:
        message = " ".join(str(error).split())[:300].rstrip(".")
        raise PreflightError(
            f"Kubernetes: no cluster: {message}; set KUBECONFIG, execution.kubeconfig or execution.context"
        ) from None


def _access(api: Any, config: Kubernetes, namespace: str, context: str) -> Access:
    host = str(api.configuration.host).rstrip("/")
    return Access(api=api, host=host, namespace=config.namespace or namespace, context=context)


class Wire(httpx.AsyncBaseTransport):
    """Sends requests through the connections of the official client, each in a thread."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="kubernetes")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One request; its body is read as it comes."""
        loop = asyncio.get_running_loop()
        content = await request.aread()
        timeout = request.extensions.get("timeout", {}).get("read")
        headers = dict(request.headers)
        headers.pop("host", None)
        headers.pop("accept-encoding", None)
        if request.method == "PATCH":
            headers["content-type"] = "application/apply-patch+yaml"  # all of ours are; JSON is YAML
        answer = await loop.run_in_executor(
            self._threads, lambda: open_(self._access, request.method, str(request.url), headers, content, timeout)
        )
        shown = [(name, value) for name, value in answer.headers.items() if name.lower() != "content-encoding"]
        return httpx.Response(answer.status, headers=shown, stream=_Body(answer, self._threads))

    async def aclose(self) -> None:
        """Close the connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._access.api.rest_client.pool_manager.clear()


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: Any, threads: ThreadPoolExecutor) -> None:
        self._answer = answer
        self._threads = threads

    async def __aiter__(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        while chunk := await loop.run_in_executor(self._threads, lambda: read(self._answer)):
            yield chunk

    async def aclose(self) -> None:
        self._answer.release_conn()
        self._answer.close()


def open_(
    access: Access, method: str, url: str, headers: Mapping[str, str], content: bytes | None, timeout: float | None
) -> Any:
    """Send a request and return its answer, unread. Waits. Raises httpx.RequestError."""
    import urllib3

    configuration = access.api.configuration
    sent = dict(headers)
    for setting in configuration.auth_settings().values():
        if setting["in"] == "header" and setting["value"]:
            sent[setting["key"]] = setting["value"]
    try:
        return access.api.rest_client.pool_manager.request(
            method,
            url,
            body=content or None,
            headers=sent,
            preload_content=False,
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_TIME, read=timeout),
        )
    except urllib3.exceptions.HTTPError as error:
        raise _as_httpx(error) from error


def read(answer: Any) -> bytes:
    """What has come of an answer; empty at its end. Waits. Raises httpx.RequestError."""
    import urllib3

    try:
        return cast(bytes, answer.read1(CHUNK))
    except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
        raise _as_httpx(error) from error  # ValueError, AttributeError: it was closed meanwhile


def _as_httpx(error: Exception) -> httpx.RequestError:
    import urllib3

    failed = urllib3.exceptions
    text = " ".join(str(error).split())[:300]
    if isinstance(error, failed.NewConnectionError | failed.ConnectTimeoutError | failed.NameResolutionError):
        return httpx.ConnectError(text)
    if isinstance(error, failed.SSLError | failed.ProxyError | failed.LocationValueError):
        return httpx.ConnectError(text)
    return httpx.ReadTimeout(text) if isinstance(error, failed.TimeoutError) else httpx.ReadError(text)


@dataclass
class KubeClient:
    """Typed verbs on objects of one namespace. All raise RequestFailed."""

    access: Access
    policy: RetryPolicy | None = None

    def __post_init__(self) -> None:
        headers = {"Accept": "application/json"}
        sender = make_client(self.access.host, headers, policy=self.policy, transport=Wire(self.access))
        self.api = Api(sender, "Kubernetes", policy=self.policy or RetryPolicy(), in_flight=THREADS - 8)

    @property
    def requests(self) -> int:
        """Requests sent so far, without watches."""
        return self.api.requests

    def path(self, plural: str, name: str = "", part: str = "", namespace: str | None = None) -> str:
        """The path of an object, or of all."""
        inside = f"/namespaces/{namespace or self.access.namespace}" if namespace != "" else ""
        rest = "".join(f"/{one}" for one in (name, part) if one)
        return f"{PATHS.get(plural, '/api/v1')}{inside}/{plural}{rest}"

    async def get(self, plural: str, name: str, *, namespace: str | None = None) -> Json | None:
        """An object; None is the cluster's word that there is none."""
        try:
            return await self.api.get(self.path(plural, name, namespace=namespace), dict[str, Any])
        except RequestFailed as error:
            if error.status == NOT_FOUND:
                return None
            raise

    async def every(
        self, plural: str, *, labels: str = "", fields: str = "", namespace: str | None = None
    ) -> list[Json]:
        """Objects that are selected."""
        params = {k: v for k, v in (("labelSelector", labels), ("fieldSelector", fields)) if v}
        found = await self.api.get(self.path(plural, namespace=namespace), dict[str, Any], params)
        items: list[Json] = found["items"]
        return items

    async def has_group(self, version: str) -> bool:
        """Whether discovery shows a group, as GROUP/VERSION."""
        try:
            await self.api.get(f"/apis/{version}", dict[str, Any])
        except RequestFailed as error:
            if error.status == NOT_FOUND:
                return False
            raise
        return True

    async def create(self, plural: str, thing: Json, *, cluster: bool = False) -> Json:
        """A new object."""
        path = self.path(plural, namespace="" if cluster else None)
        return await self.api.call("POST", path, dict[str, Any], body=thing, only_reads=cluster)

    async def apply(self, plural: str, thing: Json, *, manager: str = "nv-eval") -> Json:
        """Server-side apply in our name; what other managers set stays."""
        path = self.path(plural, thing["metadata"]["name"])
        params: dict[str, str | int | list[str]] = {"fieldManager": manager, "force": "true"}
        return await self.api.call("PATCH", path, dict[str, Any], params=params, body=thing)

    async def delete(self, plural: str, name: str, *, uid: str = "", foreground: bool = True) -> bool:
        """Ask for the end, with everything that it owns; False if there is no such thing, or not with that uid."""
        options: Json = {"kind": "DeleteOptions", "apiVersion": "v1"}
        options["propagationPolicy"] = "Foreground" if foreground else "Background"
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self.api.send("DELETE", self.path(plural, name), body=options)
        except RequestFailed as error:
            if error.status == NOT_FOUND or (error.status == 409 and uid):
                return False
            raise
        return True

    async def log(
        self, pod: str, *, tail: int | None = None, previous: bool = False, stamps: bool = False
    ) -> list[str]:
        """Lines of a pod's log."""
        params: dict[str, str | int | list[str]] = {
            "timestamps": str(stamps).lower(),
            "previous": str(previous).lower(),
        }
        if tail is not None:
            params["tailLines"] = tail
        answer = await self.api.send("GET", self.path("pods", pod, "log"), params=params)
        return answer.content.decode("utf-8", "replace").splitlines()

    def follow(self, pod: str) -> AsyncIterator[str]:
        """Lines of a pod's log with time stamps, until its container ends."""
        query = urlencode({"follow": "true", "timestamps": "true"})
        return self.api.lines(f"{self.path('pods', pod, 'log')}?{query}")

    async def close(self) -> None:
        """Close the connections."""
        await self.api.close()


def decode(line: bytes) -> Json:
    """An event of a watch. Raises msgspec.DecodeError."""
    return msgspec.json.decode(line, type=dict[str, Any])


def host_of(url: str) -> str:
    """The address of a cluster without what may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"
