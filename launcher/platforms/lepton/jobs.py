"""The jobs of one invocation: submitted once, watched with one list for all; their logs tell progress and results."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from launcher.errors import PlatformError
from launcher.platforms.background import Background
from launcher.platforms.base import Progress, Resource, ResourceState, RunnerEnd
from launcher.platforms.creation import create_once
from launcher.platforms.http import RequestFailed, patience
from launcher.platforms.lepton import states
from launcher.platforms.lepton.client import LeptonClient
from launcher.platforms.lepton.logs import Entry, LogWindow
from launcher.platforms.lepton.types import Job, JobState
from launcher.platforms.pace import EXTRAS, FEW_PLACES, LISTS, Pace, in_the_tail, share_of
from launcher.platforms.progress import ProgressReader, results_from_log
from launcher.platforms.remembering import Remembers
from launcher.platforms.tracking import APPEARS_WITHIN, ASK_AGAIN, LIST_LAG, SETTLED

PROGRESS_LINES = 100
LOG_PATIENCE = 30.0
"""Seconds that the last lines of an ended job may take to be collected, from the first answer without them."""
LOG_OUTAGE = 600.0
"""Seconds that nobody may answer for the log of an ended job."""
END_PATIENCE, PROGRESS_PATIENCE = 30.0, 10.0
"""Seconds after which a question for the end of a log, or for progress, is given up; it is asked again later."""
FIRST_WAIT, LONGEST_WAIT = 0.3, 8.0
"""Least and most seconds between two looks at the log of an ended job."""
SETTLE_WAIT = 2.0
"""Most seconds between two looks for removed jobs at the end of a run."""
COMPLETED = "completed"
"""The runner's word for a job that has its results; it then ends with code 0, and only then."""
_ENDED = (ResourceState.SUCCEEDED, ResourceState.FAILED)
_LEAVING = (JobState.DELETING, JobState.DELETED)


@dataclass
class Tracked(Remembers):
    """What is known of one job. Times are seconds of the loop's clock."""

    name: str
    known_at: float = 0.0
    seen: Job | None = None
    ids: set[str] = field(default_factory=set)
    """All jobs of this name: more than one only if an answer was lost and the job came late."""
    maybe_until: float | None = None
    removal_asked: float | None = None
    is_gone: bool = False
    ended_at: float | None = None
    read_at: float = -math.inf
    missed_since: float | None = None
    """Since when the log answers and does not have its end."""
    is_read: bool = False
    """Its log is being read just now."""
    why: str = ""
    """Why it failed, as its events say."""
    progress: Progress | None = None
    end: RunnerEnd | None = None
    lines: list[Entry] = field(default_factory=list)
    """The end of its log, once it has ended."""
    log_is_read: bool = False

    @property
    def state(self) -> ResourceState:
        """Its state as last seen."""
        return states.JOB_STATES[self.seen.state] if self.seen is not None else ResourceState.UNKNOWN

    @property
    def has_ended(self) -> bool:
        """Whether the service says that it runs no more."""
        return self.state in _ENDED

    def take(self, job: Job, now: float) -> None:
        """Note what the service shows."""
        self.ids.add(job.id)
        if self.seen is not None and self.seen.id != job.id:
            return  # a duplicate: it is removed with the first
        if self.maybe_until is not None:
            self.removal_asked = None  # it was asked for before there was anything to remove
        self.seen, self.known_at, self.maybe_until = job, now, None
        if self.has_ended and self.ended_at is None:
            self.ended_at = now

    def _say(self) -> Resource:
        """It in the launcher's words. An ended job counts as running until its last lines are there."""
        state = self.state
        if self.is_gone:
            state = ResourceState.GONE
        elif self.removal_asked is not None or (self.has_ended and not self.log_is_read):
            state = ResourceState.RUNNING
        known = self.seen.state.value.lower() if self.seen is not None else ""
        detail = f"{known}: {self.why}" if self.why else known
        return Resource(
            name=self.name,
            state=state,
            id=self.seen.id if self.seen is not None else "",
            exit_code=0 if self.state is ResourceState.SUCCEEDED else None,
            detail=detail,
            progress=self.progress,
            end=self.end,
        )


