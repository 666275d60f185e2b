"""Sweeps whose points a sweeper of Hydra's plugins chooses: a real plugin, a platform in memory, a virtual clock."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton

from launcher import api
from launcher.cli.main import main
from launcher.config import Request
from launcher.errors import ConfigError, PreflightError
from launcher.orchestrator import sweeps
from launcher.orchestrator.blocking import Interrupts
from launcher.orchestrator.journal import Journal, RunState
from launcher.orchestrator.sweeps import PointStatus
from launcher.plan.model import Plan
from launcher.platforms.base import Check, CheckState
from launcher.schedule.launching import plans, worst
from launcher.sweep import record
from launcher.sweep.choosing import StudySupervision
from launcher.sweep.drive import SweepResult
from launcher.sweep.model import SweepPlan
from launcher.sweep.resume import decide
from tests.fakes.clock import run_virtual
from tests.fakes.lending import START, lend, seconds_of
from tests.fakes.platform import FakePlatform, Script

PLUGINS = Path(__file__).parents[1] / "plugins"
SPACE = "evaluation.seed=range(0,12)"
BASE = (
    "deployment=container",
    "deployment.model_id=m",
    "deployment.command='serve {port}'",
    "evaluation.harness=command",
    "evaluation.command=[bench]",
    "evaluation.tasks=[toy]",
    "limits.max_attempts=1",
    "export.formats=[]",
)
CLIMBING = ("hydra/sweeper=climbing", "hydra.sweeper.seed=3")
OBJECTIVE = "sweep.objective=toy/acc"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NV_EVAL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Installs the plugin, as far as Hydra can tell, and gives what its sweepers are told."""
    monkeypatch.syspath_prepend(str(PLUGINS))
    module = importlib.import_module("hydra_plugins.climbing_sweeper")
    Plugins.instance().register(module.ClimbingSweeper)
    module.TOLD.clear()
    return module.TOLD


def value(seed: int) -> float:
    """The score of a point: best at 7."""
    return 1 - (seed - 7) ** 2 / 100


@dataclasses.dataclass
class Bench:
    """One study and the places its points run in, by invocation."""

    journal: Journal
    script: Callable[[int], Script] = lambda seed: Script(boot=1, lasts=5, results=scores(acc=value(seed)))
    platforms: dict[str, FakePlatform] = dataclasses.field(default_factory=dict)
    ran: list[int] = dataclasses.field(default_factory=list)
    """Seeds of points that were begun, in turn."""
    said: list[str] = dataclasses.field(default_factory=list)

    def plan(self, *overrides: str, objective: str = OBJECTIVE) -> SweepPlan:
        made = api.build_sweep(Request(overrides=(*BASE, *CLIMBING, SPACE, objective, *overrides)))
        record.begin(made, self.journal)
        return made

    def open(self, plan: Plan) -> FakePlatform:
        seed = int(plan.tasks[0].settings.seed or 0)
        if plan.invocation not in self.platforms:
            self.ran.append(seed)
        return self.platforms.setdefault(plan.invocation, FakePlatform({"toy": self.script(seed)}, poll_interval=0.5))

    def supervision(self, plan: SweepPlan, **keys: Any) -> StudySupervision:
        return StudySupervision(plan=plan, journal=self.journal, say=self.said.append, opener=self.open, **keys)

    def run(self, plan: SweepPlan, **keys: Any) -> SweepResult:
        return run_virtual(self.supervision(plan, **keys).run(Interrupts()))

    def interrupted(self, plan: SweepPlan, after: float) -> SweepResult:
        """Run it, and stop it after some seconds."""
        supervision = self.supervision(plan)

        async def scenario() -> SweepResult:
            interrupts = Interrupts()
            running = asyncio.ensure_future(interrupts.attended(supervision.run(interrupts)))
            await asyncio.sleep(after)
            interrupts.react()
            return await running

        return run_virtual(scenario())

    def resumed(self, plan: SweepPlan, *overrides: str) -> SweepResult:
        """Go on as another process would."""
        for one in [one for one, platform in self.platforms.items() if platform.left == []]:
            self.platforms.pop(one)
        self.ran.clear()
        found = sweeps.find(self.journal, plan.id)
        going_on = decide(record.load(self.journal, found), self.journal, overrides)
        self.journal.take_lease(plan.id)
        return self.run(going_on.plan, done=going_on.done)


