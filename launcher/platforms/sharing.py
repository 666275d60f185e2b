"""What platforms of several runs of one process have in common: a control plane is asked once for all of them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Protocol


class Common(Protocol):
    """Something that several platforms use."""

    async def end(self) -> None:
        """Let go of it: nobody uses it any more."""
        ...


@dataclass(frozen=True)
class Shared:
    """What is in common, by the account that it belongs to; each kind of platform keeps what it needs in it."""

    by_account: dict[Hashable, Common] = field(default_factory=dict)

    async def end(self) -> None:
        """Let go of everything, when all platforms are closed."""
        while self.by_account:
            _, common = self.by_account.popitem()
            await common.end()
