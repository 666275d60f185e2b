"""Writes what the documentation can read off the code; `--check` only says whether that has been done.

config.md and cli.md are written whole. In the other files, what stands between `<!-- generated: NAME -->` and
`<!-- end -->` is replaced.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from launcher import errors
from launcher.cli import main as cli
from launcher.cli.keys import Key, as_yaml, keys_of, summary
from launcher.config.evaluation import Evaluation, Task
from launcher.config.pricing import Pricing
from launcher.config.schema import DEPLOYMENTS, EXECUTIONS, Auxiliary, Export, Limits, Notify, Sweep, Target
from launcher.harnesses import HARNESSES, setting_defaults
from launcher.orchestrator.reasons import MEANINGS
from launcher.results.table import COLUMNS

FOLDER = Path(__file__).resolve().parent
NOTE = "<!-- Written by docs/generate.py; change the code it reads, not this file. -->\n"

CONFIG_HEAD = """\
# Config keys

A config is YAML composed by [Hydra](https://hydra.cc) from the groups `execution`, `deployment`, `target`,
`evaluation`, `export`, `limits`, `notify` and `pricing`, and of the section `sweep`. Every key below can stand in a
file or on the command line: `nv-eval run deployment=vllm deployment.max_model_len=8192`. A key that is
not here is an error, never ignored.

- `null` as a default means "not set"; the meaning says what happens then. Where a default is a harness's, its name
  stands beside it: `1234` (lm_eval).
- Durations are seconds, sizes are as the name says (`_gib`, `_mib`).
- A value `${oc.env:NAME}` comes from your environment; see [secrets.md](secrets.md).
- `nv-eval init` writes a config with the keys of one execution and one deployment as comments.
"""
AUXILIARY = """\
Further endpoints that tasks use beside the evaluated one, by names of yours; see [auxiliary.md](auxiliary.md).
`auxiliary.NAME.deployment` has all keys of one [deployment](#deployment), `type` among them, and is required.
"""
PRICING = """\
A price list of yours is a file `pricing/NAME.yaml` in a folder that `--config-dir` names; choose it with
`pricing=NAME`. `configs/pricing/example.yaml` shows its form with made-up numbers. The prices give the cost shown
live and kept in the results, minutes x replicas x price, and the worst case in the plan. They are for Lepton's resource
shapes; elsewhere `execution.usd_per_gpu_hour` counts.
"""
CLI_HEAD = """\
# Command line

`nv-eval --help` and `nv-eval COMMAND --help` say the same. Exit codes are in
[how-it-works.md](how-it-works.md#exit-codes). With `--json`, an error is a JSON object on standard output with
`error`, `exit_code` and `message`.
"""


def main() -> int:
    """Write the files, or compare them; returns 1 if one is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is not up to date")
    args = parser.parse_args()
    stale = [path for path, text in generated().items() if not path.is_file() or path.read_text() != text]
    if args.check:
        sys.stdout.writelines(f"{path}: not up to date; run: python docs/generate.py\n" for path in stale)
        return 1 if stale else 0
    for path in stale:
        path.write_text(generated()[path])
        sys.stdout.write(f"wrote {path}\n")
    return 0


def generated() -> dict[Path, str]:
    """The files of this folder as they should be."""
    whole = {FOLDER / "config.md": config_page(), FOLDER / "cli.md": cli_page()}
    others = {path: with_tables(path.read_text()) for path in sorted(FOLDER.glob("*.md")) if path not in whole}
    return whole | others


def with_tables(text: str) -> str:
    """A page with its generated parts renewed."""
    tables = {"exit codes": exit_codes, "reasons": reasons, "columns": columns}
    return re.sub(
        r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}{tables[match[2]]()}{match[3]}",
        text,
        flags=re.DOTALL,
    )


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(head), ["---"] * len(list(head)), *[[cell.replace("|", "\\|") for cell in row] for row in rows]]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


# --- config.md ----------------------------------------------------------------------------------------------------


def config_page() -> str:
    """All keys: by execution, by deployment, then the sections that have but one form."""
    parts = [NOTE + CONFIG_HEAD]
    parts += _variants("execution", "Where things run.", EXECUTIONS)
    parts += _variants("deployment", "How the model is served.", DEPLOYMENTS)
    parts += [
        f"## target\n\n{summary(Target)}.\n\n{_key_table(keys_of(Target, 'target'))}",
        f"## auxiliary\n\n{AUXILIARY}\n{_key_table(_auxiliary_keys())}",
        f"## evaluation\n\n{summary(Evaluation)}.\n\n{_key_table(keys_of(Evaluation, 'evaluation'))}",
        f"## evaluation.tasks\n\n{_task_text()}",
        f"## export\n\n{summary(Export)}.\n\n{_key_table(keys_of(Export, 'export'))}",
        f"## limits\n\n{summary(Limits)}.\n\n{_key_table(keys_of(Limits, 'limits'))}",
        f"## sweep\n\n{summary(Sweep)}. See [sweeps.md](sweeps.md).\n\n{_key_table(keys_of(Sweep, 'sweep'))}",
        f"## notify\n\n{summary(Notify)}.\n\n{_key_table(keys_of(Notify, 'notify'))}",
        f"## pricing\n\n{summary(Pricing)}.\n\n{PRICING}\n{_key_table(keys_of(Pricing, 'pricing'))}",
    ]
    return "\n".join(parts)


def _auxiliary_keys() -> list[Key]:
    keys = keys_of(Auxiliary, "auxiliary.NAME")
    return [key for key in keys if key.name != "deployment"]


def _variants(section: str, meaning: str, classes: dict[str, Any]) -> Iterator[str]:
    yield f"## {section}\n\n{meaning} `{section}=NAME` on the command line, or `- {section}: NAME` under `defaults`.\n"
    for name, cls in classes.items():
        yield f"### {section}={name}\n\n{summary(cls)}.\n\n{_more(cls)}{_key_table(keys_of(cls, section))}"


def _more(cls: type[Any]) -> str:
    """What a class's documentation says below its first line."""
    text = inspect.cleandoc(cls.__doc__ or "").partition("\n")[2].strip()
    return f"{text}\n\n" if text else ""


def _key_table(keys: list[Key]) -> str:
    return table(("key", "type", "default", "unit", "meaning"), map(_key_row, keys))


def _key_row(key: Key) -> list[str]:
    return [f"`{key.path}`", key.type, _default(key), key.unit, key.doc]


def _default(key: Key) -> str:
    section, _, name = key.path.partition(".")
    by_harness = setting_defaults().get(name, {}) if section == "evaluation" else {}
    if len(set(by_harness.values())) == 1 and len(by_harness) == len(HARNESSES):
        return f"`{as_yaml(next(iter(by_harness.values())))}`"
    if by_harness:
        return ", ".join(f"`{as_yaml(value)}` ({harness})" for harness, value in by_harness.items())
    return "required" if key.default_text == "???" else f"`{key.default_text}`"


def _task_text() -> str:
    name = next(key for key in keys_of(Task, "") if key.name == "name")
    return (
        f"A list. Each entry has a `name` ({name.type}, required): {name.doc}. Beside it, any key of `evaluation`\n"
        "but `tasks` may stand; it then counts for this task alone. Mappings (`generation`, `envs` and so on)\n"
        "are merged key by key. An entry may also be just the name.\n"
    )


# --- cli.md -------------------------------------------------------------------------------------------------------


def cli_page() -> str:
    """All commands with their arguments."""
    parser = cli.build_parser()
    subs = parser._subparsers._group_actions[0].choices if parser._subparsers else {}
    assert isinstance(subs, dict)
    return "\n".join([NOTE + CLI_HEAD, *(page for name, sub in subs.items() for page in _commands(name, sub))])


def _commands(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """A command, or each of its actions."""
    if parser._subparsers is None:
        yield _command(name, parser)
        return
    yield f"## nv-eval {name}\n\n{parser.description}\n"
    actions = parser._subparsers._group_actions[0].choices
    assert isinstance(actions, dict)
    for action, sub in actions.items():
        yield _command(f"{name} {action}", sub).replace("## ", "### ", 1)


def _command(name: str, parser: argparse.ArgumentParser) -> str:
    actions = [action for action in parser._actions if action.help != argparse.SUPPRESS and action.dest != "help"]
    rows = [(f"`{_invocation(action)}`", _help(action)) for action in actions]
    epilog = f"\n```text\n{parser.epilog.strip()}\n```\n" if parser.epilog else ""
    return f"## nv-eval {name}\n\n{parser.description}\n\n{table(('argument', 'meaning'), rows)}{epilog}"


def _invocation(action: argparse.Action) -> str:
    values = _values(action)
    names = ", ".join(sorted(action.option_strings, key=len, reverse=True))
    if not names:
        return f"{values}..." if action.nargs in ("*", "+") else values
    optional = f"[{values}]" if action.nargs == "?" else values
    return names if action.nargs == 0 else f"{names} {optional}"


def _values(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    return action.dest.upper()


def _help(action: argparse.Action) -> str:
    choices = ", ".join(f"`{choice}`" for choice in action.choices or ())
    return f"{action.help or ''}{f' ({choices})' if choices else ''}"


# --- tables in other pages ----------------------------------------------------------------------------------------


def exit_codes() -> str:
    """Exit codes with the exception each belongs to."""
    rows = [("0", "", "Every task has scores and nothing is left running; for other commands: done.")]
    rows += [
        (str(cls.exit_code), f"`{cls.__name__}`", f"{summary(cls)}.")
        for cls in _errors(errors.LauncherError)
        if cls is errors.LauncherError or cls.exit_code != cls.__mro__[1].exit_code  # type: ignore[attr-defined]
    ]
    rows[1] = ("1", "", "A defect of the launcher itself; `-v` shows the traceback.")
    return table(("code", "error", "meaning"), rows)


def _errors(cls: type[errors.LauncherError]) -> Iterator[type[errors.LauncherError]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from _errors(sub)


def reasons() -> str:
    """Every way a task can end."""
    return table(
        ("reason", "status", "tried again", "meaning, and what to do"),
        (
            (f"`{reason}`", meaning.status, "yes" if meaning.retry else "", meaning.advice or "it has scores")
            for reason, meaning in MEANINGS.items()
        ),
    )


def columns() -> str:
    """Columns of the scores table."""
    return table(("column", "type"), ((f"`{name}`", kind) for name, kind in COLUMNS.items()))


if __name__ == "__main__":
    sys.exit(main())
