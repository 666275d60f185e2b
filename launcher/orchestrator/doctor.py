"""Examines this machine: what it can run, and what keeps it from running more. Changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from queue import Empty, SimpleQueue

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from launcher.orchestrator import schema
from launcher.orchestrator.journal import state_folder
from launcher.platforms import checkup
from launcher.platforms.base import Check, CheckState

PACKAGE = "nv-eval-launcher"
RESULTS = Path("results")
LEAST_FOR_STATE, LEAST_FOR_RESULTS = 64 * 2**20, 2**30
"""Free bytes below which a run would soon fail: for the journal, and for logs and samples."""
EXTRAS = (
    "lm-eval",
    "smollm",
    "hf-tokenizer",
    "docker",
    "gpu",
    "kubernetes",
    "emulators",
    "notify",
    "stats",
    "view",
    "report",
    "schedule",
    "mlflow",
    "wandb",
    "trackio",
    "inspect",
    "huggingface",
    "fsspec",
    "otel",
)
"""Those that a person chooses one by one."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """One question, on its own. `look` is given its time limit in seconds; `enables`: overrides of a run."""

    name: str
    look: Callable[[float], list[Check]]
    enables: str = ""
    vital: bool = False
    """Whether nothing can run where it finds a problem."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What an examination found, and how long it took in seconds."""

    examination: Examination
    checks: tuple[Check, ...]
    seconds: float

    @property
    def is_fine(self) -> bool:
        """Whether all of it is as it should be."""
        return all(check.state is CheckState.OK for check in self.checks)

    @property
    def has_problem(self) -> bool:
        """Whether something is wrong, not only absent."""
        return any(check.state is CheckState.PROBLEM for check in self.checks)


def examinations() -> list[Examination]:
    """All there are, in the order in which they are told."""
    return [
        Examination(name="python", look=python, vital=True),
        Examination(name="packages", look=packages, vital=True),
        Examination(name="extras", look=extras),
        Examination(name="processes", look=checkup.processes, enables="execution=local"),
        Examination(name="containers", look=checkup.containers, enables="execution=local execution.runtime=docker"),
        Examination(name="gpus", look=checkup.gpus),
        Examination(name="lepton", look=checkup.lepton, enables="execution=lepton"),
        Examination(name="deepinfra", look=checkup.deepinfra, enables="deployment=deepinfra"),
        Examination(name="kubernetes", look=checkup.kubernetes, enables="execution=kubernetes"),
        Examination(name="slurm", look=checkup.slurm, enables="execution=slurm"),
        Examination(name="disk", look=disk, vital=True),
        Examination(name="journal", look=journal, vital=True),
    ]


def examine(wanted: Sequence[Examination], limit: float) -> list[Finding]:
    """All side by side. One that takes longer than `limit` seconds is told as a problem and waited for no more."""
    answers: SimpleQueue[Finding] = SimpleQueue()
    for examination in wanted:
        # Daemon threads: one that hangs in a dead mount or a silent socket must not keep the program from ending.
        threading.Thread(target=lambda e=examination: answers.put(_look(e, limit)), daemon=True).start()
    found: dict[str, Finding] = {}
    deadline = time.monotonic() + limit
    try:
        while len(found) < len(wanted):
            finding = answers.get(timeout=max(0.0, deadline - time.monotonic()))
            found[finding.examination.name] = finding
    except Empty:
        pass
    return [found.get(examination.name) or _no_answer(examination, limit) for examination in wanted]


def _look(examination: Examination, limit: float) -> Finding:
    begun = time.monotonic()
    try:
        checks = examination.look(limit)
    except Exception as error:  # whatever is wrong with a machine: the other examinations are told all the same
        checks = [Check(examination.name, CheckState.PROBLEM, f"{type(error).__name__}: {error}")]
    return Finding(examination=examination, checks=tuple(checks), seconds=time.monotonic() - begun)


def _no_answer(examination: Examination, limit: float) -> Finding:
    message = f"no answer within {limit:g} s; try again, or with a longer --timeout"
    return Finding(
        examination=examination, checks=(Check(examination.name, CheckState.PROBLEM, message),), seconds=limit
    )


def runnable(findings: Sequence[Finding]) -> list[str]:
    """Overrides of the executions that can run here, and what can be rented; none where something vital is wrong."""
    if any(finding.examination.vital and finding.has_problem for finding in findings):
        return []
    able = [finding.examination.enables for finding in findings if finding.examination.enables and finding.is_fine]
    return able if any(overrides.startswith("execution=") for overrides in able) else []


