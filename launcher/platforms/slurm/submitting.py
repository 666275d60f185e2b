"""Submission of batch jobs: one by one, or those with equal requests as one job array."""

from __future__ import annotations

import asyncio
import re
import secrets as randomness
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass

from launcher.errors import PlatformError
from launcher.platforms.slurm import archive, scripts, words
from launcher.platforms.slurm.shell import PAUSE, ConnectionLost, Shell, is_passing

PATIENCE = 90.0
"""Seconds that a submission may be asked for again whose answer was lost."""
GATHERING = 0.2
"""Seconds that a request waits for others like it."""
MOST = 1000
"""Elements of an array: MaxArraySize is 1001 unless a cluster says otherwise."""
ARRAY_TIMEOUT = 300.0
_OWN = re.compile(r"--(job-name|chdir|output)=")
"""Options that each job has for itself."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Wish:
    """One batch job that is wanted. `files` go into its folder, `key` is its task's."""

    name: str
    key: str
    options: Sequence[str]
    script: str
    files: Mapping[str, bytes]
    answer: asyncio.Future[str]
    """What Slurm calls it."""

    @property
    def kind(self) -> tuple[str, ...]:
        """The same for jobs whose requests are equal."""
        return (*(word for word in self.options if not _OWN.match(word)), self.script)


class Submitter:
    """Submits the batch jobs of one invocation. `folder` is its folder on the cluster."""

    def __init__(self, shell: Shell, folder: str, invocation: str, *, arrays: bool) -> None:
        self._shell = shell
        self._folder = folder
        self._invocation = invocation
        self._arrays = arrays
        self._waiting: list[Wish] = []
        self._running: set[asyncio.Task[None]] = set()

    async def submit(self, name: str, key: str, options: Sequence[str], script: str, files: Mapping[str, bytes]) -> str:
        """What Slurm calls the new batch job. Raises PlatformError if it is refused, or nobody can say."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        wish = Wish(name=name, key=key, options=options, script=script, files=files, answer=answer)
        if not self._arrays:
            return await self._alone(wish)
        self._waiting.append(wish)
        if len(self._waiting) == 1:
            self._begin(self._gather())
        return await answer

    async def close(self) -> None:
        """Submit nothing more."""
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        running = asyncio.create_task(work)
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    async def _gather(self) -> None:
        """Until no further request has come for a while."""
        seen = 0
        while seen != len(self._waiting):
            seen = len(self._waiting)
            await asyncio.sleep(GATHERING)
        kinds: dict[tuple[str, ...], list[Wish]] = {}
        for wish in self._waiting:
            kinds.setdefault(wish.kind, []).append(wish)
        self._waiting = []
        groups = [alike[place : place + MOST] for alike in kinds.values() for place in range(0, len(alike), MOST)]
        for group in groups:
            self._begin(self._together(group) if len(group) > 1 else self._settle(group[0]))

    async def _settle(self, wish: Wish) -> None:
        """Submit one alone, and tell who waits for it."""
        try:
            label = await self._alone(wish)
        except BaseException as error:
            _fail([wish], error)
            if not isinstance(error, Exception):
                raise
        else:
            _tell(wish, label)

    async def _together(self, wishes: list[Wish]) -> None:
        """Submit several as one array; where Slurm takes no such array, each alone: it may take some of them."""
        try:
            number = await self._array(wishes)
        except ConnectionLost as error:
            _fail(wishes, error)
        except PlatformError:
            for wish in wishes:
                self._begin(self._settle(wish))
        except BaseException as error:
            _fail(wishes, error)
            raise
        else:
            for index, wish in enumerate(wishes):
                _tell(wish, f"{number}_{index}")

    async def _array(self, wishes: list[Wish]) -> str:
        nonce = randomness.token_hex(4)
        here = f"{self._folder}/arrays/{nonce}"
        options = [
            *(word for word in wishes[0].options if not _OWN.match(word)),
            f"--job-name={archive.array_name(nonce, self._invocation)}",
            f"--chdir={here}",
            f"--output={here.replace('%', '%%')}/%a.log",
            f"--array=0-{len(wishes) - 1}",
        ]
        payload = archive.pack(_files(nonce, wishes))
        return await self._ask(scripts.SUBMIT_ARRAY, nonce, *options, payload=payload, timeout=ARRAY_TIMEOUT)

    async def _alone(self, wish: Wish) -> str:
        payload = archive.pack({**wish.files, "batch.sh": wish.script.encode()})
        nonce = randomness.token_hex(8)
        return await self._ask(scripts.SUBMIT, wish.name, nonce, wish.key, *wish.options, payload=payload, timeout=60.0)

    async def _ask(self, script: str, *arguments: str, payload: bytes, timeout: float) -> str:
        """Number of the batch job. What was asked for once is asked for again until there is an answer."""
        clock = asyncio.get_running_loop()
        deadline = clock.time() + PATIENCE
        while True:
            try:
                answer = await self._shell.run(script, self._folder, *arguments, payload=payload, timeout=timeout)
            except ConnectionLost:
                if clock.time() > deadline:
                    raise
                await asyncio.sleep(PAUSE)
                continue
            said = answer.text.strip()
            if answer.code == 0 and re.fullmatch(r"\d+(_\d+)?", said):
                return said
            if not is_passing(answer.err) or clock.time() > deadline:
                raise PlatformError(words.refused(answer.err))
            await asyncio.sleep(PAUSE)


def _files(nonce: str, wishes: Sequence[Wish]) -> dict[str, bytes]:
    """All files of an array, from the invocation's folder: each element goes on in the folder of its own job."""
    head, _, body = wishes[0].script.partition("\n")
    go = 'cd -- "../../jobs/$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" names | cut -d" " -f1)" || exit 1'
    names = "".join(f"{wish.name} {wish.key}\n" for wish in wishes)
    shared = {"names": names.encode(), "batch.sh": f"{head}\n{go}\n{body}".encode()}
    return {
        **{f"arrays/{nonce}/{name}": content for name, content in shared.items()},
        **{f"jobs/{wish.name}/{name}": content for wish in wishes for name, content in wish.files.items()},
    }


def _tell(wish: Wish, label: str) -> None:
    if not wish.answer.done():
        wish.answer.set_result(label)


def _fail(wishes: Sequence[Wish], error: BaseException) -> None:
    for wish in wishes:
        if wish.answer.done():
            continue
        if isinstance(error, asyncio.CancelledError):
            wish.answer.cancel()
        else:
            wish.answer.set_exception(error)
