"""The endpoints of one invocation: made once, watched with one list for all, gone only when the service says so."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from launcher.errors import PlatformError
from launcher.platforms.base import Resource, ResourceState
from launcher.platforms.http import RequestFailed, patience
from launcher.platforms.lepton import states
from launcher.platforms.lepton.background import Background
from launcher.platforms.lepton.client import LeptonClient
from launcher.platforms.lepton.creation import create_once
from launcher.platforms.lepton.logs import LogWindow
from launcher.platforms.lepton.pace import EXTRAS, Pace, share_of
from launcher.platforms.lepton.states import Diagnosis
from launcher.platforms.lepton.types import Endpoint, EndpointState

APPEARS_WITHIN = 60.0
"""Seconds in which a thing whose creation was never answered may still come into being."""
ASK_AGAIN = 30.0
"""Seconds after which a deletion that does not show is asked for again."""
QUIET = 5.0
"""Seconds that an endpoint may take to start before anybody asks why it is not ready."""
LIST_LAG = 10.0
"""Seconds that a list may be behind: an endpoint that nobody removed is not missed before."""
WHY_LINES = 50
"""Lines of a server's log that are looked at for the reason."""
WHY_PATIENCE = 10.0
"""Seconds after which a question for the reason is given up; it is asked again later."""
SETTLED = 3.0
"""Nothing changes while all endpoints serve, or are on their way out: their list may be so much rarer."""


@dataclass
class Tracked:
    """What is known of one endpoint. Times are seconds of the loop's clock."""

    name: str
    begun: float
    known_at: float = 0.0
    seen: Endpoint | None = None
    maybe_until: float | None = None
    """Its creation was not answered: until then it may appear."""
    deletion_asked: float | None = None
    is_gone: bool = False
    was_ready: bool = False
    diagnosis: Diagnosis = field(default_factory=Diagnosis)
    diagnosed_at: float = -math.inf
    diagnosed_state: EndpointState | None = None
    is_asked_about: bool = False

    @property
    def state(self) -> EndpointState:
        """Its state as last seen."""
        return self.seen.state if self.seen is not None else EndpointState.UNKNOWN

    @property
    def is_starting(self) -> bool:
        """Whether it exists, is wanted and does not serve yet, or no more."""
        wanted = not self.is_gone and self.deletion_asked is None and self.seen is not None
        return wanted and self.state is not EndpointState.READY

    @property
    def is_settled(self) -> bool:
        """Whether nobody waits for a change of it: it serves, or it leaves."""
        return self.is_gone or self.deletion_asked is not None or self.state is EndpointState.READY

    def is_leaving(self, now: float) -> bool:
        """Whether its deletion was asked for, and has begun or may not have been seen to begin yet."""
        asked = self.deletion_asked
        if asked is None:
            return False
        return self.state is EndpointState.DELETING or now - asked < ASK_AGAIN or self.known_at <= asked

    def take(self, endpoint: Endpoint, now: float) -> None:
        """Note what the service shows."""
        if self.maybe_until is not None:
            self.deletion_asked = None  # it was asked for before there was anything to delete
        self.seen, self.known_at, self.maybe_until = endpoint, now, None
        if endpoint.state is EndpointState.READY:
            self.was_ready = True
            self.diagnosis = Diagnosis()
            self.diagnosed_state = None

    def resource(self) -> Resource:
        """It in the launcher's words."""
        return Resource(
            name=self.name,
            state=self._state(),
            id=(self.seen.metadata.id or self.name) if self.seen else "",
            url=self.seen.url if self.seen is not None and self.was_ready else None,
            exit_code=self.diagnosis.exit_code,
            detail=self._detail(),
            fatal=self.diagnosis.fatal and self.is_starting,
        )

    def _state(self) -> ResourceState:
        if self.is_gone:
            return ResourceState.GONE
        if self.seen is None:
            return ResourceState.UNKNOWN
        if self.deletion_asked is not None:
            return ResourceState.RUNNING  # it costs until it is gone
        return states.ENDPOINT_STATES[self.state]

    def _detail(self) -> str:
        if self.is_gone:
            return "" if self.deletion_asked is not None else "somebody else removed it"
        if self.diagnosis.detail:
            return self.diagnosis.detail
        if self.state in (EndpointState.STOPPING, EndpointState.STOPPED):
            return "the platform stopped it: it had no requests, or was not ready, for too long (execution.autoscale)"
        return "" if self.state is EndpointState.READY else self.state.value.lower()


