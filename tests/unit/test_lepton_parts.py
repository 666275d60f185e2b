"""The parts of the Lepton platform by themselves: creation, pace, logs, diagnoses, job script, results."""

from __future__ import annotations

import asyncio
import io
import json
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from launcher.config.evaluation import Settings
from launcher.config.fields import Reference
from launcher.errors import PlatformError
from launcher.harnesses.spec import HarnessJob
from launcher.plan.lepton import ENDPOINT_TOKEN
from launcher.plan.model import JobPlan, TargetPlan, TaskPlan
from launcher.platforms import home
from launcher.platforms.creation import PATIENCE, create_once
from launcher.platforms.http import RequestFailed, RetryPolicy
from launcher.platforms.jobscript import script
from launcher.platforms.lepton import states
from launcher.platforms.lepton.client import PAGE_SIZE, LeptonClient
from launcher.platforms.lepton.credentials import Credentials
from launcher.platforms.lepton.logs import LogWindow, entries
from launcher.platforms.lepton.requests import Filling, environment
from launcher.platforms.lepton.types import Event, LogAnswer, LogData, ReadinessIssue, Stream, Termination
from launcher.platforms.pace import LISTS, Pace, share_of
from launcher.platforms.progress import ProgressReader
from launcher.platforms.secrets import Secrets
from tests.fakes.clock import run_virtual

ACCESS = Credentials(workspace="ws1", token="nvapi-0123456789", url="http://lepton.test/api/v2/workspaces/ws1")


# --- creation ---------------------------------------------------------------------------------------------------------


def failed(status: int | None, *, maybe_done: bool = False) -> RequestFailed:
    return RequestFailed("Lepton", "POST", "/jobs", status=status, message="", maybe_done=maybe_done)


class Creation:
    """A service with one name. `answers` are what creating gives, one after the other; `there` what reading shows."""

    def __init__(self, *answers: str | RequestFailed, there: list[str | None]) -> None:
        self.answers, self.there = list(answers), there
        self.created = self.read = 0

    async def create(self) -> str:
        self.created += 1
        answer = self.answers.pop(0)
        if isinstance(answer, RequestFailed):
            raise answer
        return answer

    async def read_back(self) -> str | None:
        self.read += 1
        return self.there.pop(0) if len(self.there) > 1 else self.there[0]

    def run(self) -> str:
        return run_virtual(
            create_once(
                self.create,
                self.read_back,
                describe="a job",
                is_ours=lambda found: found != "theirs",
                is_leaving=lambda found: found == "leaving",
            )
        )


def test_what_an_unheard_request_made_is_adopted() -> None:
    service = Creation(failed(None, maybe_done=True), there=[None, "ours"])

    assert service.run() == "ours"
    assert service.created == 1


def test_what_an_unheard_request_did_not_make_is_made_after_a_grace_time() -> None:
    service = Creation(failed(503, maybe_done=True), "made", there=[None])

    assert service.run() == "made"
    assert (service.created, service.read) == (2, 3)


def test_a_name_that_is_being_deleted_is_waited_for() -> None:
    service = Creation(failed(409), failed(409), "made", there=["leaving"])

    assert service.run() == "made"


def test_a_name_of_ours_is_adopted_and_one_of_theirs_refused() -> None:
    assert Creation(failed(409), there=["ours"]).run() == "ours"
    with pytest.raises(PlatformError, match="a job exists already and is not of this invocation"):
        Creation(failed(409), there=["theirs"]).run()


def test_a_refusal_is_not_argued_with() -> None:
    service = Creation(failed(400), there=["ours"])

    with pytest.raises(RequestFailed):
        service.run()
    assert service.read == 0


def test_a_name_that_stays_taken_is_given_up() -> None:
    service = Creation(*[failed(409)] * 1000, there=["leaving"])

    with pytest.raises(RequestFailed):
        service.run()
    assert 100 < service.created <= PATIENCE + 2


def test_as_long_as_nobody_can_say_whether_it_exists_no_second_one_is_made() -> None:
    service = Creation(failed(503, maybe_done=True), there=["ours"])
    answers = [failed(503)] * 5

    async def read_back() -> str | None:
        if answers:
            raise answers.pop()
        return await Creation.read_back(service)

    service.read_back = read_back  # type: ignore[method-assign]
    assert service.run() == "ours"
    assert (service.created, answers) == (1, [])


