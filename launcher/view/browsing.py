"""The samples of a task: filtered, searched, page by page."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from launcher.errors import ResultsError
from launcher.results import samples
from launcher.results.samples import SampleSet, SampleText
from launcher.view.inside import SAMPLES, refuse_links_out
from launcher.view.listing import whole

PAGE = 20
"""Samples of a page."""
_KEPT = 4
"""Tasks whose samples are kept in memory, a few hundred bytes for each."""
KINDS = {"": "all", "low": "below 1", "high": "1 or more", "none": "without a value"}
"""Filters by the value of a metric."""

Sets = Mapping[tuple[str, str], SampleSet]


@dataclass(frozen=True)
class Search:
    """What of the samples somebody wants to see: of which sub-task and filter, by which metric."""

    task: str = ""
    filter: str = ""
    metric: str = ""
    kind: str = ""
    text: str = ""
    page: int = 1

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Search:
        """As the address says it."""
        task, _, chosen = query.get("set", "").partition("\t")
        kind = query.get("kind", "")
        return cls(
            task,
            chosen,
            query.get("metric", ""),
            kind if kind in KINDS else "",
            query.get("q", "").strip(),
            whole(query.get("page", ""), 1),
        )

    def address(self, page: int) -> str:
        """The query of an address that asks for another page."""
        chosen = f"{self.task}\t{self.filter}" if self.task else ""
        said = {"show": "samples", "set": chosen, "metric": self.metric, "kind": self.kind, "q": self.text}
        return urlencode({**{name: value for name, value in said.items() if value}, "page": page})


@dataclass(frozen=True)
class Sample:
    """One sample on a page, with its value of each metric."""

    id: int | str
    text: SampleText
    values: dict[str, float]


@dataclass(frozen=True)
class Shelf:
    """A page of samples, of `count` that were found among `total`."""

    sets: Sets
    chosen: SampleSet | None
    metric: str = ""
    rows: Sequence[Sample] = ()
    count: int = 0
    total: int = 0
    number: int = 1
    pages: int = 1
    problem: str = ""
    values: dict[str, float] = field(default_factory=dict)


class Samples:
    """Reads samples and keeps what is small of the last few tasks that were looked at."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[object, Sets]] = {}
        self._lock = threading.Lock()

    def shelf(self, folder: Path, task: str, search: Search) -> Shelf:
        """The page that was asked for. What cannot be read is said in its `problem`."""
        try:
            refuse_links_out(folder, *SAMPLES)
            sets = self._sets(folder / task / "output")
            chosen = sets.get((search.task, search.filter)) or next(iter(sets.values()), None)
            return Shelf({}, None) if chosen is None else _shelf(sets, chosen, search)
        except ResultsError as error:
            return Shelf({}, None, problem=str(error))

    def _sets(self, output: Path) -> Sets:
        mark = tuple((str(path), _size(path)) for _, path in samples.files(output))
        with self._lock:
            kept = self._kept.get(output)
        if kept is not None and kept[0] == mark:
            return kept[1]
        found = samples.read(output)
        with self._lock:
            self._kept.pop(output, None)
            if len(self._kept) >= _KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[output] = (mark, found)
        return found


def _size(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _shelf(sets: Sets, chosen: SampleSet, search: Search) -> Shelf:
    metric = search.metric if search.metric in chosen.values else next(iter(chosen.values), "")
    places = [place for place in range(len(chosen)) if _fits(chosen, metric, place, search.kind)]
    if search.text:
        places = list(_with_text(chosen, places, metric, search.text.lower()))
    pages = max(1, -(-len(places) // PAGE))
    number = min(search.page, pages)
    shown = places[(number - 1) * PAGE : number * PAGE]
    rows = [
        Sample(chosen.ids[place], text, {name: values[place] for name, values in chosen.values.items()})
        for place, text in zip(shown, samples.texts(chosen, shown, metric), strict=True)
    ]
    return Shelf(sets, chosen, metric, rows, len(places), len(chosen), number, pages)


def _fits(chosen: SampleSet, metric: str, place: int, kind: str) -> bool:
    if not kind:
        return True
    value = chosen.values[metric][place] if metric else math.nan
    if math.isnan(value):
        return kind == "none"
    return kind == ("low" if value < 1 else "high")


def _with_text(chosen: SampleSet, places: Sequence[int], metric: str, wanted: str) -> Iterator[int]:
    """Those with a text in prompt, target or answer; a few at a time are in memory."""
    for at in range(0, len(places), 200):
        some = places[at : at + 200]
        for place, text in zip(some, samples.texts(chosen, some, metric), strict=True):
            if wanted in f"{text.prompt}\n{text.target}\n{text.answer}\n{chosen.ids[place]}".lower():
                yield place
