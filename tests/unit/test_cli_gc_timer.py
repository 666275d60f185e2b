"""`nv-eval gc --install`: shown before it is written, once, without a secret, and gone when it is taken away."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher.cli import env_file as env_files
from launcher.errors import ConfigError, PlatformError, PreflightError
from launcher.orchestrator import timer
from launcher.orchestrator.timer import Crontab, Entry, Systemd
from tests.fakes.timers import as_cron_reads, as_systemd_reads, programs, run_like_a_timer
from tests.unit.conftest import Desk

SECRET = "di-timersecret000001"
OTHERS = "# mine\nMAILTO=me\n0 4 * * * backup 100\\% > /dev/null\n"


@dataclass(frozen=True)
class Machine:
    """Where crontab and systemctl are programs of the test that keep what they are given."""

    desk: Desk
    bin: Path

    @property
    def table(self) -> str:
        path = self.bin / "table"
        return path.read_text() if path.exists() else ""

    @property
    def units(self) -> dict[str, str]:
        folder = self.desk.root / "home/.config/systemd/user"
        return {path.name: path.read_text() for path in sorted(folder.glob("*"))}

    @property
    def asked(self) -> list[str]:
        """What systemctl was asked to change since the last question."""
        log = self.bin / "systemctl.log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def has(self, name: str, content: str = "") -> None:
        (self.bin / name).write_text(content)


@pytest.fixture
def machine(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with cron and without a systemd of the user's."""
    folder = programs(desk.root / "bin")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    for name in os.environ:
        if name.startswith(("DEEPINFRA_", "LEPTON_", "DOCKER_", "SSL_CERT", "XDG_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return Machine(desk, folder)


def install(machine: Machine, *options: str) -> tuple[int, str, str]:
    return machine.desk.nv_eval("gc", "--install", *options)


def env_file(machine: Machine, content: str, mode: int = 0o600) -> str:
    path = machine.desk.write("my keys.env", content)
    path.chmod(mode)
    return str(path)


# --- crontab ----------------------------------------------------------------------------------------------------------


def test_the_entry_is_shown_and_nothing_is_written_without_a_yes(machine: Machine) -> None:
    machine.has("table", OTHERS)

    code, out, err = install(machine)

    assert code == 0
    assert out.startswith("crontab to be written:\n7 * * * * mkdir -p ")
    assert f"{sys.executable} -P -m launcher.cli.main gc --yes --older-than never" in out
    assert out.endswith("# nv-eval-gc\nNothing was written; to write it, repeat the command with --yes\n")
    assert "none of your shell's variables" in err and f"{machine.desk.root}/home/nv-eval/gc.log" in err
    assert machine.table == OTHERS


def test_a_written_entry_stands_once_beside_those_of_others_and_goes_without_a_trace(machine: Machine) -> None:
    machine.has("table", OTHERS)

    first, again, other = install(machine, "--yes"), install(machine, "--yes"), install(machine, "--yes", "--every=6h")
    table = machine.table
    removed, none_left = machine.desk.nv_eval("gc", "--uninstall"), machine.desk.nv_eval("gc", "--uninstall")

    assert first[1].endswith("# nv-eval-gc\nWritten.\n")
    assert again[1].startswith("crontab, in place already:\n7 * * * *")
    assert other[1].startswith("crontab to be written:\n7 */6 * * *")
    assert table.startswith(OTHERS) and table.count("nv-eval-gc") == 1 and "\n7 */6 * * * mkdir" in table
    assert removed[1].startswith("Removed the crontab:\n7 */6 * * *")
    assert none_left[:2] == (0, "There is no timer of nv-eval gc\n")
    assert machine.table == OTHERS


def test_the_first_entry_of_a_user_makes_the_table(machine: Machine) -> None:
    assert install(machine, "--yes")[0] == 0
    assert machine.table.count("\n") == 1


def test_a_last_line_without_an_end_does_not_swallow_ours(machine: Machine) -> None:
    machine.has("table", "0 4 * * * backup")

    install(machine, "--yes")

    assert machine.table.startswith("0 4 * * * backup\n7 * * * *")


def test_a_table_that_cannot_be_read_is_not_taken_for_an_empty_one(machine: Machine) -> None:
    machine.has("table", OTHERS)
    machine.has("table.broken")

    code, out, err = install(machine, "--yes")

    assert (code, out) == (3, "")
    assert err.startswith("nv-eval: neither `systemctl --user` nor `crontab` works here")
    with pytest.raises(PlatformError, match="crontab -l: crontab: cannot open: Permission denied"):
        Crontab().install(Entry(argv=["true"], every=3600, log=Path("/x/log")))
    assert machine.table == OTHERS


def test_json_says_what_is_written_and_asks_nobody(machine: Machine) -> None:
    shown, written, removed = (
        json.loads(machine.desk.nv_eval("gc", "--json", *options)[1])
        for options in (("--install",), ("--install", "--yes"), ("--uninstall",))
    )

    assert (shown["schema"], shown["kind"]) == ("nv-eval.timer/1", "crontab")
    assert [(one["changed"], one["in_place"]) for one in (shown, written, removed)] == [
        (False, False),
        (True, True),
        (True, False),
    ]
    assert written["text"] == shown["text"] == removed["text"]


@pytest.mark.parametrize(("typed", "is_written"), [(b"yes\n", True), (b"y\n", False), (b"\n", False)])
def test_at_a_terminal_only_a_typed_yes_writes(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, typed: bytes, is_written: bool
) -> None:
    keyboard, terminal = os.openpty()
    os.write(keyboard, typed)
    with os.fdopen(terminal) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        install(machine)
    os.close(keyboard)

    assert bool(machine.table) is is_written


# --- systemd ----------------------------------------------------------------------------------------------------------


def test_where_the_users_systemd_answers_it_gets_a_timer(machine: Machine) -> None:
    machine.has("systemd-works")

    shown = install(machine)
    nothing_yet = machine.units
    code, _, err = install(machine, "--yes")
    units, asked = machine.units, machine.asked
    again = install(machine, "--yes")

    assert shown[1].startswith("systemd user timer to be written:\n") and nothing_yet == {}
    assert code == 0
    assert "it stops when you log out, unless you say once: loginctl enable-linger" in err
    assert list(units) == ["nv-eval-gc.service", "nv-eval-gc.timer"]
    assert "OnCalendar=*-*-* *:07\nPersistent=true\n" in units["nv-eval-gc.timer"]
    assert asked == [
        "--user daemon-reload",
        "--user enable nv-eval-gc.timer",
        "--user restart nv-eval-gc.timer",
    ]
    assert "in place already" in again[1] and machine.asked == []
    assert machine.table == ""


def test_a_timer_of_systemd_is_taken_away_with_its_files(machine: Machine) -> None:
    machine.has("systemd-works")
    machine.has("lingers")
    _, _, err = install(machine, "--yes")
    assert "log out" not in err and machine.asked

    assert machine.desk.nv_eval("gc", "--uninstall")[0] == 0

    assert machine.units == {}
    assert machine.asked == ["--user disable --now nv-eval-gc.timer", "--user daemon-reload"]


def test_there_is_never_a_timer_of_each_kind(machine: Machine) -> None:
    install(machine, "--yes")
    assert "nv-eval-gc" in machine.table

    machine.has("systemd-works")
    install(machine, "--yes")

    assert machine.table == ""
    assert list(machine.units) == ["nv-eval-gc.service", "nv-eval-gc.timer"]


def test_without_any_timer_it_says_what_to_do(machine: Machine) -> None:
    (machine.bin / "crontab").unlink()
    if shutil.which("crontab"):
        pytest.skip("this machine has a crontab beside the test's")

    assert install(machine, "--yes")[0] == PreflightError.exit_code


# --- keys -------------------------------------------------------------------------------------------------------------


def test_keys_that_only_this_shell_has_are_named_and_never_written(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPINFRA_API_KEY", SECRET)
    monkeypatch.setenv("LEPTON_WORKSPACE_ID", "ws1")

    _, out, err = install(machine, "--yes")

    assert "nv-eval: it would lack DEEPINFRA_API_KEY, LEPTON_WORKSPACE_ID: write them as NAME=VALUE lines" in err
    assert SECRET not in out + err + machine.table


@pytest.mark.parametrize(
    ("place", "variables"),
    [
        ("deepinfra", {"DEEPINFRA_API_KEY": SECRET}),
        ("lepton", {"LEPTON_WORKSPACE_ID": "ws1", "LEPTON_WORKSPACE_TOKEN": SECRET}),
    ],
)
@pytest.mark.parametrize("file", [None, "OTHER=1\n"])
def test_a_timer_that_could_not_look_at_a_place_that_was_named_is_refused(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, place: str, variables: dict[str, str], file: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    options = ["--env-file", env_file(machine, file)] if file else []

    code, out, err = install(machine, "--yes", "--place", "local", "--place", place, *options)

    assert (code, out, machine.table) == (PreflightError.exit_code, "", "")
    assert f"the timer could not look at {place}: it has none of your shell's variables" in err
    assert err.endswith("and add --env-file FILE\n") and SECRET not in err


def test_a_key_that_lies_in_a_file_of_its_own_is_found_by_the_timer_too(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = machine.desk.root / "home/.deepinfra/config.yaml"
    file.parent.mkdir()
    file.write_text(f"access_token: {SECRET}\n")

    assert install(machine, "--yes", "--place", "deepinfra")[0] == 0
    assert "--place deepinfra" in machine.table


def test_a_file_of_variables_is_named_by_its_whole_path_and_what_it_lacks_is_told(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPINFRA_API_KEY", SECRET)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    env_file(machine, f"export DEEPINFRA_API_KEY='{SECRET}'\n")

    _, out, err = install(machine, "--yes", "--env-file", "my keys.env", "--place", "deepinfra", "--older-than", "2d")

    assert "it would lack https_proxy: " in err
    assert f"--older-than 172800s --place deepinfra --env-file '{machine.desk.cwd}/my keys.env'" in machine.table
    assert SECRET not in out + err + machine.table


@pytest.mark.parametrize("command", [("gc",), ("gc", "--install", "--yes")])
@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        ("A=1\n", 0o644, "others may read it, and it is for keys: chmod 600 '"),
        (f"A=1\n\n{SECRET}\n", 0o600, ":3: not of the form NAME=VALUE"),
        (f"A={SECRET} {SECRET}\n", 0o600, ":1: not of the form NAME=VALUE; put quotes around"),
        (f"A='{SECRET}\n", 0o600, ":1: not of the form NAME=VALUE"),
        ("A=\udcff", 0o600, "cannot be read: it is no text"),
    ],
)
def test_a_file_of_variables_that_is_wrong_is_refused_without_its_content(
    machine: Machine, command: tuple[str, ...], content: str, mode: int, says: str
) -> None:
    file = machine.desk.write("my keys.env", content.encode(errors="surrogateescape"))
    file.chmod(mode)

    code, out, err = machine.desk.nv_eval(*command, "--env-file", str(file))

    assert (code, out, machine.table) == (ConfigError.exit_code, "", "")
    assert err.startswith(f"nv-eval: --env-file {file}") and says in err
    assert SECRET not in err


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("A=abc#def", "abc#def"),
        ("A=abc #def", "abc"),
        ("A=abc\t# it's", "abc"),
        ("A='a b#c' # d", "a b#c"),
        ('A="a \\" # b"#c', 'a " # b#c'),
        ("A=a\\ #b", "a #b"),
        ("export A=b", "b"),
        ("A=b\r\n# c\r\n", "b"),
        ("\ufeffA=b", "b"),
        ("A=a\u2028b\x0cc", "a\u2028b\x0cc"),
        ("A=", ""),
        ("#A=c\n  # B\nA=b=c", "b=c"),
    ],
)
def test_a_file_of_variables_is_read_as_a_shell_does(machine: Machine, content: str, value: str) -> None:
    assert env_files.read(env_file(machine, content)) == {"A": value}


@pytest.mark.parametrize("command", [("gc",), ("gc", "--install", "--yes")])
@pytest.mark.parametrize(("name", "says"), [("~nobody-of-this-name/x", "home"), ("a\0b", "null")])
def test_a_file_of_variables_with_an_impossible_name_is_one_line(
    machine: Machine, command: tuple[str, ...], name: str, says: str
) -> None:
    code, _, err = machine.desk.nv_eval(*command, "--env-file", name)

    assert (code, err.count("\n")) == (2, 1)
    assert "cannot be read: " in err and says in err


def test_a_variable_with_a_nul_byte_is_refused(machine: Machine) -> None:
    with pytest.raises(ConfigError, match=r"keys\.env:1: holds a NUL byte"):
        env_files.read(env_file(machine, "A=b\0c"))


def test_a_file_of_variables_that_is_not_there_is_refused(machine: Machine) -> None:
    assert machine.desk.nv_eval("gc", "--env-file", "gone")[::2] == (
        2,
        "nv-eval: --env-file gone: cannot be read: No such file or directory\n",
    )


def test_variables_of_a_file_are_set_before_anything_is_looked_at(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))  # a file may set what no test takes back
    file = env_file(machine, "# mine\n\nexport DEEPINFRA_BASE_URL=nonsense://x # here\nDEEPINFRA_API_KEY=k\n")

    _, _, err = machine.desk.nv_eval("gc", "--env-file", file)

    assert "deepinfra was not looked at: DEEPINFRA_BASE_URL must begin with http:// or https://" in err


# --- the line ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", ["7min", "90s", "90min", "2d", "0"])
def test_a_period_that_no_timer_has_is_refused(machine: Machine, every: str) -> None:
    code, _, err = install(machine, "--yes", "--every", every)

    assert (code, machine.table) == (2, "")
    assert err == f"nv-eval: --every: a timer can go off every {timer.PERIODS}; choose one of these\n"


@pytest.mark.parametrize(
    ("minutes", "cron", "calendar"),
    [
        (5, "*/5 * * * *", "*:0/5"),
        (30, "*/30 * * * *", "*:0/30"),
        (60, "7 * * * *", "*-*-* *:07"),
        (120, "7 */2 * * *", "*-*-* 0/2:07"),
        (1440, "7 0 * * *", "*-*-* 0:07"),
    ],
)
def test_periods_as_cron_and_as_systemd_have_them(minutes: int, cron: str, calendar: str) -> None:
    entry = Entry(argv=["true"], every=60.0 * minutes, log=Path("/x/log"))

    assert Crontab().text(entry).startswith(f"{cron} mkdir -p /x;")
    assert f"OnCalendar={calendar}\n" in Systemd().text(entry)
    if analyze := shutil.which("systemd-analyze"):
        subprocess.run([analyze, "calendar", calendar], check=True, capture_output=True)


@pytest.fixture
def odd(tmp_path: Path) -> Entry:
    """Writes its arguments and a variable, all of which a shell, cron and systemd could misread."""
    script = "import os, sys; print(sys.argv[1:], os.environ['ODD'], sorted(os.environ))"
    words = ("100%", "$HOME", "it's", 'a "b"', "back\\slash", "#no comment", "%h")
    folder = tmp_path / "a folder's % $x"
    return Entry(argv=(sys.executable, "-c", script, *words), every=3600, log=folder / "log", env={"ODD": "% $y '"})


@pytest.mark.parametrize("kind", ["cron", "systemd"])
def test_the_very_line_runs_without_an_environment_and_says_when_and_what(odd: Entry, kind: str) -> None:
    text = Crontab().text(odd) if kind == "cron" else next(iter(Systemd()._units(odd).values()))
    command = as_cron_reads(text) if kind == "cron" else as_systemd_reads(text)

    log = run_like_a_timer(command, odd.log)

    date, said = log.splitlines()
    assert re.search(r"\d\d:\d\d:\d\d", date)
    assert said.startswith(f"{list(odd.argv[3:])} {odd.env['ODD']} ")
    assert run_like_a_timer(command, odd.log).count(said) == 2, "it adds to what is there"


def test_systemd_itself_finds_no_fault_with_the_units(odd: Entry, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd here")
    for path, content in Systemd()._units(odd).items():
        (tmp_path / path.name).write_text(content)

    done = subprocess.run(
        [analyze, "--user", "verify", "--man=no", str(tmp_path / "nv-eval-gc.timer")],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert [line for line in done.stderr.splitlines() if "nv-eval-gc" in line] == []


@pytest.mark.parametrize("option", ["--config-dir", "--env-file"])
@pytest.mark.parametrize("odd_name", ["a\nb", "a\rb", "a\x1bb", "a\udcffb"])
def test_what_would_break_the_line_is_refused(machine: Machine, option: str, odd_name: str) -> None:
    Path(env_file(machine, "A=b\n")).rename(machine.desk.cwd / odd_name)

    code, _, err = install(machine, "--yes", option, odd_name)

    assert (code, err.count("\n"), machine.table) == (2, 1, "")
    assert "a timer takes no line breaks or other control characters" in err


@pytest.mark.parametrize("word", ["a\\%b", "a\\\\b"])
def test_what_crons_read_in_different_ways_is_refused(word: str) -> None:
    with pytest.raises(PreflightError, match="crons differ"):
        Crontab().text(Entry(argv=["true", word], every=3600, log=Path("/x/log")))


def test_lines_of_others_stay_as_they_are_byte_for_byte(machine: Machine) -> None:
    others = b"# caf\xe9\r\n0 4 * * * a\x0cb \xe2\x80\xa8c\n"
    (machine.bin / "table").write_bytes(others)

    install(machine, "--yes")
    machine.desk.nv_eval("gc", "--uninstall")

    assert (machine.bin / "table").read_bytes() == others


def test_a_line_that_cron_may_cut_is_refused() -> None:
    entry = Entry(argv=["x" * 1000], every=3600, log=Path("/x/log"))

    with pytest.raises(PreflightError, match="cron may cut it; use shorter paths"):
        Crontab().text(entry)


def test_a_program_that_is_silent_is_not_waited_for(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.has("crontab", "#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(timer, "_PATIENCE", 0.05)

    with pytest.raises(PlatformError, match=r"crontab -l: no answer within 0.05 s"):
        Crontab().present()