# --- pace -------------------------------------------------------------------------------------------------------------


def test_a_long_run_asks_ever_more_rarely() -> None:
    assert [LISTS.interval(elapsed) for elapsed in (0, 100, 500, 10_000)] == [0.3, 2.8, 12.8, 40.0]


def test_it_is_asked_at_once_then_when_due_and_soon_when_the_run_waits_for_it() -> None:
    pace = Pace(0.0)
    assert pace.is_due(0.0)
    pace.asked(500.0)

    assert not pace.is_due(512.0)
    assert pace.is_due(514.0)
    assert not pace.is_due(514.0, slower=3.0)
    assert pace.is_due(501.0, leaving_since=500.0)
    assert not pace.is_due(501.0, leaving_since=490.0)


def test_where_tasks_follow_each_other_the_pace_is_that_of_what_is_there_now() -> None:
    pace = Pace(0.0)
    pace.asked(3600.0)
    assert not pace.is_due(3602.0)

    pace.count_from(3580.0)

    assert pace.is_due(3602.0)


def test_an_hour_of_a_run_takes_a_few_hundred_looks() -> None:
    pace, now, looks = Pace(0.0), 0.0, 0
    while now < 3600:
        pace.asked(now)
        while not pace.is_due(now):
            now += 0.1
        looks += 1

    assert looks < 300


def test_of_few_all_are_asked_about_and_of_many_one_now_and_then() -> None:
    assert share_of(3) == (3, 1.0)
    assert share_of(100) == (1, 8.0)


# --- logs -------------------------------------------------------------------------------------------------------------


def answer(*values: tuple[int, str]) -> LogAnswer:
    return LogAnswer(data=LogData(result=[Stream(values=[(str(time), text) for time, text in values])]))


