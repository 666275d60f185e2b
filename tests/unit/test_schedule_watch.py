"""`nv-eval watch`: which checkpoints are there, complete and new; each evaluated once, in order."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import ConfigError, Interrupted, LeaseHeld, PlatformError
from launcher.orchestrator.journal import Fact
from launcher.schedule.firing import Ended, Prepared
from launcher.schedule.model import Checkpoint, Origin, Outcome, RunSpec, WatchSpec
from launcher.schedule.sources import Command, Folder, Look, Repository, origin_of, step_of
from launcher.schedule.watching import Watch, filled
from tests.fakes.schedules import Killed, World
from tests.fakes.schedules import world as world  # noqa: PLC0414  # a fixture
from tests.unit.conftest import Desk

RUN = RunSpec(overrides=("deployment.model_id={checkpoint}", "target.api_endpoint.model_id={name}-{step}"))


def save(folder: Path, name: str, *, weights: bool = True, config: bool = True) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    if config:
        (path / "config.json").write_text("{}")
    if weights:
        (path / "model.safetensors").write_bytes(b"w" * 8)
    return path


class Evaluations:
    """Runs of a world; `during` is what happens while the next one goes on."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.begun: list[str] = []
        self.resumed: list[str] = []

    def begin(self, run: RunSpec) -> Prepared:
        self.begun.append(run.overrides[1].rpartition("=")[2])
        return self.world.prepare(None)  # type: ignore[arg-type]

    def resume(self, invocation: str) -> Ended:
        self.resumed.append(invocation)
        self.world.journal.record(invocation, Fact.RUN_STARTED)
        self.world.end(invocation)
        return Ended(self.world.exit_code)


@pytest.fixture
def evaluations(world: World) -> Evaluations:
    return Evaluations(world)


def watch(world: World, evaluations: Evaluations, **keys: Any) -> Watch:
    folder = world.folder / "checkpoints"
    folder.mkdir(exist_ok=True)
    names = ("newest_first", "retry")
    spec = WatchSpec(
        origin=Origin.FOLDER, source=str(folder), run=RUN, **{name: keys.pop(name) for name in names if name in keys}
    )
    source = Folder(folder, "*", settle=spec.settle)
    made = {"source": source, "once": True, **keys}
    return Watch(spec=spec, store=world.store, journal=world.journal, evaluate=evaluations, clock=world.clock, **made)


# --- once each --------------------------------------------------------------------------------------------------------


def test_each_checkpoint_is_evaluated_once_in_the_order_of_its_steps(world: World, evaluations: Evaluations) -> None:
    for name in ("step-1000", "step-200", "step-30"):
        save(world.folder / "checkpoints", name)

    said: list[str] = []
    assert watch(world, evaluations).run() == 0
    assert watch(world, evaluations, say=said.append).run() == 0
    assert len(said) == 1 and said[0].endswith(": no new checkpoint")
    save(world.folder / "checkpoints", "step-1001")
    assert watch(world, evaluations).run() == 0

    assert evaluations.begun == ["step-30-30", "step-200-200", "step-1000-1000", "step-1001-1001"]
    assert evaluations.resumed == []


def test_newest_first_takes_what_came_while_it_ran(world: World, evaluations: Evaluations) -> None:
    for name in ("step-1", "step-2"):
        save(world.folder / "checkpoints", name)
    world.during = lambda: save(world.folder / "checkpoints", "step-3") and None
    world.lasts = 600.0
    made = watch(world, evaluations, newest_first=True, once=False, until=3)

    assert made.run() == 0
    assert evaluations.begun[0] == "step-2-2" and sorted(evaluations.begun[1:]) == ["step-1-1", "step-3-3"]


def test_a_checkpoint_that_was_written_anew_is_a_new_one(world: World, evaluations: Evaluations) -> None:
    path = save(world.folder / "checkpoints", "step-1")
    watch(world, evaluations).run()
    os.utime(path / "model.safetensors", (1, 1))
    (path / "optimizer.log").write_text("what is no part of the model changes nothing")

    watch(world, evaluations).run()
    watch(world, evaluations).run()

    assert evaluations.begun == ["step-1-1", "step-1-1"]


def test_other_settings_are_another_watch(world: World, evaluations: Evaluations) -> None:
    save(world.folder / "checkpoints", "step-1")
    first = watch(world, evaluations)
    first.run()
    other = watch(world, evaluations)
    other.spec = WatchSpec(
        origin=Origin.FOLDER, source=first.spec.source, run=RunSpec(overrides=(*RUN.overrides, "a=1"))
    )

    other.run()

    assert len(evaluations.begun) == 2 and first.id != other.id
    assert watch(world, evaluations, newest_first=True, retry=True).id == first.id


