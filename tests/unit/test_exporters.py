"""Exporters: chosen by the config, found by entry points, sent in processes of their own, remembered by receipts."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from launcher.api import export, load_config, plan
from launcher.checks import own_checks
from launcher.cli import main as cli
from launcher.config.export import Fsspec, Leaderboard, chosen
from launcher.errors import ConfigError, NotFound, PreflightError
from launcher.harnesses.spec import Score
from launcher.results.exporters import fsspec, leaderboard, places, receipts, registry
from launcher.results.exporters.base import Bundle, numbers, score_name
from launcher.results.exporters.sending import State
from launcher.results.model import Record, TaskRecord
from tests.exporters.runs import INVOCATION, change, ended_run, mended

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "export.md").read_text()

FAILING = """
import os, subprocess, sys, time

class Exporter:
    summary, extra, modules = "fails in many ways", "", ()
    def __init__(self, options):
        self.options = options
        if options.get("refuses"):
            raise ValueError("no such key")
    def problems(self):
        return []
    def destination(self, bundle):
        return "nowhere"
    def send(self, bundle):
        print("noise that is no answer")
        if self.options.get("hangs"):
            open(self.options["hangs"], "w").write(str(os.getpid()))
            time.sleep(600)
        if self.options.get("dies"):
            os._exit(3)
        if self.options.get("leaves"):
            stubborn = "from signal import *; signal(SIGTERM, SIG_IGN); print(flush=True); import time; time.sleep(60)"
            left = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
            left.stdout.readline()
            open(self.options["leaves"], "w").write(str(left.pid))
            return
        if self.options.get("quotes"):
            raise RuntimeError("403 of https://somebody:pw1@host/\x1b]0;title\x07path")
        raise RuntimeError("token " + os.environ["ACME_TOKEN"] + " was refused")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NV_EVAL_HOME", str(tmp_path / "state"))
    return ended_run(tmp_path / "runs")


def install(place: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str, module: str = "acme_failing") -> None:
    """A package with an exporter, as pip leaves it, for this process and those it starts."""
    info = place / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[nv_eval.exporters]\n{name} = {module}:Exporter\n")
    (place / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")]))


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- config -----------------------------------------------------------------------------------------------------------


def test_options_of_the_group_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(overrides=["export=[files,leaderboard,otel]", "export.otel.service=ci"])

    assert config.export.formats == ["csv", "markdown"]
    found = chosen(config.export)
    assert list(found) == ["leaderboard", "otel"] and found["otel"].service == "ci"
    assert chosen(load_config().export) == {}


def test_an_unknown_key_is_one_line_with_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"^override: export\.mlflow\.tracking_url: unknown key; did you mean tracking_uri\?$"
    ):
        load_config(overrides=["export.mlflow.tracking_url=x"])
    with pytest.raises(ConfigError, match="did you mean mlflow"):
        load_config(overrides=["export.mlfow.tracking_uri=x"])


