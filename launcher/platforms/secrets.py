"""The one place that turns references into values, and the one that takes values out of text again.

Values exist in this process's memory, in the environment of the process that needs them, and nowhere else.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

from launcher.config.fields import Env, Reference
from launcher.errors import PlatformError
from launcher.plan.model import Plan, TaskPlan
from launcher.platforms.kept import OUTPUT, SCORES
from launcher.platforms.local.supervisor import Redactor

__all__ = ["Redactor", "Secrets", "reference_in", "references", "search", "unresolvable", "unsearched"]

MIN_LENGTH = 6
"""Shorter values are not looked for in text: `true` or `8000` would make logs and JSON files unreadable."""
MIN_DIGITS = 12
"""The same for a value that is a plain number: it would be found inside scores and timestamps."""
_REFERENCE = re.compile(r"\$\{oc\.env:([^}]+)\}")
_NUMBER = re.compile(r"[-+]?\d[\d.]*")
_JSON_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[-+.\w]+', re.DOTALL)


def references(plan: Plan) -> Iterator[Reference]:
    """Every reference of a plan."""
    for task in (*plan.tasks, *plan.auxiliary):
        yield from _of_task(task)


def _of_task(task: TaskPlan) -> Iterator[Reference]:
    environments = [task.job.run.env, *([task.endpoint.server.env] if task.endpoint else [])]
    for environment in environments:
        yield from (value for value in environment.values() if isinstance(value, Reference))
    if task.target.api_key is not None:
        yield task.target.api_key


def reference_in(text: str) -> Reference | None:
    """The reference that a text of a request is, `${oc.env:NAME}`; None if it is something else."""
    found = _REFERENCE.fullmatch(text)
    return Reference(env=found[1]) if found is not None else None


def unresolvable(reference: Reference, environment: Mapping[str, str]) -> str | None:
    """Why a reference has no value on a platform without a secret store, in one line; None if it has one."""
    if reference.secret is not None:
        return (
            f"secret {reference.secret}: this platform has no secret store; "
            f"export a variable and reference it as ${{oc.env:NAME}}"
        )
    if reference.env not in environment:
        return f"variable {reference.env} is not set; export {reference.env}=... before the run"
    return None


class Secrets:
    """Resolves references from an environment and remembers each value, to be able to take it out of text."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        self._values: set[str] = set()

    def resolve(self, reference: Reference) -> str:
        """The value. Raises PlatformError without it, naming the reference."""
        problem = unresolvable(reference, self._environment)
        if problem is not None:
            raise PlatformError(problem)
        value = self._environment[str(reference.env)]
        self.remember(value)
        return value

    def remember_all(self, plan: Plan) -> None:
        """Treat what the references of a plan stand for as secret, as far as this environment has it."""
        for reference in references(plan):
            if unresolvable(reference, self._environment) is None:
                self.resolve(reference)

    def fill(self, text: str) -> str:
        """The value where the text is a reference, `${oc.env:NAME}`; else the text. Raises PlatformError without it."""
        reference = reference_in(text)
        return self.resolve(reference) if reference is not None else text

    def resolve_env(self, env: Env) -> dict[str, str]:
        """An environment with all references replaced. Raises PlatformError for the first that has no value."""
        return {name: self.resolve(value) if isinstance(value, Reference) else value for name, value in env.items()}

    def remember(self, value: str) -> None:
        """Treat a value as secret from now on; of a URL its password counts too."""
        self._values.add(value)
        self._values.update(url_passwords([value]))

    def forms(self) -> list[str]:
        """Every form in which a remembered value is looked for: as it is, inside JSON, inside a URL; each line too."""
        found: set[str] = set()
        for value in self._values:
            for part in {value, *(line.strip() for line in value.splitlines())}:
                if is_searchable(part):
                    found |= {part, json.dumps(part)[1:-1], quote(part, safe="")}
        return sorted(found, key=len, reverse=True)

    def redact(self, text: str) -> str:
        """The text with every remembered value replaced."""
        return self._redact(text.encode(errors="surrogateescape")).decode(errors="surrogateescape")

    def scrub(self, folder: Path) -> list[Path]:
        """Take every remembered value out of the files below a folder; returns the files that were changed.

        Text gets `***`; in JSON numbers stay numbers, unless one is a value as a whole. In binary files, where offsets
        matter, the value is overwritten with as many asterisks.
        """
        forms = [form.encode() for form in self.forms()]
        return [path for path in sorted(folder.rglob("*")) if _is_own_file(path) and _scrub_file(path, forms)]

    def _redact(self, data: bytes) -> bytes:
        redactor = Redactor(form.encode() for form in self.forms())
        return redactor.feed(data) + redactor.flush()


def unsearched(plan: Plan, folder: Path) -> list[Path]:
    """Outputs of jobs in an invocation's folder whose launcher died before it could search them for secrets."""
    outputs = [folder / task.key / OUTPUT for task in plan.tasks if not (folder / task.key / SCORES).exists()]
    return [output for output in outputs if output.is_dir() and any(output.iterdir())]


def search(secrets: Secrets, plan: Plan, outputs: Iterable[Path]) -> None:
    """Take secrets out of what jobs have left that failed, were stopped or lost their launcher, as far as possible."""
    secrets.remember_all(plan)
    for output in outputs:
        with contextlib.suppress(OSError):
            secrets.scrub(output)


def is_searchable(value: str) -> bool:
    """Whether a value is long enough that text which holds it holds it for no other reason."""
    return len(value) >= (MIN_DIGITS if _NUMBER.fullmatch(value) else MIN_LENGTH)


def url_passwords(values: Iterable[str]) -> Iterator[str]:
    """Passwords inside URLs (`http://user:password@proxy`)."""
    for value in values:
        if "://" in value and "@" in value:
            try:
                password = urlsplit(value).password
            except ValueError:
                continue
            if password:
                yield password


def _is_own_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _scrub_file(path: Path, forms: list[bytes]) -> bool:
    data = path.read_bytes()
    present = [form for form in forms if form in data]
    scrubbed = _scrubbed(data, present, path.suffix) if present else data
    if scrubbed == data:
        return False
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(scrubbed)
    temporary.chmod(path.stat().st_mode)
    temporary.replace(path)
    return True


def _scrubbed(data: bytes, forms: list[bytes], suffix: str) -> bytes:
    if b"\0" in data:
        return _replaced(data, forms, lambda form: b"*" * len(form))
    if suffix == ".json" and _is_json(data):
        return _scrubbed_json(data, forms)
    if suffix == ".jsonl":
        lines = data.splitlines(keepends=True)
        return b"".join(_scrubbed_json(line, forms) if _is_json(line) else _replaced(line, forms) for line in lines)
    return _replaced(data, forms)


def _replaced(data: bytes, forms: list[bytes], by: Callable[[bytes], bytes] = lambda _: b"***") -> bytes:
    for form in forms:
        data = data.replace(form, by(form))
    return data


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _scrubbed_json(data: bytes, forms: list[bytes]) -> bytes:
    """Valid JSON, with values replaced inside strings, and as whole numbers; all else as it was."""

    def token(match: re.Match[bytes]) -> bytes:
        text = match.group()
        if text.startswith(b'"'):
            return _replaced(text, forms)
        return b'"***"' if text in forms else text

    return _JSON_TOKEN.sub(token, data)
