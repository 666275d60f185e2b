"""What makes an invocation's scores reproducible: versions, digests, revisions, fingerprints, seeds."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from launcher.decoding import convert
from launcher.errors import ResultsError
from launcher.harnesses import load_harness
from launcher.plan.model import Plan, TargetPlan, TaskPlan
from launcher.results.model import Tokens

SCHEMA = "nv-eval.provenance/1"
PACKAGES = (
    "nv-eval-launcher",
    "hydra-core",
    "lm-eval",
    "datasets",
    "transformers",
    "cyllama",
    "vllm",
    "nemo-evaluator",
)


def collect(plan: Plan, folder: Path, scored: Collection[str]) -> dict[str, Any]:
    """The reproducibility record of an invocation whose files are in `folder`; `scored`: keys of tasks with scores."""
    return {
        "schema": SCHEMA,
        "invocation": plan.invocation,
        "command": sys.argv,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "plan_sha256": hashlib.sha256(msgspec.json.encode(plan)).hexdigest(),
        "tasks": {task.key: _task(task, plan, folder / task.key) for task in plan.tasks if task.key in scored},
    }


def served_revision(plan: Plan, folder: Path) -> str | None:
    """The revision of the model as the server itself told it (in /v1/models), where it does."""
    told = (_revision(folder / task.key / "output" / "server.json", task.target.model) for task in plan.tasks)
    return next(filter(None, told), None)


def auxiliary_revision(one: TaskPlan, plan: Plan, folder: Path) -> str | None:
    """The same of an auxiliary endpoint."""
    files = (folder / task.key / "output" / "auxiliary" / f"{one.key}.json" for task in plan.tasks)
    return next(filter(None, (_revision(path, one.target.model) for path in files)), None)


def _revision(path: Path, name: str) -> str | None:
    answer = _json(path)
    models = answer.get("data") if isinstance(answer, dict) else None
    for model in models if isinstance(models, list) else []:
        if isinstance(model, dict) and model.get("id") == name and model.get("revision"):
            return str(model["revision"])
    return None


def tokens(task: TaskPlan, folder: Path) -> Tokens | None:
    """Tokens of a task's requests as its harness recorded them; `folder` is the invocation's."""
    try:
        return convert(_harness_record(task, folder / task.key / "output").get("tokens"), Tokens)
    except Exception:  # whatever is wrong with a record, the scores count
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _auxiliary(name: str, target: TargetPlan, plan: Plan, folder: Path) -> dict[str, Any]:
    """What served a task beside the evaluated endpoint, as the plan has it and as the server told it of itself."""
    endpoint = next((one.endpoint for one in plan.helpers if one.key == name), None)
    said = _json(folder / "output" / "auxiliary" / f"{name}.json")
    if endpoint is None:
        return {"model": {"served_name": target.model}, "url": target.url, "server": said}
    server = endpoint.server
    return {
        "model": {"id": server.model_id, "revision": server.revision, "served_name": server.served_name},
        "endpoint": {"type": server.type, "image": server.image, "command": list(server.command)},
        "server": said,
    }


def _task(task: TaskPlan, plan: Plan, folder: Path) -> dict[str, Any]:
    server = task.endpoint.server if task.endpoint else None
    record: dict[str, Any] = {
        "harness": _harness_record(task, folder / "output"),
        "seed": task.settings.seed,
        "image": _json(folder / "image.json"),
    }
    if server is not None:
        record["model"] = {"id": server.model_id, "revision": server.revision, "served_name": server.served_name}
        record["endpoint"] = {"type": server.type, "image": server.image, "command": list(server.command)}
    record["auxiliary"] = {name: _auxiliary(name, target, plan, folder) for name, target in task.auxiliary.items()}
    record["server"] = _json(folder / "output" / "server.json")
    return {name: value for name, value in record.items() if value not in (None, {})}


def _harness_record(task: TaskPlan, output: Path) -> dict[str, Any]:
    """What the harness recorded; of a broken record, what is wrong with it, so that the rest is kept."""
    try:
        return load_harness(task.harness).provenance(output)
    except (ResultsError, OSError) as error:
        return {"error": str(error)}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
