"""What a report shows of its runs, but for their samples: read from their folders, the same for every form."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from rich.text import Text

from launcher.errors import NotFound, ResultsError
from launcher.harnesses.spec import Score
from launcher.orchestrator.reasons import MEANINGS, Reason, Status
from launcher.plan.words import amount, counted, duration, money
from launcher.results import compare, intervals, macro, read, timeline
from launcher.results.compare import Comparison
from launcher.results.compare_text import arrow
from launcher.results.model import Record, TaskRecord
from launcher.results.table import label, number, whole
from launcher.results.timeline import Span, Timeline

FLIPS = 3
"""Samples of each row in the forms without a sample browser."""
_MOST_FACTS = 200
_LONGEST_FACT = 600
_LONGEST_FILE = 60_000
"""Characters of a run's config.yaml."""
_NOTHING = "-"


@dataclass(frozen=True, kw_only=True)
class RunView:
    """One run. `mark`: the letter that stands for it; `record`: None where it cannot be read, for `problem`.

    `is_broken`: there are results and they are damaged, rather than none. `is_taken_over`: see `compare.RunInfo`.
    """

    mark: str
    name: str
    folder: Path
    record: Record | None = None
    problem: str = ""
    is_broken: bool = False
    timeline: Timeline | None = None
    no_timeline: str = ""
    is_taken_over: bool = False

    @property
    def model(self) -> str:
        """Name of the model, or that nobody knows it."""
        model = self.record.model if self.record else None
        return (model and (model.served_name or model.model_id)) or "model unknown"

    @property
    def state(self) -> str:
        """How many of its tasks have scores."""
        if self.record is None:
            return "cannot be read"
        scored = sum(task.status == Status.SCORED for task in self.record.tasks)
        return f"{scored} of {counted(len(self.record.tasks), 'task')} scored"

    @property
    def is_whole(self) -> bool:
        """Whether every task has scores and nothing was left running."""
        return self.record is not None and self.record.complete and not self.record.left

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What is said of it at the top of a report."""
        record = self.record
        if record is None:
            return []
        costs = [one.usd for one in record.spenders]
        known = [usd for usd in costs if usd is not None]
        partly = "" if len(known) == len(costs) else f", {len(costs) - len(known)} without a price"
        tokens = [task.tokens for task in record.tasks if task.tokens is not None]
        said = {
            "model": self.model + (f" at {record.model.revision}" if record.model.revision else ""),
            "deployment": record.deployment,
            "execution": record.execution,
            "began": moment(record.created),
            "took": duration(record.seconds) if math.isfinite(record.seconds) else "",
            "GPU time": hours(sum(one.gpu_seconds for one in record.spenders)),
            "auxiliary": ", ".join(f"{one.name}: {one.model.served_name}" for one in record.auxiliary),
            "cost": money(sum(known)) + partly if known else "",
            "tokens": f"{sum(one.prompt for one in tokens):,} in, {sum(one.completion for one in tokens):,} out"
            if tokens
            else "",
            "left running": ", ".join(record.left),
            "taken over": "the sweep did not run this point, as these results were there" if self.is_taken_over else "",
        }
        return [(name, text) for name, text in said.items() if text]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A score in one run: its number in words, its interval, and both as numbers where there are any."""

    text: str
    note: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: str = ""


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One metric of one task, a cell for each run. `scale`: what a picture of it reaches from and to."""

    label: str
    metric: str
    filter: str
    group: bool
    cells: list[Cell]

    @property
    def scale(self) -> tuple[float, float]:
        """0 to 1 where all values fit, else from the least to the greatest of values and bounds."""
        if all(0 <= cell.value <= 1 for cell in self.cells if cell.value is not None):
            return 0.0, 1.0
        numbers = [x for cell in self.cells for x in (cell.value, cell.low, cell.high) if x is not None]
        return min(numbers), max(numbers)


@dataclass(frozen=True, kw_only=True)
class EndpointRow:
    """What one endpoint did with its time. Seconds; USD, None where nobody knows a price."""

    span: Span
    seconds: float
    starting: float | None
    busy: float
    idle: float
    usd: float | None

    @property
    def idle_usd(self) -> float | None:
        """What its idle time cost, as a share of the whole."""
        return None if self.usd is None or not self.seconds else self.usd * self.idle / self.seconds

    @property
    def cells(self) -> list[str]:
        """Under ENDPOINT_HEADS."""
        return [
            self.span.name,
            ", ".join(self.span.users),
            str(self.span.gpus),
            duration(self.seconds) + ("" if self.span.ended is not None else ", not gone"),
            _NOTHING if self.starting is None else duration(self.starting),
            duration(self.busy),
            f"{duration(self.idle)} ({self.idle / self.seconds:.0%})" if self.seconds else _NOTHING,
            hours(self.idle * self.span.gpus) or "0 s",
            _NOTHING if self.usd is None else amount(self.usd),
            _NOTHING if self.idle_usd is None else amount(self.idle_usd),
            words(self.span.reason),
        ]


ENDPOINT_HEADS = (
    "endpoint",
    "tasks",
    "GPUs",
    "existed",
    "starting",
    "evaluating",
    "idle",
    "idle GPU time",
    "USD",
    "USD idle",
    "ended",
)
ENDPOINT_LEFT = ("endpoint", "tasks", "ended")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A task without scores, or an attempt before its last. `evidence`: last lines of the endpoint and the job."""

    mark: str
    run: str
    task: str
    status: str
    reason: str
    advice: str
    detail: str
    evidence: dict[str, list[str]]


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One line of the record: a value for each run, empty where it has none."""

    name: str
    values: list[str]

    @property
    def differs(self) -> bool:
        """Whether the runs do not agree."""
        return len(set(self.values)) > 1


@dataclass(frozen=True, kw_only=True)
class FactGroup:
    """Facts of the whole runs, or of one task. `left_out`: how many are not shown."""

    title: str
    facts: list[Fact]
    left_out: int = 0

    @property
    def differ(self) -> int:
        """In how many the runs do not agree."""
        return sum(fact.differs for fact in self.facts)


@dataclass(frozen=True, kw_only=True)
class Document:
    """A file of a run, as text."""

    mark: str
    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a report shows but the samples. `no_comparison`: why there is none, where there are several runs."""

    written: str
    runs: list[RunView]
    scores: list[ScoreRow]
    comparison: Comparison | None
    no_comparison: str
    failures: list[Failure]
    retried: list[Failure]
    record: list[FactGroup]
    documents: list[Document]
    record_problems: list[str] = field(default_factory=list)

    @property
    def readable(self) -> list[RunView]:
        """Runs that can be read, the baseline first."""
        return [run for run in self.runs if run.record is not None]

    @property
    def title(self) -> str:
        """The models, each once."""
        return ", ".join(dict.fromkeys(run.model for run in self.readable))


