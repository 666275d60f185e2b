"""Typed keys of `export`: the forms of the scores table, and the places that an invocation's results are sent to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from launcher.config.fields import Name, Seconds, key

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "nv_eval.exporters"
"""Entry points of packages that bring an exporter; see docs/export.md."""


@dataclass(frozen=True, kw_only=True)
class Mlflow:
    """An MLflow tracking server: a parent run for each invocation, a nested run for each task."""

    tracking_uri: Name | None = key(None, "address of the server; default: MLFLOW_TRACKING_URI, without it an error")
    experiment: Name = key("nv-eval", "experiment that gets the runs; made where there is none")
    token_name: Name | None = key(
        None, "environment variable that holds a bearer token; its name, not its value; default: MLFLOW_TRACKING_TOKEN"
    )
    artifacts: bool = key(True, "also the files: results.json, results.parquet, provenance.json")
    samples: bool = key(False, "also the samples' files, which hold prompts and answers")


@dataclass(frozen=True, kw_only=True)
class Wandb:
    """Weights & Biases: a run for each task, in a group for each invocation."""

    project: Name = key("nv-eval", "project that gets the runs")
    entity: Name | None = key(None, "user or team that owns the project; default: that of the key")
    base_url: Name | None = key(None, "address of a server of your own; default: WANDB_BASE_URL, else api.wandb.ai")
    mode: Literal["online", "offline"] = key("online", "offline: into a folder, for `wandb sync`")
    folder: Name | None = key(None, "folder for W&B's own files; default: exports/wandb in the invocation's folder")
    api_key_name: Name = key("WANDB_API_KEY", "environment variable that holds the key; its name, not its value")
    artifacts: bool = key(True, "also the files: results.json, results.parquet, provenance.json")
    samples: bool = key(False, "also the samples' files, which hold prompts and answers")


@dataclass(frozen=True, kw_only=True)
class Trackio:
    """Trackio, on this machine: a run for each task, in a group for each invocation."""

    project: Name = key("nv-eval", "project that gets the runs")
    folder: Name | None = key(None, "folder of Trackio's databases; default: TRACKIO_DIR, else Trackio's own")


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Logs of inspect_ai, one .eval file for each task, with its samples; `inspect view` shows them."""

    folder: Name | None = key(None, "folder for the logs; default: exports/inspect in the invocation's folder")
    samples: bool = key(True, "also the samples, with prompts and answers")


@dataclass(frozen=True, kw_only=True)
class Huggingface:
    """Evaluation results in the metadata (`model-index`) of a Hugging Face model card."""

    card: Name | None = key(
        None, "the README.md that gets them, made if there is none; default: exports/huggingface in the run's folder"
    )


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """A result file as leaderboards on Hugging Face read it: MODEL/results_TIME.json."""

    folder: Name | None = key(
        None, "folder or fsspec URL for the files; default: exports/leaderboard in the invocation's folder"
    )
    precision: Name = key("unknown", "the model's type of numbers as the leaderboard shows it, such as bfloat16")


@dataclass(frozen=True, kw_only=True)
class Fsspec:
    """The scores table as files below any fsspec URL: file://, memory://, s3://, gs:// and others."""

    url: Name = key(doc="folder, as a URL or a path; INVOCATION/ is made below it")
    formats: list[Literal["csv", "parquet"]] = key(factory=lambda: ["csv", "parquet"], doc="forms of the scores table")
    options: dict[str, Any] = key(factory=dict, doc="options of the file system, such as endpoint_url; no secrets")
    option_names: dict[str, str] = key(
        factory=dict, doc="options of the file system that are secret: the environment variable that holds each"
    )
    artifacts: bool = key(True, "also the files: results.json, provenance.json")
    samples: bool = key(False, "also the samples' files, which hold prompts and answers")


@dataclass(frozen=True, kw_only=True)
class Otel:
    """OpenTelemetry, by OTLP over HTTP: a trace and metrics for each invocation."""

    endpoint: Name | None = key(
        None, "address of the collector, without /v1/traces; default: OTEL_EXPORTER_OTLP_ENDPOINT, else localhost:4318"
    )
    headers_name: Name | None = key(
        None, "environment variable that holds headers, `a=b,c=d`; default: OTEL_EXPORTER_OTLP_HEADERS"
    )
    service: Name = key("nv-eval", "`service.name` of spans and metrics")
    compression: Literal["gzip", "none"] = key("gzip", "of requests")
    traces: bool = key(True, "send spans")
    metrics: bool = key(True, "send metrics")


@dataclass(frozen=True, kw_only=True)
class Export:
    """Forms of the scores beside results.json and results.parquet, and places they are sent to when the run is over."""

    formats: list[Literal["csv", "markdown"]] = key(factory=list, doc="further forms of the scores table")
    timeout: Seconds = key(60.0, "time that all places together may take when the run is over")
    mlflow: Mlflow | None = key(None, "see docs/export.md")
    wandb: Wandb | None = key(None, "see docs/export.md")
    trackio: Trackio | None = key(None, "see docs/export.md")
    inspect: Inspect | None = key(None, "see docs/export.md")
    huggingface: Huggingface | None = key(None, "see docs/export.md")
    leaderboard: Leaderboard | None = key(None, "see docs/export.md")
    fsspec: Fsspec | None = key(None, "see docs/export.md")
    otel: Otel | None = key(None, "see docs/export.md")
    others: dict[str, dict[str, Any]] = key(
        factory=dict, doc="exporters of other packages by their name, with keys of their own; `export.NAME` is the same"
    )


OPTIONS: dict[str, type[Any]] = {
    "mlflow": Mlflow,
    "wandb": Wandb,
    "trackio": Trackio,
    "inspect": Inspect,
    "huggingface": Huggingface,
    "leaderboard": Leaderboard,
    "fsspec": Fsspec,
    "otel": Otel,
}
"""Keys of the exporters that come with the launcher."""


def installed() -> dict[str, EntryPoint]:
    """The exporters that installed packages bring, by name; nothing of them is imported."""
    from importlib.metadata import entry_points  # only now: who exports nothing does not pay for it

    return {found.name: found for found in entry_points(group=GROUP)}


def chosen(export: Export) -> dict[str, Any]:
    """The exporters that a config asks for, with their keys: a dataclass of OPTIONS, or a mapping."""
    own = {name: getattr(export, name) for name in OPTIONS}
    return {name: options for name, options in own.items() if options is not None} | export.others


def with_others(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree of `export` with the keys of exporters of other packages below `others`, where they belong."""
    known = Export.__dataclass_fields__
    strangers = [name for name, value in tree.items() if name not in known and isinstance(value, dict | None)]
    if not strangers or not isinstance(tree.get("others", {}), dict):
        return tree
    theirs = installed()
    moved = {name: tree[name] or {} for name in strangers if name in theirs}
    kept = {name: value for name, value in tree.items() if name not in moved}
    return {**kept, "others": {**tree.get("others", {}), **moved}} if moved else tree