class Endpoints:
    """All endpoints of one invocation."""

    def __init__(
        self, client: LeptonClient, invocation: str, now: float, redact: Callable[[str], str] = lambda text: text
    ) -> None:
        """`redact` takes secrets out of what servers print."""
        self._client = client
        self._redact = redact
        self._invocation = invocation
        self._pace = Pace(now)
        self._extras = Pace(now, EXTRAS)
        self._tracked: dict[str, Tracked] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._may_show_more_until = now + APPEARS_WITHIN
        self._asking = Background()

    async def create(self, wanted: Endpoint) -> Resource:
        """Create one, once. Raises PlatformError."""
        name = wanted.name
        async with self._locks[name]:
            entry = self._tracked.get(name)
            if entry is None or entry.is_gone:
                entry = self._tracked[name] = Tracked(name, _now(), maybe_until=math.inf)
                await self._create(entry, wanted)
            return entry.resource()

    async def _create(self, entry: Tracked, wanted: Endpoint) -> None:
        try:
            made = await create_once(
                lambda: self._client.create_endpoint(wanted),
                lambda: self._client.endpoint(entry.name),
                describe=f"an endpoint {entry.name}",
                is_ours=lambda found: found.invocation == self._invocation,
                is_leaving=lambda found: found.state is EndpointState.DELETING,
            )
        except PlatformError as error:
            self._not_created(entry, certain=not (isinstance(error, RequestFailed) and error.maybe_done))
            raise
        except asyncio.CancelledError:
            self._not_created(entry, certain=False)
            raise
        entry.take(made, _now())

    def _not_created(self, entry: Tracked, *, certain: bool) -> None:
        """After a creation that failed: unless it certainly had no effect, the endpoint may still appear."""
        if certain:
            del self._tracked[entry.name]
        else:
            entry.maybe_until = _now() + APPEARS_WITHIN

    async def delete(self, name: str) -> None:
        """Ask for deletion. Raises RequestFailed."""
        entry, now = self._tracked.get(name), _now()
        if entry is not None and (entry.is_gone or entry.is_leaving(now)):
            return
        if entry is None and not await self._is_ours(name):
            return
        existed = await self._client.delete_endpoint(name)
        entry = self._tracked.setdefault(name, Tracked(name, now))
        entry.deletion_asked = now
        entry.is_gone = not existed and not _may_appear(entry, now)

    async def _is_ours(self, name: str) -> bool:
        found = await self._client.endpoint(name)
        return found is not None and found.invocation == self._invocation

    async def refresh(self) -> None:
        """Look at all endpoints if that is due. Raises RequestFailed if the service cannot be asked."""
        self._asking.check()
        now = _now()
        alive = [entry for entry in self._tracked.values() if not entry.is_gone]
        slower = SETTLED if all(entry.is_settled for entry in alive) else 1.0
        nothing_to_see = not alive and now > self._may_show_more_until  # until then: what an earlier launcher asked for
        if nothing_to_see or not self._pace.is_due(now, slower=slower, leaving_since=_leaving_since(alive)):
            return
        found = await self._client.endpoints()
        self._pace.asked(now)
        ours = {endpoint.name: endpoint for endpoint in found if endpoint.invocation == self._invocation}
        for name, endpoint in ours.items():
            self._tracked.setdefault(name, Tracked(name, now)).take(endpoint, now)
        await asyncio.gather(*(self._confirm(entry) for entry in alive if _is_missed(entry, set(ours), now)))
        self._diagnose()

    async def _confirm(self, entry: Tracked) -> None:
        """A list without it is a hint; that its own route says 404 is the proof."""
        found = await self._client.endpoint(entry.name)
        if found is None:
            entry.is_gone = True
        else:
            entry.take(found, _now())

    def _diagnose(self) -> None:
        """Ask for the reasons of a few endpoints that do not get ready: those that look worst first.

        Beside the looks, which must not wait for them: nobody's work depends on the answers.
        """
        now = _now()
        starting = [e for e in self._tracked.values() if e.is_starting and not e.is_asked_about]
        fresh = [e for e in starting if e.state in states.SUSPICIOUS and e.diagnosed_state is not e.state]
        others = [e for e in starting if e not in fresh and now - max(e.diagnosed_at, e.begun) > QUIET]
        others.sort(key=lambda e: (e.state not in states.SUSPICIOUS, e.diagnosed_at))
        number, slower = share_of(len(starting))
        due = bool(others) and self._extras.is_due(now, slower=slower)
        if due:
            self._extras.asked(now)
        for entry in [*fresh, *others[: number if due else 0]]:
            self._asking.start(self._ask_why(entry))

    async def _ask_why(self, entry: Tracked) -> None:
        entry.diagnosed_at, entry.diagnosed_state, entry.is_asked_about = _now(), entry.state, True
        try:
            with patience(WHY_PATIENCE):
                found = await self._why(entry)
                entry.diagnosis = replace(found, detail=self._redact(found.detail))
        except RequestFailed:
            return  # the state itself was told; the reason will be asked for again
        finally:
            entry.is_asked_about = False

    async def _why(self, entry: Tracked) -> Diagnosis:
        if (await self._client.family()).tells_readiness:
            issues = await self._client.readiness(entry.name)
            ends = await self._client.terminations(entry.name) if entry.state in states.SUSPICIOUS else {}
            found = states.diagnose(
                [issue for replica in issues.values() for issue in replica],
                [end for replica in ends.values() for end in replica],
            )
        else:
            found = states.from_events(await self._client.events(entry.name))
        if not (found.runs or found.crashed):
            return found
        try:
            return states.from_log(found, await self.last_lines(entry.name, WHY_LINES))
        except RequestFailed:
            return found

    async def close(self) -> None:
        """End what is being asked in the background."""
        await self._asking.close()

    async def last_lines(self, name: str, lines: int) -> list[str]:
        """The last lines of an endpoint's log, without secrets. Raises RequestFailed."""
        window = LogWindow.last(lines, since=self.created(name))
        return [self._redact(text) for _, text in await self._client.logs("endpoint", name, window)]

    def created(self, name: str) -> float:
        """When it was created, a little earlier, in seconds since 1970."""
        entry = self._tracked.get(name)
        stamp = entry.seen.metadata.created_at if entry is not None and entry.seen is not None else None
        return (stamp / 1000 if stamp else time.time() - 86_400) - 60

    def known(self, name: str) -> bool:
        """Whether there is, or was, an endpoint of this name."""
        return name in self._tracked

    def is_over(self, name: str) -> bool:
        """Whether its log will not grow any more."""
        return self._tracked[name].is_gone

    def resources(self) -> dict[str, Resource]:
        """All endpoints in the launcher's words."""
        return {name: entry.resource() for name, entry in self._tracked.items()}


def _now() -> float:
    return asyncio.get_running_loop().time()


def _leaving_since(alive: list[Tracked]) -> float | None:
    """When the last deletion was asked for, if there is nothing that is not leaving."""
    asked = [entry.deletion_asked for entry in alive if entry.deletion_asked is not None]
    return max(asked) if asked and len(asked) == len(alive) else None


def _may_appear(entry: Tracked, now: float) -> bool:
    return entry.maybe_until is not None and now < entry.maybe_until


def _is_missed(entry: Tracked, listed: set[str], now: float) -> bool:
    """Whether a list that was asked for at `now` should have shown it."""
    if entry.is_gone or entry.name in listed or _may_appear(entry, now):
        return False
    return entry.deletion_asked is not None or now - entry.known_at >= LIST_LAG
