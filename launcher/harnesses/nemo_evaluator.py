"""The `nemo_evaluator` harness: NVIDIA's eval-factory containers, or a local installation of nemo-evaluator."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import Struct, field

from launcher.config.evaluation import EndpointType, Settings
from launcher.config.values import environment
from launcher.decoding import decode_yaml
from launcher.errors import ConfigError, ResultsError, nearest
from launcher.harnesses.nemo_tasks import LM_EVAL, KnownTask, harness_name, image, known_tasks, samples
from launcher.harnesses.spec import HarnessJob, Score, TargetInfo, TaskInfo, literal, literal_env, variable

RESULTS = "results.yml"
KEY_VARIABLE = "API_KEY"
JUDGE = "judge"
"""The auxiliary endpoint that goes into `config.params.extra.judge`, where NVIDIA's harnesses look for one."""
_JUDGE_URL, _JUDGE_MODEL = "@judge url@", "@judge model@"
"""Stand in the run configuration until it is text, in which they are in quotes."""

_ROUTES: dict[EndpointType, str] = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
_TYPED_PARAMS = {
    "limit_samples": "limit",
    "parallelism": "concurrency",
    "max_new_tokens": "max_gen_tokens",
    "request_timeout": "request_timeout",
    "max_retries": "max_retries",
    "temperature": "generation.temperature",
    "top_p": "generation.top_p",
}
"""Run parameters of nemo-evaluator, and the setting that sets each."""

_UNUSABLE = ("max_length", "apply_chat_template", "fewshot_as_multiturn", "system_prompt", "include_path", "model_args")
"""Settings that would change scores and that nemo-evaluator has no parameter for."""


@dataclass(frozen=True)
class _Found:
    """A task as resolved: its harness (None: not said), its bare name, and its entry where it has one."""

    harness: str | None
    name: str
    known: KnownTask | None

    @property
    def type(self) -> str:
        """The name nemo-evaluator knows it by."""
        return f"{self.harness}.{self.name}" if self.harness else self.name


class NemoEvaluator:
    """Runs `nemo-evaluator run_eval` (or `eval-factory` in older containers) and reads its results.yml.

    A task is `harness.task`, for example `simple_evals.gpqa_diamond`, or a bare name that only one harness has.
    `params` are nemo-evaluator's own: `task` and `extra` go where they belong, all others into `extra`. Tasks that are
    not known run with `endpoint_type` set, in `image` or in the image of the named harness.

    An auxiliary endpoint named `judge` becomes `params.extra.judge`: `url` (with /v1, or with a path that is given
    there), `model_id` and `api_key`, the name of its variable. Others are in variables alone.

    A further attempt finds the answers that its lm-evaluation-harness keeps in the output folder by itself. The caching
    interceptor is left off: it gives repeated questions one answer, and its SQLite needs a local disk.
    """

    name = "nemo_evaluator"
    defaults = Settings(harness="nemo_evaluator", concurrency=10, request_timeout=60.0, max_retries=5, timeout=14400.0)

    def describe(self, task: str, settings: Settings) -> TaskInfo:
        """What is known of a task. Raises ConfigError for one that is ambiguous, or unknown without endpoint_type."""
        found = _find(task)
        known = found.known
        if known is not None and known.endpoint_type is not None:
            return TaskInfo(
                name=task,
                needs_loglikelihood=known.needs_loglikelihood,
                endpoint_types=(known.endpoint_type,),
                samples=samples(known.name),
            )
        if settings.endpoint_type is None:
            hint = "" if known else nearest(found.name, known_tasks())
            raise ConfigError(f"{task} is not in nemo_evaluator's task list; set endpoint_type to run it anyway{hint}")
        return TaskInfo(name=task, needs_loglikelihood=False, endpoint_types=(settings.endpoint_type,), known=False)

    def job(self, task: str, settings: Settings, target: TargetInfo) -> HarnessJob:
        """The run of one task. Raises ConfigError where a setting has no counterpart in nemo-evaluator."""
        found = _find(task)
        run_config = _run_config(found, settings, target)
        return HarnessJob(
            harness=self.name,
            argv=(
                "{python}",
                "{work_dir}/nemo_run.py",
                "{work_dir}/run_config.yml",
                "{url}" + _ROUTES[target.endpoint_type],
                "{output_dir}",
            ),
            env={"NEMO_EVALUATOR_TELEMETRY_LEVEL": "0", **literal_env(environment("envs", settings.envs))},
            files={
                "nemo_run.py": files("launcher.harnesses").joinpath("nemo_run.py").read_text(encoding="utf-8"),
                "run_config.yml": _filled(yaml.safe_dump(run_config, sort_keys=False)),
            },
            results=(RESULTS,),
            api_key_env=KEY_VARIABLE if target.has_api_key else None,
            image=image(found.harness) if found.harness else None,
            tokenizer=run_config["config"]["params"].get("extra", {}).get("tokenizer"),
        )

    def parse(self, folder: Path, task: str, settings: Settings) -> list[Score]:  # noqa: ARG002  part of the interface
        """Scores from results.yml, with its standard errors. Raises ResultsError if missing, broken or empty."""
        results = _read(folder).results
        tasks, groups = results.tasks or {}, results.groups or {}
        # A task without sub-tasks is listed a second time as its own group.
        groups = {name: node for name, node in groups.items() if tasks.get(name) != node}
        scores = [score for name, node in tasks.items() for score in _scores(name, node, group=False)]
        scores += [score for name, node in groups.items() for score in _scores(name, node, group=True)]
        if not scores:
            raise ResultsError(f"{folder / RESULTS}: holds no scores")
        return scores

    def provenance(self, folder: Path) -> dict[str, Any]:
        """The command, parameters and versions that nemo-evaluator recorded. Raises ResultsError as `parse` does."""
        document = _read(folder)
        return {
            "command": document.command,
            "config": document.config,
            "git_hash": document.git_hash,
            "versioning": (document.metadata or {}).get("versioning"),
        }


