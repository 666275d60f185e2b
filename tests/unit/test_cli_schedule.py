"""`nv-eval schedule` as a person types it: what is refused, what is shown, what stands on the machine."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from launcher.errors import ConfigError, PreflightError
from launcher.orchestrator.timer import Scrontab, Systemd
from launcher.schedule import kubernetes, places
from launcher.schedule.model import Via
from tests.fakes.schedules import nightly
from tests.fakes.timers import as_cron_reads, programs
from tests.unit.conftest import Desk

RUN = ("--", "run", "evaluation.limit=2")


@pytest.fixture
def machine(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A machine in Berlin with cron and without a systemd of the user's."""
    folder = programs(desk.root / "bin")
    scrontab = (folder / "crontab").read_text().replace("/table", "/slurm")
    (folder / "scrontab").write_text(scrontab)
    (folder / "scrontab").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr("tzlocal.get_localzone_name", lambda: "Europe/Berlin")
    for name in os.environ:
        if name.startswith(("HF_", "CUDA_", "SSL_CERT", "NV_EVAL_GPU")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return desk


def add(machine: Desk, *options: str, cron: str = "0 2 * * 1-5", run: tuple[str, ...] = RUN) -> tuple[int, str, str]:
    return machine.nv_eval("schedule", "add", "nightly", "--cron", cron, *options, *run)


def table(machine: Desk, name: str = "table") -> str:
    path = machine.root / "bin" / name
    return path.read_text() if path.exists() else ""


def listed(machine: Desk) -> list[dict[str, object]]:
    found = json.loads(machine.nv_eval("schedule", "ls", "--json")[1])["schedules"]
    assert isinstance(found, list)
    return found


# --- added, shown, removed --------------------------------------------------------------------------------------------


def test_what_would_be_written_is_shown_and_nothing_is_kept_without_a_yes(machine: Desk) -> None:
    code, out, _ = add(machine, "--via", "crontab")

    assert code == 0
    assert out.startswith("crontab to be written:\n0 2 * * 1-5 mkdir -p ")
    assert "-m launcher.cli.main schedule fire nightly; }" in out
    assert out.endswith("# nv-eval-schedule-nightly\nNothing was written; to write it, repeat the command with --yes\n")
    assert table(machine) == "" and listed(machine) == []


def test_a_schedule_stands_in_the_crontab_until_it_is_removed(machine: Desk) -> None:
    (machine.root / "bin/table").write_text("0 4 * * * backup\n")

    code, out, _ = add(machine, "--via", "crontab", "--yes", "--jitter", "10m", "--budget-day", "5")
    line = table(machine).splitlines()[1]
    shown = machine.nv_eval("schedule", "show", "nightly")[1]
    ls = machine.nv_eval("schedule", "ls")[1]
    removed = machine.nv_eval("schedule", "rm", "nightly")[1]

    assert code == 0 and "Schedule nightly: next " in out and out.rstrip().endswith("Europe/Berlin")
    assert "NV_EVAL_HOME=" in as_cron_reads(line) and "evaluation.limit" not in line, "the line holds only the name"
    assert "jitter: 600.0" in shown and "budget_day: 5.0" in shown and line in shown
    assert ls.splitlines()[0].split() == ["name", "when", "timezone", "via", "next", "last"]
    assert "0 2 * * 1-5  Europe/Berlin  crontab" in ls
    assert "Removed the crontab:" in removed
    assert table(machine) == "0 4 * * * backup\n" and listed(machine) == []
    assert machine.nv_eval("schedule", "show", "nightly")[0] == 6


def test_the_first_that_works_and_can_do_it_is_taken(machine: Desk) -> None:
    assert json.loads(add(machine, "--json")[1])["via"] == "slurm"
    assert json.loads(add(machine, "--json", "--allow-overlap")[1])["via"] == "crontab"
    (machine.root / "bin/systemd-works").touch()
    assert json.loads(add(machine, "--json", "--timezone", "Asia/Tokyo")[1])["via"] == "systemd"
    (machine.root / "bin/systemd-works").unlink()
    assert json.loads(add(machine, "--json", "--timezone", "Asia/Tokyo")[1])["via"] == "serve"


def test_slurm_gets_its_options_in_a_line_before_and_both_lines_go(machine: Desk) -> None:
    add(machine, "--yes", "--via", "slurm", "--slurm=--partition=cpu", "--slurm=--time=08:00:00")

    options, line = table(machine, "slurm").splitlines()
    assert options == "#SCRON --partition=cpu --time=08:00:00 --job-name=nv-eval-schedule-nightly"
    assert line.startswith("0 2 * * 1-5 mkdir -p ") and line.endswith("# nv-eval-schedule-nightly")

    machine.nv_eval("schedule", "rm", "nightly")
    assert table(machine, "slurm") == ""


def test_a_timer_that_cannot_be_written_leaves_no_schedule(machine: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine.root / "bin/crontab").write_text('#!/bin/sh\n[ "$1" = -l ] && exit 0\necho "no space" >&2\nexit 1\n')

    code, _, err = add(machine, "--yes", "--via", "crontab")

    assert (code, err) == (7, "nv-eval: crontab -: no space\n")
    assert listed(machine) == []


def test_systemd_units_of_a_schedule_have_its_time_zone_and_catch_up(machine: Desk) -> None:
    (machine.root / "bin/systemd-works").touch()

    add(machine, "--yes", "--via", "systemd")

    folder = machine.root / "home/.config/systemd/user"
    assert sorted(path.name for path in folder.iterdir()) == [
        "nv-eval-schedule-nightly.service",
        "nv-eval-schedule-nightly.timer",
    ]
    timer = (folder / "nv-eval-schedule-nightly.timer").read_text()
    assert "OnCalendar=Mon,Tue,Wed,Thu,Fri *-*-* 02:00:00 Europe/Berlin\nPersistent=true\n" in timer
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return
    done = subprocess.run(
        [analyze, "--user", "verify", "--man=no", str(folder / "nv-eval-schedule-nightly.timer")],
        env={**os.environ, "XDG_RUNTIME_DIR": str(machine.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if "nv-eval" in line] == []


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "run", "code", "says"),
    [
        ((), (), 2, "what is to run stands behind --"),
        ((), ("--", "gc", "--yes"), 2, "what is to run stands behind --"),
        ((), ("--", "run", "--detach"), 2, "-- run --detach: has no meaning for a later run"),
        ((), ("--", "run", "evaluation.limmit=2"), 2, "evaluation.limmit: unknown key; did you mean limit?"),
        ((), ("--", "run", "--config-name", "defalt"), 2, "no such config; did you mean default?"),
        (("--gate", "gone.yaml"), RUN, 2, "gone.yaml"),
        (("--budget-day", "5"), ("--", "run", "deployment=vllm", "deployment.model_id=m"), 2, "no price is known"),
        (("--notify", "NOT_SET"), RUN, 3, "--notify: variable NOT_SET is not set"),
        (("--env-file", "gone"), RUN, 2, "--env-file"),
        (
            ("--timezone", "Asia/Tokyo", "--via", "crontab"),
            RUN,
            3,
            "a crontab knows only the machine's own, Europe/Berlin",
        ),
        (("--allow-overlap", "--via", "slurm"), RUN, 3, "use --via crontab or --via serve"),
        (("--via", "systemd"), RUN, 3, "systemd user timer does not work here"),
        (("--via", "kubernetes"), RUN, 2, "needs --image"),
    ],
)
def test_a_schedule_that_could_not_run_is_refused_and_leaves_nothing(
    machine: Desk, options: tuple[str, ...], run: tuple[str, ...], code: int, says: str
) -> None:
    found, out, err = add(machine, "--yes", *options, run=run)

    assert (found, out) == (code, "") and says in err and err.count("\n") == 1, err
    assert table(machine) == "" and listed(machine) == []


SWEEP = ("--", "run", "-m", "evaluation.limit=1,2")


def test_a_sweep_is_planned_when_it_is_added_and_takes_no_gate(machine: Desk) -> None:
    machine.write("policy.yaml", "default:\n  max_drop: 0.01\n")

    gated = add(machine, "--yes", "--via", "serve", "--gate", "policy.yaml", run=SWEEP)
    wrong = add(machine, "--yes", "--via", "serve", run=("--", "run", "-m", "evaluation.limmit=1,2"))
    right = add(machine, "--yes", "--via", "serve", run=SWEEP)

    assert gated[0] == 2 and "compares two runs, and this is a sweep" in gated[2]
    assert wrong[0] == 2 and "limmit" in wrong[2]
    assert right[0] == 0 and len(listed(machine)) == 1


def test_a_second_schedule_of_a_name_and_an_impossible_name_are_refused(machine: Desk) -> None:
    add(machine, "--yes", "--via", "serve")

    assert "there is one already; nv-eval schedule rm nightly first" in add(machine, "--yes", "--via", "serve")[2]
    assert "a name has a-z, 0-9 and -" in machine.nv_eval("schedule", "add", "A/b", "--cron", "0 2 * * *", *RUN)[2]


def test_a_key_that_only_this_shell_has_is_refused_and_in_a_file_it_is_found(
    machine: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret000001")
    run = (*RUN, "deployment.envs.MY_KEY=${oc.env:MY_KEY}")
    keys = machine.write("keys.env", "MY_KEY=sk-secret000001\n")
    keys.chmod(0o600)

    code, _, err = add(machine, "--yes", "--via", "crontab", run=run)
    with_file = add(machine, "--yes", "--via", "crontab", "--env-file", "keys.env", run=run)

    assert code == PreflightError.exit_code and "the run needs MY_KEY, and a timer has none" in err
    assert with_file[0] == 0
    everything = b"".join(content or b"" for name, content in machine.files().items() if "keys.env" not in name)
    assert b"sk-secret" not in everything and os.environ["MY_KEY"]


def test_what_the_timer_would_lack_and_what_would_keep_it_from_running_now_is_told(
    machine: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", "/big/disk")
    words = ("--via", "crontab", "--json")

    code, out, _ = add(machine, *words, run=("--", "run", "deployment=vllm", "deployment.model_id=m"))
    notes = json.loads(out)["notes"]

    assert code == 0
    assert any(note.startswith("as things are it could not run: ") for note in notes)
    assert notes[-1].startswith("a timer has none of your shell's variables; it would lack HF_HOME: ")


# --- called -----------------------------------------------------------------------------------------------------------


def test_called_before_its_time_it_says_so_and_a_pause_is_a_pause(machine: Desk) -> None:
    add(machine, "--yes", "--via", "serve")

    assert machine.nv_eval("schedule", "fire", "nightly")[:2] == (0, "nightly: nothing is due\n")
    assert machine.nv_eval("schedule", "history", "nightly")[1] == "Nothing has happened yet.\n"
    assert "paused" in machine.nv_eval("schedule", "pause", "nightly")[1]
    assert listed(machine)[0]["paused"] is True
    assert machine.nv_eval("schedule", "pause", "nightly")[1] == "nightly: is paused already\n"
    assert machine.nv_eval("schedule", "resume", "nightly")[1] == "nightly: goes on\n"
    assert machine.nv_eval("schedule", "fire", "other")[0] == 6
    assert machine.nv_eval("schedule", "fire", "nightly", "--due", "noon")[0] == ConfigError.exit_code


def test_a_time_that_comes_while_the_folder_is_gone_fails_in_the_history(machine: Desk) -> None:
    add(machine, "--yes", "--via", "serve")
    gone = machine.root / "elsewhere"
    machine.cwd.rename(gone)

    code, _, err = machine.nv_eval("schedule", "run-now", "nightly")
    (line,) = json.loads(machine.nv_eval("schedule", "history", "--json")[1])["history"]
    gone.rename(machine.cwd)

    assert code == 3 and "the folder of the schedule" in err
    assert (line["outcome"], line["exit_code"]) == ("failed", 3)


# --- what is written --------------------------------------------------------------------------------------------------

ODD_RUN = (
    "--",
    "run",
    "evaluation.limit=2",
    "+evaluation.metadata.words='100% \"a b\" $HOME #x'",
    "+evaluation.metadata.two='a\nb'",
    "evaluation.envs.MY_KEY=${oc.env:CANARY_KEY}",
)
CANARY = "canary-4f7e21"


@pytest.mark.parametrize("via", ["crontab", "systemd", "slurm", "kubernetes"])
def test_odd_arguments_come_back_as_they_were_and_a_reference_is_resolved_nowhere(machine: Desk, via: str) -> None:
    machine.write("keys.env", f"CANARY_KEY={CANARY}\n").chmod(0o600)
    more = ("--image", "i", "--claim", "c") if via == "kubernetes" else ("--env-file", "keys.env")
    systemctl = machine.root / "bin/systemctl"
    systemctl.write_text("#!/bin/sh\nexit 0\n")
    systemctl.chmod(0o755)

    code, out, err = add(machine, "--via", via, "--yes", *more, run=ODD_RUN)

    assert code == 0, err
    if via == "kubernetes":
        config, _ = yaml.safe_load_all(out)
        kept = json.loads(config["data"]["schedule.json"])
    else:
        kept = json.loads(machine.nv_eval("schedule", "show", "nightly", "--json")[1])["definition"]
    assert kept["run"]["overrides"] == list(ODD_RUN[2:])
    held = [path for path in machine.root.rglob("*") if path.is_file() and path.name != "keys.env"]
    assert CANARY not in out + err and not [path for path in held if CANARY.encode() in path.read_bytes()]


def test_a_damaged_schedule_is_told_and_can_be_removed(machine: Desk) -> None:
    add(machine, "--via", "crontab", "--yes")
    with closing(sqlite3.connect(machine.root / "home/nv-eval/schedules.db", isolation_level=None)) as file:
        file.execute("UPDATE schedules SET definition = '{'")

    listed_, shown = machine.nv_eval("schedule", "ls"), machine.nv_eval("schedule", "show", "nightly")
    removed = machine.nv_eval("schedule", "rm", "nightly")

    assert listed_[0] == 0 and listed_[2].count("\n") == 1 and "schedule nightly is damaged" in listed_[2]
    assert shown[0] == 1 and shown[2].count("\n") == 1 and "schedule nightly is damaged" in shown[2]
    assert removed[0] == 0 and table(machine) == "" and machine.nv_eval("schedule", "ls")[2] == ""


# --- Kubernetes -------------------------------------------------------------------------------------------------------

CLUSTER = ("--via", "kubernetes", "--image", "me/nv-eval:1", "--claim", "evals", "--secret", "keys")


def test_the_manifest_is_valid_kubernetes_and_nothing_is_kept_here(machine: Desk) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate

    code, out, err = add(machine, *CLUSTER, "--timezone", "Asia/Tokyo", cron="0 2 * * 1-5,7")

    assert code == 0 and "kubectl apply -f -" in err and listed(machine) == []
    config, job = yaml.safe_load_all(out)
    for document in (config, job):
        validate(document, "1.31", strict=True)
    assert (job["spec"]["schedule"], job["spec"]["timeZone"]) == ("0 2 * * 0,1,2,3,4,5", "Asia/Tokyo")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "keys"}}]