def test_exporters_of_other_packages_have_keys_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", monkeypatch, "acme", FAILING)

    config = load_config(overrides=["export.acme.anything.at=all", "export=leaderboard"])

    assert chosen(config.export)["acme"] == {"anything": {"at": "all"}}
    assert plan(config).export_config() == config.export


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["export=mlflow"], "tracking_uri: is not set|pip install 'nv-eval-launcher\\[mlflow\\]'"),
        (["export.fsspec.url=s4://bucket"], "export.fsspec.url: fsspec knows no s4://"),
        (["export.fsspec.url=/tmp/x", "export.fsspec.option_names.key=NO_SUCH"], "variable NO_SUCH is not set"),
        (["export.others.nothing={}"], "nothing: no such exporter"),
        (["export.acme.refuses=true"], "export.acme: ValueError: no such key"),
    ],
)
def test_what_cannot_work_is_refused_before_the_run(
    overrides: list[str], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", monkeypatch, "acme", FAILING)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    (check,) = own_checks(plan(load_config(overrides=overrides)))

    assert check.name == "export" and re.search(problem, check.message), check.message


def test_all_exporters_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ls", "exporters", "--json"]) == 0

    rows = {row["exporter"]: row for row in json.loads(capsys.readouterr().out)["exporters"]}
    assert set(rows) >= {"mlflow", "wandb", "trackio", "inspect", "huggingface", "leaderboard", "fsspec", "otel"}
    assert rows["leaderboard"]["ready"] is True


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_failed_tasks_and_scores_without_a_number_are_never_numbers() -> None:
    task = TaskRecord(key="a", name="a", harness="lm_eval", status="failed", reason="job_died", seconds=float("nan"))
    odd = [Score(task="a", metric="acc", filter="none", value=value, stderr=0.1) for value in (None, float("nan"))]

    assert [number.name for number in numbers(task)] == ["gpu_seconds"]
    assert [number.name for number in numbers(replace(task, scores=odd))] == ["gpu_seconds"]


def test_names_of_scores_tell_sub_task_and_filter() -> None:
    task = TaskRecord(key="mmlu", name="mmlu", harness="lm_eval", status="scored", reason="completed")

    named = [("mmlu", "acc", "none"), ("mmlu_law", "acc", "none"), ("mmlu", "exact_match", "strict")]

    names = [score_name(task, Score(task=t, metric=m, filter=f, value=1.0)) for t, m, f in named]
    assert names == ["acc", "mmlu_law/acc", "exact_match/strict"]


def test_the_digest_changes_with_scores_and_samples_only(folder: Path) -> None:
    before = Bundle.load(folder)
    assert before.digest == Bundle.load(folder).digest
    plain, whole = before.content(samples=False), before.content(samples=True)

    with next(folder.rglob("samples_*.jsonl")).open("a") as file:
        file.write("\n")
    assert Bundle.load(folder).content(samples=False) == plain
    assert Bundle.load(folder).content(samples=True) != whole
    change(folder, mended)
    assert Bundle.load(folder).digest != before.digest


def test_a_run_without_results_is_not_exported(folder: Path) -> None:
    (folder / "results.json").unlink()

    with pytest.raises(NotFound, match="the run has not ended"):
        Bundle.load(folder)


def test_a_model_name_leads_to_no_other_folder(folder: Path, tmp_path: Path) -> None:
    change(folder, lambda record: replace(record, model=replace(record.model, model_id="../../../evil/./x")))

    leaderboard.Exporter(Leaderboard(folder=str(tmp_path / "board"))).send(Bundle.load(folder))

    (path,) = tmp_path.rglob("results_2026-01-02T03-04-05.250000.json")
    assert path.parent == tmp_path / "board" / "evil" / "x"


def test_a_destination_shows_no_password(folder: Path) -> None:
    made = fsspec.Exporter(Fsspec(url="s3://user:secret@bucket/folder?key=x"))

    assert made.destination(Bundle.load(folder)) == f"s3://bucket/folder/{INVOCATION}"


# --- sending ----------------------------------------------------------------------------------------------------------


def test_an_unchanged_run_is_sent_once_and_a_changed_one_again(folder: Path, tmp_path: Path) -> None:
    keys = {"leaderboard": {"folder": str(tmp_path / "board")}}

    states = [export(folder, to=["leaderboard"], keys=keys)[0].state for _ in range(2)]
    change(folder, mended)
    states.append(export(folder, to=["leaderboard"], keys=keys)[0].state)

    assert states == [State.EXPORTED, State.UNCHANGED, State.EXPORTED]
    (receipt,) = receipts.load(folder).exports
    assert receipt.state == "exported" and receipt.destination.startswith(str(tmp_path / "board"))


@pytest.mark.parametrize(
    ("keys", "reason"),
    [({}, "RuntimeError: token *** was refused"), ({"dies": True}, "its process ended with exit code 3 and no answer")],
)
def test_a_failing_export_is_told_in_one_line_and_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, bool], reason: str
) -> None:
    install(tmp_path / "site", monkeypatch, "acme", FAILING)
    monkeypatch.setenv("ACME_TOKEN", "very-secret-token-1")

    (sent,) = export(folder, to=["acme"], keys={"acme": keys})

    assert (sent.state, sent.reason) == (State.FAILED, reason)
    assert (
        sent.line("nv-eval export x")
        == f"{INVOCATION}: acme: not exported to nowhere: {reason}; repeat it with: nv-eval export x"
    )
    assert "very-secret" not in (folder / "exports.json").read_text()
    assert receipts.load(folder).exports[0].reason == reason


