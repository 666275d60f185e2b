"""What the comparison with other programs calculates."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from benchmarks import peers
from benchmarks.peers import DRY_RUN, HELP, TASKS, Compared, Makespan, Peer, beaten, fleets, install, last_line
from launcher.emulators.lepton import Config


def compared(program: str, kind: str, wall: float) -> Compared:
    return Compared(program=program, kind=kind, command=f"{program} {kind}", wall=wall, cpu=wall / 2, ratio=wall / 0.1)


def span(ended: int, error: str = "", left: int = 3) -> Makespan:
    return Makespan(
        program="p", tasks=3, bound=40.0, needed=100.0, seconds=80.0, ended=ended, billed=150.0, left=left, error=error
    )


def test_ours_is_measured_against_the_fastest_peer_that_has_such_a_command():
    rows = [
        compared("python", "-c pass", 0.1),
        *(compared("nv-eval", kind, 0.3) for kind in peers.OURS),
        compared("slow", HELP, 0.9),
        compared("quick", HELP, 0.2),
        compared("slow", TASKS, 0.6),
    ]
    aims = {figure.name: figure for figure in beaten(rows) if figure.target}
    assert [round(figure.value, 6) for figure in aims.values()] == [1.5, 0.5]
    assert [figure.meets for figure in aims.values()] == [False, True]
    assert next(iter(aims.values())).note.startswith("quick;")


def test_a_command_of_another_kind_is_shown_with_the_reason_but_is_no_peer():
    rows = [
        *(compared("nv-eval", kind, 0.3) for kind in peers.OURS),
        dataclasses.replace(compared("echo", DRY_RUN, 0.1), apart="checks no benchmark"),
        compared("checks", DRY_RUN, 0.6),
    ]

    figures = {figure.name: figure for figure in beaten(rows)}

    assert figures["dry run: echo"].note.endswith("not counted: it checks no benchmark")
    over = figures["dry run: nv-eval over the fastest peer"]
    assert over.value == pytest.approx(0.5)
    assert over.note == "checks; processor time 0.50 x; echo is not counted"


def test_what_no_peer_of_its_kind_has_gets_no_target():
    rows = [
        *(compared("nv-eval", kind, 0.3) for kind in peers.OURS),
        dataclasses.replace(compared("echo", DRY_RUN, 0.1), apart="checks no benchmark"),
    ]

    assert [figure.name for figure in beaten(rows) if figure.target] == []


def test_a_fleet_that_failed_has_no_ratio_but_says_what_it_left_and_why():
    figures = {figure.name: figure for figure in fleets(span(0, "RuntimeError: No module named 'x'"))}
    assert figures["p, N = 3, jobs that ended"].note == "RuntimeError: No module named 'x'"
    assert figures["p, N = 3, endpoints left running"].value == 3
    assert not any("bound" in name for name in figures)


def test_a_fleet_that_ended_is_told_against_the_bound_and_what_was_needed():
    figures = {figure.name: figure.value for figure in fleets(span(3))}
    assert figures["p, N = 3, time over the bound"] == 2.0
    assert figures["p, N = 3, billed time over what is needed"] == 1.5


def test_a_peer_that_cannot_be_installed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache = tmp_path / "cache"
    cache.write_text("a file where a folder should be")
    monkeypatch.setattr(peers, "CACHE", cache)
    peer = Peer(name="p", program="p", packages=("p==1",), commands={})
    assert peer.folder == cache / "p-1"
    assert "Not a directory" in install(peer).failure
    assert not (peer.folder / "installed").exists()


def test_the_last_line_is_the_last_that_says_something():
    assert last_line("first\nlast  \n\n") == "last"
    assert last_line("\n") == "it said nothing"


def test_what_a_command_costs_is_measured_whatever_it_returns(tmp_path: Path):
    one = peers.cost([sys.executable, "-c", "import sys; sys.exit(3)"], {}, str(tmp_path))
    assert one.wall > 0
    assert one.cpu > 0


def test_the_incumbents_config_is_for_the_emulators_workspace(tmp_path: Path):
    config = peers.incumbent_config(5, str(tmp_path))
    platform = config["execution"]["lepton_platform"]
    assert len(config["evaluation"]["tasks"]) == 5
    assert Config().node_group(platform["deployment"]["node_group"]) is not None
