"""Comparisons on a page: which runs, and what came of it or what keeps it from being one, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from launcher.errors import LauncherError, MissingExtra
from launcher.view.inside import SAMPLES, SCORES, refuse_links_out
from launcher.view.watcher import Run, Watcher

if TYPE_CHECKING:
    from launcher.results.compare import Comparison, Row, Versus

MOST = 6
"""Runs that are compared at once."""
OFFERED = 200
"""Runs that a page offers."""
FLIPS = 50
"""Samples shown of each metric."""


@dataclass(frozen=True)
class Asked:
    """Which runs are compared with the first of them, and how."""

    ids: tuple[str, ...] = ()
    task: str = ""
    is_forced: bool = False
    has_flips: bool = False
    is_part: bool = False

    @classmethod
    def of(cls, query: QueryParams) -> Asked:
        """As the address says it: `ids=A,B`; or `ids=B&ids=A&first=last` from a list whose last one is the oldest."""
        ids = [part.strip() for value in query.getlist("ids") for part in value.split(",")]
        if query.get("first") == "last":
            ids.reverse()
        return cls(
            tuple(dict.fromkeys(id_ for id_ in ids if id_))[:MOST],
            query.get("task", "").strip(),
            query.get("force") == "1",
            query.get("flips") == "1",
            query.get("part") == "1",
        )

    def address(self) -> str:
        """The query of an address for the part of the page that takes its time."""
        said = {"ids": ",".join(self.ids), "task": self.task, "part": "1"}
        flags = {"force": self.is_forced, "flips": self.has_flips}
        return urlencode({**{k: v for k, v in said.items() if v}, **{k: "1" for k, v in flags.items() if v}})


@dataclass(frozen=True)
class Found:
    """A comparison, or why there is none; `kind` of the refusal: a name that a page can tell apart."""

    comparison: Comparison | None = None
    problem: str = ""
    kind: str = ""

    @property
    def text(self) -> Any:
        """How a comparison reads: launcher.results.compare_text."""
        from launcher.results import compare_text

        return compare_text

    def flipped(self) -> Iterator[tuple[Versus, Row]]:
        """Rows with samples that scored differently."""
        for versus in self.comparison.candidates if self.comparison else ():
            yield from ((versus, row) for row in versus.rows if row.flips)


def compare(watcher: Watcher, asked: Asked) -> Found:
    """Compare runs; a refusal is an answer, too."""
    try:
        folders = [watcher.run(id_).folder for id_ in asked.ids]
        comparing = _module()
        for folder in folders:
            refuse_links_out(folder, *SCORES, *SAMPLES)
        return Found(
            comparing.compare(
                folders,
                tasks=[asked.task] if asked.task else (),
                force=asked.is_forced,
                partial=True,
                flips=FLIPS if asked.has_flips else 0,
            )
        )
    except LauncherError as error:
        return Found(problem=str(error), kind=type(error).__name__)


def _module() -> Any:
    try:
        return import_module("launcher.results.compare")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("scipy", "statsmodels"):
            raise
        raise MissingExtra(f"{error.name}, which comparing needs,", "stats") from None


def can_be(run: Run) -> bool:
    """Whether an invocation may have scores to compare."""
    return any(task.reason == "completed" for task in run.status.tasks)


def others(runs: Sequence[Run], run: Run, task: str) -> list[Run]:
    """Other invocations with scores of the same task, newest first."""
    return [
        other
        for other in runs
        if other.id != run.id and any(one.task == task and one.reason == "completed" for one in other.status.tasks)
    ][:OFFERED]


__all__ = ["MOST", "Asked", "Found", "can_be", "compare", "others"]