def test_lines_come_oldest_first_whichever_way_the_service_has_them() -> None:
    window = LogWindow(start=0, end=10)
    expected = [(1, "a"), (2, "b"), (2, "c"), (3, "d")]

    assert entries(answer((3, "d"), (2, "c"), (2, "b"), (1, "a")), window) == expected
    assert entries(answer((1, "a"), (2, "b"), (2, "c"), (3, "d")), window) == expected
    assert entries(LogAnswer(), window) == []


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_pages_lose_and_repeat_no_line(direction: Any) -> None:
    everything = [(time // 3 + 1, f"line {time}") for time in range(50)]
    window: LogWindow | None = LogWindow(start=1, end=100, limit=7, direction=direction)
    read: list[tuple[int, str]] = []
    while window is not None:
        inside = [entry for entry in everything if window.start <= entry[0] < window.end]
        page = inside[: window.limit] if direction == "forward" else inside[-window.limit :]
        whole, window = window.rest(page)
        read = read + whole if direction == "forward" else whole + read

    assert read == everything


# --- diagnoses --------------------------------------------------------------------------------------------------------


def issue(reason: str, message: str = "") -> ReadinessIssue:
    return ReadinessIssue(reason=reason, message=message)


def end(code: int, at: float = 1.0, message: str = "") -> Termination:
    return Termination(exit_code=code, finished_at=at, reason="Error", message=message)


@pytest.mark.parametrize(
    ("issues", "ends", "fatal", "detail"),
    [
        ([issue("InProgress")], [], False, ""),
        ([issue("NoCapacity", "0 of 8 GPUs")], [], False, "no capacity in the node group: 0 of 8 GPUs"),
        ([issue("Queueing")], [], False, "queued for quota"),
        ([issue("ConfigError", "secret x not found")], [], True, "ConfigError: secret x not found"),
        ([issue("SystemError", "disk")], [], True, "SystemError: disk"),
        ([issue("Unknown", "ImagePullBackOff")], [], True, "the image cannot be pulled: Unknown: ImagePullBackOff"),
        ([issue("InProgress")], [end(1)], False, "the server exited with code 1 (Error) and was restarted"),
        (
            [issue("InProgress")],
            [end(1, 1), end(137, 3, "OOM"), end(1, 2)],
            True,
            "the server crashed 3 times and last exited with code 137 (Error: OOM)",
        ),
        ([issue("InProgress")], [end(0)] * 5, False, ""),
    ],
)
def test_why_an_endpoint_is_not_ready(
    issues: list[ReadinessIssue], ends: list[Termination], fatal: bool, detail: str
) -> None:
    found = states.diagnose(issues, ends)

    assert found.fatal is fatal
    assert found.detail.startswith(detail) and bool(found.detail) == bool(detail)


@pytest.mark.parametrize(
    ("events", "fatal", "detail"),
    [
        ([Event(reason="FailedScheduling", message="no node")], False, "no node takes it: no node"),
        ([Event(reason="NoCapacity: 0 of 8 GPUs")], False, "no capacity in the node group: 0 of 8 GPUs"),
        ([Event(reason="NoCapacity"), Event(reason="Started")], False, ""),
        ([Event(reason="BackOff", count=3)], True, "the server crashed 3 times"),
        ([Event(reason="BackOff", count=1)], False, "the server crashed 1 times"),
        ([Event(reason="BackOff"), Event(reason="Started"), Event(reason="BackOff", count=2)], True, "the server"),
        ([Event(reason="ErrImagePull", message="no such tag")], True, "the image cannot be pulled: ErrImagePull: no"),
        ([Event(reason="BackOff", message="Back-off pulling image x")], True, "the image cannot be pulled"),
        ([Event(reason="Pulling", message="Pulling image x"), Event(reason="Started")], False, ""),
        ([Event(reason="ConfigError: secret x not found")], True, "ConfigError: secret x not found; check the image"),
        ([Event(reason="SystemError")], True, "SystemError; the platform's own fault"),
        ([Event(type="Warning", reason="CreateContainerConfigError")], True, "CreateContainerConfigError; check"),
    ],
)
def test_events_say_it_where_there_are_no_issues(events: list[Event], fatal: bool, detail: str) -> None:
    found = states.from_events(events)

    assert found.fatal is fatal
    assert found.detail.startswith(detail) and bool(found.detail) == bool(detail)


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("OSError: You are trying to access a gated repo.", "the model is gated; accept its terms, and give a token"),
        ("Access to model meta-llama/Llama-3.1-8B is restricted.", "the model is gated"),
        (
            "RepositoryNotFoundError: 401 Client Error. If you are trying to access a private or gated repo, log in",
            "Hugging Face has no such model, or hides it (401); check deployment.model_id",
        ),
        ("401 Client Error: Unauthorized for url: https://huggingface.co/api/models/m", "Hugging Face refused the tok"),
    ],
)
def test_a_model_that_may_not_be_read_is_told_with_what_to_do(line: str, advice: str) -> None:
    crashed = states.Diagnosis("the server exited with code 1 and was restarted", crashed=True, exit_code=1)

    found = states.from_log(crashed, ["loading", line])

    assert found.fatal
    assert found.detail.startswith(advice)


def test_the_last_line_of_a_log_is_shown_with_what_is_known() -> None:
    assert states.gated(["all is well"]) is None
    assert states.from_log(states.Diagnosis(), ["Loading 3/4", " "]).detail == "Loading 3/4"
    crashed = states.Diagnosis("it crashed", crashed=True)
    assert states.from_log(crashed, ["CUDA out of memory"]).detail == "it crashed; its last line: CUDA out of memory"
    assert states.from_log(crashed, []) == crashed


# --- the client -------------------------------------------------------------------------------------------------------


def client(handler: Any) -> LeptonClient:
    policy = RetryPolicy(deadline=0.0)
    return LeptonClient(ACCESS, transport=httpx.MockTransport(handler), policy=policy)


def test_every_page_of_jobs_is_read_and_no_more() -> None:
    asked: list[httpx.QueryParams] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params)
        page = int(request.url.params["page"])
        jobs = [{"metadata": {"id": f"j-{page}-{i}"}} for i in range(PAGE_SIZE if page < 3 else 20)]
        return httpx.Response(200, json={"jobs": jobs, "total": 2 * PAGE_SIZE + 20})

    found = run_virtual(client(handler).jobs(containing="abc"))

    assert len(found) == 1020
    assert [params["page"] for params in asked] == ["1", "2", "3"]
    assert {(params["q"], params["job_query_mode"]) for params in asked} == {("abc", "alive_and_archive")}


