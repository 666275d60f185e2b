"""What becomes of a schedule's times: run, skipped, missed, too dear; under a clock that the test turns."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.errors import ConfigError, LauncherError, NotFound, PlatformError, PreflightError
from launcher.orchestrator import sweeps
from launcher.orchestrator.journal import Journal
from launcher.schedule.firing import Ended, Firing, Prepared, jitter, refuse_unkeepable
from launcher.schedule.model import Checkpoint, Outcome, Verdict
from launcher.schedule.store import Store
from tests.fakes.schedules import Clock, Killed, World, moment, nightly
from tests.fakes.schedules import world as world  # noqa: PLC0414  # a fixture

DAY = 86_400.0


def test_three_fires_once_while_the_last_runs_once_after_the_machine_was_off_and_the_budget_stops_the_fourth(
    world: World,
) -> None:
    world.store.add(nightly(cron="0 */3 * * *", budget_day=8), moment("2026-11-03T00:30"))

    def the_next_time_comes() -> None:
        assert world.at("2026-11-03T09:00").outcome is Outcome.OVERLAP

    world.at("2026-11-03T03:00")
    world.during = the_next_time_comes
    world.at("2026-11-03T06:00")
    world.at("2026-11-03T16:20")  # off since 9:30: 12:00 and 15:00 have passed
    refused = world.at("2026-11-03T18:00")

    lines = world.store.history()
    assert [(str(line.outcome), line.count) for line in lines] == [
        ("scored", 1),
        ("scored", 1),
        ("skipped overlap", 1),
        ("missed", 1),
        ("scored", 1),
        ("skipped budget", 1),
    ]
    assert [line.due for line in lines] == [moment(f"2026-11-03T{hour:02}:00") for hour in (3, 6, 9, 12, 15, 18)]
    assert lines[2].detail == "run00001 is still running"
    caught = lines[4]
    assert (caught.detail, caught.started) == ("caught up", moment("2026-11-03T16:20"))
    assert caught.ended == moment("2026-11-03T16:30")
    assert refused is not None and refused.invocation == ""
    assert refused.detail == (
        "budget of the day: 6.00 of 8.00 USD are spent or promised, and the worst case of this run is 3.00 USD"
    )
    assert len(world.runs) == 4, "the fourth was planned and never begun"
    assert world.journal.invocations() and "run00003" not in {one.id for one in world.journal.invocations()}


def test_a_time_is_decided_once_however_often_it_is_called(world: World) -> None:
    world.store.add(nightly(), world.clock.time())

    assert world.at("2026-11-03T01:59") is None
    assert world.at("2026-11-03T02:00") is not None
    assert world.fire() is None
    assert world.at("2026-11-04T01:59") is None


def test_a_late_call_within_grace_is_on_time_and_beyond_it_catch_up_decides(world: World) -> None:
    world.store.add(nightly(grace=600.0, catch_up="none"), world.clock.time())

    assert world.at("2026-11-03T02:09").outcome is Outcome.SCORED
    assert world.at("2026-11-05T02:11").outcome is Outcome.MISSED

    assert world.history() == [("scored", 1), ("missed", 2)]
    assert len(world.runs) == 1


def test_times_that_no_timer_called_because_the_run_went_on_are_not_called_missed(world: World) -> None:
    """systemd starts no service that still runs."""
    world.store.add(nightly(), world.clock.time())
    world.lasts = 2.5 * DAY

    world.at("2026-11-03T02:00")
    world.at("2026-11-07T02:00")

    assert world.history() == [("scored", 1), ("skipped overlap", 2), ("missed", 1), ("scored", 1)]


def test_where_overlap_is_allowed_the_next_begins_beside_it(world: World) -> None:
    world.store.add(nightly(allow_overlap=True), world.clock.time())
    world.lasts = 10.0

    def again() -> None:
        assert world.at("2026-11-04T02:00").outcome is Outcome.SCORED

    world.during = again
    world.at("2026-11-03T02:00")

    assert world.history() == [("scored", 1), ("scored", 1)]


def test_a_manual_run_overlaps_nothing_and_leaves_the_calendar_alone(world: World) -> None:
    world.store.add(nightly(), world.clock.time())
    world.during = lambda: setattr(world, "inner", world.fire(manual=True))

    world.at("2026-11-03T02:00")
    manual = world.fire(manual=True)

    assert world.inner.outcome is Outcome.OVERLAP  # type: ignore[attr-defined]
    assert manual.outcome is Outcome.SCORED and manual.due is None
    assert world.at("2026-11-04T02:00").outcome is Outcome.SCORED


def test_what_passes_in_a_pause_is_called_paused_and_nothing_runs(world: World) -> None:
    world.store.add(nightly(), world.clock.time())
    firing = Firing(store=world.store, journal=world.journal, launch=world, clock=world.clock)
    world.clock.now = moment("2026-11-04T12:00")
    firing.pass_over("nightly")
    world.store.pause("nightly", paused=True)

    assert world.at("2026-11-05T02:00").outcome is Outcome.PAUSED
    world.clock.now = moment("2026-11-07T12:00")
    firing.pass_over("nightly")
    world.store.pause("nightly", paused=False)
    world.at("2026-11-08T02:00")

    assert world.history() == [("missed", 2), ("paused", 1), ("paused", 2), ("scored", 1)]


def test_jitter_is_waited_and_is_the_same_for_the_same_time(world: World) -> None:
    world.store.add(nightly(jitter=600.0), world.clock.time())
    first = world.at("2026-11-03T02:00")

    wanted = jitter(nightly(jitter=600.0), moment("2026-11-03T02:00"))
    assert world.clock.slept == [wanted] and 0 < wanted < 600
    assert first.started == pytest.approx(moment("2026-11-03T02:00") + wanted)
    others = {jitter(nightly(jitter=600.0), moment("2026-11-03T02:00") + day * DAY) for day in range(50)}
    assert len(others) == 50 and max(others) - min(others) > 300


def test_a_pause_or_a_removal_while_a_time_waits_keeps_its_run_from_beginning(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(act: Callable[[], None]) -> None:
        monkeypatch.setattr(world.clock, "sleep", lambda _: act())

    world.store.add(nightly(jitter=600.0), world.clock.time())
    meanwhile(lambda: world.store.pause("nightly", paused=True))
    paused = world.at("2026-11-03T02:00")
    world.store.pause("nightly", paused=False)
    meanwhile(lambda: world.store.remove("nightly"))
    removed = world.at("2026-11-04T02:00")

    assert (paused.outcome, removed.outcome) == (Outcome.PAUSED, Outcome.STOPPED)
    assert "removed before the run began" in removed.detail
    assert world.journal.costs() == {}


def test_a_clock_that_was_far_ahead_and_is_set_back_does_not_silence_a_schedule(world: World) -> None:
    world.store.add(nightly(), world.clock.time())
    world.at("2031-01-01T02:00")
    world.clock.now = moment("2026-11-03T02:00")
    again = world.fire()

    assert again.outcome is Outcome.SCORED and again.due == moment("2026-11-03T02:00")
    assert any("clock" in fire.detail for fire in world.store.history())
    assert world.fire() is None


# --- money ------------------------------------------------------------------------------------------------------------


def test_a_budget_counts_runs_of_all_schedules_and_begins_anew_at_midnight_of_the_time_zone(world: World) -> None:
    world.store.add(nightly(budget_day=6), world.clock.time())
    world.store.add(nightly(name="other", cron="0 23 * * *"), world.clock.time())
    world.store.add(nightly(name="evening", cron="30 23 * * *", budget_day=6), world.clock.time())
    world.usd = 4.0

    world.at("2026-11-02T23:00", "other")
    late = world.at("2026-11-02T23:30", "evening")
    morning = world.at("2026-11-03T02:00")

    assert late.outcome is Outcome.BUDGET and "4.00 of 6.00 USD" in late.detail
    assert morning.outcome is Outcome.SCORED


def test_a_budget_of_the_month_outlives_the_day_and_a_removed_schedule(world: World) -> None:
    world.store.add(nightly(budget_month=6), world.clock.time())
    world.at("2026-11-29T02:00")
    world.store.remove("nightly")
    world.store.add(nightly(budget_month=6), world.clock.time())

    assert world.at("2026-11-30T02:00").outcome is Outcome.SCORED
    world.clock.now = moment("2026-11-30T12:00")
    assert world.fire(manual=True).outcome is Outcome.BUDGET
    assert world.at("2026-12-01T02:00").outcome is Outcome.SCORED


def test_what_runs_counts_with_its_worst_case(world: World) -> None:
    world.store.add(nightly(allow_overlap=True, budget_day=5), world.clock.time())
    world.during = lambda: setattr(world, "inner", world.fire(manual=True))

    world.at("2026-11-03T02:00")

    assert "3.00 of 5.00 USD are spent or promised" in world.inner.detail  # type: ignore[attr-defined]
    assert world.fire(manual=True).outcome is Outcome.SCORED, "it cost 2 and not 3"


def test_a_run_without_a_known_price_is_not_begun_under_a_budget(world: World) -> None:
    world.store.add(nightly(budget_day=5), world.clock.time())
    world.worst = None

    assert "no price of the run is known" in world.at("2026-11-03T02:00").detail


@pytest.mark.parametrize(("worst", "says"), [(None, "no price is known"), (9.0, "could never begin")])
def test_a_budget_that_cannot_be_kept_is_refused_when_it_is_added(worst: float | None, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        refuse_unkeepable(nightly(budget_month=5), worst)


# --- gates and messages -----------------------------------------------------------------------------------------------


def test_the_gate_compares_with_the_last_run_that_it_let_pass(world: World) -> None:
    world.store.add(nightly(gate="policy.yaml", notify=("URL",)), world.clock.time())
    for day, verdict in enumerate((Verdict.GO, Verdict.GO, Verdict.NO_GO, Verdict.INCONCLUSIVE, Verdict.GO), 3):
        world.verdict = verdict
        world.at(f"2026-11-0{day}T02:00")

    runs = world.runs
    assert world.gated == [(runs[0], runs[1]), (runs[1], runs[2]), (runs[1], runs[3]), (runs[1], runs[4])]
    assert [str(line.verdict) for line in world.store.history()] == ["first", "GO", "NO-GO", "INCONCLUSIVE", "GO"]
    assert world.sent == ["run00002: scored, gate: NO-GO against run00001; worse by 0.1"]


def test_a_run_that_failed_is_no_candidate_and_no_baseline(world: World) -> None:
    world.store.add(nightly(gate="policy.yaml", notify=("URL",)), world.clock.time())
    world.exit_code = 4
    world.at("2026-11-03T02:00")
    world.exit_code = 0
    world.at("2026-11-04T02:00")

    assert world.gated == []
    assert [line.verdict for line in world.store.history()] == [None, Verdict.FIRST]
    assert world.sent == ["run00000: failed (exit code 4)"]


def test_runs_that_cannot_be_compared_are_told_and_replace_no_baseline(world: World) -> None:
    world.store.add(nightly(gate="policy.yaml", notify=("URL",)), world.clock.time())
    world.verdict = LauncherError("other task version")
    for day in (3, 4, 5):
        world.at(f"2026-11-0{day}T02:00")

    assert [baseline for baseline, _ in world.gated] == [world.runs[0]] * 2
    assert "undecided against run00000; other task version" in world.sent[0]


def test_what_could_not_be_told_is_told_by_the_next_call(world: World) -> None:
    world.store.add(nightly(notify=("URL",)), world.clock.time())
    world.exit_code, world.dead_address = 4, True
    world.at("2026-11-03T02:00")
    world.exit_code, world.dead_address = 0, False
    world.at("2026-11-03T03:00")

    assert world.sent == ["run00000: failed (exit code 4)"]


def test_two_calls_at_once_tell_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.store.add(nightly(notify=("URL",)), world.clock.time())
    world.exit_code = 4
    others: list[threading.Thread] = []

    def tell_again() -> None:
        store, journal = Store(world.folder / "schedules.db"), Journal(world.folder / "journal.db")
        firing = Firing(store=store, journal=journal, launch=world, clock=world.clock)
        firing._tell(store.find("nightly"))
        store.close()
        journal.close()

    def tell(_names: tuple[str, ...], _title: str, text: str) -> None:
        if not others:  # the message is on its way, and nobody has noted that it is
            others.append(threading.Thread(target=tell_again))
            others[0].start()
            others[0].join(0.2)
        world.sent.append(text)

    monkeypatch.setattr(world, "tell", tell)
    world.at("2026-11-03T02:00")
    others[0].join(10)

    assert world.sent == ["run00000: failed (exit code 4)"]


def test_a_run_that_is_refused_stands_in_the_history_with_the_reason(world: World) -> None:
    world.store.add(nightly(notify=("URL",)), world.clock.time())
    world.refuses = PreflightError("no GPU here")

    with pytest.raises(PreflightError):
        world.at("2026-11-03T02:00")

    (line,) = world.store.history()
    assert (line.outcome, line.exit_code, line.detail) == (Outcome.FAILED, 3, "no GPU here")
    assert world.sent == ["failed (exit code 3); no GPU here"]


# --- death ------------------------------------------------------------------------------------------------------------


def die(*_: object) -> None:
    raise Killed


def as_if_of_another_process(world: World) -> None:
    """The line was written by a process that is gone."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    world.store._query("UPDATE fires SET pid = ?, pid_start = 'x' WHERE outcome IS NULL", (gone.pid,))