class Jobs:
    """All jobs of one invocation."""

    def __init__(
        self,
        client: LeptonClient,
        invocation: str,
        now: float,
        redact: Callable[[str], str] = lambda text: text,
        oldest: Callable[[], float] | None = None,
        *,
        planned: int = 0,
        places_are_few: bool = False,
    ) -> None:
        """`redact` takes secrets out of what jobs print; `oldest`: when the oldest endpoint of theirs was begun.

        `planned`: how many jobs there will be. `places_are_few`: tasks wait for each other's endpoints to go.
        """
        self._planned = planned
        self._oldest = oldest if client.begun(now) == now else None
        self._client = client
        self._redact = redact
        self._invocation = invocation
        self._pace = Pace(client.begun(now), FEW_PLACES if places_are_few else LISTS)
        self._has_listed = False
        self._extras = Pace(client.begun(now), EXTRAS)
        self._tracked: dict[str, Tracked] = {}
        self._by_id: dict[str, Tracked] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._may_show_more_until = now + APPEARS_WITHIN
        self._reading = Background()
        self._making = asyncio.Semaphore(client.api.in_flight)
        """A request holds the runner's source: only those are made whose turn to be sent has come."""

    async def submit(self, name: str, make: Callable[[], Job]) -> Resource:
        """Submit one, once. Raises PlatformError."""
        async with self._locks[name], self._making:
            entry = self._tracked.get(name)
            if entry is None or entry.is_gone:
                wanted = make()
                self._forget(name)
                entry = self._tracked[name] = Tracked(name, maybe_until=math.inf)
                await self._submit(entry, wanted)
            return entry.resource()

    async def _submit(self, entry: Tracked, wanted: Job) -> None:
        try:
            made = await create_once(
                lambda: self._client.create_job(wanted),
                lambda: self._find(entry.name),
                describe=f"Lepton: a job {entry.name}",
                is_ours=lambda found: found.invocation == self._invocation,
                is_leaving=lambda found: found.state in _LEAVING,
            )
        except PlatformError as error:
            if isinstance(error, RequestFailed) and error.maybe_done:
                entry.maybe_until = _now() + APPEARS_WITHIN
            else:
                self._forget(entry.name)
            raise
        except asyncio.CancelledError:
            entry.maybe_until = _now() + APPEARS_WITHIN
            raise
        entry.take(made, _now())

    def _forget(self, name: str) -> None:
        """What was known under a name is known no more."""
        if self._tracked.pop(name, None) is not None:
            self._by_id = {id_: entry for id_, entry in self._by_id.items() if entry.name != name}

    async def _find(self, name: str) -> Job | None:
        """The job of ours with this name; others' jobs may share it, as names of jobs are not unique."""
        found = await self._client.jobs(containing=name)
        return next((job for job in found if job.is_named(name) and job.invocation == self._invocation), None)

    async def cancel(self, name: str) -> None:
        """Ask for removal. Raises RequestFailed."""
        entry, now = self._tracked.get(name), _now()
        if entry is None:
            await self._cancel_unknown(name)
            return
        if entry.is_gone or (entry.removal_asked is not None and now - entry.removal_asked < ASK_AGAIN):
            return
        for job in sorted(entry.ids):
            await self._client.delete_job(job)  # that there is none is believed when a look says so, too
        entry.removal_asked = now
        over = entry.has_ended or not entry.ids  # what has ended costs nothing: accepted is enough
        entry.is_gone = over and not (entry.maybe_until is not None and now < entry.maybe_until)

    async def _cancel_unknown(self, name: str) -> None:
        found = await self._find(name)
        if found is not None:
            await self._client.delete_job(found.id)

    async def refresh(self) -> None:
        """Look at all jobs if that is due. Raises RequestFailed if the service cannot be asked."""
        self._reading.check()
        now = _now()
        alive = [entry for entry in self._tracked.values() if not entry.is_gone]
        ended = len(self._tracked) - len(alive)
        slower = in_the_tail(self._planned - ended, self._planned) if alive else SETTLED
        nothing_to_see = not alive and now > self._may_show_more_until  # until then: what an earlier launcher asked for
        leaving = _leaving_since(alive)
        if self._oldest is not None:
            self._pace.count_from(self._oldest())
        if nothing_to_see or not self._pace.is_due(now, slower=slower, leaving_since=leaving):
            return
        asked, found = await self._listed(self._pace.fresh_after(now, slower=slower, leaving_since=leaving))
        self._pace.asked(asked)
        for job in found:
            if job.invocation == self._invocation and job.state is not JobState.DELETED:
                self._take(job, asked)
        await asyncio.gather(*(self._confirm(entry) for entry in alive if _is_missed(entry, asked)))
        self._read_ends()
        self._read_progress()

    async def _listed(self, since: float) -> tuple[float, list[Job]]:
        """Jobs, and when they were asked for. First those that an earlier launcher left, which may be archived."""
        if self._has_listed:
            return await self._client.jobs_since(self._invocation, since)
        asked, found = _now(), await self._client.jobs(containing=self._invocation)
        self._has_listed = True
        return asked, found

    def _take(self, job: Job, now: float) -> None:
        entry = self._entry_of(job)
        if not (entry.is_gone and job.id in entry.ids):  # an ended job that was removed may be listed a while
            entry.take(job, now)

    def _entry_of(self, job: Job) -> Tracked:
        """What is known of a job. Names are compared once for each job: a list of a thousand comes every second."""
        entry = self._by_id.get(job.id)
        if entry is None:
            known = self._tracked.get(job.metadata.name or job.id)
            if known is None:
                known = next((entry for entry in self._tracked.values() if job.is_named(entry.name)), None)
            name = known.name if known is not None else job.metadata.name or job.id
            entry = self._by_id[job.id] = self._tracked.setdefault(name, Tracked(name))
        return entry

    async def _confirm(self, entry: Tracked) -> None:
        """A list without it is a hint; that its own route says 404 is the proof."""
        found = await self._client.job(entry.seen.id) if entry.seen is not None else None
        if found is None or found.state is JobState.DELETED:
            entry.is_gone = True
        else:
            entry.take(found, _now())

    async def settle(self, seconds: float) -> None:
        """Wait until ended jobs whose removal was accepted are not listed any more, at most so long."""
        clock = asyncio.get_running_loop()
        deadline, wait = clock.time() + seconds, FIRST_WAIT
        while (left := deadline - clock.time()) > 0:
            removed = {job for entry in self._tracked.values() if entry.removal_asked is not None for job in entry.ids}
            with patience(left):
                listed = {job.id for job in await self._left(wait)} if removed else set()
            if not removed & listed:
                return
            await asyncio.sleep(wait)
            wait = min(2 * wait, SETTLE_WAIT)

    async def _left(self, age: float) -> list[Job]:
        """Jobs as they are, or were so many seconds ago at most, and since the last removal."""
        last = max((entry.removal_asked or 0.0 for entry in self._tracked.values()), default=0.0)
        return (await self._client.jobs_since(self._invocation, max(_now() - age, last)))[1]

    # --- logs ---------------------------------------------------------------------------------------------------------

    def _read_ends(self) -> None:
        """Read the logs of ended jobs, beside the looks, which must not wait for them."""
        for entry in self._tracked.values():
            if entry.has_ended and not entry.log_is_read and not entry.is_gone and not entry.is_read:
                entry.is_read = True
                self._reading.start(self._read_end(entry))

    async def _read_end(self, entry: Tracked) -> None:
        """How the runner ended, which its last lines say; the service collects them with some delay."""
        wait = FIRST_WAIT
        try:
            with patience(END_PATIENCE):
                while not entry.log_is_read and entry.removal_asked is None and not await self._took_end(entry):
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, LONGEST_WAIT)
        finally:
            entry.is_read = False

    async def _took_end(self, entry: Tracked) -> bool:
        now = _now()
        try:
            entry.lines = await self.page(entry.name, self.window(entry.name))
        except RequestFailed:
            if now - (entry.ended_at or now) > LOG_OUTAGE:
                await self._conclude(entry)
            return entry.log_is_read
        reader = ProgressReader()
        reader.feed("".join(f"{text}\n" for _, text in entry.lines))
        entry.progress = self._without_secrets(reader.progress) or entry.progress
        entry.missed_since = entry.missed_since or now
        is_whole = reader.end is not None and _is_whole(entry)
        if is_whole or now - entry.missed_since > LOG_PATIENCE:
            entry.end = reader.end and replace(reader.end, detail=self._redact(reader.end.detail))
            await self._conclude(entry)
        return entry.log_is_read

    async def _conclude(self, entry: Tracked) -> None:
        """What else tells of an end that the log may not show: a container that ended with 0 had completed."""
        if entry.end is None and entry.state is ResourceState.SUCCEEDED:
            entry.end = RunnerEnd(reason=COMPLETED)
        elif entry.end is None:
            entry.why = await self._why(entry)
        entry.log_is_read = True

    async def _why(self, entry: Tracked) -> str:
        try:
            return self._redact(states.of_job(await self._client.job_events(self.id(entry.name))))
        except RequestFailed:
            return ""

    def _read_progress(self) -> None:
        now, entries = _now(), self._tracked.values()
        running = [e for e in entries if e.state is ResourceState.RUNNING and e.removal_asked is None and not e.is_read]
        number, slower = share_of(len(running) * self._client.users)
        if not running or not self._extras.is_due(now, slower=slower * self._client.users):
            return
        self._extras.asked(now)
        for entry in sorted(running, key=lambda e: e.read_at)[:number]:
            entry.read_at, entry.is_read = now, True
            self._reading.start(self._take_progress(entry))

    async def _take_progress(self, entry: Tracked) -> None:
        try:
            with patience(PROGRESS_PATIENCE):
                lines = await self.last_lines(entry.name, PROGRESS_LINES)
        except RequestFailed:
            return  # progress is shown, nothing depends on it
        finally:
            entry.is_read = False
        entry.progress = self._without_secrets(_progress(lines)) or entry.progress

    def _without_secrets(self, progress: Progress | None) -> Progress | None:
        return None if progress is None else replace(progress, detail=self._redact(progress.detail))

    async def close(self) -> None:
        """End what is being read in the background."""
        await self._reading.close()

    def window(self, name: str) -> LogWindow:
        """The whole log of a job, from its end."""
        return LogWindow.last(10**9, since=self.created(name))

    async def page(self, name: str, window: LogWindow) -> list[Entry]:
        """Lines of a job in a window. Raises RequestFailed."""
        return await self._client.logs("job", self.id(name), window)

    async def last_lines(self, name: str, lines: int) -> list[str]:
        """The last lines of a job's log. Raises RequestFailed."""
        return [text for _, text in await self.page(name, LogWindow.last(lines, since=self.created(name)))]

    async def results(self, name: str) -> dict[str, bytes]:
        """What the runner printed, by path. Raises PlatformError if something of it is missing or damaged."""
        window = self.window(name)
        page = self._tracked[name].lines or await self.page(name, window)
        lines: list[Entry] = []
        while True:
            whole, rest = window.rest(page)
            lines = whole + lines
            try:
                return results_from_log("\n".join(text for _, text in lines))
            except PlatformError:
                if rest is None:
                    raise
            window, page = rest, await self.page(name, rest)

    def created(self, name: str) -> float:
        """When it was created, a little earlier, in seconds since 1970."""
        entry = self._tracked.get(name)
        stamp = entry.seen.metadata.created_at if entry is not None and entry.seen is not None else None
        return (stamp / 1000 if stamp else time.time() - 86_400) - 60

    def id(self, name: str) -> str:
        """The service's id of a job."""
        entry = self._tracked[name]
        return entry.seen.id if entry.seen is not None else name

    def known(self, name: str) -> bool:
        """Whether there is, or was, a job of this name."""
        return name in self._tracked

    def is_over(self, name: str) -> bool:
        """Whether its log will not grow any more."""
        entry = self._tracked[name]
        return entry.is_gone or entry.log_is_read

    def log(self, name: str) -> list[str]:
        """The end of an ended job's log, as far as it was read."""
        return [text for _, text in self._tracked[name].lines] if name in self._tracked else []

    def end(self, name: str) -> RunnerEnd | None:
        """How the runner of a job ended, as far as it was read."""
        return self._tracked[name].end

    def resources(self) -> dict[str, Resource]:
        """All jobs in the launcher's words."""
        return {name: entry.resource() for name, entry in self._tracked.items()}