def test_a_bare_list_of_jobs_is_understood() -> None:
    found = run_virtual(client(lambda _: httpx.Response(200, json=[{"metadata": {"id": "a"}}])).jobs())

    assert [job.id for job in found] == ["a"]


def test_the_family_is_read_once_from_the_workspace() -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path.removeprefix("/api/v2/workspaces/ws1"))
        assert request.headers["authorization"] == "Bearer nvapi-0123456789"
        flags = {"features": {"enable_new_deployment_api": True}}
        return httpx.Response(200, json=flags if asked[-1] == "/workspace" else [])

    async def ask() -> None:
        made = client(handler)
        await asyncio.gather(made.endpoints(), made.endpoints())
        await made.events("a")

    run_virtual(ask())
    assert asked == ["/workspace", "/endpoints", "/endpoints", "/endpoints/a/events"]


def test_what_is_not_there_is_none_and_no_error() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        is_workspace = request.url.path.endswith("/workspace")
        return httpx.Response(200, json={}) if is_workspace else httpx.Response(404, json={"message": "no such thing"})

    made = client(handler)

    async def ask() -> list[object]:
        return [
            await made.endpoint("x"),
            await made.job("x"),
            await made.delete_endpoint("x"),
            await made.delete_job("x"),
            await made.stores(),
            await made.read_file("x"),
            await made.list_folder("x"),
        ]

    assert run_virtual(ask()) == [None, None, False, False, False, None, []]


def test_a_change_that_changes_nothing_is_done() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "PATCH":
            return httpx.Response(400, json={"code": "InvalidRequest", "message": "no valid field to update"})
        return httpx.Response(200, json={"metadata": {"name": "x"}})

    async def scale() -> None:
        made = client(handler)
        found = await made.endpoint("x")
        assert found is not None
        await made.scale_endpoint(found, 1)

    run_virtual(scale())


def test_the_token_is_not_in_an_error() -> None:
    refusal = client(lambda _: httpx.Response(401, json={"message": "bad token nvapi-0123456789"}))

    with pytest.raises(RequestFailed, match=r"GET /workspace answered 401: bad token \*\*\*"):
        run_virtual(refusal.workspace())


# --- requests ---------------------------------------------------------------------------------------------------------


def test_the_endpoints_token_follows_from_the_invocation_and_the_workspaces_token() -> None:
    first, again = (environment(ACCESS, "abc", "token")[ENDPOINT_TOKEN] for _ in range(2))

    assert first == again != environment(ACCESS, "abd", "token")[ENDPOINT_TOKEN]
    assert ACCESS.token not in first
    assert environment(ACCESS, "abc", "workspace")[ENDPOINT_TOKEN] == ACCESS.token


def test_references_and_names_of_groups_are_filled_in() -> None:
    request = {
        "spec": {
            "envs": [{"name": "A", "value": "${oc.env:SRC}"}, {"name": "B", "value": "plain ${oc.env:SRC}"}],
            "affinity": {"allowed_dedicated_node_groups": ["pool"]},
            "container": {"command": ["bash", "{job_script}"]},
        }
    }
    spec = JobPlan(name="j", run=HarnessJob(harness="command", argv=()), timeout=1.0, request=request)

    made = Filling(Secrets({"SRC": "value-of-src"}), {"pool": "pool-ab12"}).job(spec, "echo")

    assert made.spec.envs is not None and made.spec.affinity is not None and made.spec.container is not None
    assert [variable.value for variable in made.spec.envs] == ["value-of-src", "plain ${oc.env:SRC}"]
    assert made.spec.affinity.allowed_dedicated_node_groups == ["pool-ab12"]
    assert made.spec.container.command == ["bash", "echo"]
    with pytest.raises(PlatformError, match="node group pool does not exist; the workspace has: other"):
        Filling(Secrets({"SRC": "x"}), {"other": "other"}).job(spec, "echo")


# --- the job's script -------------------------------------------------------------------------------------------------


