"""Which samples of lm-eval's tasks belong together: several questions about one text are not independent."""

from __future__ import annotations

from fnmatch import fnmatchcase

FIELDS = {
    "belebele_*": "flores_passage",
    "boolq*": "passage",
    "drop": "passage",
    "mlqa_*": "context",
    "multirc": "paragraph",
    "record": "passage",
    "squadv2": "context",
    "xquad_*": "context",
}
"""Tasks whose documents carry the text that several questions share, and in which field, as their definitions show."""


def field(task: str) -> str:
    """The field of a task's documents that holds what they share; empty where none is known."""
    return next((name for pattern, name in FIELDS.items() if fnmatchcase(task, pattern)), "")
