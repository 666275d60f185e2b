"""`nv-eval init`: a commented config to start from, for one execution and one deployment."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.errors import ConfigError, nearest

if TYPE_CHECKING:
    from launcher.cli.keys import Key

COMMENT_COLUMN = 40
"""Comments behind keys begin in this column, or two spaces after a longer key."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a starter config of one deployment sets; every other key stands there as a comment, with its default.

    `values` are by dotted path. `to_set` are paths that a person must look at before a run: they hold an example.
    """

    values: Mapping[str, Any]
    tasks: tuple[str, ...] = ("gsm8k",)
    to_set: tuple[str, ...] = ()


_MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
_BOTH_KINDS = ("hellaswag", "gsm8k")

STARTS = {
    "smollm": Start(values={"evaluation.limit": 10}, tasks=("hellaswag_100", "gsm8k_100")),
    "vllm": Start(values={"deployment.model_id": _MODEL}, tasks=_BOTH_KINDS),
    "sglang": Start(values={"deployment.model_id": _MODEL}, tasks=_BOTH_KINDS),
    "trtllm": Start(values={"deployment.model_id": _MODEL}),
    "nim": Start(
        values={
            "deployment.model_id": "meta/llama-3.1-8b-instruct",
            "deployment.image": "nvcr.io/nim/meta/llama-3.1-8b-instruct:latest",
            "deployment.envs": {"NGC_API_KEY": "${oc.env:NGC_API_KEY}"},
        },
    ),
    "llamacpp": Start(values={"deployment.model_id": f"{_MODEL}-GGUF:Q4_K_M"}),
    "container": Start(
        values={
            "deployment.model_id": "my-model",
            "deployment.image": "registry.example/my-server:1.0",
            "deployment.command": ["my-server", "--model", "{model}", "--port", "{port}"],
        },
        to_set=("deployment.model_id", "deployment.image", "deployment.command"),
    ),
    "lepton_llm": Start(values={"deployment.model_id": _MODEL}, tasks=_BOTH_KINDS),
    "lepton_template": Start(
        values={"deployment.model_id": "my-model", "deployment.template_id": "my-template"},
        to_set=("deployment.model_id", "deployment.template_id"),
    ),
    "lepton_photon": Start(
        values={"deployment.model_id": "my-model", "deployment.photon_id": "my-photon-abc123"},
        to_set=("deployment.model_id", "deployment.photon_id"),
    ),
    "deepinfra": Start(
        values={"deployment.model_id": _MODEL, "deployment.gpu": "L4-24GB"},
        to_set=("deployment.model_id", "deployment.gpu"),
    ),
    "none": Start(
        values={"target.api_endpoint.url": "http://127.0.0.1:8000/v1", "target.api_endpoint.model_id": "my-model"},
        to_set=("target.api_endpoint.url", "target.api_endpoint.model_id"),
    ),
}
"""How a config of each deployment begins. Log-likelihood tasks only where the server is known to do them."""

SECTIONS = ("execution", "deployment", "target", "evaluation", "limits", "pricing")
IN_CONTAINERS = ("nim", "container")
"""Deployments that on this machine run in Docker: their example is an image."""
ONLY_LOCAL = ("smollm",)
"""Deployments that run as processes, of this machine or of a cluster's node, and in no container."""
ENDPOINTS_ELSEWHERE = ("none", "deepinfra")
"""Deployments whose endpoints are not the execution's."""
LEPTON_TO_SET = ("execution.node_group", "execution.resource_shape")
TASK_SETTINGS = (
    "limit", "num_fewshot", "seed", "concurrency", "generation", "max_gen_tokens", "apply_chat_template",
    "system_prompt", "include_path", "timeout",
)  # fmt: skip
"""The settings of `evaluation` that a starter config shows; docs/config.md has all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.add_argument("--execution", default="local", metavar="NAME", help="where things run; default: local")
    parser.add_argument(
        "--deployment", metavar="NAME", help="how the model is served; default: smollm for local, else vllm"
    )
    parser.add_argument("--output", metavar="FILE", help="file to write; default: EXECUTION_DEPLOYMENT.yaml")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from launcher.config.deployment import ONLY_ON_LEPTON
    from launcher.config.schema import DEPLOYMENTS, EXECUTIONS

    execution = args.execution
    deployment = args.deployment or ("smollm" if execution == "local" else "vllm")
    _check("execution", execution, EXECUTIONS)
    _check("deployment", deployment, DEPLOYMENTS)
    if deployment in ONLY_LOCAL and execution not in ("local", "slurm"):
        raise ConfigError(f"--deployment {deployment}: runs only on this machine; leave --execution {execution} out")
    if deployment in ONLY_ON_LEPTON and execution != "lepton":
        raise ConfigError(f"--deployment {deployment}: runs only on Lepton; add --execution lepton")
    path = Path(args.output or f"{execution}_{deployment}.yaml")
    _write(path, starter(execution, deployment, path), force=args.force)
    _say_what_next(path, execution, to_set(execution, deployment))
    return 0


def starter(execution: str, deployment: str, path: Path) -> str:
    """The text of a starter config that will be saved as `path`."""
    from launcher.cli.keys import config_keys

    keys = [_with_harness_default(key) for key in config_keys(execution, deployment).values()]
    values = _values(execution, deployment)
    names = [name for name in SECTIONS if name != "pricing" or execution == "lepton"]
    sections = {name: _section([key for key in keys if _is_shown(key, name)], values) for name in names}
    sections["evaluation"] += _tasks(STARTS[deployment].tasks)
    return "\n".join([_head(execution, deployment, path), *sections.values()])


def to_set(execution: str, deployment: str) -> tuple[str, ...]:
    """Paths of a starter config that a person must look at before a run."""
    return (*_lepton_to_set(execution, deployment), *STARTS[deployment].to_set)


def command_for(path: Path) -> str:
    """The command that runs a config file."""
    return shlex.join(["nv-eval", "run", "--config-dir", str(path.parent), "--config-name", path.stem])


def _check(option: str, name: str, valid: Iterable[str]) -> None:
    if name not in valid:
        raise ConfigError(f"--{option} {name}: no such {option}{nearest(name, valid)}")


def _lepton_to_set(execution: str, deployment: str) -> tuple[str, ...]:
    return LEPTON_TO_SET if execution == "lepton" and deployment not in ENDPOINTS_ELSEWHERE else ()


def _values(execution: str, deployment: str) -> dict[str, Any]:
    """What the config sets, by dotted path."""
    runtimes = {"local": {"execution.runtime": "docker"}, "slurm": {"execution.container.runtime": "pyxis"}}
    runtime = runtimes.get(execution, {}) if deployment in IN_CONTAINERS else {}
    return {
        "execution.output_dir": "./results",
        **dict.fromkeys(_lepton_to_set(execution, deployment)),
        **runtime,
        **STARTS[deployment].values,
    }


def _with_harness_default(key: Key) -> Key:
    """The key with the value that the default harness gives it, where it has none of its own."""
    from launcher.harnesses import setting_defaults
    from launcher.plan.build import DEFAULT_HARNESS

    section, _, name = key.path.partition(".")
    value = setting_defaults().get(name, {}).get(DEFAULT_HARNESS) if section == "evaluation" else None
    return key if value is None else replace(key, default=value)


def _is_shown(key: Key, section: str) -> bool:
    if not key.path.startswith(f"{section}.") or key.path in ("execution.type", "deployment.type"):
        return False
    return section != "evaluation" or key.path.split(".")[1] in TASK_SETTINGS


def _head(execution: str, deployment: str, path: Path) -> str:
    from launcher.cli.keys import summary
    from launcher.config.schema import DEPLOYMENTS, EXECUTIONS

    commands = "\n".join(f"# {line}" for line in _commands(path, execution))
    return f"""\
