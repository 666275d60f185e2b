"""What a platform hands to a job: the job document, and the program that reads it as one self-contained file."""

from __future__ import annotations

import ast
from functools import cache
from importlib.resources import files
from typing import Any

from launcher.config.fields import Reference
from launcher.harnesses.spec import variable
from launcher.plan.model import TargetPlan, TaskPlan

SCHEMA = "nv-eval.job/1"
API_KEY_ENV = "NV_EVAL_API_KEY"
"""Variable of the job's process that holds the endpoint's key; the platform sets it from `target.api_key`."""
RUNNER_MODULES = ("client", "loglikelihood", "endpoint", "job", "output", "harness", "runner")
"""The modules of launcher/runner, each after those it imports."""


def job_document(invocation: str, task: TaskPlan, *, url: str, output_dir: str, work_dir: str) -> dict[str, Any]:
    """The document that tells the runner what to do, ready for JSON; it holds no secret.

    `url` is the endpoint's base URL without /v1, as those of auxiliary endpoints in the task are; the folders are
    paths as the job sees them. Variables of the job that are references are left out: the platform puts them into the
    environment of the job's process.
    """
    return {
        "schema": SCHEMA,
        "invocation": invocation,
        "task": task.key,
        "target": _target(task.target, url, API_KEY_ENV),
        "auxiliary": {
            name: _target(target, target.url or "", variable(name, "API_KEY"))
            for name, target in task.auxiliary.items()
        },
        "run": _run(task),
        "timeout": task.job.timeout,
        "output_dir": output_dir,
        "work_dir": work_dir,
    }


def _target(target: TargetPlan, url: str, key_variable: str) -> dict[str, Any]:
    return {
        "url": url.rstrip("/"),
        "model": target.model,
        "lists_model": target.lists_model,
        "endpoint_type": target.endpoint_type,
        "health_path": target.health_path,
        "health_interval": target.health_interval,
        "needs_loglikelihood": target.needs_loglikelihood,
        "start_timeout": target.start_timeout,
        "health_timeout": target.health_timeout,
        "api_key_env": key_variable if target.api_key else None,
    }


def _run(task: TaskPlan) -> dict[str, Any]:
    run = task.job.run
    return {
        "argv": list(run.argv),
        "env": {name: value for name, value in run.env.items() if isinstance(value, str)},
        "files": dict(run.files),
        "results": list(run.results),
        "progress": run.progress,
        "progress_label": run.progress_label,
        "api_key_env": run.api_key_env,
        "requires": list(run.requires),
        "secret_envs": sorted(name for name, value in run.env.items() if isinstance(value, Reference)),
    }


@cache
def runner_source(*, short: bool = False) -> str:
    """The runner as one file: the modules of launcher/runner in order, without their imports of each other.

    `short`: without what only people read.
    """
    folder = files("launcher.runner")
    sources = (folder.joinpath(f"{name}.py").read_text(encoding="utf-8") for name in RUNNER_MODULES)
    texts = map(_standalone, sources)
    return "from __future__ import annotations\n\n" + "\n\n".join(map(bare, texts) if short else texts)


def _standalone(source: str) -> str:
    """A module's text without `from launcher.runner...` and `from __future__`, which has its place at the top."""
    lines = source.splitlines()
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("launcher.runner", "__future__")):
            del lines[node.lineno - 1 : node.end_lineno]
    return "\n".join(lines).strip() + "\n"


def bare(source: str) -> str:
    """A module's text without what only people read: docstrings, lines of comment, empty lines.

    Each job carries it in its command, which a service sends back with every list of jobs.
    """
    left, literal = dict(enumerate(source.splitlines(), start=1)), set[int]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            texts = [one for one in node.body if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)]
            for text in texts if len(texts) < len(node.body) else texts[1:]:  # a body is never empty
                for number in _lines_of(text):
                    del left[number]
        elif isinstance(node, ast.Constant | ast.JoinedStr):
            literal.update(_lines_of(node))
    kept = (line for number, line in left.items() if number in literal or line.partition("#")[0].strip())
    return "\n".join(kept) + "\n"


def _lines_of(node: ast.stmt | ast.expr) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)
