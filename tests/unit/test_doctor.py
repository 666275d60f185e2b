"""`nv-eval doctor`: what it finds, how each failing line is mended, and that nothing of it can hang or change much."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
import time
import tomllib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher.emulators.deepinfra import DeepInfraEmulator
from launcher.emulators.lepton import Config, LeptonEmulator, Token
from launcher.orchestrator import doctor, schema
from launcher.orchestrator.doctor import Examination, examinations, examine, runnable
from launcher.orchestrator.journal import Journal, state_folder
from launcher.platforms import checkup
from launcher.platforms.base import Check, CheckState
from launcher.platforms.deepinfra.credentials import KEY_VARIABLES
from tests.unit.conftest import Desk

OK, PROBLEM, SKIPPED = CheckState.OK, CheckState.PROBLEM, CheckState.SKIPPED
TOKEN = "nvapi-loopbacktoken0001"
LINE = re.compile(r"(ok|PROBLEM|-) +(\S+(?: \S+)*?)  +(\S.*)")


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORKSPACE_ID", "WORKSPACE_TOKEN", "WORKSPACE_URL", "WORKSPACE_ORIGIN_URL", "CACHE_DIR"):
        monkeypatch.delenv(f"LEPTON_{name}", raising=False)
    for name in (*KEY_VARIABLES, "DEEPINFRA_BASE_URL", "DEEPINFRA_HOST", "DOCKER_HOST"):
        monkeypatch.delenv(name, raising=False)


def fixed(state: CheckState, name: str = "x", **keys: object) -> Examination:
    return Examination(name=name, look=lambda _: [Check(name, state, "m")], **keys)  # type: ignore[arg-type]


def told(out: str) -> list[tuple[str, str, str]]:
    """Sign, name and message of each line, however wide the columns are."""
    return [match.groups() for line in out.splitlines() if (match := LINE.fullmatch(line))]  # type: ignore[misc]


# --- the whole ----------------------------------------------------------------------------------------------------


def test_a_machine_with_python_alone_can_run_processes_and_nothing_is_left_behind(desk: Desk) -> None:
    before = desk.files()

    code, out, err = desk.nv_eval("doctor", "--json")

    found = json.loads(out)
    assert (code, err) == (0, "")
    assert (found["schema"], found["exit_code"]) == ("nv-eval.doctor/1", 0)
    assert "execution=local" in found["can_run"]
    assert list(dict.fromkeys(check["examination"] for check in found["checks"])) == [e.name for e in examinations()]
    assert {check["state"] for check in found["checks"]} <= {"ok", "problem", "skipped"}
    assert desk.files() == before


def test_what_is_not_there_says_how_to_get_it(desk: Desk) -> None:
    code, out, _ = desk.nv_eval("doctor")

    assert code == 0
    absent = {name: message for sign, name, message in told(out) if sign == "-"}
    assert absent["lepton"].startswith("no workspace; log in with: nv-eval login lepton, or set LEPTON_WORKSPACE_ID")
    assert absent["deepinfra"].startswith("no API key; make one at https://deepinfra.com/dash/api_keys and set DEEPINF")
    assert absent["slurm"].startswith("no Slurm on this machine")
    assert out.splitlines()[-1].startswith("This machine can run: execution=local")


def test_without_a_place_for_the_state_nothing_can_run(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NV_EVAL_HOME", str(desk.write("a file", "")))

    code, out, _ = desk.nv_eval("doctor")

    assert code == 3
    (problem,) = [message for sign, name, message in told(out) if (sign, name) == ("PROBLEM", "disk")]
    assert problem.startswith("state: ") and problem.endswith(
        "cannot be written; set NV_EVAL_HOME to a folder of yours"
    )
    assert out.endswith("This machine can run: nothing; mend the problems above\n")


# --- side by side -------------------------------------------------------------------------------------------------


def test_examinations_run_side_by_side_and_one_that_hangs_holds_up_nobody() -> None:
    meeting = threading.Barrier(2)

    def meets(_: float) -> list[Check]:
        meeting.wait(5)
        return [Check("meets", OK)]

    hangs = Examination(name="hangs", look=lambda _: threading.Event().wait() and [])
    begun = time.monotonic()
    found = examine([Examination(name="a", look=meets), hangs, Examination(name="b", look=meets)], 0.5)

    assert time.monotonic() - begun < 3
    assert [finding.examination.name for finding in found] == ["a", "hangs", "b"]
    assert [finding.is_fine for finding in found] == [True, False, True]
    assert found[1].checks[0].message == "no answer within 0.5 s; try again, or with a longer --timeout"


def test_an_examination_that_breaks_is_a_problem_and_the_others_are_told() -> None:
    def breaks(_: float) -> list[Check]:
        raise RuntimeError("unheard of")

    broken, fine = examine([Examination(name="x", look=breaks), fixed(OK, "y")], 5)

    assert broken.checks == (Check("x", PROBLEM, "RuntimeError: unheard of"),)
    assert fine.is_fine


def test_what_can_run_is_what_is_fine_unless_something_vital_is_wrong() -> None:
    places = [fixed(OK, "a", enables="execution=a"), fixed(SKIPPED, "b", enables="execution=b"), fixed(PROBLEM, "c")]
    rented = fixed(OK, "e", enables="deployment=e")

    assert runnable(examine(places, 5)) == ["execution=a"]
    assert runnable(examine([*places, rented], 5)) == ["execution=a", "deployment=e"]
    assert runnable(examine([rented], 5)) == []
    assert runnable(examine([*places, fixed(SKIPPED, "d", vital=True)], 5)) == ["execution=a"]
    assert runnable(examine([*places, fixed(PROBLEM, "d", vital=True)], 5)) == []


# --- Python and packages ------------------------------------------------------------------------------------------


def test_a_package_that_does_not_fit_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["httpx>=99", "no-such-package", "rich", 'docker>=7; extra == "docker"', 'nowhere>=1; extra == "gpu"']
    monkeypatch.setattr(metadata, "requires", lambda _: lines)
    httpx = metadata.version("httpx")

    (packages,) = doctor.packages(1)
    extras = {check.name: check for check in doctor.extras(1)}

    assert packages.state is PROBLEM
    assert packages.message == (
        f"httpx {httpx} does not fit >=99; no-such-package is not installed: pip install --upgrade nv-eval-launcher"
    )
    assert extras["extra docker"].state is OK
    assert extras["extra gpu"].message == "nowhere is not installed: pip install 'nv-eval-launcher[gpu]'"


def test_another_python_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.python_version", lambda: "3.8.1")

    (found,) = doctor.python(1)

    assert found.state in (PROBLEM, OK)
    assert found.state is OK or found.message.startswith("3.8.1, and nv-eval needs")


# --- disk and journal ---------------------------------------------------------------------------------------------


def test_a_full_disk_is_told_with_the_key_that_changes_the_place(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**20))

    state, results = doctor.disk(1)

    assert "make room, or set NV_EVAL_HOME to another disk" in state.message
    assert "make room, or set execution.output_dir to another disk" in results.message
    assert {state.state, results.state} == {PROBLEM}


def test_a_journal_is_read_whole_and_left_as_it_is(desk: Desk) -> None:
    Journal.default().close()
    path = state_folder() / "journal.db"

    (found,) = doctor.journal(5)

    assert (found.state, found.message) == (OK, f"{path}, schema {schema.VERSION}")
    with sqlite3.connect(path) as db:
        assert schema.version(db) == schema.VERSION
    db.close()


def broken(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)


def of_later_version(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    db.close()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(broken, "file is not a database; free the disk"), (of_later_version, "of a later nv-eval (schema")],
)
def test_a_journal_that_cannot_be_used_is_a_problem(desk: Desk, spoil: object, message: str) -> None:
    Journal.default().close()
    spoil(state_folder() / "journal.db")  # type: ignore[operator]

    (found,) = doctor.journal(5)

    assert found.state is PROBLEM
    assert message in found.message


def test_a_journal_that_is_being_written_is_waited_for_and_then_told(desk: Desk) -> None:
    Journal.default().close()
    writer = sqlite3.connect(state_folder() / "journal.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")

    (found,) = doctor.journal(0.2)
    writer.close()

    assert found.state is PROBLEM
    assert "database is locked" in found.message


# --- platforms ----------------------------------------------------------------------------------------------------


def test_processes_are_really_started(monkeypatch: pytest.MonkeyPatch) -> None:
    (fine,) = checkup.processes(5)
    monkeypatch.setenv("PATH", "/nowhere")
    (without,) = checkup.processes(5)

    assert fine.state is OK
    assert without.state is PROBLEM
    assert "check PATH and the limits of this shell" in without.message


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("tcp://10.0.0.1:2375", "tcp://10.0.0.1:2375 is not on this machine; set DOCKER_HOST to a unix:// socket"),
        ("unix:///nowhere.sock", "no Docker or podman answers at unix:///nowhere.sock: there is no such socket"),
    ],
)
def test_an_engine_that_is_named_and_does_not_answer_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, host: str, message: str
) -> None:
    pytest.importorskip("docker")
    monkeypatch.setenv("DOCKER_HOST", host)

    (found,) = checkup.containers(1)

    assert found.state is PROBLEM
    assert found.message.startswith(message)


def lepton(monkeypatch: pytest.MonkeyPatch, emulator: LeptonEmulator, token: str = TOKEN) -> list[Check]:
    monkeypatch.setenv("LEPTON_WORKSPACE_ID", emulator.config.workspace)
    monkeypatch.setenv("LEPTON_WORKSPACE_TOKEN", token)
    monkeypatch.setenv("LEPTON_WORKSPACE_URL", emulator.url)
    return checkup.lepton(5)


@pytest.mark.parametrize(("new", "path"), [(False, "/deployments"), (True, "/endpoints")])
def test_a_workspace_that_lets_us_in_is_described(monkeypatch: pytest.MonkeyPatch, new: bool, path: str) -> None:
    token = Token(value=TOKEN, expires_at=time.time() + 86_400)
    with LeptonEmulator(Config(new_deployment_api=new, tokens=(token,), storage_routes=not new)) as emulator:
        (found,) = lepton(monkeypatch, emulator)

        assert found.state is OK
        assert (
            f"speaks {path}, token valid for 24 h, {'without' if new else 'with'} file storage routes" in found.message
        )
        assert {request.method for request in emulator.requests} == {"GET"}


def test_a_wrong_token_and_a_paused_workspace_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with LeptonEmulator(Config(state="paused")) as emulator:
        (wrong,) = lepton(monkeypatch, emulator, "nvapi-wrong-00000001")
        (paused,) = lepton(monkeypatch, emulator)

        assert (wrong.state, paused.state) == (PROBLEM, PROBLEM)
        assert "log in again: nv-eval login lepton" in wrong.message and "nvapi-" not in wrong.message
        assert "the workspace is paused" in paused.message


def test_a_clock_that_is_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = SimpleNamespace(time=lambda: time.time() + 500)
    with LeptonEmulator() as emulator:
        monkeypatch.setattr("launcher.platforms.lepton.checkup.time", ahead)
        found = lepton(monkeypatch, emulator)

    assert [check.state for check in found if check.name == "clock"] == [PROBLEM]
    assert "s ahead of Lepton's; set it: sudo timedatectl set-ntp true" in found[-1].message


def test_a_deepinfra_account_that_lets_us_in_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with DeepInfraEmulator() as emulator:
        monkeypatch.setenv("DEEPINFRA_BASE_URL", emulator.url)
        monkeypatch.setenv("DEEPINFRA_TOKEN", emulator.key)
        fine = checkup.deepinfra(5)
        monkeypatch.setenv("DEEPINFRA_API_KEY", "di-another-key-000001")
        (refused,) = checkup.deepinfra(5)

        assert fine == [Check("deepinfra", OK, f"account {emulator.config.owner}, by the key from DEEPINFRA_TOKEN")]
        assert refused.state is PROBLEM
        assert refused.message.endswith("the one used is from DEEPINFRA_API_KEY") and "di-ano" not in refused.message
        assert {request.method for request in emulator.requests} == {"GET"}


def test_a_deepinfra_that_does_not_answer_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPINFRA_API_KEY", "di-somekey00000001")
    monkeypatch.setenv("DEEPINFRA_BASE_URL", "http://127.0.0.1:9")

    (found,) = checkup.deepinfra(0.2)

    assert found.state is PROBLEM
    assert found.message.startswith("http://127.0.0.1:9 cannot be asked: ")
    assert found.message.endswith("check DEEPINFRA_BASE_URL and the network")


def test_every_extra_that_people_choose_is_looked_at() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    others = {"local", "dev", "export"}  # sums of these
    assert set(project["optional-dependencies"]) - others == set(doctor.EXTRAS)
