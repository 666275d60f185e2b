"""Evaluation throughput: lm-eval through the launcher against lm-eval by hand, and `concurrency: auto` against numbers.

All of it is real: lm-eval, its driver and the runner as processes, offline tasks, and an HTTP server of known capacity
in this process. Where ways are compared, they take turns, so that a busy machine slows all alike.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.completions import LENGTH, MODEL, CompletionsServer, Shape
from benchmarks.figures import Figure
from launcher.config.validate import validate
from launcher.harnesses import offline
from launcher.plan.build import build
from launcher.plan.document import job_document, runner_source
from launcher.runner.job import Job

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("gsm8k_100", "hellaswag_100")
AT_ONCE = 8
SERVER = Shape(slots=AT_ONCE, read=0.002)
"""What lm-eval is compared on, with as many requests at once as it serves."""
SHARE, FIXED = 0.02, 1.0
"""Most that the runner may add: a share of the evaluation's wall time, and seconds."""
LEAST = 0.95
"""Of the samples a second of the best number that `auto` has to reach."""
NUMBERS = (1, 2, 4, 8, 16, 32, 64)
SHAPES = {
    "few slots": Shape(slots=4, read=0.001),
    "many slots": Shape(slots=48, read=0.015),
    "429 beyond 20": Shape(slots=20, room=20, read=0.006),
}
"""Servers that differ in the number which suits them."""


class Broken(Exception):
    """An evaluation that did not end well."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One task on one server, in a folder of its own."""

    url: str
    folder: Path
    task: str
    concurrency: int | str = AT_ONCE
    limit: int | None = None

    def settings(self) -> dict[str, Any]:
        """The config of it."""
        settings = {
            "harness": "lm_eval",
            "concurrency": self.concurrency,
            "limit": self.limit,
            "max_length": LENGTH,
            "tokenizer_backend": "remote" if offline.OUTPUT_TYPES[self.task] != "generate_until" else None,
            "tasks": [{"name": self.task}],
        }
        return {
            "execution": {"type": "local", "output_dir": str(self.folder / "results")},
            "deployment": {"type": "none"},
            "target": {"api_endpoint": {"url": f"{self.url}/v1/completions", "model_id": MODEL}},
            "evaluation": {name: value for name, value in settings.items() if value is not None},
        }

    def job(self) -> Path:
        """The job document, as a platform writes it."""
        plan = build(validate(self.settings()))
        output, work = str(self.folder / "output"), str(self.folder / "work")
        document = job_document(plan.invocation, plan.tasks[0], url=self.url, output_dir=output, work_dir=work)
        path = self.folder / "job.json"
        path.write_text(json.dumps(document))
        return path

    def provenance(self) -> dict[str, Any]:
        """What the driver says of its requests."""
        found: dict[str, Any] = json.loads((self.folder / "output" / "provenance.json").read_text())
        return found


Way = Callable[[Evaluation], list[str]]
"""Makes ready in the folder what it needs; returns the command."""


def by_hand(one: Evaluation) -> list[str]:
    """lm-eval's own command, with the arguments that the plan has."""
    job = Job.load(str(one.job()))
    tasks = one.folder / "tasks"
    tasks.mkdir()
    for name, text in offline.definition(one.task).items():
        (tasks / name).write_text(text)
    arguments = json.loads(job.run.files["run.json"])["model_args"] | {"base_url": f"{one.url}/v1/completions"}
    batch = str(arguments.pop("batch_size"))
    given = ",".join(f"{name}={value}" for name, value in arguments.items() if value is not None)
    words = ["run", "--model", "local-completions", "--model_args", given, "--tasks", one.task]
    words += ["--include_path", str(tasks), "--output_path", str(one.folder / "output"), "--log_samples"]
    words += ["--batch_size", batch]
    return [sys.executable, "-m", "lm_eval", *words, *(["--limit", str(one.limit)] if one.limit else [])]


def by_driver(one: Evaluation) -> list[str]:
    """The harness's program that the runner starts, without the runner."""
    job = Job.load(str(one.job()))
    for folder in (job.work_dir, job.output_dir):
        folder.mkdir()
    for name, text in job.run.files.items():
        (job.work_dir / name).write_text(job.fill(text))
    return [job.fill(word) for word in job.run.argv]


def by_runner(one: Evaluation) -> list[str]:
    """The job as every platform runs it."""
    program = one.folder / "runner.py"
    program.write_text(runner_source())
    return [sys.executable, str(program), str(one.job())]


def by_program(one: Evaluation) -> list[str]:
    """`nv-eval run`, from the config to the table."""
    (one.folder / "config.yaml").write_text(json.dumps(one.settings()))
    place = ["--config-dir", str(one.folder), "--config-name", "config"]
    return [sys.executable, "-m", "launcher.cli.main", "run", *place]


WAYS: dict[str, Way] = {
    "lm-eval by hand": by_hand,
    "driver alone": by_driver,
    "runner": by_runner,
    "nv-eval run": by_program,
}


def seconds(way: Way, one: Evaluation) -> float:
    """Wall seconds of one evaluation. Raises Broken."""
    command = way(one)
    home = {"HOME": str(one.folder), "NV_EVAL_HOME": str(one.folder / "home"), "HF_HUB_OFFLINE": "1"}
    quiet = {"TOKENIZERS_PARALLELISM": "false", "OPENAI_API_KEY": "", "PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    done = subprocess.run(
        command,
        cwd=one.folder,
        env={**os.environ, **home, **quiet},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    took = time.monotonic() - began
    if done.returncode:
        raise Broken("\n".join(done.stdout.splitlines()[-3:]))
    return took


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Wall seconds of one task, by way, one of each round."""

    task: str
    walls: dict[str, list[float]]

    def overhead(self, way: str, over: str) -> float:
        """Seconds that a way takes more than another, the median of all rounds."""
        return statistics.median(a - b for a, b in zip(self.walls[way], self.walls[over], strict=True))

    def median(self, way: str) -> float:
        """Wall seconds of a way."""
        return statistics.median(self.walls[way])


def allowed(wall: float) -> float:
    """Seconds that the runner may add to an evaluation of so many."""
    return SHARE * wall + FIXED


def compare(task: str, repeat: int, limit: int | None) -> Compared:
    """All ways in turn, each round in another order."""
    walls: dict[str, list[float]] = {name: [] for name in WAYS}
    names = list(WAYS)
    with CompletionsServer(SERVER) as server:
        for number in range(repeat):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                with tempfile.TemporaryDirectory() as folder:
                    one = Evaluation(url=server.url, folder=Path(folder), task=task, limit=limit)
                    walls[name].append(seconds(WAYS[name], one))
    return Compared(task=task, walls=walls)


def told(one: Compared) -> list[Figure]:
    """Figures of a comparison."""
    hand, alone = one.median("lm-eval by hand"), one.median("driver alone")
    bench, name = "throughput", f"{one.task}, runner over"
    return [
        Figure(
            bench=bench,
            name=f"{name} lm-eval by hand",
            value=one.overhead("runner", "lm-eval by hand"),
            unit="s",
            target=allowed(hand),
            note=f"of {hand:.1f} s",
        ),
        Figure(
            bench=bench,
            name=f"{name} its driver alone",
            value=one.overhead("runner", "driver alone"),
            unit="s",
            target=allowed(alone),
            note=f"of {alone:.1f} s",
        ),
        Figure(
            bench=bench,
            name=f"{one.task}, nv-eval run over lm-eval by hand",
            value=one.overhead("nv-eval run", "lm-eval by hand"),
            unit="s",
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Samples a second of one number of requests at once on one shape, from the first request to the last answer."""

    shape: str
    concurrency: int | str
    samples: int
    seconds: float
    refused: int
    most: int
    busy: float
    """Share of the slots that was in use."""
    settled: int | None = None
    """What `auto` found."""
    failed: str = ""

    @property
    def per_second(self) -> float:
        """Nothing where the evaluation failed."""
        return 0.0 if self.failed else self.samples / self.seconds


def rate(server: CompletionsServer, shape: str, concurrency: int | str, limit: int) -> Rate:
    """One evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        task = "hellaswag_100"
        one = Evaluation(url=server.url, folder=Path(folder), task=task, concurrency=concurrency, limit=limit)
        server.reset()
        failed, settled = "", None
        try:
            seconds(by_driver, one)
            settled = one.provenance().get("concurrency", {}).get("best")
        except Broken as error:
            failed = str(error)
        counts = server.counts
        return Rate(
            shape=shape,
            concurrency=concurrency,
            samples=limit,
            seconds=counts.seconds,
            refused=counts.refused,
            most=counts.most,
            busy=counts.busy / (server.shape.slots * counts.seconds),
            settled=settled,
            failed=failed,
        )


def best(rates: Sequence[Rate]) -> int | str:
    """The number with the most samples a second, by the median of its runs."""
    numbers = {one.concurrency for one in rates}
    return max(numbers, key=lambda number: median_rate(rates, number))


def median_rate(rates: Sequence[Rate], concurrency: int | str) -> float:
    """Samples a second."""
    return statistics.median(one.per_second for one in rates if one.concurrency == concurrency)


def saturate(name: str, shape: Shape, repeat: int, *, samples: int, numbers: Sequence[int]) -> list[Rate]:
    """Every fixed number once, and that of the server's slots; then the best of them and `auto` in turn.

    Less than a quarter of the slots gets fewer samples, as it cannot win: it would only take long.
    """
    tried = sorted({*numbers, shape.slots})
    with CompletionsServer(shape) as server:
        rates = [rate(server, name, number, samples if 4 * number >= shape.slots else samples // 5) for number in tried]
        chosen = best(rates)
        for _ in range(repeat):
            rates += [rate(server, name, number, samples) for number in ("auto", chosen)]
    return rates


def found(name: str, rates: Sequence[Rate]) -> Figure:
    """What `auto` reaches of the best number."""
    fixed = [one for one in rates if one.concurrency != "auto"]
    chosen = best(fixed)
    reached, most = median_rate(rates, "auto"), median_rate(fixed, chosen)
    settled = statistics.median(one.settled or 0 for one in rates if one.concurrency == "auto")
    return Figure(
        bench="throughput",
        name=f"{name}, auto over the best number",
        value=reached / most,
        target=LEAST,
        more_is_better=True,
        note=f"{reached:.1f} of {most:.1f} samples/s; best {chosen}, auto {settled:.0f}",
    )


def run(*, quick: bool) -> tuple[list[Figure], list[dict[str, Any]]]:
    """Both halves."""
    tasks, repeat, limit = (TASKS[:1], 1, 8) if quick else (TASKS, 3, None)
    figures, rows = [], []
    for task in tasks:
        compared = compare(task, repeat, limit)
        figures += told(compared)
        rows.append(asdict(compared))
    numbers, samples = ((4, 32), 20) if quick else (NUMBERS, offline.SAMPLES)
    for name, shape in SHAPES.items():
        rates = saturate(name, shape, repeat, samples=samples, numbers=numbers)
        figures.append(found(name, rates))
        rows += [asdict(one) | {"per_second": one.per_second} for one in rates]
    return figures, rows