def scores(**values: float) -> str:
    return json.dumps(
        {"schema": "nv-eval.scores/1", "scores": [{"metric": m, "value": v, "n": 4} for m, v in values.items()]}
    )


def words(points: tuple[PointStatus, ...]) -> list[str]:
    return [point.words for point in points]


@pytest.fixture
def bench() -> Bench:
    return Bench(Journal.default())


# --- the points -----------------------------------------------------------------------------------------------------


def test_a_sweeper_is_asked_batch_by_batch_and_told_what_each_point_gave(
    bench: Bench, told: list[tuple[str, Any]]
) -> None:
    plan = bench.plan()
    result = bench.run(plan)
    assert result.exit_code == 0, bench.said
    assert [words for words, _ in told] == words(result.status.points)
    assert [found for _, found in told] == pytest.approx([value(int(text.partition("=")[2])) for text, _ in told])
    scored = [p for p in result.status.points if p.state == "scored"]
    assert [sweeps.is_complete(bench.journal, p.invocation) for p in scored] == [True] * len(scored)
    begun = [bench.platforms[p.invocation].created[0][0] for p in scored]
    assert begun == sorted(begun) and begun[-1] > begun[0] + 5, "a batch waits for what the last one gave"
    assert json.loads(Path(plan.folder, "climbing.json").read_text())[0] == max(found for _, found in told)
    assert any(text.startswith("Best so far: point ") for text in bench.said)
    study = json.loads(Path(plan.folder, "sweep.json").read_text())["study"]
    assert study["objective"] == ["toy/acc"] and len(study["values"]) == len({text for text, _ in told})
    assert [study["values"][str(number)] for number in study["best"]] == [[max(found for _, found in told)]]


def test_a_point_that_is_asked_for_again_is_measured_once(bench: Bench, told: list[tuple[str, Any]]) -> None:
    plan = bench.plan("evaluation.seed=range(6,8)")
    result = bench.run(plan)
    assert (result.exit_code, len(result.status.points), len(told)) == (0, 6, 6)
    assert sorted(bench.ran) == [6, 7]
    again = [p for p in result.status.points if p.state == "skipped"]
    assert len(again) == 4 and all(p.note.startswith("is measured as point ") for p in again)


def test_several_objectives_are_told_in_their_order(bench: Bench, told: list[tuple[str, Any]]) -> None:
    bench.script = lambda seed: Script(results=scores(acc=value(seed), cost=seed))
    plan = bench.plan(
        "hydra.sweeper.direction=[maximize,minimize]", objective="sweep.objective=[toy/acc,toy/cost/none]"
    )
    assert bench.run(plan).exit_code == 0
    assert all(found == [pytest.approx(value(int(found[1]))), found[1]] for _, found in told)
    study = json.loads(Path(plan.folder, "sweep.json").read_text())["study"]
    given = {number: tuple(found) for number, found in study["values"].items()}
    beaten = {
        n
        for n, (acc, cost) in given.items()
        for a, c in given.values()
        if a >= acc and c <= cost and (a, c) != (acc, cost)
    }
    assert sorted(map(str, study["best"])) == sorted(set(given) - beaten) != []


def test_a_point_that_an_earlier_sweep_has_is_taken_from_there_where_the_user_wants_it(
    bench: Bench, told: list[tuple[str, Any]]
) -> None:
    bench.run(bench.plan("evaluation.seed=range(6,8)"))
    bench.ran.clear()
    result = bench.run(bench.plan("evaluation.seed=range(6,8)", "sweep.skip_done=true"))
    assert (result.exit_code, bench.ran) == (0, [])
    assert told[6:] == told[:6]


