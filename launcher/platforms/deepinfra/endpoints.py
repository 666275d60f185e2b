"""The deployments of one invocation, and what they cost."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from launcher.errors import NotFound
from launcher.platforms.background import Background
from launcher.platforms.base import Resource, ResourceState
from launcher.platforms.creation import create_once
from launcher.platforms.deepinfra import states
from launcher.platforms.deepinfra.client import DeepInfraClient
from launcher.platforms.deepinfra.logs import LogWindow
from launcher.platforms.deepinfra.meter import HOUR, Meter
from launcher.platforms.deepinfra.names import parse
from launcher.platforms.deepinfra.types import Deployment, LogEntry
from launcher.platforms.http import RequestFailed, patience
from launcher.platforms.pace import Pace, Rate
from launcher.platforms.tracking import APPEARS_WITHIN, REMOVED_BY_OTHERS, Tracked, Tracker, loop_time

METER = Rate(shortest=20.0, share=0.02, longest=60.0)
"""How often it is asked what running deployments have cost so far."""
METER_PATIENCE = 5.0
"""Seconds that the meter may keep an answer that nothing depends on."""
MOST_PAGES = 50
"""Pages of a log that are read for its end."""
RECENT = 600.0
"""Seconds whose lines are read first where the end of a log is wanted."""
_UNANSWERED = (None, 408, 502, 504)
"""Statuses of a creation of which nobody knows what came: the service itself said nothing."""


@dataclass
class Entry(Tracked[Deployment]):
    """What is known of one deployment."""

    url: str = ""
    redact: Callable[[str], str] = str
    usd: float | None = None
    """What it has cost, by the last answer of the meter."""
    hourly: float | None = None
    """Price of one instance in USD per hour."""
    price_is_asked: bool = False
    grown: float = 0.0
    """What it has cost since that answer, by its price and by how long instances were seen to run."""
    grown_at: float = 0.0
    """When that was reckoned."""
    is_settled_up: bool = False
    """It is gone, and the meter was asked for what it has cost in all."""
    was_expired: bool = False
    """It had expired when it was first seen: an earlier launcher made it, and others may delete it at any moment."""

    @property
    def serves(self) -> bool:
        """Whether an instance runs."""
        return self.seen is not None and self.seen.serves

    def take(self, thing: Deployment, now: float) -> None:
        """Note what the service shows; of what it shows in part the rest stays as it was seen before."""
        if self.seen is not None:
            thing = thing if thing.status else replace(self.seen, status="")
        elif thing.ours is not None:
            self.was_expired = thing.ours.has_expired
        self._grow(now)
        super().take(thing, now)
        self.is_settled_up = False

    def _grow(self, now: float) -> None:
        if self.seen is not None and self.hourly is not None and not self.is_gone:
            self.grown += self.hourly / HOUR * self.seen.billed_instances * (now - self.grown_at)
        self.grown_at = now

    def note_cost(self, usd: float) -> None:
        """Note what the meter says; a meter that has forgotten a part of it takes back nothing."""
        self.usd = max(self.usd or 0.0, usd)
        self.grown, self.grown_at = 0.0, loop_time()

    def cost(self) -> float | None:
        """What it has cost so far in USD, reckoned from the price where the meter has not said it yet."""
        return (self.usd or 0.0) + self.grown if self.usd is not None or self.grown else None

    def resource(self) -> Resource:
        """It in the launcher's words."""
        found = self.seen
        if found is None:
            state = self.exists() or ResourceState.UNKNOWN
            return Resource(name=self.name, state=state, detail=self._detail())
        return Resource(
            name=self.name,
            state=self._state(found),
            id=found.deploy_id,
            url=self.url if found.serves and not self.is_gone else None,
            model=f"deploy_id:{found.deploy_id}",
            usd=self.cost(),
            detail=self._detail(),
            fatal=(found.stands_still and self.is_starting) or self._is_refused,
        )

    @property
    def _is_refused(self) -> bool:
        """Whether nothing is run on it though it is there, and nobody has asked for its deletion yet."""
        return self.was_expired and self.deletion_asked is None and not self.is_gone

    def _state(self, found: Deployment) -> ResourceState:
        if self.is_gone and not self.is_settled_up:
            return ResourceState.RUNNING  # its last word says what it cost, which the next look asks for
        return self.exists() or (ResourceState.FAILED if self._is_refused else states.state_of(found))

    def _detail(self) -> str:
        if self.is_gone:
            return "" if self.deletion_asked is not None else REMOVED_BY_OTHERS
        if self._is_refused:
            return states.EXPIRED
        return states.why(self.seen, self.redact) if self.seen is not None else ""