def task(command: str, packages: tuple[str, ...] = (), requires: tuple[str, ...] = ()) -> TaskPlan:
    run = HarnessJob(
        harness="command",
        argv=("{python}", "-c", command),
        results=("sub/results.json",),
        env={"PLAIN": "it's $HOME"},
        requires=requires,
    )
    return TaskPlan(
        index=0,
        key="t",
        name="t",
        harness="command",
        settings=Settings(),
        target=TargetPlan(
            model="m",
            endpoint_type="completions",
            api_key=Reference(env=ENDPOINT_TOKEN),
            start_timeout=0.3,
            health_timeout=0.3,
        ),
        job=JobPlan(name="eval-t-0-abc", run=run, timeout=10.0, packages=packages),
    )


def run_script(tmp_path: Path, made: TaskPlan, folder: str | None, path: str = "") -> subprocess.CompletedProcess[str]:
    text = script("abc", made, url="http://127.0.0.1:9", folder=folder)
    env = {"PATH": path or f"{Path(sys.executable).parent}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    return subprocess.run(["/bin/bash", "-c", text], env=env, capture_output=True, text=True, timeout=30, check=False)


def test_the_script_runs_the_runner_and_keeps_its_exit_code(tmp_path: Path) -> None:
    folder = tmp_path / "it's a volume"
    for name in ("cache/answers", "sub/cache/kept", "results.json"):
        (folder / "output" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "output" / name).write_text("of an earlier attempt")

    done = run_script(tmp_path, task("raise SystemExit(1)"), str(folder))

    reader = ProgressReader()
    reader.feed(done.stdout)
    assert reader.end is not None, done
    assert (reader.end.reason, done.returncode) == ("endpoint_not_serving", 11)
    with zipfile.ZipFile(folder / "results.zip") as archive:
        files = {name for name in archive.namelist() if not name.endswith("/")}
    assert files == {"results.json", "sub/cache/kept"}, "what is only of use to a further attempt stays there"
    assert sorted(path.name for path in folder.iterdir()) == ["output", "results.zip"]


def test_packages_are_installed_only_where_a_module_is_missing(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    python = tools / "python3"
    python.write_text(f'#!/bin/sh\n[ "$2" = pip ] && {{ echo "pip: $*" >&2; exit 0; }}\nexec {sys.executable} "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    path = f"{tools}:{os.environ['PATH']}"

    there = run_script(tmp_path, task("", ("lib>=1",), ("json",)), None, path)
    missing = run_script(tmp_path, task("", ("lib>=1", "other"), ("json", "no_such_module")), None, path)

    assert "pip:" not in there.stderr
    assert "pip: -m pip install --quiet --disable-pip-version-check lib>=1 other" in missing.stderr


def test_an_image_without_python_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    done = run_script(tmp_path, task(""), None, path=str(tmp_path / "empty"))

    assert (done.returncode, done.stderr.strip()) == (127, "the job's image has no Python")


def test_a_script_that_would_not_fit_into_an_argument_is_refused() -> None:
    made = task(json.dumps(os.urandom(150_000).hex()))

    with pytest.raises(PlatformError, match=r"t: the job's files take .* KiB packed, and a command takes 117"):
        script("abc", made, url="http://x", folder=None)


# --- results ----------------------------------------------------------------------------------------------------------


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, content in files.items():
            made.writestr(name, content)
    return buffer.getvalue()


def test_an_archive_comes_home_whole(tmp_path: Path) -> None:
    files = {"results.json": b"{}", "deep/samples_a.jsonl": b"x" * 1000}

    home.write(home.unpack(archive(files)), tmp_path)

    assert (tmp_path / "deep" / "samples_a.jsonl").read_bytes() == b"x" * 1000
    assert home.missing(("results.json", "**/samples_*.jsonl"), files) == []
    assert home.missing(("samples_*.jsonl", "*/results.json"), files) == ["samples_*.jsonl", "*/results.json"]


@pytest.mark.parametrize("broken", [b"", b"no zip", archive({"a": b"b" * 100})[:-30], archive({"../a": b""})])
def test_a_broken_archive_is_an_error_and_nothing_is_written(broken: bytes) -> None:
    with pytest.raises(PlatformError, match="the results on the storage"):
        home.unpack(broken)
