"""lm-evaluation-harness as a harness: all its tasks and groups, the offline tasks, and folders of the user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launcher.harnesses.lm_eval.catalogue import search
from launcher.harnesses.lm_eval.index import IndexEntry

if TYPE_CHECKING:
    from launcher.harnesses.lm_eval.harness import LmEval

__all__ = ["IndexEntry", "LmEval", "search"]


def __getattr__(name: str) -> Any:
    """`LmEval` needs the config's schema, which those who only look for a task must not pay for."""
    if name == "LmEval":
        from launcher.harnesses.lm_eval.harness import LmEval

        return LmEval
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