class Endpoints(Tracker[Deployment, Entry]):
    """All deployments of one invocation, by the names of the plan's endpoints.

    A second one for the same endpoint, which no plan knows, is shown under a name of its own. So is one that a request
    without an answer may still make, where another request has made the endpoint: nobody may end before it is removed.
    """

    def __init__(
        self,
        client: DeepInfraClient,
        meter: Meter,
        invocation: str,
        now: float,
        *,
        url: str,
        redact: Callable[[str], str],
    ) -> None:
        """`url`: where all of them are called; `redact` takes secrets out of what is shown."""
        super().__init__(now)
        self._client, self._meter, self._invocation = client, meter, invocation
        self._url, self._redact = url, redact
        self._meter_pace = Pace(now, METER)
        self._meter_pace.asked(now)
        self._asking = Background()
        self._unanswered: Counter[str] = Counter()
        """Creations of which nobody knows what came, by the names of their endpoints."""

    def _entry(self, name: str) -> Entry:
        return Entry(name, loop_time(), url=self._url, redact=self._redact)

    # --- creation -----------------------------------------------------------------------------------------------------

    async def create(self, name: str, body: Mapping[str, Any]) -> Resource:
        """Create one, once. Raises PlatformError with one line that says what to do."""
        full = str(body["model_name"])
        try:
            return await self._make(
                name,
                lambda: create_once(
                    lambda: self._adopt_or_create(name, body),
                    lambda: self._find(name, full),
                    describe=f"DeepInfra: a deployment {name}",
                    is_ours=self._is_ours,
                    is_leaving=lambda found: False,  # noqa: ARG005  what is deleted is not found any more
                    waits_for_name=False,
                ),
            )
        except RequestFailed as error:
            raise states.explained(error, name) from error
        finally:
            self._expect_late(name)

    def _expect_late(self, name: str) -> None:
        """Look out for what requests without an answer may still make beside the endpoint that there is."""
        count, entry = self._unanswered.pop(name, 0), self._tracked.get(name)
        if entry is not None and entry.seen is None:
            count -= 1  # the first that appears is the endpoint itself
        for number in range(1, count + 1):
            late = self._entry(f"{name}@late-{number}")
            late.maybe_until = loop_time() + APPEARS_WITHIN
            self._tracked.setdefault(late.name, late)

    async def _adopt_or_create(self, name: str, body: Mapping[str, Any]) -> Deployment:
        """Look first: the name that an earlier launcher made has another expiry, so that the service would not mind."""
        found = await self._find(name, str(body["model_name"]))
        if found is not None and self._is_ours(found):
            return found
        try:
            return await self._client.create(body)
        except RequestFailed as error:
            self._unanswered[name] += error.maybe_done and error.status in _UNANSWERED
            raise
        except asyncio.CancelledError:
            self._unanswered[name] += 1
            raise

    async def _find(self, name: str, full: str) -> Deployment | None:
        """What is there under a plan's name, unless it has expired, or else under the full name, of whatever type.

        One that has expired is not adopted: any machine may delete it, and its name, which says so, is fixed for life.
        """
        found = [one for one in await self._client.everything() if not _is_deleted(one)]
        for one in sorted(found, key=_oldest_first):
            if one.ours is not None and one.ours.name == name and self._is_ours(one) and not one.ours.has_expired:
                self._unanswered[name] -= self._unanswered[name] > 0  # this is what came of it
                return one
        return next((one for one in found if one.model_name.rpartition("/")[2] == full), None)

    def _is_ours(self, found: Deployment) -> bool:
        return found.ours is not None and found.ours.invocation == self._invocation

    # --- watching -----------------------------------------------------------------------------------------------------

    async def _list(self) -> dict[str, Deployment]:
        found = [one for one in await self._client.deployments() if self._is_ours(one) and not _is_deleted(one)]
        named: dict[str, Deployment] = {}
        known = {entry.seen.deploy_id: entry.name for entry in self._tracked.values() if entry.seen is not None}
        fresh = []
        for one in found:
            if one.deploy_id in known:
                named[known[one.deploy_id]] = one
            else:
                fresh.append(one)
        for one in sorted(fresh, key=_oldest_first):
            named[self._name_for(one, named)] = one
        return named

    def _name_for(self, found: Deployment, taken: Mapping[str, Deployment]) -> str:
        """The name of its endpoint, unless another deployment has or had it: a second one is shown as such."""
        ours = parse(found.model_name)
        name = ours.name if ours is not None else found.model_name
        entry = self._tracked.get(name)
        if name not in taken and (entry is None or _is_awaited(entry)):
            return name
        late = (entry.name for entry in self._tracked.values() if entry.name.startswith(f"{name}@"))
        awaited = (other for other in late if other not in taken and _is_awaited(self._tracked[other]))
        return next(awaited, f"{name}@{found.deploy_id}")

    async def _read(self, name: str) -> Deployment | None:
        entry = self._tracked.get(name)
        if entry is not None and entry.seen is not None:
            return await self._client.deployment(entry.seen.deploy_id)
        return (await self._list()).get(name)

    async def _ask_to_go(self, name: str) -> bool:
        entry = self._tracked.get(name)
        found = entry.seen if entry is not None and entry.seen is not None else await self._read(name)
        return found is not None and await self._client.delete(found.deploy_id)

    async def refresh(self) -> None:
        """Look at all deployments if that is due. Raises RequestFailed if the service cannot be asked."""
        self._asking.check()
        await self._look()
        gone = [entry for entry in self._tracked.values() if entry.is_gone and not entry.is_settled_up]
        if gone:
            await self._ask_meter(gone)
            for entry in gone:
                entry.is_settled_up = True
        up = [entry for entry in self._tracked.values() if not entry.is_gone and entry.seen and entry.seen.is_up]
        if up and self._meter_pace.is_due(loop_time()):
            self._meter_pace.asked(loop_time())
            self._asking.start(self._ask_meter(up))
        unpriced = [entry for entry in up if not entry.price_is_asked]
        for entry in unpriced:
            entry.price_is_asked = True
        if unpriced:
            self._asking.start(self._ask_prices(unpriced))

    async def _ask_prices(self, entries: Iterable[Entry]) -> None:
        """What their instances cost by the hour; where nobody says it only the meter tells their cost."""
        with suppress(RequestFailed), patience(METER_PATIENCE):
            for entry in entries:
                if entry.seen is not None:
                    entry.hourly = await self._meter.price(entry.seen.gpu_config)

    async def _ask_meter(self, entries: Iterable[Entry]) -> None:
        """What they have cost; a meter that does not answer leaves what was known."""
        by_id = {entry.seen.deploy_id: entry for entry in entries if entry.seen is not None}
        with suppress(RequestFailed, TimeoutError), patience(METER_PATIENCE):
            async with asyncio.timeout(METER_PATIENCE):
                found = await self._meter.usd([entry.seen for entry in by_id.values() if entry.seen is not None])
                for deploy_id, usd in found.items():
                    by_id[deploy_id].note_cost(usd)

    async def close(self) -> None:
        """End what is being asked in the background."""
        await self._asking.close()

    # --- one of them --------------------------------------------------------------------------------------------------

    async def find(self, name: str) -> Deployment:
        """One as it is now. Raises NotFound if there is none, RequestFailed."""
        found = await self._read(name)
        if found is None:
            raise NotFound(f"no deployment {name} on DeepInfra")
        return found

    def created(self, name: str) -> float:
        """When it was created, a little earlier, in seconds since 1970."""
        entry = self._tracked.get(name)
        stamp = entry.seen.created if entry is not None and entry.seen is not None else None
        return (stamp if stamp is not None else time.time() - 86_400) - 60

    def is_over(self, name: str) -> bool:
        """Whether its log will not grow any more: without instances nothing is printed."""
        found = self._tracked[name].seen
        return super().is_over(name) or (found is not None and found.stands_still)

    async def lines(self, name: str, window: LogWindow) -> list[LogEntry]:
        """Lines of a window, oldest first: those of the deployment, else those of its instances. RequestFailed."""
        found = self._tracked[name].seen
        if found is None:
            return []
        entries = await self._client.log(found.deploy_id, window)
        if entries or window.skip:
            return entries
        pods = await self._client.pod_logs(found.deploy_id, window)
        return list(heapq.merge(*pods.values(), key=_written))

    async def last_lines(self, name: str, lines: int) -> list[str]:
        """The last lines of a log, without secrets. Raises RequestFailed."""
        begun = self.created(name)
        recent = max(begun, time.time() - RECENT)
        found = await self._all(name, recent)
        if len(found) < lines and recent > begun:
            found = await self._all(name, begun)
        return [self._redact(text) for _, text in found[-lines:]]

    async def _all(self, name: str, since: float) -> list[LogEntry]:
        window, found = LogWindow.since(since), list[LogEntry]()
        for _ in range(MOST_PAGES):
            page = await self.lines(name, window)
            found += window.fresh(page)
            if not window.is_full(page):
                break
            window = window.after(page)
        return found


def _oldest_first(found: Deployment) -> tuple[float, str]:
    return (found.created or 0.0, found.deploy_id)


def _written(entry: LogEntry) -> float:
    return float(entry[0] or 0)  # one without a stamp stays behind the line before it


def _is_awaited(entry: Entry) -> bool:
    """Whether it may exist and has not been seen."""
    return entry.seen is None and not entry.is_gone


def _is_deleted(found: Deployment) -> bool:
    return states.state_of(found) is ResourceState.GONE
