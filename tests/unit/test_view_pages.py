"""What the pages of `nv-eval view` show, also of what is broken, gone or hostile."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path

import pytest

from launcher.orchestrator.journal import Fact, Journal
from launcher.view import comparing, listing, tables
from tests.unit.past_runs import PastTask
from tests.unit.viewing import Office, client, enter

HOSTILE = "<script>x</script><img src=x onerror=y>"


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    journal = Journal(tmp_path / "journal.db")
    with client(tmp_path / "journal.db") as browser:
        yield Office(tmp_path, journal, enter(browser))
    journal.close()


def words(values: list[float | None], key: str = "words", **fields: object) -> PastTask:
    return PastTask(key, {"acc": values}, **fields)  # type: ignore[arg-type]


def test_without_a_journal_nothing_is_made(tmp_path: Path) -> None:
    with client(tmp_path / "journal.db") as browser:
        assert "no journal yet" in enter(browser).get("/").text

        assert list(tmp_path.iterdir()) == []

        Journal(tmp_path / "journal.db").close()
        assert "No invocation yet" in browser.get("/").text


def test_looking_writes_nothing_to_the_journal(office: Office) -> None:
    office.past("aaaa0001", words([1.0]))
    office.journal.close()
    before = (office.root / "journal.db").read_bytes()

    for address in ("/", "/runs/aaaa0001", "/runs/aaaa0001/tasks/words", "/scores"):
        office.text(address)

    assert (office.root / "journal.db").read_bytes() == before
    reading = Journal.reading(office.root / "journal.db")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reading._db.execute("DELETE FROM facts")
    reading.close()


@pytest.mark.parametrize(("version", "said"), [(1, "an earlier nv-eval"), (99, "a later nv-eval")])
def test_a_journal_of_another_version_is_named_and_left_as_it_is(tmp_path: Path, version: int, said: str) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal._db.execute(f"PRAGMA user_version = {version}")
    with client(tmp_path / "journal.db") as browser:
        assert said in enter(browser).get("/").text
    assert journal._db.execute("PRAGMA user_version").fetchone() == (version,)
    journal.close()


def test_a_journal_that_is_replaced_is_read_anew(office: Office) -> None:
    office.past("aaaa0001", words([1.0]))
    assert "aaaa0001" in office.text("/")
    (office.root / "journal.db").rename(office.root / "away")
    for left in office.root.glob("journal.db-*"):
        left.unlink()
    assert "aaaa0001" not in office.text("/") and "no journal yet" in office.text("/")

    other = Journal(office.root / "journal.db")
    Office(office.root, other, office.browser).begin("bbbb0001", "words")

    assert "bbbb0001" in office.text("/")
    other.close()


def test_the_list_says_how_each_invocation_stands(office: Office) -> None:
    office.past("aaaa0001", words([1.0]))
    office.begin("dead0001", "one", "two")
    office.begin("live0001", "one", "two", hold=True, model="large")
    office.journal.record("live0001", Fact.TASK_COLLECTED, "one", reason="harness_failed")
    office.journal.beat("live0001", [{"task": "two", "done": 3, "total": 9, "usd": 1.5}])

    shown = {run.id: run for run in office.desk.watcher.runs()}

    assert {name: listing.outcome(run) for name, run in shown.items()} == {
        "aaaa0001": "scored",
        "dead0001": "interrupted",
        "live0001": "running",
    }
    live = shown["live0001"]
    assert (listing.over(live), listing.failures(live), listing.samples(live)) == (1, 1, (3, 9))
    page = office.text("/")
    assert page.index("live0001") < page.index("dead0001") < page.index("aaaa0001"), "newest first"
    assert "1.50 USD" in page and "large" in page


def test_the_list_is_filtered_and_has_pages(office: Office) -> None:
    for number in range(listing.PAGE + 5):
        office.begin(f"many{number:04}", "one", model="large" if number == 7 else "small")

    assert office.text("/").count("<tr id=") == listing.PAGE and "Page 1 of 2" in office.text("/")
    assert office.text("/?page=2").count("<tr id=") == 5
    assert office.text("/?page=999").count("<tr id=") == 5
    assert office.text(f"/?page={'9' * 5000}") == office.text("/")
    assert office.text("/?q=LARGE").count("<tr id=") == 1
    assert office.text("/?state=scored").count("<tr id=") == 0
    assert office.text("/?state=interrupted&q=many000").count("<tr id=") == 10


def test_an_invocation_shows_tasks_scores_and_what_makes_them_reproducible(office: Office) -> None:
    folder = office.past("aaaa0001", words([1.0, 0.0, 1.0, 1.0], score={"low": 0.3, "high": 0.95}))
    (folder / "config.yaml").write_text("limit: 4\n")

    page = office.text("/runs/aaaa0001")

    assert "0.7500" in page and "0.3000 to 0.9500" in page and "limit: 4" in page and "dataset_fingerprint" in page


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"invocation": "aaaa', "broken: Input data was truncated"),
        ('{"schema": "nv-eval.results/1"}', "broken: Object missing required field"),
        ("[" * 50_000, "broken"),
    ],
)
def test_broken_results_are_shown_as_that(office: Office, content: str, said: str) -> None:
    folder = office.past("aaaa0001", words([1.0]))
    (folder / "results.json").write_text(content)

    for address in ("/runs/aaaa0001", "/scores"):
        assert said in office.text(address), address


def test_a_score_without_a_value_is_no_number(office: Office) -> None:
    office.past("aaaa0001", words([None, None]))

    for address in ("/runs/aaaa0001", "/scores"):
        page = office.text(address)
        assert not re.search(r"\bnan\b", page.lower()) and '<td class="num strong">\N{EN DASH}</td>' in page


def test_a_folder_that_is_gone_is_said_to_be(office: Office) -> None:
    folder = office.past("aaaa0001", words([1.0]))
    assert "1.0000" in office.text("/runs/aaaa0001")
    folder.rename(office.root / "elsewhere")

    assert "The folder of this invocation is gone" in office.text("/runs/aaaa0001")
    assert "The folder of this invocation is gone" in office.text("/scores")
    assert "No samples are kept" in office.text("/runs/aaaa0001/tasks/words?show=samples")


def test_why_a_task_failed_stands_with_its_last_lines(office: Office) -> None:
    folder = office.begin("aaaa0001", "words")
    office.past("bbbb0001", words([], key="words"))
    record = json.loads((office.root / "results" / "bbbb0001" / "results.json").read_text())
    record["tasks"][0] |= {
        "status": "failed",
        "scores": [],
        "reason": "endpoint_out_of_memory",
        "evidence": {"endpoint": [f"CUDA error {HOSTILE}"]},
        "attempts": [{"number": 1, "reason": "preempted", "detail": "taken away"}],
    }
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(record))
    office.journal.record("aaaa0001", Fact.TASK_COLLECTED, "words", reason="endpoint_out_of_memory")

    page = office.text("/runs/aaaa0001")

    assert escape(f"CUDA error {HOSTILE}", quote=False) in page and HOSTILE not in page
    assert "preempted" in page and "taken away" in page and "take a larger shape" in page


def test_an_auxiliary_endpoint_is_none_of_the_tasks_that_are_counted(office: Office) -> None:
    office.begin("aaaa0001", "words")
    office.journal.record("aaaa0001", Fact.RUN_STARTED, auxiliary=["judge"])
    office.journal.record("aaaa0001", Fact.INTEND_CREATE_ENDPOINT, "judge", "vllm-judge")
    office.journal.record("aaaa0001", Fact.TASK_COLLECTED, "words", reason="completed")
    office.journal.record("aaaa0001", Fact.TASK_ENDED, "judge", reason="released")
    office.journal.record("aaaa0001", Fact.RUN_ENDED, exit_code=0, leftovers=[])

    (run,) = office.desk.watcher.runs()

    assert (listing.outcome(run), listing.over(run), listing.failures(run)) == ("scored", 1, 0)
    page = office.text("/runs/aaaa0001")
    assert 'judge</a> <span class="quiet">auxiliary</span>' in page and "badge failed" not in page
    assert "Job log" not in office.text("/runs/aaaa0001/tasks/judge")


def test_points_of_a_sweep_are_found_by_its_id(office: Office) -> None:
    office.begin("aaaa0001", "words")
    office.begin("bbbb0001", "words")
    office.journal.change(
        ("INSERT INTO points VALUES (?,?,?,?,?,?,?)", [("sweep-1234", 0, "bbbb0001", "i", "seed=1", b"", "")])
    )

    assert office.text("/?q=sweep-1234").count("<tr id=") == 1
    assert 'href="/?q=sweep-1234"' in office.text("/runs/bbbb0001")


@pytest.mark.parametrize(
    "address",
    [
        "/runs/aaaa",
        "/runs/%2e%2e",
        "/runs/..%2f..%2fetc%2fpasswd",
        "/runs/aaaa0001/tasks/%2e%2e%2f%2e%2e%2fetc",
        "/runs/aaaa0001/tasks/words/earlier?source=../job",
        "/runs/aaaa0001/tasks/words%00/earlier?source=job",
        "/static/%2e%2e%2fapp.py",
        "/events/runs/nobody",
        "/events/runs/aaaa0001/tasks/words?source=..",
    ],
)
def test_addresses_lead_to_nothing_that_the_journal_does_not_know(office: Office, address: str) -> None:
    office.past("aaaa0001", words([1.0]))

    assert "traceback" not in office.text(address, 404).lower()


def test_files_outside_of_the_folder_are_not_shown(office: Office) -> None:
    folder = office.past("aaaa0001", words([1.0]))
    office.past("aaaa0002", words([1.0]))
    secret = office.root / "secret"
    secret.write_text("not yours")
    for name in ("config.yaml", "words/job.log"):
        (folder / name).symlink_to(secret)
    assert "not yours" not in office.text("/runs/aaaa0001") + office.text("/runs/aaaa0001/tasks/words")

    (folder / "words" / "output" / "more").symlink_to(office.root)
    for pattern, address in (
        ("samples_*", "/runs/aaaa0001/tasks/words?show=samples"),
        ("samples_*", "/compare?ids=aaaa0001,aaaa0002&part=1"),
        ("results.json", "/runs/aaaa0001"),
    ):
        path = next(found for found in folder.rglob(pattern))
        if not path.is_symlink():
            path.rename(office.root / path.name)
            path.symlink_to(office.root / path.name)
        assert "leads out of the invocation" in office.text(address), address


def test_a_task_s_folder_that_leads_elsewhere_is_not_read(office: Office) -> None:
    folder = office.past("aaaa0001", words([1.0], prompt="not yours"))
    (folder / "words" / "job.log").write_text("not yours")
    (folder / "results.json").unlink()
    (folder / "words" / "scores.json").write_text("[]")
    (folder / "words").rename(office.root / "words")
    (folder / "words").symlink_to(office.root / "words")

    assert "leads out of the invocation" in office.text("/runs/aaaa0001")
    assert "leads out of the invocation" in office.text("/runs/aaaa0001/tasks/words?show=samples")
    assert "not yours" not in office.text("/runs/aaaa0001/tasks/words?show=job")


# --- samples ------------------------------------------------------------------------------------------------------


def test_samples_are_filtered_searched_and_paged(office: Office) -> None:
    values: list[float | None] = [1.0, 0.0, None] * 15
    office.past("aaaa0001", words(values, prompt="Question {id}?"))
    base = "/runs/aaaa0001/tasks/words?show=samples"

    assert office.text(base).count('<details class="sample"') == 20 and "45 samples." in office.text(base)
    assert office.text(f"{base}&page=3").count('<details class="sample"') == 5
    assert "15 of 45 samples." in office.text(f"{base}&kind=low") and "answer 1.0" not in office.text(
        f"{base}&kind=low"
    )
    assert "15 of 45 samples." in office.text(f"{base}&kind=none")
    found = office.text(f"{base}&q=QUESTION 44")
    assert "1 of 45 samples." in found and "Question 44?" in found


def test_hostile_samples_are_text(office: Office) -> None:
    folder = office.past("aaaa0001", words([1.0], prompt="PROMPT"))
    path = next(folder.rglob("samples_*"))
    path.write_text(path.read_text().replace("PROMPT", json.dumps(f"{HOSTILE} \x1b[31mred\ud800 \u202etxt")[1:-1]))

    page = office.text("/runs/aaaa0001/tasks/words?show=samples")

    assert HOSTILE not in page and "&lt;script&gt;" in page
    assert "\x1b" not in page and "\u202e" not in page and r"red\ud800 txt" in page


def test_a_very_long_sample_is_cut_and_said_to_be(office: Office) -> None:
    office.past("aaaa0001", words([1.0], prompt="x" * 1_000_000))

    page = office.text("/runs/aaaa0001/tasks/words?show=samples")

    assert len(page) < 100_000 and "980,000 more characters" in page


def test_broken_samples_are_shown_as_that(office: Office) -> None:
    folder = office.past("aaaa0001", words([1.0, 0.0]))
    path = next(folder.rglob("samples_*"))
    path.write_text(path.read_text()[:-40])

    assert "broken or cut off" in office.text("/runs/aaaa0001/tasks/words?show=samples")


# --- scores and comparisons -----------------------------------------------------------------------------------------


def test_scores_of_all_invocations_are_filtered_and_paged(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "PAGE", 2)
    office.past("aaaa0001", words([1.0], key="mmlu"), words([0.0], key="gsm8k"))
    office.past("bbbb0001", words([1.0], key="mmlu"))

    assert office.text("/scores").count("<tr>") == 3 and "Next" in office.text("/scores")
    assert office.text("/scores?page=2").count("<tr>") == 2
    assert office.text("/scores?task=gsm*").count("<tr>") == 2
    assert office.text("/scores?id=bbbb").count("<tr>") == 2
    assert "No scores." in office.text("/scores?model=other")
    assert "aaaa0001" in office.text("/scores?days=1&task=gsm8k")


def test_runs_are_compared_with_the_samples_that_flipped(office: Office) -> None:
    office.past("aaaa0001", words([1.0, 0.0, 1.0]))
    office.past("bbbb0001", words([1.0, 1.0, 0.0]))

    assert 'hx-get="/compare?ids=aaaa0001%2Cbbbb0001&amp;part=1"' in office.text("/compare?ids=aaaa0001&ids=bbbb0001")
    chosen = office.text("/compare?ids=bbbb0001&ids=aaaa0001&first=last")
    assert 'value="aaaa0001,bbbb0001"' in chosen, "the oldest of a list is the baseline"
    part = office.text("/compare?ids=aaaa0001,bbbb0001&part=1&flips=1")
    assert "exact McNemar" in part and part.count('<details class="sample"') == 2 and "1 → 0" in part
    assert "bbbb0001" in office.text("/runs/aaaa0001/tasks/words?show=flips")


def test_what_cannot_be_compared_is_said_in_words(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.past("aaaa0001", words([1.0, 0.0]))
    office.past("bbbb0001", words([1.0, 0.0], score={"version": "2.0"}))
    office.past("cccc0001", words([1.0, 0.0], key="other"))
    part = "/compare?ids=aaaa0001,bbbb0001&part=1"

    assert "version of the task: 1.0 in the baseline, 2.0 in the candidate" in office.text(part)
    assert "exact McNemar" not in office.text(part) and "exact McNemar" in office.text(f"{part}&force=1")
    assert "no scored task in common" in office.text("/compare?ids=aaaa0001,cccc0001&part=1")
    assert "nobody: no such invocation" in office.text("/compare?ids=aaaa0001,nobody&part=1")

    def without(name: str) -> None:
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy.stats")

    monkeypatch.setattr(comparing, "import_module", without)
    assert "pip install &#39;nv-eval-launcher[stats]&#39;" in office.text(part)


# --- speed ----------------------------------------------------------------------------------------------------------


def test_a_thousand_invocations_are_a_page_at_once(office: Office) -> None:
    office.journal._db.execute("PRAGMA synchronous = OFF")
    office.journal._db.execute("BEGIN")
    facts, invocations = [], []
    for number in range(1000):
        id_, now = f"many{number:04}", time.time()
        tasks = [f"task{place}" for place in range(10)]
        invocations.append((id_, now, "local", "smollm", f"/gone/{id_}", json.dumps(tasks), "here", 1, ""))
        facts.append((now, id_, None, "run_started", "", "{}"))
        facts += [
            (now, id_, task, kind, "name", '{"reason": "completed"}')
            for task in tasks
            for kind in ("intend_create_endpoint", "endpoint_created", "task_evaluating", "task_collected", "task_gone")
        ]
        facts.append((now, id_, None, "run_ended", "", '{"exit_code": 0}'))
    office.journal._db.executemany("INSERT INTO invocations VALUES (?,?,?,?,?,?,?,?,?)", invocations)
    office.journal._db.executemany(
        "INSERT INTO facts (time,invocation,task,kind,name,data) VALUES (?,?,?,?,?,?)", facts
    )
    office.journal._db.execute("COMMIT")
    office.text("/")  # once, when the server starts

    began = time.perf_counter()
    page = office.text("/?page=3")

    assert time.perf_counter() - began < 0.3 and "Page 3 of 20" in page


@pytest.mark.parametrize("plan", [b"[" * 100_000, b'{"tasks": [{"target": {"model": "\xff"}}]}', b"{"])
def test_a_plan_that_cannot_be_read_is_a_run_without_a_model(office: Office, plan: bytes) -> None:
    office.journal.begin(
        "damaged1", execution="local", deployment="d", folder="gone", tasks=["t"], plan=plan, hold=False
    )
    office.journal.record("damaged1", Fact.RUN_STARTED)

    assert "damaged1" in office.text("/")