# --- Python and packages ----------------------------------------------------------------------------------------------


def python(_limit: float) -> list[Check]:
    """Whether this is a Python that the launcher is made for."""
    version = platform.python_version()
    try:
        wanted = str(metadata.metadata(PACKAGE).json.get("requires_python", ""))
    except metadata.PackageNotFoundError:
        return [Check("python", CheckState.OK, f"{version} (nv-eval runs from its sources)")]
    if SpecifierSet(wanted).contains(version, prereleases=True):
        return [Check("python", CheckState.OK, version)]
    return [Check("python", CheckState.PROBLEM, f"{version}, and nv-eval needs {wanted}; install it into such a one")]


def packages(_limit: float) -> list[Check]:
    """Whether everything that is always needed is there in the right version."""
    wrong = [text for requirement in _requirements("") if (text := _unmet(requirement))]
    if wrong:
        return [Check("packages", CheckState.PROBLEM, f"{'; '.join(wrong)}: pip install --upgrade {PACKAGE}")]
    return [Check("packages", CheckState.OK, f"{PACKAGE} {_version(PACKAGE) or 'from its sources'}")]


def extras(_limit: float) -> list[Check]:
    """Which extras are installed."""
    found: list[Check] = []
    for extra in EXTRAS:
        needs = list(_requirements(extra))
        lacking = [text for requirement in needs if (text := _unmet(requirement))]
        if lacking:
            hint = f"{'; '.join(lacking)}: pip install '{PACKAGE}[{extra}]'"
            found.append(Check(f"extra {extra}", CheckState.SKIPPED, hint))
        elif needs:
            versions = ", ".join(f"{need.name} {_version(need.name)}" for need in needs)
            found.append(Check(f"extra {extra}", CheckState.OK, versions))
    return found


def _requirements(extra: str) -> Iterator[Requirement]:
    """What this Python needs for an extra, or always for ''."""
    try:
        lines = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        always = marker is None or marker.evaluate({"extra": ""})
        if always if not extra else not always and marker is not None and marker.evaluate({"extra": extra}):
            yield requirement


def _unmet(requirement: Requirement) -> str:
    """What is wrong with an installed package; empty if nothing is."""
    version = _version(requirement.name)
    if version is None:
        return f"{requirement.name} is not installed"
    fits = requirement.specifier.contains(version, prereleases=True)
    return "" if fits else f"{requirement.name} {version} does not fit {requirement.specifier}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


# --- disk and journal -------------------------------------------------------------------------------------------------


def disk(_limit: float) -> list[Check]:
    """Whether the folders of state and results can be written and have room."""
    folders = (("state", state_folder(), LEAST_FOR_STATE), ("results", RESULTS.absolute(), LEAST_FOR_RESULTS))
    return [_room(*folder) for folder in folders]


def _room(what: str, folder: Path, least: int) -> Check:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    hint = "set NV_EVAL_HOME" if what == "state" else "set execution.output_dir"
    free = shutil.disk_usage(there).free
    room = f"{free / 2**30:.1f} GiB free"
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Check("disk", CheckState.PROBLEM, f"{what}: {there} cannot be written; {hint} to a folder of yours")
    if free < least:
        return Check("disk", CheckState.PROBLEM, f"{what}: {room} in {there}; make room, or {hint} to another disk")
    return Check("disk", CheckState.OK, f"{what}: {room} in {folder}")


def journal(limit: float) -> list[Check]:
    """Whether the journal, if there is one, is whole, of a version that is understood, and can be written."""
    path = state_folder() / "journal.db"
    if not path.exists():
        return [Check("journal", CheckState.OK, f"{path} will be made by the first run")]
    try:
        found = _read(path, limit)
    except sqlite3.Error as error:
        hint = "free the disk or its permissions; if it is broken, move it away, and nv-eval gc finds what it knew"
        return [Check("journal", CheckState.PROBLEM, f"{path}: {error}; {hint}")]
    if found > schema.VERSION:
        return [Check("journal", CheckState.PROBLEM, f"{path}: of a later nv-eval (schema {found}); update nv-eval")]
    return [Check("journal", CheckState.OK, f"{path}, schema {found}")]


def _read(path: Path, limit: float) -> int:
    """Version of its schema, after a look at all of it and a write that is taken back. Raises sqlite3.Error."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=limit / 2, isolation_level=None)
    try:
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        db.execute("BEGIN IMMEDIATE")
        version = schema.version(db)
        db.execute("PRAGMA user_version = 0")
        db.execute("ROLLBACK")
        return version
    finally:
        db.close()
