"""What can be named as a task of lm-eval, and what is known of it before a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from launcher.config.evaluation import Settings
from launcher.errors import ConfigError
from launcher.harnesses import HARNESSES, load_harness
from launcher.harnesses.lm_eval import IndexEntry, index, search
from launcher.harnesses.lm_eval.catalogue import find

LM_EVAL = load_harness("lm_eval")


@pytest.fixture(autouse=True)
def shipped_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped index, whatever lm-eval is installed beside the tests."""
    monkeypatch.setattr(index, "installed_version", lambda: index.SHIPPED_VERSION)


@pytest.mark.parametrize(
    ("task", "needs_loglikelihood"),
    [
        ("hellaswag", True),
        ("wikitext", True),
        ("lambada_openai", True),
        ("gsm8k", False),
        ("ifeval", False),
        ("longbench_qasper", False),
        ("squadv2", True),
        ("scrolls_govreport", False),
        ("mmlu", True),
        ("leaderboard", True),
        ("bbh", False),
        ("truthfulqa", True),
        ("hellaswag_100", True),
        ("gsm8k_100", False),
    ],
)
def test_the_route_a_task_needs_is_known_before_the_run(task: str, needs_loglikelihood: bool) -> None:
    info = LM_EVAL.describe(task, Settings())
    assert info.needs_loglikelihood is needs_loglikelihood
    assert info.endpoint_types == (("completions",) if needs_loglikelihood else ("completions", "chat"))


def test_a_group_knows_its_size_and_every_folder_it_needs() -> None:
    leaderboard = find("leaderboard")
    assert (leaderboard.kind, leaderboard.tasks) == ("group", 39)
    assert leaderboard.output_types == ("generate_until", "multiple_choice")
    assert {"leaderboard", "leaderboard/ifeval", "leaderboard/bbh_mc"} <= set(leaderboard.folders)
    assert leaderboard.folder == "leaderboard"
    assert (
        find("mmlu_anatomy").groups == ("mmlu_stem", "mmlu_stem_tasks")
        or "mmlu_stem_tasks" in find("mmlu_anatomy").groups
    )


