"""`nv-eval cleanup` and `nv-eval gc` after a launcher that was killed: with its journal, and from a machine without.

The machine that runs the tests may have runs of its own: `gc --yes` is only ever let loose on the emulator.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.emulators.common.clock import After
from launcher.emulators.lepton import Config, LeptonEmulator, Refuse, SlowDelete
from tests.e2e import test_docker_runs as containers
from tests.e2e import test_lepton_runs as lepton
from tests.e2e.cli import Home, assert_nothing_left, kill, wait_for
from tests.e2e.scenario import benchmark, serve, write_config
from tests.engines.docker import engine_socket

pytestmark = pytest.mark.e2e

FAMILIES = pytest.mark.parametrize(
    "emulator", [Config(), Config(new_deployment_api=True)], indirect=True, ids=["legacy", "new"]
)
RUN = ("run", "--config-dir", ".", "--config-name", "config", "--json")


@pytest.fixture
def emulator(request: pytest.FixtureRequest) -> Iterator[LeptonEmulator]:
    with LeptonEmulator(getattr(request, "param", None) or Config()) as running:
        yield running


@pytest.fixture
def here(home: Home, emulator: LeptonEmulator) -> Home:
    """The machine that runs things."""
    home.extra |= {
        "LEPTON_WORKSPACE_ID": emulator.config.workspace,
        "LEPTON_WORKSPACE_TOKEN": lepton.TOKEN,
        "LEPTON_WORKSPACE_URL": emulator.url,
    }
    return home


@pytest.fixture
def elsewhere(here: Home) -> Home:
    """Another machine of the same person: the credentials, and nothing else."""
    folder = here.folder / "elsewhere"
    folder.mkdir()
    return Home(folder, dict(here.extra))


def crash(home: Home, emulator: LeptonEmulator, tasks: int = 2) -> str:
    """Kill a launcher while all its jobs run; returns the invocation."""
    names = [benchmark(f"task{number}", seconds=120) for number in range(tasks)]
    lepton.write_config(home, names, lepton.deployment())
    process = home.start(*RUN)
    invocation = home.invocation()
    begun = storage(emulator) / invocation
    wait_for(lambda: len(list(begun.glob("*/output"))) == tasks, "all jobs run")
    kill(process)
    process.communicate()
    assert len(emulator.state().alive) == 2 * tasks
    return invocation


def storage(emulator: LeptonEmulator) -> Path:
    return emulator.volume() / "nemo-evaluator-launcher-workspace"


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert "Traceback" not in done.stderr, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["exit_code"] == done.returncode
    return found


@FAMILIES
def test_cleanup_from_a_machine_without_the_journal_removes_all(
    here: Home, elsewhere: Home, emulator: LeptonEmulator
) -> None:
    invocation = crash(here, emulator)
    assert (storage(emulator) / invocation).is_dir()

    found = document(elsewhere.run("cleanup", invocation, "execution=lepton", "--grace", "0", "--json"))

    (one,) = found["invocations"]
    assert (found["schema"], one["outcome"], found["exit_code"]) == ("nv-eval.cleanup/1", "removed", 0)
    (place,) = one["places"]
    assert sorted(left["kind"] for left in place["removed"]) == ["endpoint", "endpoint", "job", "job", "storage"]
    assert place["left"] == []
    assert emulator.state().alive == ()
    assert all(thing.gone for thing in (*emulator.state().endpoints, *emulator.state().jobs))
    assert not (storage(emulator) / invocation).exists()
    again = elsewhere.run("cleanup", invocation[:6], "--grace", "0")
    assert (again.returncode, again.stdout) == (0, f"{invocation[:6]}: nothing left on local, lepton\n")


@FAMILIES
def test_gc_finds_by_age_what_another_machine_left(here: Home, elsewhere: Home, emulator: LeptonEmulator) -> None:
    invocation = crash(here, emulator)

    young = document(elsewhere.run("gc", "execution=lepton", "--yes", "--json"))
    dry = document(elsewhere.run("gc", "execution=lepton", "--older-than", "0", "--json"))
    assert len(emulator.state().alive) == 4
    done = document(elsewhere.run("gc", "execution=lepton", "--yes", "--older-than", "0", "--json"))

    assert young["garbage"] == []
    assert {left["why"] for left in young["kept"]} == {"young", "storage"}
    assert [left["invocation"] for left in dry["garbage"]] == [invocation] * 4
    assert {left["why"] for left in dry["garbage"]} == {"old"}
    assert {left["owner"] for left in dry["garbage"]} == {"me@example.com"}
    assert (dry["dry_run"], done["dry_run"]) == (True, False)
    assert sum(len(place["removed"]) for place in done["places"]) == 4
    assert emulator.state().alive == ()
    assert (storage(emulator) / invocation).is_dir(), "storage is kept unless it is asked for"


def test_gc_where_the_journal_is_knows_that_the_launcher_is_gone(here: Home, emulator: LeptonEmulator) -> None:
    invocation = crash(here, emulator, tasks=1)
    prices = "pricing.usd_per_hour={gpu.1xh100: 3.0, cpu.small: 0.1}"

    dry = here.run("gc", "execution=lepton", prices)
    done = document(here.run("gc", "execution=lepton", "--yes", "--storage", "--json"))

    assert dry.returncode == 0
    assert "its launcher is gone" in dry.stdout and "3.00 USD/h" in dry.stdout
    assert "2 things nobody needs, 3.10 USD per hour; 1 thing of ours kept" in dry.stdout
    assert {left["why"] for left in done["garbage"]} == {"launcher_gone"}
    assert emulator.state().alive == ()
    assert not (storage(emulator) / invocation).exists()


def test_cleanup_with_the_journal_needs_only_a_prefix_and_can_keep_the_storage(
    here: Home, emulator: LeptonEmulator
) -> None:
    invocation = crash(here, emulator, tasks=1)

    kept = here.run("cleanup", invocation[:5], "--keep-storage", "--grace", "0")
    still_there = (storage(emulator) / invocation).is_dir()
    rest = here.run("cleanup", invocation, "--grace", "0")
    again = here.run("cleanup", invocation, "--grace", "0")

    assert (kept.returncode, rest.returncode, again.returncode) == (0, 0, 0)
    assert f"{invocation}: removed from lepton: endpoint container-task0-0-{invocation} (ready, " in kept.stdout
    assert still_there
    assert rest.stdout.startswith(f"{invocation}: removed from lepton: storage /nemo-evaluator")
    assert again.stdout == f"{invocation}: nothing left on lepton\n"
    assert emulator.state().alive == ()


def test_a_run_whose_launcher_is_alive_is_left_alone_unless_forced(here: Home, emulator: LeptonEmulator) -> None:
    lepton.write_config(here, [benchmark("a", seconds=120)], lepton.deployment())
    process = here.start(*RUN)
    wait_for(lambda: any(job.state == "Running" for job in emulator.state().jobs), "the job runs")
    invocation = here.invocation()

    refused = here.run("cleanup", invocation)
    collected = document(here.run("gc", "execution=lepton", "--yes", "--older-than", "0", "--storage", "--json"))

    assert refused.returncode == 10
    assert refused.stderr.startswith(f"nv-eval: {invocation}: its launcher is alive; end it first: nv-eval stop ")
    assert refused.stderr.count("\n") == 1
    assert collected["garbage"] == []
    assert {left["why"] for left in collected["kept"]} == {"running"}
    assert len(emulator.state().alive) == 2
    kill(process)
    process.communicate()
    assert here.run("cleanup", invocation, "--grace", "0").returncode == 0
    assert emulator.state().alive == ()


@pytest.mark.parametrize(
    "emulator", [Config(faults=(SlowDelete(resource="container-*", after=After(seconds=600)),))], indirect=True
)
def test_what_does_not_go_is_named_and_ends_with_5(here: Home, emulator: LeptonEmulator) -> None:
    invocation = crash(here, emulator, tasks=1)

    done = here.run("cleanup", invocation, "--timeout", "3s")

    assert done.returncode == 5
    assert f"is still there: endpoint container-task0-0-{invocation} (deleting, " in done.stderr
    assert f"removed from lepton: job eval-task0-0-{invocation}" in done.stdout


def test_a_platform_that_refuses_to_answer_is_unknown_and_never_empty(here: Home, emulator: LeptonEmulator) -> None:
    emulator.inject(Refuse(route="GET /jobs", status=403))

    asked = here.run("cleanup", "abcdef01", "execution=lepton")
    collected = here.run("gc", "execution=lepton", "--yes")

    for done in (asked, collected):
        assert done.returncode == 7, done.stdout
        assert "what is on lepton is unknown: Lepton: GET /jobs answered 403" in done.stderr
        assert "nothing left" not in done.stdout


def test_a_broken_journal_does_not_keep_anything_alive(here: Home, emulator: LeptonEmulator) -> None:
    invocation = crash(here, emulator, tasks=1)
    for file in (here.folder / "state").glob("journal.db*"):
        file.write_bytes(b"no database" * 1000)

    done = document(here.run("cleanup", invocation, "--grace", "0", "--json"))

    assert "cannot use the journal" in done["journal_problem"]
    assert done["invocations"][0]["outcome"] == "removed"
    assert emulator.state().alive == ()


def test_a_local_run_seen_from_another_home_is_running_and_can_be_forced_to_end(home: Home) -> None:
    other = Home(home.folder / "other", dict(home.extra))
    other.folder.mkdir()
    write_config(home, [benchmark("a", seconds=120)], serve())
    process = home.start(*RUN)
    log = wait_for(lambda: next(home.results.glob("*/a/job.log"), None), "the job has begun")
    wait_for(lambda: "@nv-eval" in log.read_text(), "the job runs")
    invocation = home.invocation()

    refused = other.run("cleanup", invocation, "--json")
    kept = document(other.run("gc", "--older-than", "0", "--json"))
    forced = document(other.run("cleanup", invocation, "--force", "--json"))
    out, _ = process.communicate(timeout=60)

    assert document(refused)["invocations"][0]["outcome"] == "running"
    mine = [left for left in kept["kept"] if left["invocation"] == invocation]
    assert [(left["kind"], left["why"]) for left in sorted(mine, key=lambda left: str(left["kind"]))] == [
        ("endpoint", "running"),
        ("job", "running"),
    ]
    assert forced["invocations"][0]["outcome"] == "removed"
    assert [task["attempts"] for task in json.loads(out)["tasks"]] == [[]], "its launcher was told to stop"
    assert process.returncode == 130
    assert_nothing_left(f"{invocation}/")


# --- containers -------------------------------------------------------------------------------------------------------


@pytest.mark.engine
def test_containers_of_a_launcher_that_died_with_its_reaper_are_removed(home: Home) -> None:
    import docker

    home.extra["DOCKER_HOST"] = engine_socket()
    client = docker.DockerClient(base_url=engine_socket())
    containers.configure(home, [containers.bench("a", seconds=120)], containers.serve())
    process = home.start(*RUN)
    invocation = home.invocation()
    log = home.results / invocation / "a" / "job.log"
    wait_for(lambda: log.is_file() and "@nv-eval" in log.read_text(), "the job runs", timeout=60)
    mark = {"nv-eval.invocation": invocation, "nv-eval.name": "scratch"}
    client.volumes.create(f"nv-eval-{invocation}", labels=mark)
    (reaper,) = pids_of("--nv-eval-reaper", invocation)
    os.kill(reaper, signal.SIGKILL)
    kill(process)
    process.communicate()
    other = Home(home.folder / "other", dict(home.extra))
    other.folder.mkdir()

    kept = document(other.run("cleanup", invocation, "--keep-storage", "--json"))
    rest = document(other.run("cleanup", invocation, "execution=local", "execution.runtime=docker", "--json"))

    removed = [left["kind"] for place in kept["invocations"][0]["places"] for left in place["removed"]]
    assert sorted(removed) == ["endpoint", "job", "network"]
    assert [left["kind"] for left in rest["invocations"][0]["places"][0]["removed"]] == ["storage"]
    mine = {"label": f"nv-eval.invocation={invocation}"}
    assert client.containers.list(all=True, filters=mine) == []
    assert client.networks.list(filters=mine) == client.volumes.list(filters=mine) == []
    client.close()


def test_an_engine_that_does_not_answer_is_unknown(home: Home) -> None:
    home.extra["DOCKER_HOST"] = f"unix://{home.folder}/gone.sock"

    in_containers = home.run("cleanup", "abcdef01", "execution=local", "execution.runtime=docker")
    as_processes = home.run("cleanup", "abcdef01", "execution=local")

    assert in_containers.returncode == 7
    assert "what is on local is unknown: no Docker or podman answers at" in in_containers.stderr
    assert as_processes.returncode == 0
    assert "abcdef01: containers: no Docker or podman answers at" in as_processes.stderr


def pids_of(*words: str) -> list[int]:
    """Processes that have all these arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if entry.name.isdigit() and set(words) <= set(arguments):
                found.append(int(entry.name))
    return found
