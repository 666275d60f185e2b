"""What the two runtimes have in common: one started server or job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a command ended. `exit_code` is negative for a signal, None where it never ran or nobody knows."""

    exit_code: int | None
    detail: str


class Unit(Protocol):
    """One started server or job. Nothing here waits."""

    @property
    def id(self) -> str:
        """How the machine or the engine calls it."""
        ...

    def look(self) -> Ending | None:
        """How its command ended, once its log is complete; None before."""
        ...

    @property
    def is_silent(self) -> bool:
        """Whether its log is complete."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether it is confirmed that nothing of it is left."""
        ...

    def stop(self) -> None:
        """Ask for a polite end."""
        ...

    def kill(self) -> None:
        """Ask for the end at once."""
        ...

    def close(self) -> None:
        """Let go of everything this process holds for it."""
        ...
