"""What one journal says of a run in another journal, and what a supervisor packs for the way home."""

from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path

import msgspec
import pytest

from launcher.cli.clustered import bring_home, pause, refresh_named
from launcher.clustered import laptop as asking
from launcher.clustered import mirror
from launcher.clustered.pod import pack
from launcher.config.validate import validate
from launcher.errors import ConfigError, PlatformError
from launcher.orchestrator.journal import Fact, Journal, RunState
from launcher.orchestrator.status import of
from launcher.plan.build import build

RUN = "a1b2c3d4"


@pytest.fixture
def pod(tmp_path: Path):
    journal = begun(tmp_path / "pod.db")
    journal.record(RUN, Fact.RUN_STARTED, pid=1, place="namespace x of https://10.0.0.1")
    journal.record(RUN, Fact.INTEND_CREATE_ENDPOINT, "a", "vllm-a")
    journal.beat(RUN, [{"task": "a", "usd": 1.5}])
    yield journal
    journal.close()


@pytest.fixture
def laptop(tmp_path: Path):
    journal = begun(tmp_path / "laptop.db")
    journal.record(RUN, Fact.HANDED_OVER)
    yield journal
    journal.close()


def begun(path: Path) -> Journal:
    journal = Journal(path)
    journal.begin(RUN, execution="kubernetes", deployment="vllm", folder="x", tasks=["a"], hold=False)
    return journal


def copy(pod: Journal, laptop: Journal, *, lives: bool) -> None:
    mirror.put(laptop, RUN, mirror.read(mirror.take(pod, RUN)), place="namespace x of https://cluster", lives=lives)


def test_a_run_in_the_cluster_looks_as_one_on_another_machine(pod: Journal, laptop: Journal) -> None:
    copy(pod, laptop, lives=True)
    copy(pod, laptop, lives=True)

    status = of(laptop, laptop.find(RUN))

    assert (status.state, status.usd, status.tasks[0].endpoint) == (RunState.RUNNING, 1.5, "vllm-a")
    assert status.host.endswith("in namespace x of https://cluster")
    assert laptop.place(RUN) == "namespace x of https://cluster"
    assert [fact.kind for fact in laptop.facts(RUN)] == [
        Fact.HANDED_OVER,
        Fact.RUN_STARTED,
        Fact.INTEND_CREATE_ENDPOINT,
    ]
    assert laptop.is_handed_over(RUN)


def test_a_supervisor_that_has_told_nothing_yet_is_waited_for(pod: Journal, laptop: Journal) -> None:
    mirror.hold(laptop, RUN, ["a"], place="namespace x of https://cluster", why="its supervisor waits for a pod")
    before = of(laptop, laptop.find(RUN))
    copy(pod, laptop, lives=True)
    mirror.hold(laptop, RUN, ["a"], place="namespace x of https://cluster", why="its supervisor starts")
    after = of(laptop, laptop.find(RUN))

    assert (before.state, before.tasks[0].phase, before.tasks[0].detail) == (
        RunState.RUNNING,
        "queued",
        "its supervisor waits for a pod",
    )
    assert (after.state, after.usd) == (RunState.RUNNING, 1.5), "what was known stays"


def test_the_end_counts_when_what_it_brings_is_packed(pod: Journal, laptop: Journal) -> None:
    pod.record(RUN, Fact.RUN_ENDED, exit_code=4)

    copy(pod, laptop, lives=True)
    before = laptop.state(laptop.find(RUN))
    copy(pod, laptop, lives=False)

    assert (before, laptop.state(laptop.find(RUN))) == (RunState.RUNNING, RunState.FINISHED)


def test_a_secret_of_the_supervisor_is_given_by_reference() -> None:
    execution = {"type": "kubernetes", "supervisor": {"envs": {"WANDB_API_KEY": "abc123"}}}
    config = {"execution": execution, "deployment": {"type": "vllm", "model_id": "a/b"}}

    with pytest.raises(ConfigError, match=r"execution.supervisor.envs.WANDB_API_KEY: give it by reference"):
        build(validate({**config, "evaluation": {"tasks": [{"name": "gsm8k"}]}}))


def test_results_of_a_folder_need_no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NV_EVAL_HOME", str(tmp_path / "state"))

    bring_home([str(tmp_path)])
    bring_home([])

    assert not (tmp_path / "state").exists()


def test_what_ran_on_this_machine_is_asked_of_nobody(laptop: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.cli.clustered.laptop", lambda: pytest.fail("a cluster was asked"))
    laptop.record(RUN, Fact.COME_HOME)

    refresh_named(laptop, [RUN[:3], ""])

    assert pause(laptop, laptop.find(RUN), 0.5) == 0.5


def test_a_supervisor_that_is_gone_has_left_an_interrupted_run(pod: Journal, laptop: Journal) -> None:
    copy(pod, laptop, lives=True)
    copy(pod, laptop, lives=False)

    assert laptop.state(laptop.find(RUN)) is RunState.INTERRUPTED


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", mirror.gzip.compress(b"{}"), mirror.gzip.compress(b"[1")],
    ids=["empty", "no gzip", "no facts", "cut off"],
)
def test_a_damaged_report_is_told(content: bytes) -> None:
    with pytest.raises(PlatformError, match="what the supervisor says of itself is damaged"):
        mirror.read(content)


def test_what_comes_home_is_all_but_caches_and_what_the_machine_has(tmp_path: Path) -> None:
    for name in ("results.json", "plan.json", "a/job.log", "a/output/cache/answers/x", "a/output/samples.jsonl"):
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")

    pack(tmp_path / "run", b"facts", tmp_path / "home.zip")

    with zipfile.ZipFile(tmp_path / "home.zip") as archive:
        assert sorted(archive.namelist()) == ["a/job.log", "a/output/samples.jsonl", "facts.json.gz", "results.json"]


def test_a_cluster_that_nobody_answers_for_is_soon_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "LOOK_TIME", 0.2)
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "x"}}
    users = [{"name": "u", "user": {"token": "t"}}]
    config = {"clusters": [cluster], "contexts": [context], "users": users, "current-context": "c"}
    (tmp_path / "config").write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **config}))
    plan = build(
        validate(
            {
                "execution": {"type": "kubernetes", "kubeconfig": str(tmp_path / "config")},
                "deployment": {"type": "vllm", "model_id": "m"},
                "evaluation": {"tasks": [{"name": "gsm8k"}]},
            }
        ),
        RUN,
    )
    journal = Journal(tmp_path / "journal.db")
    document = msgspec.json.encode(plan)
    journal.begin(RUN, execution="kubernetes", deployment="vllm", folder="x", tasks=["a"], hold=False, plan=document)

    began = time.monotonic()
    with pytest.raises(PlatformError):
        asking.look(journal, journal.find(RUN))
    journal.close()
    assert time.monotonic() - began < 30, "the patience of a run is 90 s"