def gather(folders: Sequence[Path], *, flips: int = 0, force: bool = False, taken_over: Collection[str] = ()) -> Report:
    """Read runs; one that is broken is in the report as that. `flips`, `force`, `taken_over`: as `compare` has them.

    Raises, if none can be read, NotFound where nothing came home of any, else ResultsError.
    """
    runs = [_run(_mark(place), folder, taken_over) for place, folder in enumerate(folders)]
    readable = [run for run in runs if run.record is not None]
    if not readable:
        kind = ResultsError if any(run.is_broken for run in runs) else NotFound
        raise kind("\n".join(run.problem for run in runs))
    comparison, no_comparison = _comparison(readable, flips, force=force)
    provenance, problems = _provenance(readable)
    return Report(
        written=moment(time.time()),
        runs=runs,
        scores=[*_scores(readable), *_averages(readable)],
        comparison=comparison,
        no_comparison=no_comparison,
        failures=[one for run in readable for one in _failures(run)],
        retried=[one for run in readable for one in _retried(run)],
        record=list(_record(readable, provenance)),
        documents=[document for run in readable for document in _documents(run)],
        record_problems=problems,
    )


def _mark(place: int) -> str:
    """A, B … Z, AA, AB …"""
    before, last = divmod(place, len(ascii_uppercase))
    return (_mark(before - 1) if before else "") + ascii_uppercase[last]


def _run(mark: str, folder: Path, taken_over: Collection[str]) -> RunView:
    try:
        record = read.load(folder)
    except (ResultsError, NotFound) as error:
        is_broken = isinstance(error, ResultsError)
        return RunView(mark=mark, name=folder.name, folder=folder, problem=str(error), is_broken=is_broken)
    try:
        line, none = timeline.load(folder), "The run left no timeline.json."
    except ResultsError as error:
        line, none = None, str(error)
    return RunView(
        mark=mark,
        name=record.invocation,
        folder=folder,
        record=record,
        timeline=line,
        no_timeline="" if line else none,
        is_taken_over=record.invocation in taken_over,
    )


def _comparison(runs: Sequence[RunView], flips: int, *, force: bool) -> tuple[Comparison | None, str]:
    if len(runs) < 2:
        return None, ""
    try:
        return compare.compare([run.folder for run in runs], flips=flips, force=force, partial=True), ""
    except ResultsError as error:
        return None, str(error)