def _find(task: str) -> _Found:
    prefix, _, rest = task.partition(".")
    harness = harness_name(prefix) if rest else None
    if harness is not None:
        entries = [entry for entry in known_tasks().get(rest, ()) if entry.harness == harness]
        return _Found(harness, rest, entries[0] if entries else None)
    entries = list(known_tasks().get(task, ()))
    if len(entries) > 1:
        names = " or ".join(f"{entry.harness}.{task}" for entry in entries)
        raise ConfigError(f"{task} is a task of several harnesses; write {names}")
    return _Found(entries[0].harness, task, entries[0]) if entries else _Found(None, task, None)


def _run_config(found: _Found, settings: Settings, target: TargetInfo) -> dict[str, Any]:
    """The run configuration but for URL and output folder, which are arguments: no path needs quoting in YAML."""
    api_endpoint: dict[str, Any] = {"model_id": target.model, "type": target.endpoint_type}
    if target.has_api_key:
        api_endpoint["api_key_name"] = KEY_VARIABLE
    return {
        "config": {"type": found.type, "params": _params(found, settings, target)},
        "target": {"api_endpoint": api_endpoint},
    }


def _params(found: _Found, settings: Settings, target: TargetInfo) -> dict[str, Any]:
    _refuse_unusable(found, settings)
    own = dict(settings.params or {})
    for name, setting in _TYPED_PARAMS.items():
        if name in own:
            raise ConfigError(f"params.{name}: is set by {setting}; use that setting")
    typed = {
        "limit_samples": _whole(settings.limit),
        "parallelism": settings.concurrency,
        "max_new_tokens": settings.max_gen_tokens,
        "request_timeout": None if settings.request_timeout is None else math.ceil(settings.request_timeout),
        "max_retries": settings.max_retries,
        "temperature": settings.generation.temperature,
        "top_p": settings.generation.top_p,
        "task": own.pop("task", None),
    }
    extra = _lm_eval_extra(found, settings, target) | _mapping("params.extra", own.pop("extra", {})) | own
    if JUDGE in target.auxiliary:
        extra[JUDGE] = _judge(_mapping("params.extra.judge", extra.get(JUDGE, {})))
    params = {name: value for name, value in typed.items() if value is not None}
    return params | ({"extra": extra} if extra else {})


def _judge(own: dict[str, Any]) -> dict[str, Any]:
    """The judge's parameters: where the auxiliary endpoint of that name is, and what the person says of it besides.

    A `url` that begins with / is the path behind the endpoint's base: harnesses differ in which they want.
    """
    taken = [f"params.extra.judge.{name}" for name in ("model_id", "api_key") if name in own]
    path = own.get("url", "/v1")
    if not (isinstance(path, str) and path.startswith("/")):
        taken.append("params.extra.judge.url")
    if taken:
        raise ConfigError([f"{key}: is set by auxiliary.judge; remove one of the two" for key in taken])
    return {**own, "url": f"{_JUDGE_URL}{path}", "model_id": _JUDGE_MODEL, "api_key": variable(JUDGE, "API_KEY")}


