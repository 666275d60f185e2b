"""What is wrong with a config, before it is known where its key was set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: the key it is about and what to say. `absent`: the key has no value."""

    key: str
    message: str
    absent: bool = False


class Invalid(Exception):
    """The tree does not fit the schema; `problems` says where."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{p.key}: {p.message}" for p in problems))
