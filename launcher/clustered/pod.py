"""The supervisor's pod: a parent that tells the cluster how the run is, and the supervisor itself, its child.

The child runs by the journal on the volume, so that whoever comes after it goes on where it was: the Job starts another
pod when this one dies. A signal to the pod (its node is drained, its Job deleted) is no wish to stop: it ends at once,
and what it has made stays for the next. Who wants it to stop says so in the status, and the child then tears down.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import msgspec

from launcher.clustered import mirror
from launcher.clustered.laptop import FACTS
from launcher.config.execution import Kubernetes
from launcher.errors import LauncherError, LeaseHeld, NotFound, PlatformError
from launcher.harnesses.spec import CACHE
from launcher.orchestrator.journal import Fact, Journal, state_folder
from launcher.plan.model import Plan
from launcher.platforms.kubernetes.supervising import ARCHIVE, Supervised, opened
from launcher.supervise import begin, begin_folder, stored_plan, take_up

TICK = 1.0
"""Seconds between two looks at the journal."""
REST = 15.0
"""Seconds between two reports in which nothing changed but the time."""
HELD_PAUSE = 5.0
"""Seconds between two tries to take over from a supervisor that has died with its node."""
RETRY = 1
"""Exit code that has the Job start another pod."""
_SIGNALLED = 143
_UNFINISHED = (1, 5, 7, 11)
"""Exit codes of a supervisor that say nothing of how the run ended, if the journal does not."""
_LEFT_OUT = ("config.yaml", "plan.json")
"""Files of the invocation's folder that the machine has that began it."""