def _filled(text: str) -> str:
    """The person's text as it is, with what the runner fills in of the judge."""
    filled = literal(text)
    for mark, place in ((_JUDGE_URL, "{auxiliary.judge.url}"), (_JUDGE_MODEL, "{auxiliary.judge.model}")):
        filled = filled.replace(mark, place)
    return filled


def _refuse_unusable(found: _Found, settings: Settings) -> None:
    unusable = [name for name in _UNUSABLE if getattr(settings, name)]
    if found.harness != LM_EVAL:
        unusable += [name for name in ("num_fewshot", "tokenizer") if getattr(settings, name) is not None]
    unusable += [
        f"generation.{name}" for name in sorted(settings.generation.arguments().keys() - {"temperature", "top_p"})
    ]
    if settings.concurrency == "auto":
        unusable.append("concurrency: auto")
    if settings.tokenizer_backend == "remote":
        unusable.append("tokenizer_backend: remote")
    if unusable:
        raise ConfigError([f"{name}: nemo_evaluator cannot pass this to {found.type}; use params" for name in unusable])


def _lm_eval_extra(found: _Found, settings: Settings, target: TargetInfo) -> dict[str, Any]:
    """Parameters only lm-evaluation-harness has; its log-likelihood tasks cannot do without a tokenizer."""
    if found.harness != LM_EVAL:
        return {}
    extra: dict[str, Any] = {}
    if settings.num_fewshot is not None:
        extra["num_fewshot"] = settings.num_fewshot
    needs_tokenizer = found.known is not None and found.known.needs_loglikelihood
    if settings.tokenizer or needs_tokenizer:
        extra["tokenizer"] = settings.tokenizer or target.model_id
        extra["tokenizer_backend"] = settings.tokenizer_backend or "huggingface"
    return extra


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{key}: expected a mapping, got {value!r}")
    return value


def _whole(limit: float | None) -> float | None:
    """A limit as nemo-evaluator wants it: a count must be an integer, only a share may have decimals."""
    return int(limit) if limit is not None and limit.is_integer() else limit


class _Stats(Struct, frozen=True):
    """Statistics beside a value; further ones are not needed here."""

    count: float | None = None
    stderr: float | None = None


class _Value(Struct, frozen=True):
    """One number."""

    value: float
    stats: _Stats | None = None


class _Metric(Struct, frozen=True):
    """The numbers of one metric by name."""

    scores: dict[str, _Value]


class _Node(Struct, frozen=True):
    """A task or a group; groups nest."""

    metrics: dict[str, _Metric] = field(default_factory=dict)
    groups: dict[str, _Node] | None = None


class _Results(Struct, frozen=True):
    """The block `results`."""

    tasks: dict[str, _Node] | None = None
    groups: dict[str, _Node] | None = None


class _Document(Struct, frozen=True):
    """The parts of results.yml that are read."""

    results: _Results
    command: str | None = None
    config: dict[str, Any] | None = None
    git_hash: str | None = None
    metadata: dict[str, Any] | None = None


def _read(folder: Path) -> _Document:
    path = folder / RESULTS
    try:
        return decode_yaml(path.read_bytes(), _Document)
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: is no results file of nemo-evaluator: {' '.join(str(error).split())}") from error


def _scores(name: str, node: _Node, *, group: bool) -> Iterator[Score]:
    for metric, entry in node.metrics.items():
        for score, number in entry.scores.items():
            yield _score(name, metric, score, number, group=group)
    for inner, child in (node.groups or {}).items():
        yield from _scores(f"{name}/{inner}", child, group=True)


def _score(task: str, metric: str, score: str, number: _Value, *, group: bool) -> Score:
    if not math.isfinite(number.value):
        raise ResultsError(f"{RESULTS}: {task} {metric} {score} is {number.value}, which is no score")
    stats = number.stats or _Stats()
    return Score(
        task=task,
        metric=metric,
        filter="none" if score == metric else score,
        value=number.value,
        # lm-eval has no standard error for a single sample and writes NaN.
        stderr=stats.stderr if stats.stderr is not None and math.isfinite(stats.stderr) else None,
        n=None if stats.count is None else int(stats.count),
        group=group,
    )
