"""The `command` harness: any program that evaluates an endpoint and writes its scores as JSON."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from launcher.config.evaluation import Settings
from launcher.config.fields import Env
from launcher.config.values import arguments, environment, text
from launcher.decoding import decode
from launcher.errors import ConfigError, ResultsError
from launcher.harnesses.spec import HarnessJob, Score, TargetInfo, TaskInfo, literal, literal_env

SCHEMA = "nv-eval.scores/1"
RESULTS = "results.json"

_MOST = 2**53 - 1
"""Largest count that JSON, Parquet and data frames all hold exactly."""

_NO_KEY = "none"
"""OpenAI's clients insist on a key; this also keeps a key of the person's own from reaching the endpoint."""


class _Score(Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of `scores`, as the program writes it. Its numbers are finite: JSON has no others."""

    metric: Annotated[str, Meta(min_length=1)]
    value: float
    task: Annotated[str, Meta(min_length=1)] | None = None
    filter: Annotated[str, Meta(min_length=1)] = "none"
    stderr: Annotated[float, Meta(ge=0)] | None = None
    n: Annotated[int, Meta(ge=1, le=_MOST)] | None = None
    higher_is_better: bool | None = None
    num_fewshot: Annotated[int, Meta(ge=0, le=_MOST)] | None = None
    version: str | None = None
    group: bool = False


class _Results(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole results.json."""

    schema: Literal["nv-eval.scores/1"]
    scores: Annotated[list[_Score], Meta(min_length=1)]
    provenance: dict[str, Any] = {}


class CommandHarness:
    """Runs the program of `settings.command` and reads the results.json that it writes.

    The program gets, by environment:

    - NV_EVAL_URL, NV_EVAL_BASE_URL, OPENAI_BASE_URL: the endpoint, without and (the last two) with /v1
    - NV_EVAL_MODEL: served model name; NV_EVAL_ENDPOINT_TYPE: completions or chat
    - OPENAI_API_KEY: the endpoint's key, or `none`
    - NV_EVAL_OUTPUT_DIR: folder for results.json and anything worth keeping
    - NV_EVAL_TASK: name of the task; NV_EVAL_LIMIT, NV_EVAL_SEED: where they are set
    - NV_EVAL_SETTINGS: all settings of the task that are set, but envs and command, as JSON; `generation` holds
      parameters of a request, those of its `extra` beside the others
    - NV_EVAL_AUX_NAME_BASE_URL, _MODEL, _API_KEY: each auxiliary endpoint NAME, with /v1, and its key or `none`

    In the command itself {url}, {model}, {output_dir}, {work_dir} and {python} are filled in. It runs in a folder of
    its own, so give paths of your files in full. The program tells its progress by lines `@progress DONE/TOTAL` on
    standard output. Exit status 0 means that this file is complete:

        {"schema": "nv-eval.scores/1",
         "scores": [{"metric": "accuracy", "value": 0.5, "stderr": 0.05, "n": 100, "higher_is_better": true}],
         "provenance": {"dataset": "…"}}

    `metric` and `value` are required. `task` (default: the task's name), `filter` (default: none), `stderr`, `n`,
    `higher_is_better`, `num_fewshot`, `version`, `group` and `provenance` are optional.

    `params.needs_loglikelihood: true` says that the program needs prompt log-probabilities: it then runs on the
    completions route only, and only where the server passes the log-probability probe.
    """

    name = "command"
    defaults = Settings(harness="command", timeout=14400.0)

    def describe(self, task: str, settings: Settings) -> TaskInfo:
        """What the settings say of the program. Raises ConfigError if params.needs_loglikelihood is no boolean."""
        needs = (settings.params or {}).get("needs_loglikelihood", False)
        if not isinstance(needs, bool):
            raise ConfigError(f"params.needs_loglikelihood: expected true or false, got {needs!r}")
        return TaskInfo(
            name=task,
            needs_loglikelihood=needs,
            endpoint_types=("completions",) if needs else ("chat", "completions"),
            known=False,
        )

    def job(self, task: str, settings: Settings, target: TargetInfo) -> HarnessJob:
        """The run of the program. Raises ConfigError without a command, or for a variable that the launcher sets."""
        argv = arguments("command", settings.command)
        if not argv:
            raise ConfigError("command: the command harness needs the program to run")
        return HarnessJob(
            harness=self.name,
            argv=tuple(argv),
            env=_env(task, settings, target),
            results=(RESULTS,),
            progress="lines",
            api_key_env="OPENAI_API_KEY",
        )

    def parse(self, folder: Path, task: str, settings: Settings) -> list[Score]:  # noqa: ARG002  part of the interface
        """Scores from results.json. Raises ResultsError if it is missing, broken, empty or ambiguous."""
        scores = [_score(entry, task) for entry in _read(folder).scores]
        seen: set[tuple[str, str, str]] = set()
        for score in scores:
            identity = (score.task, score.metric, score.filter)
            if identity in seen:
                raise ResultsError(f"{folder / RESULTS}: two scores for {'/'.join(identity)}; give each its own filter")
            seen.add(identity)
        return scores

    def provenance(self, folder: Path) -> dict[str, Any]:
        """What the program recorded under `provenance`. Raises ResultsError as `parse` does."""
        return _read(folder).provenance


def _env(task: str, settings: Settings, target: TargetInfo) -> Env:
    own: Env = {
        "NV_EVAL_URL": "{url}",
        "NV_EVAL_BASE_URL": "{url}/v1",
        "OPENAI_BASE_URL": "{url}/v1",
        "NV_EVAL_MODEL": "{model}",
        "NV_EVAL_ENDPOINT_TYPE": target.endpoint_type,
        "NV_EVAL_OUTPUT_DIR": "{output_dir}",
        "NV_EVAL_TASK": literal(task),
        "NV_EVAL_SETTINGS": literal(_settings_json(settings)),
    }
    if settings.limit is not None:
        own["NV_EVAL_LIMIT"] = text(settings.limit)
    if settings.seed is not None:
        own["NV_EVAL_SEED"] = text(settings.seed)
    if not target.has_api_key:
        own["OPENAI_API_KEY"] = _NO_KEY
    theirs = environment("envs", settings.envs)
    for name in theirs:
        if name in own or name == "OPENAI_API_KEY":
            raise ConfigError(f"envs.{name}: is set by the launcher; choose another name")
    return own | literal_env(theirs)


def _settings_json(settings: Settings) -> str:
    """Settings that are set. Not envs, which may refer to secrets."""
    names = {field.name for field in fields(Settings)} - {"envs", "command", "generation"}
    chosen = {name: value for name in names if (value := getattr(settings, name)) is not None}
    if generation := settings.generation.arguments():
        chosen["generation"] = generation
    return json.dumps(chosen, ensure_ascii=False, sort_keys=True)


def _read(folder: Path) -> _Results:
    path = folder / RESULTS
    try:
        return decode(path.read_bytes(), _Results)
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: does not follow {SCHEMA}: {error}") from error


def _score(entry: _Score, task: str) -> Score:
    return Score(
        task=entry.task or task,
        metric=entry.metric,
        filter=entry.filter,
        value=entry.value,
        stderr=entry.stderr,
        n=entry.n,
        higher_is_better=entry.higher_is_better,
        num_fewshot=entry.num_fewshot,
        version=entry.version,
        group=entry.group,
    )