# --- failures and limits ----------------------------------------------------------------------------------------------


def failing(seeds: set[int]) -> Callable[[int], Script]:
    return lambda seed: Script(
        lasts=5, reason="harness_failed" if seed in seeds else "completed", results=scores(acc=value(seed))
    )


def first_seed() -> int:
    """What the sweeper asks for first, whatever is told."""
    return random.Random(3).choice(range(12))


@pytest.mark.parametrize(("policy", "points"), [("continue", 6), ("stop_new", 2), ("abort", 2)])
def test_a_point_without_scores_is_a_failed_trial_where_the_sweep_goes_on(
    bench: Bench, told: list[tuple[str, Any]], policy: str, points: int
) -> None:
    bench.script = failing({first_seed()})
    result = bench.run(bench.plan(f"sweep.on_failure={policy}"))
    assert (result.exit_code, len(result.status.points)) == (4, points)
    assert all(platform.left == [] for platform in bench.platforms.values())
    if policy == "continue":
        assert str(told[0][1]) == "point 1 has not all its scores"
        assert any(not isinstance(found, Exception) for _, found in told)
    else:
        assert told == [] and "climbing is asked for no further point." in bench.said


def test_a_sweeper_may_give_up_after_failures(bench: Bench) -> None:
    bench.script = failing(set(range(12)))
    result = bench.run(bench.plan("hydra.sweeper.tolerates_failures=false"))
    assert (result.exit_code, len(result.status.points)) == (4, 2)
    assert "hydra/sweeper=climbing gives up: point 1 has not all its scores." in bench.said


def test_results_without_the_objective_are_a_failure_that_says_what_there_is(
    bench: Bench, told: list[tuple[str, Any]]
) -> None:
    bench.script = lambda _: Script(results=scores(f1=0.5))
    result = bench.run(bench.plan("hydra.sweeper.n_trials=1"))
    assert result.exit_code == 4
    assert "toy/acc: no such score; there are: f1" in str(told[0][1])
    assert any("toy/acc: no such score; there are: f1" in text for text in bench.said)


def test_a_limit_ends_the_sweep_and_keeps_what_is_scored(bench: Bench) -> None:
    bench.script = lambda seed: Script(lasts=1000, results=scores(acc=value(seed)))
    plan = bench.plan("execution.usd_per_gpu_hour=36", "sweep.max_cost_usd=25", "deployment.gpus=1")
    result = bench.run(plan)
    assert result.exit_code == 9
    assert [p.state.value for p in result.status.points if p.state != "skipped"] == ["scored", "scored", "stopped"]
    assert all(platform.left == [] for platform in bench.platforms.values())


def test_a_sweeper_that_asks_for_too_many_points_is_ended(bench: Bench) -> None:
    more = ("hydra.sweeper.n_trials=2", "hydra.sweeper.asks_at_last='evaluation.seed=99'", "sweep.max_points=2")
    result = bench.run(bench.plan(*more))
    assert (result.exit_code, len(result.status.points)) == (9, 2)
    assert "Limit reached: sweep.max_points (2). What is scored is kept." in bench.said


def test_a_batch_with_a_point_that_is_wrong_is_not_begun_and_ends_the_sweep(bench: Bench) -> None:
    result = bench.run(bench.plan("hydra.sweeper.n_trials=2", "hydra.sweeper.asks_at_last='evaluation.seed=-1'"))
    assert (result.exit_code, len(result.status.points)) == (2, 2)
    assert "sweep: a point (evaluation.seed=-1): command line: evaluation.seed: expected" in result.problem


def test_what_the_platform_refuses_of_the_first_batch_creates_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_self: FakePlatform, _plan: Plan) -> list[Check]:
        return [Check("image", CheckState.PROBLEM, "no such image")]

    monkeypatch.setattr(FakePlatform, "preflight", refuse)
    plan = bench.plan()
    with pytest.raises(PreflightError, match=r"point 1 \(evaluation.seed=\d+\): no such image"):
        bench.run(plan)
    assert sweeps.points(bench.journal, plan.id) == []
    status = sweeps.status(bench.journal, sweeps.find(bench.journal, plan.id))
    assert (status.state, status.exit_code) == (RunState.FINISHED, 3)


