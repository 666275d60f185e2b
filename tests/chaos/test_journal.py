"""The journal when it is cut, put back, full, read-only or wanted by two: nothing is left, nothing is made blindly."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.errors import LeaseHeld, LeaseLost, NotFound
from tests.chaos import child
from tests.chaos.clouds import INVOCATION
from tests.chaos.points import Act, Point
from tests.chaos.scenes import LEGACY, RETRIED, Scene
from tests.chaos.trial import KILLED
from tests.chaos.world import World, world

pytestmark = pytest.mark.e2e
RESUME = ("resume", INVOCATION, "--json")


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    scene: Scene = getattr(request, "param", LEGACY)
    with world(tmp_path / "world", scene) as made:
        yield made
        assert made.left() == []
        assert made.side_by_side() == []
        assert made.others_live()


def die(place: World, label: str, number: int = 1) -> None:
    assert place.do(place.run(Point(label, number))) == KILLED


def resume(place: World) -> int:
    assignment = place.nv_eval(*RESUME)
    code = place.do(assignment)
    assert "Traceback" not in assignment.output.read_text()
    return code


# --- what was written is gone -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "label", ["fact intend_submit_job after", "fact job_submitted after", "fact task_collected after"]
)
def test_a_wal_cut_anywhere_leaves_nothing_and_doubles_nothing(place: World, label: str, seed: int) -> None:
    dice = random.Random(f"{label}{seed}")
    die(place, label)
    wal, shared = place.state / "journal.db-wal", place.state / "journal.db-shm"
    with wal.open("rb+") as file:
        file.truncate(dice.randrange(wal.stat().st_size))
    if dice.random() < 0.5:
        shared.unlink()

    code = resume(place)

    if code == NotFound.exit_code:  # even its beginning is lost
        assert place.do(place.nv_eval("cleanup", INVOCATION, "--json")) == 0
    else:
        assert (code, place.scores()) == (0, LEGACY.scores)
    assert place.made_twice() == []


def test_a_journal_that_is_no_database_is_said_and_cleanup_works_without(place: World) -> None:
    die(place, "fact job_submitted after")
    for path in place.state.iterdir():
        path.write_bytes(random.Random(7).randbytes(8192))
    refused = place.nv_eval("resume", INVOCATION)

    assert place.do(refused) == 1
    assert "cannot use the journal" in refused.output.read_text()
    assert place.do(place.nv_eval("cleanup", INVOCATION, "--json")) == 0


EARLIER = ["fact run_started after", "fact endpoint_created after", "fact job_submitted after"]
LATER = ["fact job_submitted after", "fact task_collected after", "fact intend_delete_endpoint after"]


@pytest.mark.parametrize("place", [LEGACY, RETRIED], indirect=True, ids=lambda scene: scene.name)
@pytest.mark.parametrize(("earlier", "later"), [*zip(EARLIER, LATER, strict=True)])
def test_a_copy_from_yesterday_is_good_enough(place: World, earlier: str, later: str) -> None:
    die(place, earlier)
    copy = place.folder / "copy"
    shutil.copytree(place.state, copy)
    assert place.do(place.nv_eval(*RESUME, awaited=Point(later, 1))) == KILLED
    shutil.rmtree(place.state)
    shutil.copytree(copy, place.state)

    assert resume(place) == 0

    assert place.scores() == place.scene.scores


def test_a_copy_from_before_the_second_attempt_does_not_double_it(tmp_path: Path) -> None:
    with world(tmp_path / "world", RETRIED) as place:
        die(place, "fact task_ended after")
        copy = place.folder / "copy"
        shutil.copytree(place.state, copy)
        assert place.do(place.nv_eval(*RESUME, awaited=Point("fact job_submitted after", 1))) == KILLED
        shutil.rmtree(place.state)
        shutil.copytree(copy, place.state)

        assert resume(place) == 0

        assert place.scores() == place.scene.scores
        assert place.left() == place.side_by_side() == []


# --- nothing can be written -------------------------------------------------------------------------------------------

BROKEN = pytest.mark.parametrize("act", [Act.FULL_DISK, Act.READ_ONLY])


@BROKEN
@pytest.mark.parametrize("label", ["journal begin before", "fact run_started before"])
def test_what_cannot_be_begun_in_the_journal_is_not_begun(place: World, label: str, act: Act) -> None:
    run = place.run(Point(label, 1), act)

    assert place.do(run) == child.UNDEFINED  # api.run raises LauncherError
    assert "cannot write the journal" in run.output.read_text()
    assert place.changes() == []


@BROKEN
def test_no_endpoint_is_created_whose_intent_cannot_be_written(place: World, act: Act) -> None:
    assert place.do(place.run(Point("fact intend_create_endpoint before", 1), act)) == 4

    assert place.changes() == []
    assert resume(place) == 0
    assert place.scores() == LEGACY.scores


@BROKEN
def test_no_job_is_submitted_whose_intent_cannot_be_written(place: World, act: Act) -> None:
    assert place.do(place.run(Point("fact intend_submit_job before", 1), act)) == 4

    assert not [change for change in place.changes() if change == "POST /jobs"]
    assert place.left() == [], "the teardown needs no journal"
    assert resume(place) == 0
    assert place.scores() == LEGACY.scores


@BROKEN
@pytest.mark.parametrize("label", ["fact task_ended before", "journal beat before", "fact intend_cancel_job before"])
def test_scores_come_home_and_everything_goes_when_the_journal_breaks_later(place: World, label: str, act: Act) -> None:
    number = 2 if label.startswith("journal") else 1

    assert place.do(place.run(Point(label, number), act)) == 0

    assert place.scores() == LEGACY.scores


# --- two want it ------------------------------------------------------------------------------------------------------


def test_of_two_runs_of_one_plan_one_is_refused_and_makes_nothing(place: World) -> None:
    runs = [place.run(), place.run()]
    codes = [child.finish(process) for process in [child.start(run) for run in runs]]

    assert sorted(codes) == [0, child.UNDEFINED]
    refused = runs[codes.index(child.UNDEFINED)].output.read_text()
    assert "has run already" in refused
    assert place.made_twice() == []


def test_of_several_resumes_one_gets_the_lease(place: World) -> None:
    die(place, "fact endpoint_created after")
    holder = child.start(place.nv_eval(*RESUME, awaited=Point("fact run_started after", 1), act=Act.PAUSE))
    wait_until(lambda: is_paused(holder.pid))
    others = [child.start(place.nv_eval(*RESUME)) for _ in range(3)]

    assert [child.finish(other) for other in others] == [LeaseHeld.exit_code] * 3
    os.kill(holder.pid or 0, signal.SIGCONT)
    assert child.finish(holder) == 0
    assert place.made_twice() == []


AT_ONCE_STALE = {"launcher.orchestrator.lease:STALE": 0.0}
"""No patience with a holder that cannot be looked at."""


def other_machine() -> str:
    return "another-machine"


PAUSED = [
    "GET /deployments answered",
    "fact endpoint_created before",
    "fact intend_submit_job before",
    "fact intend_cancel_job before",
    "DELETE /deployments/{name} answered",
]


@pytest.mark.parametrize("label", PAUSED)
def test_a_holder_that_wakes_up_after_it_was_taken_over_touches_nothing(place: World, label: str) -> None:
    """It is of another machine, as far as the others know, so that nobody could end it."""
    die(place, "fact run_started after")
    knobs = {"launcher.orchestrator.lease:host_name": other_machine, **AT_ONCE_STALE}
    sleeper = place.nv_eval(*RESUME, awaited=Point(label, 1), act=Act.PAUSE, knobs=knobs)
    process = child.start(sleeper)
    wait_until(lambda: is_paused(process.pid))
    taken = place.nv_eval(*RESUME, knobs=AT_ONCE_STALE)
    assert place.do(taken) == 0, taken.output.read_text()
    before = place.changes()

    os.kill(process.pid or 0, signal.SIGCONT)

    assert child.finish(process) == LeaseLost.exit_code, sleeper.output.read_text()
    assert json.loads(sleeper.output.read_text())["error"] == "LeaseLost"
    assert place.changes() == before
    assert place.scores() == LEGACY.scores


@pytest.mark.parametrize("place", [RETRIED], indirect=True)
def test_a_holder_that_wakes_up_leaves_the_next_attempts_of_the_other_alone(place: World) -> None:
    """To the one that slept they are strays: names that belong to none of its tasks."""
    die(place, "fact run_started after")
    knobs = {"launcher.orchestrator.lease:host_name": other_machine, **AT_ONCE_STALE}
    asleep = Point("GET /deployments before", 3)
    sleeper = child.start(place.nv_eval(*RESUME, awaited=asleep, act=Act.PAUSE, knobs=knobs))
    wait_until(lambda: is_paused(sleeper.pid))
    second_attempt = Point("fact job_submitted after", 3)
    other = child.start(place.nv_eval(*RESUME, awaited=second_attempt, act=Act.PAUSE, knobs=AT_ONCE_STALE))
    wait_until(lambda: is_paused(other.pid))

    os.kill(sleeper.pid or 0, signal.SIGCONT)

    assert child.finish(sleeper) == LeaseLost.exit_code
    assert "container-t0-0r2" in "".join(place.left())
    assert "Deleting" not in "".join(place.left())
    os.kill(other.pid or 0, signal.SIGCONT)
    assert child.finish(other) == 0
    assert place.scores() == place.scene.scores


def is_paused(pid: int | None) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