def killed_run(world: World) -> None:
    world.store.add(nightly(notify=("URL",)), world.clock.time())
    world.during = die
    with pytest.raises(Killed):
        world.at("2026-11-03T02:00")
    as_if_of_another_process(world)


def test_after_a_kill_the_next_call_says_so_and_runs(world: World) -> None:
    killed_run(world)

    world.at("2026-11-04T02:00")

    killed, ran = world.store.history()
    assert killed.outcome is Outcome.KILLED and killed.detail == "go on with it: nv-eval resume run00000"
    assert ran.outcome is Outcome.SCORED
    assert world.sent == ["run00000: killed; go on with it: nv-eval resume run00000"]


def test_a_sweep_that_ends_by_an_error_counts_with_what_its_points_have_cost(world: World) -> None:
    world.store.add(nightly(), world.clock.time())

    def breaks() -> Ended:
        point = sweeps.Point(number=1, invocation="a0000001", identity="i", words="x=1")
        sweep = sweeps.Sweep(id="s0000001", created=world.clock.time(), folder=str(world.folder))
        sweeps.begin(world.journal, sweep, [(point, b"")])
        world._go(point.invocation)
        raise PlatformError("the platform is gone")

    firing = Firing(store=world.store, journal=world.journal, launch=world, clock=world.clock)
    world.prepare = lambda _: Prepared("s0000001", 3.0, breaks)  # type: ignore[method-assign]
    with pytest.raises(PlatformError):
        firing.fire("nightly", manual=True)

    assert [(fire.outcome, fire.usd) for fire in world.store.history()] == [(Outcome.FAILED, 2.0)]