def test_a_defect_of_a_sweeper_is_one_line_and_keeps_the_scores(bench: Bench) -> None:
    result = bench.run(bench.plan("hydra.sweeper.n_trials=2", "hydra.sweeper.breaks=true"))
    assert (result.exit_code, result.problem) == (
        1,
        "hydra/sweeper=climbing: ValueError: the search went wrong; with details",
    )
    assert [p.state.value for p in result.status.points] == ["scored", "scored"]


# --- resuming -----------------------------------------------------------------------------------------------------


def test_a_study_that_was_stopped_goes_on_to_the_points_it_would_have_had(bench: Bench) -> None:
    whole = bench.run(bench.plan())
    plan = bench.plan()
    stopped = bench.interrupted(plan, after=13)
    assert stopped.exit_code == 130
    assert all(platform.left == [] for platform in bench.platforms.values())
    done = {p.number for p in stopped.status.points if p.state == "scored"}
    assert 0 < len(done) < len(whole.status.points)
    result = bench.resumed(plan)
    assert (result.exit_code, words(result.status.points)) == (0, words(whole.status.points))
    again = {p.words for p in stopped.status.points if p.number in done}
    assert not again & {f"evaluation.seed={seed}" for seed in bench.ran}, "nothing that is scored runs again"


def test_a_study_that_has_ended_can_be_given_more_points(bench: Bench) -> None:
    plan = bench.plan("hydra.sweeper.n_trials=2")
    bench.run(plan)
    first = set(bench.ran)
    result = bench.resumed(plan, "hydra.sweeper.n_trials=4", "evaluation.timeout=50")
    assert (result.exit_code, len(result.status.points)) == (0, 4)
    assert bench.ran and not first & set(bench.ran)


def test_what_a_sweeper_was_told_stays_told_and_what_failed_last_is_tried_again(bench: Bench) -> None:
    bench.script = failing({first_seed()})
    plan = bench.plan()
    before = bench.run(plan)
    bench.script = failing(set())
    after = bench.resumed(plan)
    assert (after.exit_code, words(after.status.points), bench.ran) == (4, words(before.status.points), [])
    assert any("Point 1 " in text and "stays without scores" in text for text in bench.said)
    bench.script = failing(set(range(12)))
    plan = bench.plan("hydra.sweeper.tolerates_failures=false")
    assert bench.run(plan).exit_code == 4
    bench.script = failing(set())
    result = bench.resumed(plan)
    assert result.exit_code == 0 and {p.state.value for p in result.status.points} <= {"scored", "skipped"}


def test_points_that_are_not_asked_for_again_are_torn_down_and_said(bench: Bench) -> None:
    bench.script = lambda seed: Script(lasts=50, results=scores(acc=value(seed)))
    plan = bench.plan("hydra.sweeper.n_trials=2")
    bench.interrupted(plan, after=20)
    result = bench.resumed(plan, "hydra.sweeper.seed=4")
    assert result.exit_code == 0, bench.said
    left_out = [p for p in result.status.points if p.note == "is not asked for again"]
    assert left_out and all(p.state == "skipped" for p in left_out)


def test_a_setting_that_changes_scores_is_no_resumption_of_a_study(bench: Bench) -> None:
    plan = bench.plan("hydra.sweeper.n_trials=1")
    bench.run(plan)
    with pytest.raises(ConfigError, match=r"evaluation.limit: unset -> 3.*run another sweep"):
        bench.resumed(plan, "evaluation.limit=3")


def test_a_study_without_a_seed_is_given_one_and_says_so(bench: Bench) -> None:
    plan = bench.plan("hydra.sweeper.seed=null", "hydra.sweeper.n_trials=1")
    assert plan.study is not None
    (note,) = plan.study.notes
    assert note.startswith("No seed was set; hydra.sweeper.seed=") and "was drawn" in note
    assert record.load(bench.journal, sweeps.find(bench.journal, plan.id)).study == plan.study


