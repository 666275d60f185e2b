"""The documentation: generated parts are up to date, commands and names in the others are real."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import re
import shlex
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from launcher import api
from launcher.api import build_sweep, endpoint_plan, plan
from launcher.cli import main as cli
from launcher.cli import run_command
from launcher.cli.behind import run_spec
from launcher.cli.keys import config_keys
from launcher.config import load
from launcher.emulators.lepton import config as emulator
from launcher.harnesses import command as command_harness
from launcher.harnesses.spec import Score
from launcher.orchestrator.reasons import Reason
from launcher.results import model, provenance, table
from launcher.schedule.launching import made, plans
from launcher.schedule.watching import sample

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])
HAND_WRITTEN = [page for page in PAGES if page.name not in ("config.md", "cli.md")]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_up_to_date(generate: ModuleType) -> None:
    stale = [path.name for path, text in generate.generated().items() if path.read_text() != text]

    assert not stale, "run: python docs/generate.py"


def test_every_key_and_every_reason_is_documented() -> None:
    keys = (ROOT / "docs" / "config.md").read_text()
    reasons = (ROOT / "docs" / "how-it-works.md").read_text()

    assert [path for path in config_keys() if f"| `{path}` |" not in keys] == []
    assert [reason for reason in Reason if f"| `{reason}` |" not in reasons] == []


def test_every_key_of_the_result_files_is_documented() -> None:
    text = (ROOT / "docs" / "results.md").read_text()
    names = {
        field.name
        for cls in (model.Record, model.ModelRecord, model.TaskRecord, Score, command_harness._Score)
        for field in (dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else msgspec.structs.fields(cls))
    }

    assert {name for name in names | set(table.COLUMNS) if f"`{name}`" not in text} == set()
    for schema in (model.SCHEMA, provenance.SCHEMA, command_harness.SCHEMA):
        assert schema in text


def test_the_documented_example_of_scores_is_valid(tmp_path: Path) -> None:
    example = re.search(r"```json\n(.*?)```", (ROOT / "docs" / "results.md").read_text(), re.DOTALL)
    assert example is not None
    (tmp_path / "results.json").write_text(example.group(1))

    harness = command_harness.CommandHarness()

    assert [score.value for score in harness.parse(tmp_path, "mine", harness.defaults)] == [0.5]
    assert harness.provenance(tmp_path) == {"dataset": "my-items 1.2"}


def _commands(page: Path) -> list[str]:
    """Lines of shell blocks that call nv-eval, continued lines joined."""
    blocks = re.findall(r"```(?:console|sh|bash)\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line.removeprefix("$ ").strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("nv-eval ")]


@pytest.mark.parametrize("page", [page for page in HAND_WRITTEN if _commands(page)], ids=lambda page: page.name)
def test_documented_commands_are_right(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All parse; `init` is run, and what `run` would run can be planned, in a folder that has the examples."""
    monkeypatch.setenv("NV_EVAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    monkeypatch.setenv("LEPTON_ENDPOINT_URL", "http://127.0.0.1:8000/v1/completions")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")

    for line in _commands(page):
        words = shlex.split(line, comments=True)[1:]
        args = cli.parse(words)
        if args.command == "init":
            assert cli.main(words) == 0
        elif args.command == "run" and (args.multirun or args.config_name.startswith("sweep_")):
            assert build_sweep(run_command.request(args)).points, line
        elif args.command == "run":
            assert plan(load(run_command.request(args))).tasks, line
        elif args.command == "endpoints" and args.action == "up":
            assert endpoint_plan(load(run_command.request(args)), ttl=args.ttl).expires, line
        elif args.behind[:1] == ["run"]:
            spec = run_spec(args.command, args.behind)
            assert plans(made(sample(spec))), line


def test_the_documented_emulator_config_can_be_read(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", (ROOT / "docs" / "lepton.md").read_text(), re.DOTALL)
    assert example is not None
    (tmp_path / "emulator.yaml").write_text(example.group(1))

    config = emulator.load(tmp_path / "emulator.yaml")

    assert [group.name for group in config.node_groups] == ["small"]
    assert len(config.faults) == 1


@pytest.mark.parametrize(
    "name",
    [
        "preflight",
        "run",
        "detach",
        "resume",
        "resume_detached",
        "changed",
        "end",
        "status",
        "record",
        "results",
        "export",
    ],
)
def test_the_page_of_the_python_api_names_every_verb_and_its_own_arguments(name: str) -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    parameters = set(inspect.signature(getattr(api, name)).parameters) | {"id"}
    (told,) = re.findall(rf"^- `{name}\(([^)]*)\)`", page, re.MULTILINE)
    assert {word.strip(" .") for word in told.split(",")} - {""} <= parameters


def test_there_are_documented_commands() -> None:
    assert {page.name for page in HAND_WRITTEN if _commands(page)} >= {
        "README.md",
        "how-it-works.md",
        "lepton.md",
        "secrets.md",
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text())

    for target, anchor in links:
        path = (page.parent / target) if target else page
        assert path.exists(), f"{page.name} -> {target}"
        if anchor:
            assert anchor in _anchors(path), f"{page.name} -> {target}#{anchor}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_files_that_the_checklists_name_exist() -> None:
    text = (ROOT / "docs" / "adding.md").read_text()

    named = re.findall(r"`((?:launcher|tests|configs|docs)/[\w./]+)`", text)

    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []
