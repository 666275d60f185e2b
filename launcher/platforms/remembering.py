"""What an endpoint or a job is in the launcher's words, made anew only where something of it has changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from launcher.platforms.base import Resource


class Remembers(ABC):
    """Whatever is set forgets what was said: a thousand are asked for several times a second, and few change."""

    _said: Resource | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Set it, and say all anew when that is asked for next."""
        state = self.__dict__
        state[name] = value
        state["_said"] = None

    def resource(self) -> Resource:
        """It in the launcher's words; the same object until something changes."""
        said = self._said
        if said is None:
            said = self.__dict__["_said"] = self._say()
        return said

    @abstractmethod
    def _say(self) -> Resource:
        """It in the launcher's words, from what it holds and nothing else."""
