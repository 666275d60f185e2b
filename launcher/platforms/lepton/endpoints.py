"""The endpoints of one invocation in a workspace, and why they are not ready."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from launcher.platforms.background import Background
from launcher.platforms.base import Resource
from launcher.platforms.creation import create_once
from launcher.platforms.http import RequestFailed, patience
from launcher.platforms.lepton import states
from launcher.platforms.lepton.client import LeptonClient
from launcher.platforms.lepton.logs import LogWindow
from launcher.platforms.lepton.states import Diagnosis
from launcher.platforms.lepton.types import Endpoint, EndpointState
from launcher.platforms.pace import EXTRAS, Pace, share_of
from launcher.platforms.remembering import Remembers
from launcher.platforms.tracking import REMOVED_BY_OTHERS, Tracked, Tracker, loop_time

QUIET = 5.0
"""Seconds that an endpoint may take to start before anybody asks why it is not ready."""
WHY_LINES = 50
"""Lines of a server's log that are looked at for the reason."""
WHY_PATIENCE = 10.0
"""Seconds after which a question for the reason is given up; it is asked again later."""


@dataclass
class Entry(Remembers, Tracked[Endpoint]):
    """What is known of one endpoint, and of why it is not ready. Times are seconds of the loop's clock."""

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
    def serves(self) -> bool:
        """Whether its port is open."""
        return self.state is EndpointState.READY

    @property
    def is_deleting(self) -> bool:
        """Whether the workspace shows that its deletion has begun."""
        return self.state is EndpointState.DELETING

    def take(self, thing: Endpoint, now: float) -> None:
        """Note what the service shows."""
        super().take(thing, now)
        if self.serves:
            self.was_ready = True
            self.diagnosis = Diagnosis()
            self.diagnosed_state = None

    def _say(self) -> Resource:
        """It in the launcher's words."""
        return Resource(
            name=self.name,
            state=self.exists() or states.ENDPOINT_STATES[self.state],
            id=(self.seen.metadata.id or self.name) if self.seen else "",
            url=self.seen.url if self.seen is not None and self.was_ready else None,
            exit_code=self.diagnosis.exit_code,
            detail=self._detail(),
            fatal=self.diagnosis.fatal and self.is_starting,
        )

    def _detail(self) -> str:
        if self.is_gone:
            return "" if self.deletion_asked is not None else REMOVED_BY_OTHERS
        if self.diagnosis.detail:
            return self.diagnosis.detail
        if self.state in (EndpointState.STOPPING, EndpointState.STOPPED):
            return "the platform stopped it: it had no requests, or was not ready, for too long (execution.autoscale)"
        return "" if self.serves else self.state.value.lower()


class Endpoints(Tracker[Endpoint, Entry]):
    """All endpoints of one invocation."""

    def __init__(
        self,
        client: LeptonClient,
        invocation: str,
        now: float,
        redact: Callable[[str], str] = lambda text: text,
        *,
        places_are_few: bool = False,
    ) -> None:
        """`redact` takes secrets out of what servers print; `places_are_few`: others may wait for one that leaves."""
        super().__init__(now, client.begun(now), places_are_few=places_are_few)
        self._client = client
        self._redact = redact
        self._invocation = invocation
        self._extras = Pace(client.begun(now), EXTRAS)
        self._asking = Background()

    def _entry(self, name: str) -> Entry:
        return Entry(name, loop_time())

    async def _list(self) -> dict[str, Endpoint]:
        return (await self._listed(loop_time()))[1]

    async def _listed(self, since: float) -> tuple[float, dict[str, Endpoint]]:
        asked, found = await self._client.endpoints_since(since)
        return asked, {endpoint.name: endpoint for endpoint in found if endpoint.invocation == self._invocation}

    async def _read(self, name: str) -> Endpoint | None:
        found = await self._client.endpoint(name)
        return found if found is not None and found.invocation == self._invocation else None

    async def _ask_to_go(self, name: str) -> bool:
        return await self._client.delete_endpoint(name)

    async def create(self, wanted: Endpoint) -> Resource:
        """Create one, once. Raises PlatformError."""
        return await self._make(
            wanted.name,
            lambda: create_once(
                lambda: self._client.create_endpoint(wanted),
                lambda: self._client.endpoint(wanted.name),
                describe=f"Lepton: an endpoint {wanted.name}",
                is_ours=lambda found: found.invocation == self._invocation,
                is_leaving=lambda found: found.state is EndpointState.DELETING,
            ),
        )

    async def refresh(self) -> None:
        """Look at all endpoints if that is due. Raises RequestFailed if the service cannot be asked."""
        self._asking.check()
        if await self._look():
            self._diagnose()

    def _diagnose(self) -> None:
        """Ask for the reasons of a few endpoints that do not get ready: those that look worst first.

        Beside the looks, which must not wait for them: nobody's work depends on the answers.
        """
        now = loop_time()
        starting = [e for e in self._tracked.values() if e.is_starting and not e.is_asked_about]
        fresh = [e for e in starting if e.state in states.SUSPICIOUS and e.diagnosed_state is not e.state]
        others = [e for e in starting if e not in fresh and now - max(e.diagnosed_at, e.begun) > QUIET]
        others.sort(key=lambda e: (e.state not in states.SUSPICIOUS, e.diagnosed_at))
        number, slower = share_of(len(starting) * self._client.users)
        due = bool(others) and self._extras.is_due(now, slower=slower * self._client.users)
        if due:
            self._extras.asked(now)
        for entry in [*fresh, *others[: number if due else 0]]:
            self._asking.start(self._ask_why(entry))

    async def _ask_why(self, entry: Entry) -> None:
        entry.diagnosed_at, entry.diagnosed_state, entry.is_asked_about = loop_time(), entry.state, True
        try:
            with patience(WHY_PATIENCE):
                found = await self._why(entry)
                entry.diagnosis = replace(found, detail=self._redact(found.detail))
        except RequestFailed:
            return  # the state itself was told; the reason will be asked for again
        finally:
            entry.is_asked_about = False

    async def _why(self, entry: Entry) -> Diagnosis:
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
