"""Shell completion, asked as argcomplete's shell code asks."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import argcomplete
import pytest

from launcher.cli import complete
from launcher.cli.main import build_parser
from launcher.orchestrator.journal import Journal

Ask = Callable[[str], list[str]]
SEPARATOR = "\013"


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Words offered for a line, with the cursor at its end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NV_EVAL_HOME", str(tmp_path / "home"))
    # By default argcomplete takes over descriptor 9 for its debug output, which here belongs to the test runner.
    monkeypatch.setattr(complete._Finder, "_init_debug_stream", lambda _: None)
    monkeypatch.setattr(argcomplete.io, "debug_stream", io.StringIO())

    def words(line: str) -> list[str]:
        for name, value in {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}.items():
            monkeypatch.setenv(name, value)
        output = io.StringIO()
        complete.autocomplete(build_parser(), output=output, leave=lambda _: None)
        return [word.strip() for word in output.getvalue().split(SEPARATOR) if word]

    return words


@pytest.fixture
def own_configs(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    (folder / "deployment").mkdir(parents=True)
    (folder / "mine.yaml").write_text("defaults:\n  - execution: local\n  - deployment: fast\n")
    (folder / "deployment" / "fast.yaml").write_text("type: sglang\nmodel_id: m\n")
    return folder


def test_commands_and_options_complete(ask: Ask) -> None:
    assert ask("nv-eval re") == ["results", "report", "resume"]
    assert ask("nv-eval run --dry") == ["--dry-run"]
    assert ask("nv-eval results --format ") == ["table", "csv", "json", "parquet", "md", "markdown", "latex"]
    assert ask("nv-eval ls dep") == ["deployments"]


def test_config_groups_come_before_any_option(ask: Ask) -> None:
    words = ask("nv-eval run ")

    assert {"execution=", "deployment=", "evaluation=", "limits="} <= set(words)
    assert not any(word.startswith("-") for word in words)


def test_options_of_a_group_complete(ask: Ask) -> None:
    assert ask("nv-eval run deployment=s") == ["deployment=sglang", "deployment=smollm"]
    assert ask("nv-eval run --override limits=c") == ["limits=careful"]


def test_keys_are_those_of_the_deployment_on_the_line(ask: Ask) -> None:
    assert ask("nv-eval run deployment=vllm deployment.max_l") == ["deployment.max_logprobs="]
    assert ask("nv-eval run deployment=trtllm deployment.max_n") == [
        "deployment.max_num_seqs=",
        "deployment.max_num_tokens=",
    ]
    assert ask("nv-eval run deployment.max_l") == []


def test_keys_are_those_of_the_named_config_also_behind_its_options(ask: Ask, own_configs: Path) -> None:
    line = f"nv-eval run --config-dir {own_configs} --config-name mine deployment.q"

    assert ask(line) == ["deployment.quantization="]


def test_folders_of_your_own_add_configs_and_options(ask: Ask, own_configs: Path) -> None:
    assert ask(f"nv-eval run --config-dir {own_configs} --config-name m") == ["mine"]
    assert ask(f"nv-eval run --config-dir {own_configs} deployment=f") == ["deployment=fast"]
    assert ask("nv-eval run --config-name ") == ["default"]


@pytest.mark.parametrize("mark", ["+", "++", "~"])
def test_hydras_marks_stay_in_front(ask: Ask, mark: str) -> None:
    assert ask(f"nv-eval run {mark}evaluation.lim") == [f"{mark}evaluation.limit="]


def test_values_of_choices_and_switches_complete(ask: Ask) -> None:
    assert ask("nv-eval run execution.runtime=") == ["execution.runtime=process", "execution.runtime=docker"]
    assert ask("nv-eval run evaluation.log_samples=t") == ["evaluation.log_samples=true"]
    assert ask("nv-eval run evaluation.limit=") == []


def test_task_names_complete_inside_the_list(ask: Ask) -> None:
    words = ask("nv-eval run 'evaluation.tasks=[hellaswag_100,gsm8k_1")

    assert words == ["evaluation.tasks=[hellaswag_100,gsm8k_100"]
    assert ask("nv-eval ls tasks truthfulqa_mc1_1") == ["truthfulqa_mc1_100"]
    assert ask("nv-eval ls runs truth") == []


def test_invocations_and_their_tasks_complete(ask: Ask) -> None:
    journal = Journal.default()
    for id_ in ("aaaa1111", "bbbb2222"):
        journal.begin(id_, execution="local", deployment="smollm", folder="/", tasks=["ifeval", "gsm8k"])
    journal.close()

    assert sorted(ask("nv-eval status ")) == ["aaaa1111", "bbbb2222"]
    for command in ("logs", "results", "stop", "attach", "cleanup", "resume"):
        assert ask(f"nv-eval {command} b") == ["bbbb2222"]
    assert ask("nv-eval logs aaaa1111 i") == ["ifeval"]


def test_asking_for_invocations_makes_no_journal(ask: Ask, tmp_path: Path) -> None:
    assert ask("nv-eval status ") == []
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("line", ["nv-eval run deployment=nonsense deployment.", "nv-eval run a==[ execution.g"])
def test_a_mistake_on_the_line_does_not_end_completion(ask: Ask, line: str) -> None:
    assert ask(line)


def test_a_missing_folder_offers_nothing(ask: Ask) -> None:
    assert ask("nv-eval run --config-dir /nowhere deployment=") == []


def test_bash_completes_through_the_printed_code(tmp_path: Path) -> None:
    """The shell's half and the installed command's half together, as when TAB is pressed."""
    bin_folder = Path(sys.executable).parent
    script = """
        eval "$(nv-eval completion bash)"
        complete -p nv-eval
        COMP_LINE='nv-eval run deployment=v' COMP_POINT=24 COMP_TYPE=9
        COMP_WORDS=(nv-eval run deployment = v) COMP_CWORD=4
        _python_argcomplete nv-eval
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    env = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "HOME": str(tmp_path)}

    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=60, check=True)

    registered, *replies = done.stdout.splitlines()
    assert "-F _python_argcomplete nv-eval" in registered
    assert [reply.strip() for reply in replies] == ["vllm"]
