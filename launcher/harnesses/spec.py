"""What a harness turns a task into: the job to run and, afterwards, scores."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from launcher.config.evaluation import EndpointType, Settings
from launcher.config.fields import Env

CACHE = "cache"
"""Folder below a job's output folder for what lets a further attempt go on where this one ends; it is no result."""


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """What is known of a task before it runs.

    `needs_loglikelihood`: at least one part scores given answers, which only a completions route with echo can do.
    `endpoint_types`: routes it can be evaluated on, the preferred one first.
    """

    name: str
    needs_loglikelihood: bool
    endpoint_types: tuple[EndpointType, ...]
    known: bool = True
    """False where the harness was not able to look the task up before the run."""
    samples: int | None = None
    """Samples of the whole task, where known: orders tasks when slots are few."""
    generates: bool = True
    """False where no part of it lets the model write an answer, so that settings of generation have no effect."""


@dataclass(frozen=True, kw_only=True)
class TargetInfo:
    """What a harness needs to know of the endpoint; its URL is filled in when it exists."""

    model: str
    endpoint_type: EndpointType
    has_api_key: bool
    remote_tokenizer: bool
    model_id: str
    max_length: int | None = None
    single_prompt: bool = False
    """A request may hold one prompt, as text: no batches, no lists of tokens."""
    auxiliary: tuple[str, ...] = ()
    """Names of the auxiliary endpoints of the task; the runner puts their URLs, models and keys into variables."""
    served_by: str = ""
    """Stands for what serves the model: answers of another server are another's."""


@dataclass(frozen=True, kw_only=True)
class HarnessJob:
    """One harness run, as the runner executes it.

    In `argv`, `env` and `files` the runner fills in `{python}` (its own interpreter), `{url}` (base URL of the
    endpoint without /v1), `{output_dir}` (folder for results), `{work_dir}` (folder that holds `files`) and `{model}`
    (served model name), and of an auxiliary endpoint `{auxiliary.NAME.url}` and `{auxiliary.NAME.model}`; `{brace}` is
    a `{`, see `literal`.
    `results` are glob patterns below the output folder: each must match a file, and files ending
    in .json must parse.
    """

    harness: str
    argv: tuple[str, ...]
    env: Env = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    results: tuple[str, ...] = ()
    progress: Literal["tqdm", "lines", "none"] = "none"
    """How the harness tells progress: tqdm bars on standard error, or lines `@progress DONE/TOTAL`."""
    progress_label: str = ""
    """Only tqdm bars whose label begins with this count: a harness also shows bars of its preparations."""
    api_key_env: str | None = None
    """Variable in which the harness expects the endpoint's key."""
    image: str | None = None
    """Container image with the harness in it; None: any Python with the harness installed."""
    requires: tuple[str, ...] = ()
    """Python modules that the job's interpreter must be able to import."""
    hints: dict[str, str] = field(default_factory=dict)
    """Modules of `requires`: what to do where one is missing."""
    tokenizer: str | None = None
    """Where the job has prompts split into tokens, in words; None where it does not."""


_PLACEHOLDER = re.compile(
    r"\{(?=(?:python|url|output_dir|work_dir|model|brace|auxiliary\.[a-z0-9_]+\.(?:url|model))\})"
)


def variable(auxiliary: str, what: str = "") -> str:
    """Variable in which a job finds something of an auxiliary endpoint: BASE_URL, MODEL or API_KEY."""
    return f"NV_EVAL_AUX_{f'{auxiliary.upper()}_' if auxiliary else ''}{what}"


def literal(text: str) -> str:
    """A person's text in a form that the runner turns back into it, whatever placeholders it seems to hold."""
    return _PLACEHOLDER.sub("{brace}", text)


def literal_env(env: Env) -> Env:
    """A person's variables, each as `literal` has it; references as they are."""
    return {name: literal(value) if isinstance(value, str) else value for name, value in env.items()}


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number of one task, as its harness defines it."""

    task: str
    metric: str
    filter: str
    value: float | None
    stderr: float | None = None
    n: int | None = None
    """Samples behind the value."""
    higher_is_better: bool | None = None
    num_fewshot: int | None = None
    version: str | None = None
    group: bool = False
    """An aggregate over sub-tasks, as the harness defines it."""
    low: float | None = None
    high: float | None = None
    """Bounds of its 95 % interval; None where nothing says how far chance moves it."""
    interval: str = ""
    """How the interval was made, see `launcher.results.intervals`.

    Empty where there is none, `unknown` where there can be none.
    """


class Harness(Protocol):
    """One way to evaluate. Pure, but `describe` may read task definitions, and `parse` reads results."""

    name: str
    defaults: Settings

    def describe(self, task: str, settings: Settings) -> TaskInfo:
        """What is known of a task. Raises ConfigError for an unknown task, with the nearest name."""
        ...

    def job(self, task: str, settings: Settings, target: TargetInfo) -> HarnessJob:
        """The run of one task. Raises ConfigError where a setting does not fit this harness."""
        ...

    def parse(self, folder: Path, task: str, settings: Settings) -> list[Score]:
        """Scores from the files of a run. Raises ResultsError if they are missing, broken or incomplete."""
        ...

    def provenance(self, folder: Path) -> dict[str, Any]:
        """What makes the scores reproducible, as the harness recorded it: versions, seeds, fingerprints."""
        ...