def test_the_pods_command_takes_the_schedule_out_of_the_manifest(machine: Desk) -> None:
    config, job = yaml.safe_load_all(add(machine, *CLUSTER)[1])
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    file = machine.write("schedule.json", config["data"]["schedule.json"])
    words = [str(file) if word.endswith("schedule.json") else word for word in container["command"][1:]]

    first, again = machine.nv_eval(*words), machine.nv_eval(*words)

    assert first[0] in (0, 3) and again[:2] == (0, "nightly: nothing is due\n")
    assert listed(machine)[0]["when"] == "0 2 * * 1-5"


def test_overlap_is_allowed_in_the_cluster_where_it_is_allowed() -> None:
    cluster = kubernetes.Cluster(image="i", claim="c")

    _, job = kubernetes.documents(nightly(via=Via.KUBERNETES, allow_overlap=True), cluster)

    assert job["spec"]["concurrencyPolicy"] == "Allow"


def test_each_kind_of_timer_has_a_place_and_the_others_have_none() -> None:
    assert isinstance(places.timer(Via.SYSTEMD, "a"), Systemd) and isinstance(places.timer(Via.SLURM, "a"), Scrontab)
    assert places.timer(Via.SERVE, "a") is None and places.timer(Via.KUBERNETES, "a") is None
    assert Path(places.entry(nightly(), ["x"], {}, "/l").log) == Path("/l/schedule-nightly.log")