# deployment {deployment}: {summary(DEPLOYMENTS[deployment])}
# execution {execution}: {summary(EXECUTIONS[execution])}
#
{commands}
#
# A key behind a # shows its default; null: it has none, and its comment says what happens then.
# Keep secrets out of this file: name a variable of your environment instead, as in
# envs: {{HF_TOKEN: '${{oc.env:HF_TOKEN}}'}}

defaults:
  - execution: {execution}
  - deployment: {deployment}
  - _self_
"""


def _section(keys: list[Key], values: Mapping[str, Any]) -> str:
    """YAML of one section: keys that are set first, the others as comments, nested mappings last."""
    active = {ancestor for path in (*values, "evaluation") for ancestor in _ancestors(path)}
    groups = list(dict.fromkeys(key.path.rpartition(".")[0] for key in keys))
    place = {group: number for number, group in enumerate(groups)}
    ordered = sorted(
        keys, key=lambda key: (key.path.count("."), place[key.path.rpartition(".")[0]], key.path not in values)
    )
    seen: set[str] = set()
    lines: list[str] = []
    for key in ordered:
        heads = [path for path in _ancestors(key.path)[:-1] if path not in seen]
        seen.update(heads)
        lines += [_placed(path, f"{path.rpartition('.')[2]}:", active) for path in heads]
        lines.append(_line(key, values, active))
    return "".join(f"{line}\n" for line in lines)


def _ancestors(path: str) -> list[str]:
    """`a.b.c` as a, a.b, a.b.c."""
    parts = path.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _placed(path: str, text: str, active: set[str]) -> str:
    """A line at its depth; behind a # if it is not active, which stands where the last active level ends."""
    depth, level = path.count("."), sum(ancestor in active for ancestor in _ancestors(path))
    return "  " * depth + text if path in active else "  " * level + "# " + "  " * (depth - level) + text


