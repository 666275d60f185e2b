"""Which invocations are meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.errors import NotFound
from launcher.orchestrator.journal import Journal
from launcher.results.model import ModelRecord
from launcher.results.select import Filters, pick, select
from tests.unit.past_runs import PastTask, write_run

TASK = PastTask("gsm8k", {"acc": [1, 0]})
OTHER = PastTask("arc_easy", {"acc": [1, 1]})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NV_EVAL_HOME", str(tmp_path / "home"))
    journal = Journal.default()
    for number, (id_, tasks) in enumerate({"aaaa": (TASK,), "abbb": (TASK, OTHER), "cccc": (OTHER,)}.items()):
        folder = write_run(tmp_path / "results", id_, *tasks)
        begin(journal, id_, folder, 1000.0 * number)
    return tmp_path


def begin(journal: Journal, id_: str, folder: Path, created: float) -> None:
    journal.begin(id_, execution="local", deployment="smollm", folder=str(folder), tasks=["t"], hold=False)
    journal._db.execute("UPDATE invocations SET created = ? WHERE id = ?", (created, id_))


def ids(*names: str, **filters: object) -> list[str]:
    return [found.id for found in pick(names, Filters(**filters))]  # type: ignore[arg-type]


def test_without_anything_all_are_meant_oldest_first(home: Path):
    assert ids() == ["aaaa", "abbb", "cccc"]


def test_ids_prefixes_and_folders_keep_their_order(home: Path):
    assert ids("cccc", "aa", str(home / "results" / "abbb")) == ["cccc", "aaaa", "abbb"]


def test_a_time_leaves_earlier_ones_out(home: Path):
    assert ids(since=1000.0) == ["abbb", "cccc"]


def test_a_task_leaves_out_invocations_and_other_tasks(home: Path):
    found = pick((), Filters(tasks=("gsm*",)))
    assert [(one.id, [task.key for task in one.record.tasks if one.record]) for one in found if one.record] == [
        ("aaaa", ["gsm8k"]),
        ("abbb", ["gsm8k"]),
    ]


def test_a_model_is_known_by_either_of_its_names(home: Path):
    assert ids(models=("sma*",)) == ["aaaa", "abbb", "cccc"]


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        (Filters(tasks=("gsm8",)), "no invocation with a task gsm8; did you mean gsm8k?"),
        (Filters(models=("smal",)), "no invocation of a model smal; did you mean small?"),
    ],
)
def test_a_pattern_that_fits_nothing_is_refused_with_the_nearest_name(home: Path, filters: Filters, words: str):
    with pytest.raises(NotFound, match=words.replace("?", r"\?")):
        pick((), filters)


def test_an_unknown_id_is_refused(home: Path):
    with pytest.raises(NotFound, match="dddd: no such invocation"):
        pick(("dddd",))


def test_what_cannot_be_read_is_picked_with_its_problem(home: Path):
    (home / "results" / "aaaa" / "results.json").write_text('{"invocation": "aaaa", "crea')
    (home / "results" / "cccc" / "results.json").unlink()
    broken, whole, empty = pick()
    assert (broken.record, broken.is_broken, "results.json: broken" in broken.problem) == (None, True, True)
    assert (whole.problem, whole.record is not None) == ("", True)
    assert (empty.record, empty.is_broken) == (None, False)
    assert "no scores have come home" in empty.problem


def test_select_gives_the_folders(home: Path):
    assert select(task=["arc*"]) == [home / "results" / "abbb", home / "results" / "cccc"]


def test_a_model_that_nobody_named_fits_no_pattern(home: Path, tmp_path: Path):
    folder = write_run(tmp_path / "more", "eeee", TASK)
    text = (folder / "results.json").read_text()
    (folder / "results.json").write_text(text.replace('"served_name":"small"', '"served_name":null'))
    begin(Journal.default(), "eeee", folder, 9000.0)
    assert "eeee" not in ids(models=("*",))
    assert ModelRecord().served_name is None