def test_a_killed_run_counts_with_its_worst_case_until_it_is_known_how_it_ended(world: World) -> None:
    killed_run(world)
    world.store.add(nightly(budget_day=5), world.clock.time(), replace=True)
    assert world.fire(manual=True).outcome is Outcome.BUDGET

    world.end("run00000")
    assert world.fire(manual=True).outcome is Outcome.SCORED
    first = world.store.history()[0]
    assert (first.outcome, first.usd, first.exit_code) == (Outcome.SCORED, 2.0, 0)
    assert first.detail.endswith("resumed after it was killed")


def test_killed_between_its_end_and_its_record_the_journal_tells(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.store.add(nightly(), world.clock.time())
    monkeypatch.setattr(Firing, "_end", die)
    with pytest.raises(Killed):
        world.at("2026-11-03T02:00")
    monkeypatch.undo()
    as_if_of_another_process(world)

    world.at("2026-11-04T02:00")

    assert world.history() == [("scored", 1), ("scored", 1)]


def test_killed_before_anything_was_created_says_that(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.store.add(nightly(), world.clock.time())
    monkeypatch.setattr(world, "prepare", die)
    with pytest.raises(Killed):
        world.at("2026-11-03T02:00")
    monkeypatch.undo()
    as_if_of_another_process(world)

    world.at("2026-11-04T02:00")

    assert world.store.history()[0].detail == "nothing was created"


def test_what_another_machine_has_called_is_waited_for_only_while_it_may_live(world: World) -> None:
    """As pods of a cluster do that share the state folder: each has a name of its own, and may be gone."""
    killed_run(world)
    world.store._query("UPDATE fires SET host = 'pod-1' WHERE outcome IS NULL")
    world.store.record("nightly", None, due=None, started=world.clock.time())
    world.store._query("UPDATE fires SET host = 'pod-2' WHERE id = 2")

    world.at("2026-11-03T02:10", manual=True)
    early = [line.outcome for line in world.store.history()]
    world.at("2026-11-04T02:00")

    assert early == [Outcome.KILLED, None, Outcome.OVERLAP]
    assert [line.outcome for line in world.store.history()][1:] == [Outcome.KILLED, Outcome.OVERLAP, Outcome.SCORED]


# --- the store --------------------------------------------------------------------------------------------------------


def test_a_name_that_nobody_has_is_answered_with_the_nearest(world: World) -> None:
    world.store.add(nightly(), 0.0)

    with pytest.raises(NotFound, match="did you mean nightly"):
        world.store.find("nightyl")
    with pytest.raises(ConfigError, match="there is one already"):
        world.store.add(nightly(), 0.0)


def test_what_a_schedule_was_comes_back_as_it_was(tmp_path: Path) -> None:
    definition = nightly(jitter=5.0, notify=("A", "B"), budget_day=1.5, gate="/p.yaml")
    Store(tmp_path / "s.db").add(definition, 7.0)

    found = Store(tmp_path / "s.db").find("nightly")

    assert (found.definition, found.created, found.handled, found.paused) == (definition, 7.0, 7.0, False)


@pytest.mark.parametrize(
    ("evening", "began"), [("2026-03-28T20:00", "2026-03-29T03:00"), ("2026-10-24T20:00", "2026-10-25T02:30")]
)
def test_half_past_two_fires_once_in_a_night_when_clocks_change(world: World, evening: str, began: str) -> None:
    world.store.add(nightly(cron="30 2 * * *"), moment(evening))
    world.lasts = 60.0

    for call in range(1, 48):  # every quarter of an hour, far more often than any timer
        world.clock.now = moment(evening) + call * 900
        world.fire()

    (fire,) = world.store.history()
    assert (str(fire.outcome), fire.due, fire.started) == ("scored", moment(began), moment(began))
    assert len(world.runs) == 1


DAMAGES = [
    ("UPDATE schedules SET definition = '{' WHERE name = 'weekly'", "schedule weekly is damaged"),
    ("UPDATE schedules SET definition = x'ff' WHERE name = 'weekly'", "schedule weekly is damaged"),
    ("UPDATE schedules SET handled = 'soon' WHERE name = 'weekly'", "schedule weekly is damaged"),
    ("UPDATE fires SET outcome = 'splendid' WHERE schedule = 'weekly'", "line 2 of the history, of schedule weekly"),
    ("UPDATE fires SET verdict = 7 WHERE schedule = 'weekly'", "line 2 of the history, of schedule weekly"),
    ("UPDATE fires SET started = 'then' WHERE schedule = 'weekly'", "line 2 of the history, of schedule weekly"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES)
def test_a_damaged_row_is_one_line_and_hides_no_other(world: World, damage: str, said: str) -> None:
    for name in ("nightly", "weekly"):
        world.store.add(nightly(name=name), moment("2026-11-03T00:30"))
        world.at("2026-11-03T02:00", name)
    world.store._db.execute(damage)

    names, fires = [one.name for one in world.store.schedules()], [one.schedule for one in world.store.history()]

    assert names == ["nightly"] or fires == ["nightly"]
    (line,) = world.store.damaged
    assert said in line and line.startswith(str(world.store.path)) and "\n" not in line
    assert world.at("2026-11-04T02:00").outcome is Outcome.SCORED, "the other one goes on"  # type: ignore[union-attr]


def test_a_budget_is_not_promised_where_nobody_knows_what_was_spent(world: World) -> None:
    world.store.add(nightly(budget_day=100), moment("2026-11-03T00:30"))
    world.at("2026-11-03T02:00")
    world.store._db.execute("UPDATE fires SET usd = 'much'")

    fire = world.at("2026-11-04T02:00")

    assert fire is not None and fire.outcome is Outcome.BUDGET
    assert "nobody knows what is spent" in fire.detail and "line 1 of the history" in fire.detail


def test_a_damaged_checkpoint_is_not_evaluated_again_unseen(world: World) -> None:
    world.store.begin("w", Checkpoint(identity="a", path="p", name="n"), "run00000", 1.0)
    world.store._db.execute("UPDATE checkpoints SET started = 'then'")

    with pytest.raises(LauncherError, match="a checkpoint of watch w is damaged; move the file away"):
        world.store.seen("w")


def test_a_file_of_a_later_version_or_no_file_at_all_is_a_line(tmp_path: Path) -> None:
    Store(tmp_path / "s.db")._db.execute("PRAGMA user_version = 99")
    with pytest.raises(LauncherError, match="later nv-eval"):
        Store(tmp_path / "s.db")
    (tmp_path / "t.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(LauncherError, match=r"cannot be used: .*damaged: move it away"):
        Store(tmp_path / "t.db")


def test_the_clock_of_a_test_is_a_clock() -> None:
    clock = Clock(1.0)
    clock.sleep(2.0)
    assert clock.time() == 3.0