def test_an_export_that_hangs_is_ended_in_time(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", monkeypatch, "acme", FAILING)
    (folder / "plan.json").write_bytes(msgspec.json.encode({"config": {"export": {"timeout": 1.0}}}))
    began = time.monotonic()

    (sent,) = export(folder, to=["acme"], keys={"acme": {"hangs": str(tmp_path / "pid")}})

    assert sent.reason == "took longer than export.timeout" and time.monotonic() - began < 10
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()


def test_what_an_export_leaves_behind_is_ended_though_it_went_well(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", monkeypatch, "acme", FAILING)

    (sent,) = export(folder, to=["acme"], keys={"acme": {"leaves": str(tmp_path / "pid")}})

    assert sent.state is State.EXPORTED
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_an_error_shows_no_login_of_a_url_and_commands_no_terminal(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path / "site", monkeypatch, "acme", FAILING)

    assert cli.main(["export", str(folder), "--to", "acme", "acme.quotes=true"]) == 7

    said = capsys.readouterr().err
    assert said.endswith("RuntimeError: 403 of https://host/path\n") and said.isascii() and "\x1b" not in said
    assert "pw1" not in (folder / "exports.json").read_text()


def test_the_time_limit_of_one_call_replaces_that_of_the_config(folder: Path) -> None:
    found = [registry.wanted(folder, ["leaderboard"], {}, timeout=limit).timeout for limit in (None, 7.5)]

    assert found == [60.0, 7.5]
    with pytest.raises(ConfigError, match="timeout: expected a number above 0"):
        registry.wanted(folder, ["leaderboard"], {}, timeout=0.0)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_an_export_ends_with_its_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    install(tmp_path / "acme", monkeypatch, "acme", FAILING)
    mark = tmp_path / "pid"
    command = [sys.executable, "-m", "launcher.cli.main", "export", str(folder), "--to", "acme", f"acme.hangs={mark}"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True) as exporting:
        wait_for(lambda: mark.exists() and mark.read_text() != "")
        exporting.send_signal(number)
        _, said = exporting.communicate(timeout=60)

    assert (exporting.returncode, said) == (code, b"" if code < 0 else b"nv-eval: interrupted\n")
    wait_for(lambda: not is_alive(int(mark.read_text())))
    assert receipts.load(folder).exports == []


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_exports_at_the_same_time_lose_no_receipt(tmp_path: Path) -> None:
    def keep(exporter: str) -> None:
        for number in range(10):
            receipts.keep(tmp_path, exporter, f"place {number}", content="c")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(keep, "abcd"))

    assert len(receipts.load(tmp_path).exports) == 40


def test_a_broken_list_of_receipts_counts_as_none(folder: Path, tmp_path: Path) -> None:
    (folder / "exports.json").write_text('{"exports": [')

    (sent,) = export(folder, to=["leaderboard"])

    assert sent.state is State.EXPORTED and len(receipts.load(folder).exports) == 1


def test_what_a_server_says_commands_no_spreadsheet_that_opens_the_table_of_tasks(folder: Path, tmp_path: Path) -> None:
    def told(record: Record) -> Record:
        first, *others = record.tasks
        return replace(record, tasks=[replace(first, detail="=cmd|'/C calc'!A1\x1b[2J"), *others])

    change(folder, told)

    export(folder, to=["fsspec"], keys={"fsspec": {"url": str(tmp_path / "place"), "formats": ["csv"]}})

    (row, *_) = csv.DictReader((tmp_path / "place" / INVOCATION / "tasks.csv").read_text().splitlines())
    assert row["detail"] == "'=cmd|'/C calc'!A1"


# --- command line -----------------------------------------------------------------------------------------------------


def test_export_takes_folders_and_keys_in_any_order(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "with 'quotes'"
    words = [str(folder), "--to", "fsspec", f"fsspec.url='{str(place).replace(chr(39), chr(92) + chr(39))}'"]

    assert cli.main(["export", *words, "export.fsspec.formats=[csv]", "fsspec.artifacts=false"]) == 0

    assert capsys.readouterr().out == f"{INVOCATION}: fsspec: exported to {place}/{INVOCATION}\n"
    assert sorted(path.name for path in place.rglob("*.csv")) == ["scores.csv", "tasks.csv"]


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (["--to", "mlfow"], 2, "--to mlfow: no such exporter; did you mean mlflow?"),
        (["--to", "fsspec"], 2, "fsspec.url: is missing"),
        (["--to", "fsspec", "fsspec.uri=x"], 2, "fsspec.uri: unknown key; did you mean url?"),
        (["--to", "leaderboard", "mlflow.experiment=x"], 2, "mlflow: has keys, and nothing is exported to it"),
        ([], 2, "its config exports to nothing; name a place with --to"),
        (["--to", "fsspec", "fsspec.url=s4://x"], 3, "fsspec knows no s4://"),
    ],
)
def test_mistakes_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, problem: str
) -> None:
    assert cli.main(["export", str(folder), *words]) == code
    assert problem in capsys.readouterr().err
    assert not (folder / "exports.json").exists()