# --- scores -----------------------------------------------------------------------------------------------------------


def _scores(runs: Sequence[RunView]) -> Iterator[ScoreRow]:
    """Rows in the order of the first run that has them; a task without scores has a row of its own."""
    tasks = [{task.key: task for task in run.record.tasks} if run.record else {} for run in runs]
    for key in dict.fromkeys(key for known in tasks for key in known):
        there = [known.get(key) for known in tasks]
        scores = [{(one.task, one.metric, one.filter): one for one in task.scores} if task else {} for task in there]
        names = dict.fromkeys(name for known in scores for name in known)
        if not names:
            cells = [_cell(task, None) for task in there]
            yield ScoreRow(label=key, metric=_NOTHING, filter=_NOTHING, group=False, cells=cells)
        for name in names:
            found = [known.get(name) for known in scores]
            task, score = next((t, s) for t, s in zip(there, found, strict=True) if t is not None and s is not None)
            yield ScoreRow(
                label=label(task, score),
                metric=arrow(score.metric, score.higher_is_better),
                filter=score.filter,
                group=score.group,
                cells=[_cell(*pair) for pair in zip(there, found, strict=True)],
            )


def _averages(runs: Sequence[RunView]) -> Iterator[ScoreRow]:
    """Averages over the tasks of each run, of which several have the same metric and filter."""
    found = [
        {(one.metric, one.filter): one for one in macro.averages(run.record)} if run.record else {} for run in runs
    ]
    for name in dict.fromkeys(name for known in found for name in known):
        scores = [known.get(name) for known in found]
        first = next(score for score in scores if score is not None)
        yield ScoreRow(
            label="average over tasks",
            metric=arrow(first.metric, first.higher_is_better),
            filter=first.filter,
            group=True,
            cells=[_average(score) for score in scores],
        )


def _average(score: Score | None) -> Cell:
    if score is None:
        return Cell(text="no average", note="fewer than two tasks have it")
    if score.value is None:
        return Cell(text="no average", note="a task has no score")
    return replace(_value(score), n=f"{score.n} tasks")


def _cell(task: TaskRecord | None, score: Score | None) -> Cell:
    if task is None:
        return Cell(text="not in this run")
    if score is None:
        return Cell(text=task.status, note=words(task.reason)) if not task.scores else Cell(text="not scored")
    return _value(intervals.of(score))


def _value(score: Score) -> Cell:
    count = f"n = {whole(score.n)}" if score.n is not None else ""
    if score.n == 0:
        return Cell(text="no samples", n=count)
    if score.value is None or not math.isfinite(score.value):
        return Cell(text="undefined", note="the harness gives no number", n=count)
    return Cell(
        text=number(score.value), note=_interval(score), value=score.value, low=score.low, high=score.high, n=count
    )


def _interval(score: Score) -> str:
    if score.low is not None and score.high is not None:
        return f"{number(score.low)} to {number(score.high)}"
    return "no interval" if score.stderr is None else f"standard error {number(score.stderr)}"


# --- time -------------------------------------------------------------------------------------------------------------


def endpoint_rows(line: Timeline) -> list[EndpointRow]:
    """What each endpoint of a run did with its time."""
    now = line.until(max((span.began for span in line.spans), default=line.began))
    return [_endpoint_row(line, span, now) for span in line.spans if span.kind == "endpoint"]


def _endpoint_row(line: Timeline, span: Span, now: float) -> EndpointRow:
    return EndpointRow(
        span=span,
        seconds=span.seconds(now),
        starting=None if span.ready is None else max(0.0, span.ready - span.began),
        busy=line.busy(span, now),
        idle=line.idle(span, now),
        usd=span.usd,
    )


def time_summary(rows: Sequence[EndpointRow]) -> str:
    """What all endpoints of a run did, in one sentence."""
    if not rows:
        return "This run made no endpoints of its own."
    whole_time, idle = sum(row.seconds for row in rows), sum(row.idle for row in rows)
    gpus = sum(row.idle * row.span.gpus for row in rows)
    known = [row for row in rows if row.idle_usd is not None]
    cost = sum(row.usd or 0.0 for row in known), sum(row.idle_usd or 0.0 for row in known)
    parts = [
        f"{counted(len(rows), 'endpoint')}, {duration(whole_time)} in all, "
        f"idle for {duration(idle)} ({idle / whole_time if whole_time else 0:.0%})"
    ]
    parts += [f"idle GPU time {hours(gpus)}"] if gpus else []
    parts += [f"cost {money(cost[0])}, of it idle {money(cost[1])}"] if known else ["no price is known"]
    return "; ".join(parts) + "."


