"""Containers that run as a script in the emulator's own thread: hundreds of them cost nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starlette.types import ASGIApp

from launcher.emulators.common.clock import Clock
from launcher.platforms.local.unit import Ending


@dataclass(frozen=True, kw_only=True)
class Script:
    """What a simulated container does.

    It prints `output`, ends after `seconds` (None: when it is stopped) with `exit_code`, and from `opens_after`
    seconds on answers requests with `application`. `output` is printed at the end if it ends by itself, so that a log
    is complete when its job is.
    """

    output: str = ""
    seconds: float | None = None
    exit_code: int = 0
    application: ASGIApp | None = None
    opens_after: float = 0.0


class SimulatedUnit:
    """One simulated container. It looks like a supervised process."""

    def __init__(self, script: Script, clock: Clock, log: Path) -> None:
        self.script = script
        self._clock = clock
        self._log = log
        self._began = clock.now()
        self._ending: Ending | None = None
        if script.seconds is None:
            self._print()

    @property
    def is_open(self) -> bool:
        """Whether it answers requests."""
        return self._clock.now() >= self._began + self.script.opens_after

    def look(self) -> Ending | None:
        """How it ended."""
        seconds = self.script.seconds
        if self._ending is None and seconds is not None and self._clock.now() >= self._began + seconds:
            self._print()
            code = self.script.exit_code
            self._ending = Ending(exit_code=code, detail=f"exited with code {code}")
        return self._ending

    def stop(self) -> None:
        """End now."""
        if self._ending is None:
            self._ending = Ending(exit_code=-15, detail="killed by SIGTERM")

    def kill(self) -> None:
        """End now."""
        self.stop()

    def close(self) -> None:
        """End now."""
        self.stop()

    def _print(self) -> None:
        with self._log.open("a") as file:
            file.write(self.script.output)