# --- endpoints, schedules, configs ------------------------------------------------------------------------------------


def test_an_endpoint_serves_one_batch_after_another(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    place = lend(monkeypatch)
    result = bench.run(bench.plan("sweep.reuse_endpoints=true", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1"))
    assert result.exit_code == 0, bench.said
    assert len([p for p in result.status.points if p.state == "scored"]) > 1 and len(place.endpoints) == 1
    assert seconds_of(place) < START + 3 * 20


def test_a_schedule_counts_a_study_as_what_it_can_cost_at_most() -> None:
    made = api.build_sweep(
        Request(overrides=(*BASE, *CLIMBING, SPACE, OBJECTIVE, "execution.usd_per_gpu_hour=2", "deployment.gpus=1"))
    )
    assert made.worst_case().usd == pytest.approx(worst(made), rel=0.01) and len(plans(made)) > 0


def test_a_config_can_choose_the_sweeper_and_what_it_searches(home: Path) -> None:
    (home / "mine.yaml").write_text(
        "defaults: [default, {override hydra/sweeper: climbing}, _self_]\n"
        "sweep: {objective: truthfulqa_mc1_100/acc}\n"
        "hydra: {sweeper: {n_trials: 4, seed: 1}}\n"
    )
    mine = {"name": "mine", "config_dir": str(home)}
    study = api.build_sweep(Request(**mine, overrides=("evaluation.limit=1,2", "hydra.sweeper.n_jobs=3"))).study
    assert study is not None and (study.choice.name, study.most, study.at_once) == ("climbing", 4, 3)
    assert len(api.load_config(**mine).evaluation.tasks) > 0, "one run of it is as of any other config"


# --- the command line -----------------------------------------------------------------------------------------------


def test_the_dry_run_tells_how_many_points_there_are_at_most_and_what_they_can_cost(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    price = ("execution.usd_per_gpu_hour=2", "evaluation.timeout=3600", "deployment.gpus=1,2")
    assert main(["run", "-m", *BASE, *CLIMBING, SPACE, OBJECTIVE, *price, "--dry-run", "--json"]) in (0, 3)
    plan = json.loads(capsys.readouterr().out)
    assert plan["study"]["most_points"] == 6 and plan["study"]["objective"] == ["toy/acc"] and plan["points"] == []
    assert plan["gpus_at_once"] == 4
    assert plan["worst_case"]["usd"] == pytest.approx(plan["worst_case"]["gpu_hours"] * 2, rel=0.01)
    main(["run", "-m", *BASE, *CLIMBING, SPACE, OBJECTIVE, *price, "--dry-run"])
    out = capsys.readouterr().out
    assert "at most 6 points of 1 task on local, chosen by climbing" in out
    assert "Points are chosen as results come, so that none can be shown." in out
    assert "Objective: maximize toy/acc." in out and "at most 6 are created" in out
    assert not list(home.glob("results*"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["hydra/sweeper=optunna"], "command line: hydra/sweeper=optunna: no such sweeper is installed"),
        (["hydra.sweeper.trials=1"], "command line: hydra.sweeper.trials: climbing has no such key"),
        (["hydra.sweeper.n_trials=x"], "command line: hydra.sweeper.n_trials: Value 'x'"),
        (["hydra.sweeper.n_trials=1001"], "sweep: 1,001 trials are more than sweep.max_points allows (1,000)"),
        (["sweep.objective=null"], "sweep.objective: is not set; name the score that climbing optimizes"),
        (["sweep.objective=ty/acc"], "sweep.objective: ty/acc: names no task of this config; write TASK/METRIC"),
        (["sweep.objective=toy"], "sweep.objective: toy: names no metric; write toy/METRIC"),
        (["sweep.objective=[toy/acc,toy/f1]"], "sweep.objective: has 2 where hydra.sweeper has 1 directions"),
        (["sweep.points=[{evaluation.limit:1}]"], "sweep.points: is not for a sweep with hydra/sweeper"),
        (["evaluation.sed=1,2"], "sweep: a point (evaluation.seed=0 evaluation.sed=1): command line: evaluation.sed"),
        (["evaluation.limit=2,x"], "sweep: a point (evaluation.seed=0 evaluation.limit=x): command line:"),
        (["evaluation.limit=interval(-1.5,5)"], "sweep: a point (evaluation.seed=0 evaluation.limit=-1.5): command"),
        (["hydra.sweeper.asks_at_last=a://b:c@d"], "command line: hydra.sweeper.asks_at_last: holds a password"),
    ],
    ids=lambda found: found[-1] if isinstance(found, list) else "",
)
def test_a_mistake_is_one_line_before_anything_is_created(
    overrides: list[str], said: str, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    assert main(["run", "-m", *BASE, *CLIMBING, SPACE, OBJECTIVE, *overrides]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"nv-eval: {said}") and error.count("\n") == 1
    assert not list(home.glob("results*"))


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ("gsm8k_100/acc", "gsm8k_100/acc: no such score; valid: exact_match"),
        ("gsm8k_100/exact_match", "has several filters: flexible-extract, strict-match; name one"),
        ("gsm8k_100/exact_match/none", "no such filter"),
    ],
)
def test_scores_that_a_task_is_known_not_to_give_are_refused(
    objective: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["deployment=smollm", "evaluation.tasks=[gsm8k_100]", *CLIMBING, SPACE]
    assert main(["run", "-m", *base, f"sweep.objective={objective}"]) == 2
    assert said in capsys.readouterr().err


def test_a_sweeper_is_for_sweeps_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *BASE, "hydra/sweeper=climbing"]) == 2
    assert "a sweeper chooses the points of a sweep; add -m to run it" in capsys.readouterr().err
    assert main(["run", "-m", *BASE, SPACE, "hydra.sweeper.n_trials=3"]) == 2
    assert "hydra.sweeper.n_trials: no sweeper is chosen; add hydra/sweeper=NAME" in capsys.readouterr().err


def test_a_plugin_that_cannot_be_imported_is_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "path" / "hydra_plugins").mkdir(parents=True)
    (home / "path" / "hydra_plugins" / "broken_sweeper.py").write_text("raise ValueError('not for this Python')")
    monkeypatch.syspath_prepend(str(home / "path"))
    known = {cls: one for cls, one in Singleton._instances.items() if cls is not Plugins}
    monkeypatch.setattr(Singleton, "_instances", known)
    assert main(["run", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert error == (
        "nv-eval: hydra_plugins.broken_sweeper: cannot be imported: ValueError: not for this Python; "
        "upgrade this plugin of Hydra, or remove it\n"
    )


# --- the published plugin ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_the_published_optuna_plugin_chooses_points_and_is_not_imported_before(bench: Bench, home: Path) -> None:
    if importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is None:
        pytest.skip("hydra-optuna-sweeper is not installed: pip install hydra-optuna-sweeper")
    optuna = ("hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=5", "hydra.sweeper.direction=maximize")
    api.plan_sweep(overrides=(*BASE, "evaluation.seed=1,2"))
    assert "optuna" not in sys.modules
    trials = ("hydra.sweeper.n_trials=6", "hydra.sweeper.max_failure_rate=0.5")
    made = api.build_sweep(Request(overrides=(*BASE, *optuna, SPACE, OBJECTIVE, *trials)))
    record.begin(made, bench.journal)
    bench.script = failing({11})
    result = bench.run(made)
    assert (result.exit_code, len(result.status.points)) == (4, 6), bench.said
    assert 11 in bench.ran
    best = max(value(seed) for seed in bench.ran if seed != 11)
    assert f"best_value: {best:g}" in Path(made.folder, "optimization_results.yaml").read_text()
    assert words(bench.resumed(made).status.points) == words(result.status.points) and bench.ran == []