# --- failures ---------------------------------------------------------------------------------------------------------


def _failures(run: RunView) -> Iterator[Failure]:
    for task in run.record.tasks if run.record else ():
        if task.status != Status.SCORED:
            yield _failure(run, task, task.status, task.reason, task.detail, task.evidence)


def _retried(run: RunView) -> Iterator[Failure]:
    for task in run.record.tasks if run.record else ():
        for tried in task.attempts:
            status = f"attempt {tried.number}, tried again"
            yield _failure(run, task, status, tried.reason, tried.detail, tried.evidence)


def _failure(
    run: RunView, task: TaskRecord, status: str, reason: str, detail: str, evidence: dict[str, list[str]]
) -> Failure:
    return Failure(
        mark=run.mark,
        run=run.name,
        task=task.key,
        status=status,
        reason=words(reason),
        advice=MEANINGS[Reason(reason)].advice if reason in set(Reason) else "",
        detail=detail,
        evidence={name: [uncoloured(line) for line in lines] for name, lines in evidence.items()},
    )


def uncoloured(line: str) -> str:
    """A line of a log without escape sequences."""
    return Text.from_ansi(line).plain if "\x1b" in line else line


# --- the record -------------------------------------------------------------------------------------------------------


def _provenance(runs: Sequence[RunView]) -> tuple[list[dict[str, Any]], list[str]]:
    """What each run's provenance.json holds, and what is wrong with those that hold nothing."""
    found, problems = [], []
    for run in runs:
        path = run.folder / "provenance.json"
        try:
            data = json.loads(path.read_bytes())
            if not isinstance(data, dict):
                raise TypeError("is no JSON object")  # noqa: TRY301 - said below with the file
            found.append(data)
        except FileNotFoundError:
            found.append({})
            problems.append(f"{run.name}: no provenance.json was written")
        except (OSError, ValueError, TypeError, RecursionError) as error:
            found.append({})
            problems.append(f"{path}: broken: {error}")
    return found, problems


def _record(runs: Sequence[RunView], provenance: Sequence[dict[str, Any]]) -> Iterator[FactGroup]:
    whole_runs = [
        {name: value for name, value in data.items() if name not in ("tasks", "schema", "invocation")}
        for data in provenance
    ]
    yield _group("The runs", whole_runs)
    tasks = [{task.key: task for task in run.record.tasks} if run.record else {} for run in runs]
    for key in dict.fromkeys(key for known in tasks for key in known):
        yield _group(key, [_of_task(data, known.get(key), key) for data, known in zip(provenance, tasks, strict=True)])


def _of_task(provenance: dict[str, Any], task: TaskRecord | None, key: str) -> dict[str, Any]:
    known = provenance.get("tasks")
    found = known.get(key) if isinstance(known, dict) else None
    settings = {"settings": task.settings} if task else {}
    return {**(found if isinstance(found, dict) else {}), **settings}


def _group(title: str, data: Sequence[dict[str, Any]]) -> FactGroup:
    flat = [dict(_flat(one)) for one in data]
    names = list(dict.fromkeys(name for one in flat for name in one))
    facts = [Fact(name=name, values=[one.get(name, "") for one in flat]) for name in names]
    facts.sort(key=lambda fact: not fact.differs)
    return FactGroup(title=title, facts=facts[:_MOST_FACTS], left_out=max(0, len(facts) - _MOST_FACTS))


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Everything below a value, under dotted names; a list is one line."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(item, f"{path}.{name}" if path else str(name))
    elif value not in (None, [], ""):
        yield path, _short(value)


def _short(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        text = " ".join(value)
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_FACT else f"{text[:_LONGEST_FACT]}… ({len(text):,} characters)"


def _documents(run: RunView) -> Iterator[Document]:
    try:
        text = (run.folder / "config.yaml").read_text(errors="replace")
    except OSError:
        return
    cut = "" if len(text) <= _LONGEST_FILE else f"\n… cut off after {_LONGEST_FILE:,} of {len(text):,} characters"
    yield Document(mark=run.mark, title="config.yaml", text=text[:_LONGEST_FILE] + cut)


# --- words ------------------------------------------------------------------------------------------------------------


def words(reason: str) -> str:
    """A reason as people read it."""
    return reason.replace("_", " ")


def moment(seconds: float) -> str:
    """A time in UTC; nothing for one that no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return ""


def hours(gpu_seconds: float) -> str:
    """GPU time in words; nothing for none."""
    if not gpu_seconds:
        return ""
    return f"{amount(gpu_seconds / 3600)} GPU-hours" if gpu_seconds >= 60 else f"{gpu_seconds:.0f} GPU-seconds"
