"""A DeepInfra account on loopback for tests that start the program: real server processes, or models that need none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from launcher.emulators.deepinfra import Config, DeepInfraEmulator, Timing
from tests.e2e.cli import Home

QUICK = Timing(tick=0.02, restart_delay=0.05)


@dataclass(frozen=True)
class Account:
    """One emulated account, and what a launcher needs to find it."""

    emulator: DeepInfraEmulator

    def point(self, home: Home) -> None:
        """Let every `nv-eval` of this home find it."""
        home.extra |= {"DEEPINFRA_BASE_URL": self.emulator.url, "DEEPINFRA_API_KEY": self.emulator.key}

    def left(self) -> list[str]:
        """Names of what is not deleted."""
        return [item.name for item in self.emulator.state().alive]


@contextmanager
def emulated(config: Config | None = None, **keys: Any) -> Iterator[Account]:
    """A running account. Where no server is named, models answer by themselves, without a process.

    `keys` are fields of the config, which by default is quick.
    """
    with DeepInfraEmulator(replace(config or Config(timing=QUICK), **keys)) as emulator:
        yield Account(emulator)