def _is_whole(entry: Tracked) -> bool:
    """Whether the results that the runner announced are there, as far as one page shows it."""
    try:
        results_from_log("\n".join(text for _, text in entry.lines))
    except PlatformError:
        return bool(entry.lines) and len(entry.lines) >= LogWindow.last(10**9, since=0.0).limit
    return True


def _progress(lines: list[str]) -> Progress | None:
    """What a piece of a log says; one that shows counts is from the evaluation, though the word may lie before it."""
    reader = ProgressReader()
    reader.feed("".join(f"{line}\n" for line in lines))
    found = reader.progress
    if found is not None and found.phase == "waiting" and found.done is not None:
        return Progress(phase="evaluating", detail=found.detail, done=found.done, total=found.total)
    return found


def _leaving_since(alive: list[Tracked]) -> float | None:
    """When the last removal was asked for, if there is nothing that is not leaving."""
    asked = [entry.removal_asked for entry in alive if entry.removal_asked is not None]
    return max(asked) if asked and len(asked) == len(alive) else None


def _is_missed(entry: Tracked, now: float) -> bool:
    """Whether a list that was asked for at `now` should have shown it and did not."""
    if entry.is_gone or entry.known_at >= now or (entry.maybe_until is not None and now < entry.maybe_until):
        return False
    return entry.removal_asked is not None or now - entry.known_at >= LIST_LAG


def _now() -> float:
    return asyncio.get_running_loop().time()