def test_one_that_fails_gives_the_command_its_exit_code(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path / "site", monkeypatch, "acme", FAILING)

    assert cli.main(["export", str(folder), "--to", "leaderboard", "--to", "acme", "acme.dies=true"]) == 7

    told = capsys.readouterr()
    assert "leaderboard: exported to" in told.out and "acme: not exported to nowhere" in told.err


# --- documentation ----------------------------------------------------------------------------------------------------


def test_the_documented_exporter_works(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, toml = (re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL) for kind in ("python", "toml"))
    assert code and toml and 'lines = "acme_lines:Exporter"' in toml.group(1)
    install(tmp_path / "site", monkeypatch, "lines", code.group(1), "acme_lines")
    path = tmp_path / "scores.tsv"

    for _ in range(2):
        (sent,) = export(folder, to=["lines"], keys={"lines": {"path": str(path)}}, again=True)
        assert not sent.reason
    lines = dict(line.split("\t") for line in path.read_text().splitlines())

    assert json.loads(lines[f"{INVOCATION}/broken"]) == {"status": "failed", "scores": {}}
    assert json.loads(lines[f"{INVOCATION}/gsm8k"])["scores"] == {"exact_match,none": 0.5}
    with pytest.raises(PreflightError, match=r"export\.lines\.path: no folder"):
        export(folder, to=["lines"], keys={"lines": {"path": str(tmp_path / "no" / "x")}})


def test_the_page_names_every_exporter() -> None:
    assert [found.name for found in registry.known() if f"| `{found.name}` |" not in PAGE] == []


@pytest.mark.parametrize("url", ["ftp://u:canary@host/x?key=canary", "filecache::ftp://u:canary@host/x"])
def test_a_place_is_shown_without_who_logs_in_there(url: str):
    assert "canary" not in places.shown(url) and places.shown(url).endswith("ftp://host/x")


def test_receipts_that_are_no_text_are_as_good_as_none(tmp_path: Path):
    (tmp_path / receipts.FILE).write_bytes(b'{"schema": "\xff"}')
    assert receipts.load(tmp_path).exports == []
