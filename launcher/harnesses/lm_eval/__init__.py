"""lm-evaluation-harness as a harness: all its tasks and groups, the offline tasks, and folders of the user's own."""

from __future__ import annotations

from launcher.harnesses.lm_eval.catalogue import search
from launcher.harnesses.lm_eval.harness import LmEval
from launcher.harnesses.lm_eval.index import IndexEntry

__all__ = ["IndexEntry", "LmEval", "search"]
