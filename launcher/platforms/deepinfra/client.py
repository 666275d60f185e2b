"""A typed client for the routes of DeepInfra's API that the launcher needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import httpx
import msgspec

from launcher.decoding import convert
from launcher.platforms.deepinfra import reading
from launcher.platforms.deepinfra.credentials import Credentials
from launcher.platforms.deepinfra.logs import LogWindow, entries
from launcher.platforms.deepinfra.names import parse
from launcher.platforms.deepinfra.types import (
    Answer,
    Counts,
    Deployment,
    DetailedCounts,
    GpuLimit,
    Log,
    LogEntry,
    Me,
    Offer,
    Offers,
    PodLogs,
    Rent,
    Status,
    TokenCounts,
)
from launcher.platforms.http import Api, Params, RequestFailed, RetryPolicy, make_client
from launcher.platforms.secrets import Secrets

T = TypeVar("T")

SERVICE = "DeepInfra"
NOT_FOUND, GONE = 404, 410
STANDING_STILL = (Status.STOPPED, Status.FAILED)


class _Done(Answer):
    """The answer to a change."""

    deploy_id: str = ""


class DeepInfraClient:
    """One account. All methods raise RequestFailed when the service refuses or does not answer."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        secrets: Secrets | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        policy: RetryPolicy | None = None,
        in_flight: int = 16,
    ) -> None:
        """Prepare a client; nothing is sent yet. What `secrets` knows is taken out of what the service says."""
        secrets = secrets or Secrets({})
        secrets.remember(credentials.key)
        policy = policy or RetryPolicy()
        self.api = Api(
            make_client(credentials.url, credentials.headers(), policy=policy, transport=transport),
            SERVICE,
            policy=policy,
            in_flight=in_flight,
            redact=secrets.redact,
            decode=reading.decode,
        )

    @property
    def requests(self) -> int:
        """Requests sent so far."""
        return self.api.requests

    async def close(self) -> None:
        """Close the connections."""
        await self.api.close()

    # --- the account --------------------------------------------------------------------------------------------------

    async def me(self) -> Me:
        """Whose key it is."""
        return await self.api.get("/v1/me", Me)

    async def gpu_limits(self) -> dict[str, int]:
        """Most GPUs that the account may hold, by type; empty where the service keeps no limits for it."""
        found = await self._unless("/v1/me/gpu_limit", GpuLimit, statuses=(NOT_FOUND,))
        return reading.values(found.limits, int) if found is not None else {}

    async def offers(self, base_model: str | None = None) -> list[Offer]:
        """Configurations of GPUs with their prices; only those that suit `base_model`, if that is given."""
        params: Params | None = {"base_model": base_model} if base_model else None
        return reading.rows((await self.api.get("/deploy/llm/gpu_availability", Offers, params)).gpus, Offer)

    async def rent(self, since: float) -> Mapping[str, float]:
        """Seconds of rent by deployment since a time, in seconds since 1970; one that is missing is not known."""
        found = await self.api.get("/payment/usage/rent", Rent, {"from": int(since)})
        return reading.values(found.id_to_duration, float)

    # --- deployments --------------------------------------------------------------------------------------------------

    async def deployments(self, *statuses: Status) -> list[Deployment]:
        """All deployments that rent GPUs; of some statuses only, if they are given. The service has no pages."""
        return [found for found in await self.everything(*statuses) if found.rents]

    async def everything(self, *statuses: Status) -> list[Deployment]:
        """All deployments of every type, those too that only point to a public model.

        A row that cannot be understood is left out if it is not ours by its name, else its state is unknown.
        """
        params: Params | None = {"status": ",".join(statuses)} if statuses else None
        listed = await self.api.get("/deploy/list", list[Any], params)
        return [found for row in listed if (found := _deployment(row)) is not None]

    async def deployment(self, deploy_id: str) -> Deployment | None:
        """One deployment; None if it does not exist (any more)."""
        found = await self._unless(f"/deploy/{deploy_id}", Deployment, statuses=(NOT_FOUND,))
        return None if found is None or found.state is Status.DELETED else found

    async def create(self, body: Mapping[str, Any]) -> Deployment:
        """Create one from the body of POST /deploy/llm.

        Never repeated by itself: on `maybe_done` the caller looks whether it exists.
        """
        return await self.api.call("POST", "/deploy/llm", Deployment, body=body)

    async def scale(self, deploy_id: str, *, least: int, most: int) -> None:
        """Change how many instances are wanted."""
        body = {"settings": {"min_instances": least, "max_instances": most}}
        await self.api.call("PUT", f"/deploy/{deploy_id}", _Done, body=body)

    async def stop(self, deploy_id: str) -> None:
        """Take all instances away and keep the deployment."""
        await self.api.send("POST", f"/deploy/{deploy_id}/stop")

    async def start(self, deploy_id: str) -> None:
        """Give a stopped deployment its instances again."""
        await self.api.send("POST", f"/deploy/{deploy_id}/start")

    async def delete(self, deploy_id: str) -> bool:
        """Ask for deletion; False if there is no such deployment. 409: it is changing, and has to be asked again."""
        try:
            await self.api.send("DELETE", f"/deploy/{deploy_id}")
        except RequestFailed as error:
            if error.status == NOT_FOUND:
                return False
            raise
        return True

    # --- what they print and count ------------------------------------------------------------------------------------

    async def log(self, deploy_id: str, window: LogWindow) -> list[LogEntry]:
        """Lines of a deployment in a window, oldest first, the first `window.limit` of them; empty if it has none."""
        found = await self._unless("/v1/logs/query", Log, window.params(deploy_id), statuses=(NOT_FOUND,))
        return entries(found.entries) if found is not None else []

    async def pod_logs(self, deploy_id: str, window: LogWindow, pod: str | None = None) -> dict[str, list[LogEntry]]:
        """The same, instance by instance; of one of them, if `pod` names it."""
        params = {**window.params(deploy_id), **({"pod_name": pod} if pod else {})}
        found = await self._unless("/v1/deployment_logs/query", PodLogs, params, statuses=(NOT_FOUND,))
        return {pod: entries(lines) for pod, lines in found.entries.items()} if found is not None else {}

    async def token_counts(self, deploy_id: str, since: float) -> TokenCounts | None:
        """What `/stats2` counted since a time, in seconds since 1970; None if it counts nothing of it."""
        found = await self._counts(f"/deploy/{deploy_id}/stats2", DetailedCounts, since)
        return found.llm if found is not None else None

    async def counts(self, deploy_id: str, since: float) -> Counts | None:
        """What the older `/stats` counted since a time, in seconds since 1970; None if it counts nothing of it."""
        return await self._counts(f"/deploy/{deploy_id}/stats", Counts, since)

    async def _counts(self, path: str, answer: type[T], since: float) -> T | None:
        return await self._unless(path, answer, {"from": str(int(since))}, statuses=(NOT_FOUND, GONE))

    async def _unless(
        self, path: str, answer: type[T], params: Params | None = None, *, statuses: tuple[int, ...]
    ) -> T | None:
        """The answer of a GET, or None for one of `statuses`."""
        try:
            return await self.api.get(path, answer, params)
        except RequestFailed as error:
            if error.status in statuses:
                return None
            raise


def _deployment(row: Any) -> Deployment | None:
    """A row of the list; of one that is odd only what names it, and only if it may be ours."""
    try:
        return convert(row, Deployment, strict=False)
    except msgspec.ValidationError:
        if not isinstance(row, dict):
            return None
    name, deploy_id, kind = row.get("model_name"), row.get("deploy_id"), row.get("type", "")
    if not isinstance(name, str) or parse(name) is None or not isinstance(deploy_id, str | int):
        return None
    return Deployment(deploy_id=str(deploy_id), model_name=name, type=kind if isinstance(kind, str) else "")
