"""The job document (schema "nv-eval.job/1", written by launcher/plan/document.py).

Part of the runner: standard library only, as it runs inside any image.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

from launcher.runner.client import Target

SCHEMA = "nv-eval.job/1"
SHORTEST_SECRET = 6
"""Shorter values would only garble the output: `true`, `8000`."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """The harness run. In argv, env and files, {python} {url} {output_dir} {work_dir} {model} are filled in.

    {brace} gives a `{`, for a text that only looks like a placeholder.
    """

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    results: list[str] = field(default_factory=list)
    progress: str = "none"
    progress_label: str = ""
    api_key_env: str | None = None
    requires: list[str] = field(default_factory=list)
    secret_envs: list[str] = field(default_factory=list)
    """Variables that hold secrets: their values are kept out of the output."""

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Run:
        """The run of a job document. Keys this version does not know are left out."""
        names = {entry.name for entry in fields(cls)}
        return cls(**{name: value for name, value in document.items() if name in names})


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job as its document tells it. `timeout` in seconds from the moment the endpoint is ready."""

    invocation: str
    task: str
    target: Target
    run: Run
    timeout: float
    output_dir: Path
    work_dir: Path
    auxiliary: dict[str, Target] = field(default_factory=dict)
    """Endpoints that the harness uses beside the evaluated one, by name."""

    @classmethod
    def load(cls, path: str) -> Job:
        """Read a document. Raises ValueError, TypeError, KeyError or OSError for one that cannot be understood."""
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"schema {document['schema']!r}; this runner reads {SCHEMA!r}")
        return cls(
            invocation=document["invocation"],
            task=document["task"],
            target=Target.from_document(document["target"]),
            run=Run.from_document(document["run"]),
            timeout=float(document["timeout"]),
            output_dir=Path(document["output_dir"]).absolute(),
            work_dir=Path(document["work_dir"]).absolute(),
            auxiliary={name: Target.from_document(one) for name, one in document.get("auxiliary", {}).items()},
        )

    def fill(self, text: str) -> str:
        """The text with its placeholders replaced."""
        values = {
            "python": sys.executable,
            "url": self.target.url.rstrip("/"),
            "output_dir": str(self.output_dir),
            "work_dir": str(self.work_dir),
            "model": self.target.model,
            "brace": "{",
        }
        for name, target in self.auxiliary.items():
            values |= {f"auxiliary.{name}.url": target.url.rstrip("/"), f"auxiliary.{name}.model": target.model}
        pattern = r"\{(python|url|output_dir|work_dir|model|brace|auxiliary\.\w+\.(?:url|model))\}"
        return re.sub(pattern, lambda match: values.get(match[1], match[0]), text)

    def environment(self) -> dict[str, str]:
        """The harness's environment: this program's own, the job's, and keys under the harness's names.

        An auxiliary endpoint NAME has NV_EVAL_AUX_NAME_BASE_URL (with /v1), _MODEL and _API_KEY (`none` without a key).
        """
        unbuffered = {"PYTHONUNBUFFERED": "1"}  # what a harness says last must not be lost in its buffer
        env = {**unbuffered, **os.environ, **{name: self.fill(value) for name, value in self.run.env.items()}}
        if self.run.api_key_env and self.target.key:
            env[self.run.api_key_env] = self.target.key
        for name, target in self.auxiliary.items():
            prefix = f"NV_EVAL_AUX_{name.upper()}_"
            env[f"{prefix}BASE_URL"], env[f"{prefix}MODEL"] = f"{target.url.rstrip('/')}/v1", target.model
            env[f"{prefix}API_KEY"] = target.key or "none"
        return env

    def secrets(self) -> set[str]:
        """Texts that must not be printed: each line of each secret value, as it is, inside JSON and inside a URL."""
        names = [self.target.api_key_env, self.run.api_key_env, *self.run.secret_envs]
        values = [os.environ.get(name, "") for name in names if name]
        lines = {line.strip() for value in values for line in value.splitlines()}
        long = {line for line in lines if len(line) >= SHORTEST_SECRET}
        return long | {json.dumps(line)[1:-1] for line in long} | {quote(line, safe="") for line in long}
