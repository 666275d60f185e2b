"""The one place that makes names: deterministic, within the platform's rules, with a hash where they are cut."""

from __future__ import annotations

import hashlib
import re
import secrets

MAX_LENGTH = 36
"""Longest name that every platform takes (Lepton's rule for jobs; Kubernetes and Docker allow more)."""

MARK = "nv-eval"
"""How the name of something of ours begins where a platform keeps no other mark."""
_MARKED_BY_NAME = ("deepinfra",)

_LONGEST_KEY = 100
"""Characters of a task's folder name; file systems take 255 with all that stands in front and behind."""

_TAKEN = {
    "config.yaml",
    "plan.json",
    "prepare.log",
    "provenance.json",
    "results.json",
    "results.parquet",
    "scores.csv",
    "scores.md",
}
"""Files beside the tasks' folders in an invocation's folder, in lower case."""


def new_invocation_id() -> str:
    """A fresh invocation id: 8 characters, a letter first, so that it can stand anywhere in a name."""
    return secrets.choice("abcdef") + secrets.token_hex(4)[:7]


def resource_name(kind: str, task: str, index: int, invocation: str, *, attempt: int = 1) -> str:
    """`{kind}-{task}-{index}-{invocation}` in lower-case letters, digits and hyphens, at most MAX_LENGTH long.

    In a further attempt `r{attempt}` follows the index.
    """
    tail = f"-{index}{f'r{attempt}' if attempt > 1 else ''}-{invocation}"
    head = _slug(f"{kind}-{task}")
    room = MAX_LENGTH - len(tail)
    if len(head) > room:
        digest = hashlib.sha256(head.encode()).hexdigest()[:5]
        head = f"{head[: room - 6].rstrip('-')}-{digest}"
    return head + tail


def endpoint_name(server: str, task: str, index: int, invocation: str, *, attempt: int = 1) -> str:
    """Name of the endpoint of a task. Where it is the only mark that an endpoint can carry, it begins with ours."""
    kind = MARK if server in _MARKED_BY_NAME else server
    return resource_name(kind, task, index, invocation, attempt=attempt)


def shared_name(server: str, invocation: str, *, generation: int = 1) -> str:
    """Name of the endpoint that all tasks of a run share; when it died, the next `generation` takes its place."""
    return endpoint_name(server, "shared", 0, invocation, attempt=generation)


def task_keys(names: list[str]) -> list[str]:
    """A folder name for each task, unique in the invocation: the task's name, cut, with -2, -3 where it repeats."""
    seen: dict[str, int] = {}
    keys: list[str] = []
    for name in names:
        base = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:_LONGEST_KEY].strip("._") or "task"
        if base.lower() in _TAKEN:
            base = f"task-{base}"
        seen[base] = seen.get(base, 0) + 1
        candidate = base if seen[base] == 1 else f"{base}-{seen[base]}"
        while candidate in keys:
            seen[base] += 1
            candidate = f"{base}-{seen[base]}"
        keys.append(candidate)
    return keys


def _slug(text: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return slug if slug[:1].isalpha() else f"t-{slug}"