def test_a_failure_is_recorded_told_by_the_exit_code_and_gone_on_with_only_by_retry(
    world: World, evaluations: Evaluations
) -> None:
    save(world.folder / "checkpoints", "step-1")
    world.exit_code = 4
    assert watch(world, evaluations).run() == 4
    assert watch(world, evaluations).run() == 0, "it is not tried again"
    assert watch(world, evaluations, retry=True).run() == 4, "once"
    world.exit_code = 0
    made = watch(world, evaluations, retry=True)
    assert made.run() == 0

    assert (len(evaluations.begun), evaluations.resumed) == (1, ["run00000", "run00000"])
    assert [seen.outcome for seen in world.store.seen(made.id)] == [Outcome.SCORED]


def test_until_counts_all_lives(world: World, evaluations: Evaluations) -> None:
    for step in range(4):
        save(world.folder / "checkpoints", f"step-{step}")

    watch(world, evaluations, until=1).run()
    watch(world, evaluations, until=3).run()

    assert evaluations.begun == ["step-0-0", "step-1-1", "step-2-2"]


def test_it_waits_between_looks(world: World, evaluations: Evaluations) -> None:
    class Late:
        looks = 0

        def look(self, now: float) -> Look:
            self.looks += 1
            if self.looks < 3:
                raise PlatformError("no answer")
            return Look((Checkpoint(identity="a", path="a", name="a1", step=1),))

    said: list[str] = []
    watch(world, evaluations, source=Late(), once=False, until=1, interval=7.0, say=said.append).run()

    assert world.clock.slept == [7.0, 7.0] and said[0] == "no answer; looks again in 7 s"
    with pytest.raises(PlatformError):
        watch(world, evaluations, source=Late(), once=True, until=2).run()


# --- death ------------------------------------------------------------------------------------------------------------


def die(*_: object) -> None:
    raise Killed


def test_what_had_begun_when_it_was_killed_is_resumed_and_not_begun_again(
    world: World, evaluations: Evaluations
) -> None:
    for step in (1, 2):
        save(world.folder / "checkpoints", f"step-{step}")
    world.during = die
    with pytest.raises(Killed):
        watch(world, evaluations).run()

    assert watch(world, evaluations).run() == 0

    assert (evaluations.begun, evaluations.resumed) == (["step-1-1", "step-2-2"], ["run00000"])


def test_killed_between_the_end_of_a_run_and_its_record_nothing_runs_again(
    world: World, evaluations: Evaluations, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(world.folder / "checkpoints", "step-1")
    monkeypatch.setattr(Watch, "_conclude", die)
    with pytest.raises(Killed):
        watch(world, evaluations).run()
    monkeypatch.undo()

    made = watch(world, evaluations)
    assert made.run() == 0

    assert (len(evaluations.begun), evaluations.resumed) == (1, [])
    assert [seen.outcome for seen in world.store.seen(made.id)] == [Outcome.SCORED]


def test_killed_before_anything_was_created_it_is_begun_again(
    world: World, evaluations: Evaluations, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(world.folder / "checkpoints", "step-1")
    monkeypatch.setattr(Watch, "_end", die)
    with pytest.raises(Killed):
        watch(world, evaluations).run()
    monkeypatch.undo()

    watch(world, evaluations).run()

    assert (len(evaluations.begun), evaluations.resumed) == (2, [])
    assert len(world.journal.invocations()) == 1


def test_one_that_was_stopped_goes_on_the_next_time(world: World, evaluations: Evaluations) -> None:
    save(world.folder / "checkpoints", "step-1")
    world.exit_code = 130
    with pytest.raises(Interrupted, match="the same command goes on with run00000"):
        watch(world, evaluations).run()
    world.exit_code = 0

    assert watch(world, evaluations).run() == 0
    assert (len(evaluations.begun), evaluations.resumed) == (1, ["run00000"])


def test_two_do_not_watch_the_same(world: World, evaluations: Evaluations) -> None:
    save(world.folder / "checkpoints", "step-1")

    def another() -> None:
        with pytest.raises(LeaseHeld):
            watch(world, evaluations).run()

    world.during = another
    assert watch(world, evaluations).run() == 0
    assert len(evaluations.begun) == 1


# --- folders ----------------------------------------------------------------------------------------------------------


def names(look: Look) -> list[str]:
    return [one.name for one in look.checkpoints]


def test_a_checkpoint_is_complete_when_it_has_not_changed_for_a_while(tmp_path: Path) -> None:
    source = Folder(tmp_path, "*", settle=30.0)
    path = save(tmp_path, "step-1")
    assert source.look(0.0) == Look((), 1)
    (path / "model.safetensors").write_bytes(b"more weights")
    assert names(source.look(29.0)) == [], "it changed"
    assert names(source.look(58.0)) == []
    assert names(source.look(59.0)) == ["step-1"]


def test_what_lacks_weights_a_config_or_a_shard_is_not_complete(tmp_path: Path) -> None:
    save(tmp_path, "a", weights=False)
    save(tmp_path, "b", config=False)
    shards = save(tmp_path, "c")
    index = {"weight_map": {"x": "model.safetensors", "y": "model-2.safetensors"}}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index))
    broken = save(tmp_path, "d")
    (broken / "model.safetensors.index.json").write_text("{")
    save(tmp_path, "tmp-e")
    (tmp_path / "f.gguf").write_bytes(b"GGUF")
    source = Folder(tmp_path, "*", settle=0.0)

    assert names(source.look(0.0)) == ["f"]
    (shards / "model-2.safetensors").write_bytes(b"w")
    assert names(source.look(1.0)) == ["c", "f"]