def _line(key: Key, values: Mapping[str, Any], active: set[str]) -> str:
    from launcher.cli.keys import as_yaml

    value = as_yaml(values[key.path]) if key.path in values else key.default_text
    unit = {"": "", "s": "seconds: "}.get(key.unit, f"{key.unit}: ")
    choices = f" ({', '.join(key.choices)})" if len(key.choices) > 1 and "true" not in key.choices else ""
    return f"{_placed(key.path, f'{key.name}: {value}', active):<{COMMENT_COLUMN - 2}}  # {unit}{key.doc}{choices}"


def _tasks(names: Iterable[str]) -> str:
    hint = "  # Find tasks with: nv-eval ls tasks PATTERN. Beside its name a task may have settings of its own.\n"
    return f"{hint}  tasks:\n" + "".join(f"    - name: {name}\n" for name in names)


def _write(path: Path, text: str, *, force: bool) -> None:
    if path.suffix != ".yaml":
        raise ConfigError(f"--output {path}: a config's name ends in .yaml")
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path}: exists; add --force to replace it, or --output FILE") from None
    except OSError as error:
        raise ConfigError(f"--output {path}: cannot be written: {error.strerror}") from None


def _commands(path: Path, execution: str) -> list[str]:
    """How to go on, one line each. What this version cannot run it can plan."""
    from launcher.platforms import RUNNABLE

    command = command_for(path)
    lines = [f"See what it would do: {command} --dry-run"]
    if execution not in RUNNABLE:
        return [*lines, f"This version plans runs on {execution}; it does not start them yet."]
    return [*lines, f"Run it: {command}"]


def _say_what_next(path: Path, execution: str, keys: tuple[str, ...]) -> None:
    sys.stdout.write(f"Wrote {path}.\n")
    if keys:
        sys.stdout.write(f"Set these first: {', '.join(keys)}.\n")
    sys.stdout.writelines(f"{line}\n" for line in _commands(path, execution))
