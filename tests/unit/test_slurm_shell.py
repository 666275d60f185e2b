"""Scripts on the cluster: how arguments and files get there, and the filter of logs."""

from __future__ import annotations

import asyncio
import io
import subprocess
import tarfile
from importlib.resources import files
from pathlib import Path

import pytest

from launcher.errors import PlatformError
from launcher.platforms.slurm import archive
from launcher.platforms.slurm.shell import ConnectionLost, Shell

ODD = 'it\'s "odd" $HOME `x` \\ 100% ü\n!'


def test_arguments_and_input_arrive_as_they_are() -> None:
    script = 'printf "%s|" "$@"\ncat\n'

    answer = asyncio.run(Shell(None).run(script, ODD, "", "--x", payload=b"\0rest\n"))

    assert (answer.code, answer.out) == (0, f"{ODD}||--x|".encode() + b"\0rest\n")


def test_what_fails_is_told_by_its_last_line() -> None:
    with pytest.raises(PlatformError, match=r"^Slurm: no such thing$"):
        asyncio.run(Shell(None).ask("echo first >&2\necho 'no such thing' >&2\nexit 3\n"))


def test_silence_is_unknown() -> None:
    with pytest.raises(ConnectionLost, match="no answer within"):
        asyncio.run(Shell(None).run("sleep 5\n", timeout=0.05))


def test_secrets_of_this_process_do_not_reach_sbatch() -> None:
    environment = {"PATH": "/usr/bin:/bin", "HF_TOKEN": "canary", "SLURM_CONF": "/x", "SLURM_JOB_ID": "7"}

    answer = asyncio.run(Shell(None, environment).run("env\n"))

    assert "canary" not in answer.text and "SLURM_JOB_ID" not in answer.text
    assert "SLURM_CONF=/x" in answer.text


def test_files_on_their_way_are_their_owners_alone() -> None:
    packed = archive.pack({"server.secrets": b"export A=b\n"})

    with tarfile.open(fileobj=io.BytesIO(packed)) as opened:
        assert [(entry.name, oct(entry.mode)) for entry in opened] == [("server.secrets", "0o600")]


def test_results_that_lead_outside_or_are_cut_off_are_an_error(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as opened:
        entry = tarfile.TarInfo("../outside")
        entry.size = 1
        opened.addfile(entry, io.BytesIO(b"x"))
    for broken in (buffer.getvalue(), archive.pack({"results.json": b"x" * 5000})[:2000]):
        with pytest.raises(PlatformError, match="damaged"):
            archive.unpack(broken, tmp_path / "home", ())
    assert not (tmp_path / "home").exists()
    with pytest.raises(PlatformError, match=r"no file matches results\.json"):
        archive.unpack(b"", tmp_path / "home", ("results.json",))


def test_the_filter_keeps_secrets_out_and_events_apart(tmp_path: Path) -> None:
    script = tmp_path / "log.awk"
    script.write_bytes(files("launcher.plan.slurm").joinpath("log.awk").read_bytes())
    lines = [
        "the key is canary-123456, twice: canary-123456",
        '@nv-eval {"event": "phase", "phase": "evaluating", "detail": "t"}',
        '@nv-eval {"event": "progress", "done": 1, "total": 2, "detail": ""}',
        '@nv-eval {"event": "progress", "done": 2, "total": 2, "detail": ""}',
        "srun: error: n1: task 0: Exited with exit code 3",
        "@nv-eval-results-begin results.json 4 x",
        "aGVsbG8=",
        "@nv-eval-results-end",
        "the last line",
    ]
    log, events = tmp_path / "job.log", tmp_path / "events"
    done = subprocess.run(
        ["awk", "-v", f"log_file={log}", "-v", f"events={events}", "-f", str(script)],
        input="\n".join(lines) + "\n",
        env={"PATH": "/usr/bin:/bin", "NV_EVAL_SECRETS": "TOKEN", "TOKEN": "canary-123456"},
        text=True,
        capture_output=True,
        check=True,
    )

    assert log.read_text().splitlines() == ["the key is ***, twice: ***", lines[1], "the last line"]
    assert events.read_text().splitlines() == [lines[1], lines[3]]
    assert done.stderr.strip() == lines[4]