def test_a_marker_makes_it_complete_at_once(tmp_path: Path) -> None:
    path = save(tmp_path, "step-1", config=False)
    source = Folder(tmp_path, "step-*", marker="DONE", settle=30.0)
    assert names(source.look(0.0)) == []
    (path / "DONE").touch()
    assert names(source.look(0.0)) == ["step-1"]


def test_a_folder_that_is_gone_is_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="there is no such folder"):
        Folder(tmp_path / "gone", "*").look(0.0)


# --- programs and the hub ---------------------------------------------------------------------------------------------


def test_an_index_with_other_things_than_names_is_not_complete_and_an_absolute_pattern_is_a_line(
    tmp_path: Path,
) -> None:
    (save(tmp_path, "step-1") / "model.safetensors.index.json").write_text('{"weight_map": {"a": 1}}')

    look = Folder(tmp_path, "*", None, 0.0).look(0.0)

    assert (look.checkpoints, look.unsettled) == ((), 1)
    with pytest.raises(ConfigError, match="--pattern /x"):
        Folder(tmp_path, "/x", None, 0.0).look(0.0)


def test_a_program_prints_checkpoints_or_says_that_it_cannot() -> None:
    found = Command(["printf", "s3://a/step-1\ns3://a/step-2\n\ns3://a/step-1\n"], "step-*").look(0.0)

    assert [(one.path, one.name, one.step) for one in found.checkpoints] == [
        ("s3://a/step-1", "step-1", 1),
        ("s3://a/step-2", "step-2", 2),
    ]
    with pytest.raises(PlatformError, match="sh: ended with 3: no bucket"):
        Command(["sh", "-c", "echo no bucket >&2; exit 3"], "*").look(0.0)


def test_a_program_that_leaves_a_child_at_its_pipe_or_never_stops_printing_is_ended() -> None:
    with pytest.raises(PlatformError, match="timed out"):
        Command(["sh", "-c", "sleep 30 & echo a"], "*", 0.1).look(0.0)
    with pytest.raises(PlatformError, match="more than 16 MiB"):
        Command(["yes"], "*").look(0.0)