def test_sizes_are_known_for_famous_and_offline_tasks_only() -> None:
    sizes = {
        name: LM_EVAL.describe(name, Settings()).samples for name in ("gsm8k", "gsm8k_100", "aclue_poetry_appreciate")
    }
    assert sizes == {"gsm8k": 1319, "gsm8k_100": 100, "aclue_poetry_appreciate": None}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("helaswag", "no task 'helaswag' in lm-eval 0.4.13; did you mean hellaswag, "),
        ("qqqqqqqqqq", "no task 'qqqqqqqqqq' in lm-eval 0.4.13; no name is close"),
        ("hellaswag\t", "no task 'hellaswag\\t' in lm-eval 0.4.13"),
        ("gsm8k,hellaswag", "'gsm8k,hellaswag' names several tasks; give each an entry of its own in evaluation.tasks"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LM_EVAL.describe(name, Settings())
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(message)
    assert "," in name or caught.value.problems[0].endswith("See: nv-eval ls tasks PATTERN")


@pytest.mark.parametrize("pattern", ["_100", "*_100", "*_1?0"])
def test_offline_tasks_are_found_like_all_others(pattern: str) -> None:
    found = {entry.name: entry for entry in search(pattern)}
    assert found.keys() >= {"gsm8k_100", "hellaswag_100", "truthfulqa_mc1_100"}
    assert found["hellaswag_100"].samples == 100


def test_search_without_a_pattern_lists_everything_once() -> None:
    names = [entry.name for entry in search()]
    assert len(names) == len(set(names)) > 14_000
    assert names == sorted(names)


def test_every_line_of_the_index_is_found_by_name() -> None:
    shipped = index.load_index()
    assert shipped.version == index.SHIPPED_VERSION
    entries = list(shipped)
    assert [shipped.get(entry.name) for entry in entries[::97]] == entries[::97]
    assert all(entry.output_types and entry.folders for entry in entries if entry.kind == "task")


@pytest.mark.parametrize(
    ("name", "is_zero_shot"),
    [
        ("gsm8k", False),
        ("mmlu", False),
        ("truthfulqa_mc1", True),
        ("truthfulqa", True),
        ("ifeval", True),
        ("tinyBenchmarks", True),
        ("no_such", None),
    ],
)
def test_tasks_whose_definition_allows_no_examples_are_known(name: str, is_zero_shot: bool | None) -> None:
    found = index.load_index().get(name)
    assert (found and found.is_zero_shot) is is_zero_shot


def test_a_group_of_the_users_own_says_how_many_examples_its_tasks_have(tmp_path: Path) -> None:
    groups = {
        "plain": "[none, gsm8k]",
        "fixed": "[none, fixed_task]",
        "freed": "[{task: fixed_task, num_fewshot: 4}, {task: truthfulqa_mc1, num_fewshot: 4}]",
        "bound": "[{task: gsm8k, num_fewshot: 0}]",
        "theirs": "[truthfulqa_mc1]",
    }
    (tmp_path / "none.yaml").write_text("task: none\n")
    (tmp_path / "fixed_task.yaml").write_text("task: fixed_task\nnum_fewshot: 0\ntag: fixed_tag\n")
    for name, tasks in groups.items():
        (tmp_path / f"{name}.yaml").write_text(f"group: {name}\ntask: {tasks}\n")

    found = {name: find(name, str(tmp_path)).is_zero_shot for name in (*groups, "none", "fixed_task", "fixed_tag")}

    fixed = {name for name, is_zero_shot in found.items() if is_zero_shot}
    assert fixed == {"fixed", "bound", "theirs", "fixed_task", "fixed_tag"}


def test_search_ignores_case() -> None:
    assert search("HellaSwag") == search("hellaswag") != []


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    (folder / "sub").mkdir(parents=True)
    (folder / "base").write_text("output_type: multiple_choice\ntag: [my_tag]\nprocess_docs: !function utils.f\n")
    (folder / "choice.yaml").write_text("include: base\ntask: my_choice\n")
    (folder / "sub" / "answer.yaml").write_text("include: ../base\ntask: my_answer\noutput_type: generate_until\n")
    (folder / "plain.yaml").write_text("task: my_plain\n")
    (folder / "hellaswag.yaml").write_text("task: hellaswag\noutput_type: generate_until\n")
    (folder / "group.yaml").write_text("group: my_group\ntask: [my_plain, gsm8k, {task: my_answer}]\n")
    (folder / "mixed.yaml").write_text("group: my_mixed\ntask:\n- group: inner\n  task: [my_group, arc_easy]\n")
    (folder / "broken.yaml").write_text("task: [\n")
    (folder / "loop.yaml").write_text("include: loop.yaml\ntask: my_loop\n")
    return folder


@pytest.mark.parametrize(
    ("name", "kind", "types", "folders", "tasks"),
    [
        ("my_choice", "task", ("multiple_choice",), (), 1),
        ("my_answer", "task", ("generate_until",), (), 1),
        ("my_plain", "task", ("generate_until",), (), 1),
        ("my_tag", "group", ("generate_until", "multiple_choice"), (), 2),
        ("my_group", "group", ("generate_until",), ("gsm8k",), 3),
        ("my_mixed", "group", ("generate_until", "multiple_choice"), ("arc", "gsm8k"), 4),
    ],
)
def test_a_users_folder_is_read_without_running_its_code(
    mine: Path, name: str, kind: str, types: tuple[str, ...], folders: tuple[str, ...], tasks: int
) -> None:
    entry = find(name, str(mine))
    assert (entry.kind, entry.output_types, entry.folders, entry.tasks) == (kind, types, folders, tasks)
    assert entry.include_path == str(mine)


def test_a_users_definition_wins_over_lm_evals(mine: Path) -> None:
    assert find("hellaswag").needs_loglikelihood
    assert not find("hellaswag", str(mine)).needs_loglikelihood
    assert [entry.include_path for entry in search("hellaswag", str(mine)) if entry.name == "hellaswag"] == [str(mine)]


def test_an_unknown_name_tells_of_unreadable_files_in_the_users_folder(mine: Path) -> None:
    with pytest.raises(ConfigError, match=r"nor in .*mine \(unreadable files there: 2; the first: .*broken\.yaml"):
        find("my_choices", str(mine))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^evaluation\.include_path: .*nowhere: no such folder$"):
        find("gsm8k", str(tmp_path / "nowhere"))


def test_the_index_of_another_version_is_used_only_where_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "installed_version", lambda: "0.9.9")
    monkeypatch.setenv("NV_EVAL_HOME", str(tmp_path))
    assert index.load_index().version == index.SHIPPED_VERSION
    assert list(tmp_path.iterdir()) == [], "a look-up writes nothing"

    other = f"{index.SCHEMA} 0.9.9\n[folders]\nnew\n[groups]\nfamily\tg\t0\t\t1\n[tasks]\nnew_task\tg\t0\t0\n[end]\n"
    (tmp_path / "cache").mkdir()
    index.cache_file("0.9.9").write_text(other)
    assert find("new_task") == IndexEntry(
        name="new_task", kind="task", output_types=("generate_until",), groups=("family",), folders=("new",)
    )
    with pytest.raises(ConfigError, match=r"no task 'hellaswag' in lm-eval 0\.9\.9"):
        find("hellaswag")


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"NV_EVAL_HOME": "/a", "XDG_CACHE_HOME": "/b"}, "/a/cache/lm_eval-1.2.txt"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/nv-eval/lm_eval-1.2.txt"),
        ({"HOME": "/c"}, "/c/.cache/nv-eval/lm_eval-1.2.txt"),
    ],
)
def test_indexes_are_kept_in_the_cache_folder(
    env: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NV_EVAL_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert index.cache_file("1") == Path(expected)


def test_a_file_that_is_no_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("nv-eval.lm-eval-index/1 0.4.13\n")
    with pytest.raises(ValueError, match="is not an index of"):
        index.Index(tmp_path / "x")


def test_harnesses_load_by_name() -> None:
    assert LM_EVAL.name == "lm_eval"
    assert load_harness("lm_eval") is LM_EVAL
    with pytest.raises(ConfigError, match=r"no harness 'lm_evl'; did you mean lm_eval\?"):
        load_harness("lm_evl")
    assert HARNESSES == ("lm_eval", "nemo_evaluator", "command")


def test_planning_imports_neither_lm_eval_nor_what_it_needs() -> None:
    program = (
        "import sys\nfrom launcher.harnesses import load_harness\nfrom launcher.config.evaluation import Settings\n"
        "load_harness('lm_eval').describe('mmlu', Settings())\n"
        "print(*sorted({'lm_eval', 'datasets', 'pandas', 'numpy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""