@dataclass(kw_only=True)
class Pod:
    """What the pod does for one invocation."""

    invocation: str
    yes: bool
    supervised: Supervised
    state: Path
    life: str
    journal: Journal
    _told: str = ""
    _told_at: float = 0.0
    _stopping: bool = False
    _last_words: deque[str] = field(default_factory=lambda: deque(maxlen=5))

    async def run(self) -> int:
        """Run the invocation to its end; returns the exit code of the pod, 0 if the run has ended, however."""
        plan = await self.supervised.plan()
        plan = replace(plan, output_dir=str(self.state / "results"))
        if not self._had_ended():
            self._begin(plan)
            began = time.time()
            code = await self._supervise()
            ended = self.journal.ended(self.invocation)
            if ended is None or ended.time < began:
                if code < 0 or (code in _UNFINISHED and self._has_begun()):
                    return RETRY
                error = "\n".join(line.removeprefix("nv-eval: ") for line in self._last_words)
                self.journal.record(self.invocation, Fact.RUN_ENDED, exit_code=code, error=error)
        await self._conclude(plan)
        return 0

    def _had_ended(self) -> bool:
        """Whether an earlier pod of this life has seen the end."""
        mark = self.state / "life"
        before = mark.read_text() if mark.is_file() else ""
        mark.write_text(self.life)
        return before == self.life and self.journal.ended(self.invocation) is not None

    def _has_begun(self) -> bool:
        return self.journal.last(self.invocation, Fact.RUN_STARTED) is not None

    def _begin(self, plan: Plan) -> None:
        """Record an invocation that is new here, or the plan that it is resumed with."""
        (self.state / ARCHIVE).unlink(missing_ok=True)
        begin_folder(plan, Path(plan.output_dir) / plan.invocation)
        try:
            found = self.journal.find(self.invocation)
        except NotFound:
            begin(plan, self.journal)
            return
        if msgspec.json.encode(stored_plan(self.journal, found)) != msgspec.json.encode(plan):
            take_up(self.journal, found, plan)
            self.journal.give_up_lease(self.invocation)

    # --- the child ----------------------------------------------------------------------------------------------------

    async def _supervise(self) -> int:
        """Exit code of the supervisor; one that another still holds the lease from is started again."""
        while True:
            code = await self._one_child()
            if code != LeaseHeld.exit_code:
                return code
            await self._tell("waiting")
            await asyncio.sleep(HELD_PAUSE)

    async def _one_child(self) -> int:
        child = self._start_child()
        assert child.stderr is not None
        reading = threading.Thread(target=self._listen, args=(child.stderr,), daemon=True)
        reading.start()

        def die(_number: int, _frame: object) -> None:
            child.kill()
            os._exit(_SIGNALLED)

        before = signal.signal(signal.SIGTERM, die)
        began, asked = time.time(), False
        try:
            while child.poll() is None:
                await asyncio.sleep(TICK)
                if await self._wants_end(began) and not asked:
                    asked = True
                    child.send_signal(signal.SIGINT)
        finally:
            signal.signal(signal.SIGTERM, before)
        reading.join(timeout=5.0)
        return child.returncode

    def _start_child(self) -> subprocess.Popen[str]:
        words = [sys.executable, "-P", "-m", "launcher.cli.main", "supervise", self.invocation]
        words += ["--yes"] if self.yes else []
        return subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            sys.stderr.write(line)
            sys.stderr.flush()
            if line.startswith("nv-eval: "):
                self._last_words.append(line.rstrip("\n"))

    async def _wants_end(self, began: float) -> bool:
        """Report; whether the child is to end. A cluster that does not answer for a while ends nothing."""
        started = self.journal.last(self.invocation, Fact.RUN_STARTED)
        try:
            if started is not None and started.time >= began:
                await self._tell("running")
            if not self._stopping:
                self._stopping = await self.supervised.is_to_stop()
        except PlatformError as error:
            sys.stderr.write(f"nv-eval: {error}\n")
        return self._stopping

    # --- what it tells ------------------------------------------------------------------------------------------------

    async def _tell(self, state: str, **more: str) -> None:
        facts = mirror.take(self.journal, self.invocation)
        digest = hashlib.sha256(_without_time(facts)).hexdigest() + state
        if digest == self._told and time.monotonic() - self._told_at < REST and not more:
            return
        self._told, self._told_at = digest, time.monotonic()
        if await self.supervised.tell({"state": state, "life": self.life, **more}, facts):
            self._stopping = True

    async def _conclude(self, plan: Plan) -> None:
        """Leave on the volume what is to come home, and say that it is there."""
        folder = Path(plan.output_dir) / plan.invocation
        facts = mirror.take(self.journal, self.invocation)
        await asyncio.to_thread(pack, folder, facts, self.state / ARCHIVE)
        ended = self.journal.ended(self.invocation)
        data = ended.data if ended is not None else {}
        more = {"exit_code": str(data.get("exit_code", RETRY))}
        if data.get("error"):
            more["error"] = str(data["error"])
        await self._tell("ended", **more)


def _without_time(facts: bytes) -> bytes:
    """What a snapshot says but for signs of life."""
    found = mirror.read(facts)
    return msgspec.json.encode([found.facts, found.live[1] if found.live else ""])


def pack(folder: Path, facts: bytes, archive: Path) -> None:
    """Everything that is to come home, in one file, which is there whole or not at all."""
    part = archive.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as opened_:
        opened_.writestr(FACTS, facts)
        for path in sorted(folder.rglob("*")):
            inner = path.relative_to(folder)
            if path.is_file() and not path.is_symlink() and str(inner) not in _LEFT_OUT and CACHE not in inner.parts:
                opened_.write(path, str(inner))
    part.replace(archive)


def run(invocation: str, *, yes: bool) -> int:
    """What the container does. Raises LauncherError outside a cluster."""
    if "NV_EVAL_LIFE" not in os.environ:
        raise LauncherError("nv-eval supervise --in-cluster: is for the pod that run --detach=cluster makes")
    state = state_folder()
    state.mkdir(parents=True, exist_ok=True)

    async def work() -> int:
        async with opened(Kubernetes(), invocation) as supervised:
            journal = Journal.default()
            pod = Pod(
                invocation=invocation,
                yes=yes,
                supervised=supervised,
                state=state,
                life=os.environ["NV_EVAL_LIFE"],
                journal=journal,
            )
            try:
                return await pod.run()
            finally:
                journal.close()

    return asyncio.run(work())