SHAS = {name: f"{number:040x}" for number, name in enumerate(("step-1", "step-2", "readme", "main"), 1)}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A hub on loopback; what it answers can be changed."""
    refs = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha} for name, sha in SHAS.items()]
    answers: dict[str, Any] = {"/refs": {"branches": refs, "tags": [], "converts": []}, "fails": False}

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answers.get("/refs") if self.path.partition("?")[0].endswith("/refs") else self._model()
            self.send_response(404 if answers["fails"] else 200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def _model(self) -> object:
            if "/commits/" in self.path:
                shas = [SHAS["main"], SHAS["readme"], SHAS["step-1"]]
                return [
                    {"id": sha, "title": "", "message": "", "authors": [], "date": "2026-01-01T00:00:00.000Z"}
                    for sha in shas
                ]
            names = ["README.md"] if SHAS["readme"] in self.path else ["config.json", "model.safetensors"]
            return [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in names]

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    answers["url"] = f"http://127.0.0.1:{server.server_port}"
    yield answers
    server.shutdown()
    thread.join()
    server.server_close()


def repository(hub: dict[str, Any], pattern: str, **keys: bool) -> Repository:
    api = pytest.importorskip("huggingface_hub").HfApi(endpoint=hub["url"])
    return Repository("me/model", pattern, api, **keys)


def test_branches_of_a_repository_are_checkpoints_by_their_commits(hub: dict[str, Any]) -> None:
    found = repository(hub, "step-*").look(0.0).checkpoints

    assert [(one.name, one.path, one.identity, one.step) for one in found] == [
        ("step-1", SHAS["step-1"], SHAS["step-1"], 1),
        ("step-2", SHAS["step-2"], SHAS["step-2"], 2),
    ]


def test_every_commit_with_weights_oldest_first(hub: dict[str, Any]) -> None:
    found = repository(hub, "main", every_commit=True).look(0.0).checkpoints

    assert [one.path for one in found] == [SHAS["step-1"], SHAS["main"]], "the one that only wrote a README is none"


def test_a_hub_that_does_not_answer_is_not_an_empty_one(hub: dict[str, Any]) -> None:
    hub["fails"] = True

    with pytest.raises(PlatformError, match="me/model: the hub does not tell what is there"):
        repository(hub, "main").look(0.0)


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "step"), [("checkpoint-500", 500), ("epoch3-step0020", 20), ("final", None), ("7b", 7)]
)
def test_the_step_is_the_last_number_of_a_name(name: str, step: int | None) -> None:
    assert step_of(name) == step


def test_a_folder_a_repository_and_a_program_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert origin_of("me/model") is Origin.REPO
    (tmp_path / "me/model").mkdir(parents=True)
    assert origin_of("me/model") is Origin.FOLDER
    assert origin_of("ls -d /a/*") is Origin.COMMAND
    with pytest.raises(ConfigError, match="--folder, --repo or --command"):
        origin_of("nothing-of-this-name")


@pytest.mark.parametrize(
    ("word", "name", "wanted"),
    [
        ("a={checkpoint}", "x", "a=/c/x"),
        ("a={checkpoint}", "x y", "a='/c/x y'"),
        ("a={checkpoint}", "it's", "a='/c/it\\'s'"),
        ("a={name}-{step}", "s-4", "a=s-4-4"),
        ("a={b: 1}", "x", "a={b: 1}"),
    ],
)
def test_placeholders_are_filled_as_values_of_overrides(word: str, name: str, wanted: str) -> None:
    run = filled(RunSpec(overrides=(word,)), Checkpoint(identity="", path=f"/c/{name}", name=name, step=step_of(name)))

    assert run.overrides == (wanted,)


@pytest.mark.parametrize(
    ("word", "name"), [("a=[{name}]", "x,y"), ("a={name}", "${b}"), ("a={name}", "x\ny"), ("a={step}", "x")]
)
def test_a_name_that_would_mean_something_else_is_refused(word: str, name: str) -> None:
    with pytest.raises(ConfigError):
        filled(RunSpec(overrides=(word,)), Checkpoint(identity="", path=name, name=name))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((".", "--once"), "what is to run stands behind --"),
        ((".", "--", "run", "evaluation.limit=2"), "every checkpoint would get the same run"),
        (("--", "run", "a={name}"), "name one folder, repository or command"),
        ((".", "--repo", "a/b", "--", "run", "a={name}"), "name one folder, repository or command"),
        (("--folder", "gone", "--", "run", "a={name}"), "there is no such folder"),
        ((".", "--", "run", "evaluation.limmit={step}"), "unknown key; did you mean limit?"),
        ((".", "--until", "0", "--", "run", "a={name}"), "expected a number of checkpoints"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_looked_at(desk: Desk, arguments: tuple[str, ...], says: str) -> None:
    code, out, err = desk.nv_eval("watch", *arguments)

    assert (code, out, err.count("\n")) == (2, "", 1) and says in err, err


def test_a_watch_can_stand_in_a_schedule(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tzlocal.get_localzone_name", lambda: "Europe/Berlin")
    words = ("schedule", "add", "new", "--cron", "*/30 * * * *", "--via", "serve")
    inner = ("--", "watch", ".", "--settle", "0", "--", "run", "target.api_endpoint.model_id={name}")

    assert desk.nv_eval(*words, *inner)[0] == 0
    assert "no budget, no gate" in desk.nv_eval(*words, "--budget-day", "5", *inner)[2]
    code, out, _ = desk.nv_eval("schedule", "run-now", "new")

    assert (code, out) == (0, "new: scored\n"), "nothing is new"
