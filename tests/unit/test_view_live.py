"""Live connections: what is sent, to whom, and that nothing is read while nobody looks."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from launcher.orchestrator.journal import Fact, Journal
from launcher.view import events, listing, watcher
from launcher.view.app import application
from launcher.view.shown import dom
from launcher.view.watcher import Watcher
from tests.unit.past_runs import PastTask, write_run
from tests.unit.viewing import TOKEN, Office


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    monkeypatch.setattr(watcher, "PERIOD", 0.01)
    monkeypatch.setattr(events, "LOG_PERIOD", 0.01)
    monkeypatch.setattr(events, "LOG_PERIOD_AT_REST", 0.01)
    journal = Journal(tmp_path / "journal.db")
    yield Office(tmp_path, journal, None)  # type: ignore[arg-type]
    journal.close()


class Listener:
    """One live connection, as the server sees it."""

    def __init__(self) -> None:
        self.text = ""
        self.status = 0
        self._gone, self._came = asyncio.Event(), asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.status = message.get("status", self.status)
        self.text += message.get("body", b"").decode()
        self._came.set()

    def leave(self) -> None:
        self._gone.set()

    @property
    def news(self) -> list[str]:
        """Events, without beats."""
        return [part for part in self.text.split("\n\n") if "event: swap" in part]

    async def until(self, condition: Callable[[Listener], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition(self):
                self._came.clear()
                await self._came.wait()


@asynccontextmanager
async def served(office: Office) -> Any:
    """The application with its watching task."""
    app = application(office.root / "journal.db", token=TOKEN, hosts=["h"])
    async with app.router.lifespan_context(app):
        yield app


@asynccontextmanager
async def listening(app: Any, address: str, **headers: str) -> Any:
    path, _, query = address.partition("?")
    listener = Listener()
    given = {"host": "h", "cookie": f"nv-eval-view={TOKEN}", **{k.replace("_", "-"): v for k, v in headers.items()}}
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    task = asyncio.create_task(app(scope, listener.receive, listener.send))
    await listener.until(lambda one: ":\n\n" in one.text or bool(one.news))  # its first look is over
    yield listener
    listener.leave()
    await app.state.desk.watcher._wake()
    async with asyncio.timeout(5):
        await asyncio.gather(task, return_exceptions=True)


def seen(app: Any) -> int:
    found: int = app.state.desk.watcher.change
    return found


def test_a_new_invocation_is_one_row_and_a_change_replaces_that_row(office: Office) -> None:
    async def check() -> None:
        office.begin("old00001", "one")
        async with served(office) as app, listening(app, f"/events/runs?seen={seen(app)}") as listener:
            assert listener.news == [], "the page knows all there is"

            office.begin("new00001", "one", hold=True)
            await listener.until(lambda one: len(one.news) == 1)
            assert 'hx-swap-oob="afterbegin:#rows"' in listener.news[0]
            assert "new00001" in listener.news[0] and "old00001" not in listener.news[0]

            office.journal.beat("new00001", [{"task": "one", "done": 5, "total": 9}])
            await listener.until(lambda one: len(one.news) == 2)
            assert f'id="{dom("new00001")}" hx-swap-oob="true"' in listener.news[1] and 'value="5"' in listener.news[1]
            assert "old00001" not in listener.news[1] and "afterbegin" not in listener.news[1]

    asyncio.run(check())


def test_a_list_that_another_one_took_the_place_of_is_sent_whole(office: Office) -> None:
    async def check() -> None:
        async with served(office) as app:
            office.begin("one00001", "one")
            app.state.desk.watcher.look()
            async with listening(app, "/events/runs?seen=0") as listener:
                await listener.until(lambda one: len(one.news) == 1)
                assert '<tbody id="rows" hx-swap-oob="true">' in listener.news[0] and "one00001" in listener.news[0]

    asyncio.run(check())


def test_a_row_that_no_longer_fits_the_filter_goes(office: Office) -> None:
    async def check() -> None:
        office.begin("run00001", "one", hold=True)
        office.begin("run00002", "one", hold=True)
        async with served(office) as app, listening(app, f"/events/runs?state=running&seen={seen(app)}") as listener:
            office.journal.record("run00001", Fact.RUN_ENDED, exit_code=0)
            await listener.until(lambda one: len(one.news) == 1)
            assert f'id="{dom("run00001")}" hx-swap-oob="delete"' in listener.news[0]

    asyncio.run(check())


def test_only_the_parts_of_an_invocation_that_changed_are_sent(office: Office) -> None:
    async def check() -> None:
        folder = office.begin("run00001", "one", "two", hold=True)
        async with served(office) as app, listening(app, f"/events/runs/run00001?seen={seen(app)}") as listener:
            office.journal.beat("run00001", [{"task": "two", "done": 1, "total": 2}])
            await listener.until(lambda one: len(one.news) == 1)
            assert dom("task", "two") in listener.news[0] and dom("task", "one") not in listener.news[0]
            assert 'id="scores"' not in listener.news[0]

            write_run(office.root / "results", "run00001", PastTask("two", {"acc": [1.0]}))
            office.journal.record("run00001", Fact.TASK_COLLECTED, "two", reason="completed")
            await listener.until(lambda one: any("1.0000" in news for news in one.news))
            assert folder.is_dir()

    asyncio.run(check())


def test_lines_of_a_log_are_sent_as_they_come_and_are_inert(office: Office) -> None:
    async def check() -> None:
        folder = office.begin("run00001", "one", hold=True) / "one"
        folder.mkdir(parents=True)
        (folder / "job.log").write_text("first\n")
        address = f"/events/runs/run00001/tasks/one?source=job&seen={{}}&file={mark(folder / 'job.log')}&end=6"
        async with served(office) as app, listening(app, address.format(seen(app))) as listener:
            with (folder / "job.log").open("a") as log:
                log.write("<script>second</script>\x1b[31m\n")
            await listener.until(lambda one: len(one.news) == 1)
            assert "first" not in listener.text and "&lt;script&gt;second&lt;/script&gt;</div>" in listener.news[0]
            (folder / "job.log").write_text("x\n")
            await listener.until(lambda one: len(one.news) == 2)
            assert 'hx-swap-oob="innerHTML:#log"' in listener.news[1] and "replaced or cut off" in listener.news[1]

    asyncio.run(check())


def mark(path: Path) -> str:
    found = path.stat()
    return f"{found.st_dev:x}-{found.st_ino:x}"


def test_a_connection_made_anew_goes_on_where_the_one_before_ended(office: Office) -> None:
    async def check() -> None:
        office.begin("run00001", "one")
        async with served(office) as app:
            now = str(seen(app))
            async with listening(app, "/events/runs?seen=0", last_event_id=now) as listener:
                office.begin("run00002", "one")
                await listener.until(lambda one: len(one.news) == 1)
                assert "afterbegin" in listener.news[0]

    asyncio.run(check())


def test_all_connections_end_when_the_server_does(office: Office) -> None:
    async def check() -> None:
        office.begin("run00001", "one")
        async with served(office) as app, listening(app, "/events/runs"), listening(app, "/events/runs/run00001"):
            await app.state.desk.watcher.close()

    asyncio.run(check())


LAUNCHER = """
import sys, time
from pathlib import Path
from launcher.orchestrator.journal import Fact, Journal
journal = Journal(Path(sys.argv[1]))
journal.begin("run00001", execution="local", deployment="smollm", folder="/gone", tasks=["one"])
journal.record("run00001", Fact.RUN_STARTED)
print("begun", flush=True)
time.sleep(60)
"""


def test_a_launcher_that_is_killed_is_noticed_though_it_wrote_nothing(office: Office) -> None:
    command = [sys.executable, "-c", LAUNCHER, str(office.root / "journal.db")]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert launcher.stdout is not None and launcher.stdout.readline() == b"begun\n"

    async def check() -> None:
        async with served(office) as app, listening(app, f"/events/runs?seen={seen(app)}") as listener:
            assert app.state.desk.watcher.latest("run00001").status.state == "running"
            launcher.kill()
            launcher.wait()
            await listener.until(lambda one: len(one.news) == 1)
            assert '<span class="badge interrupted">' in listener.news[0]

    with launcher:
        asyncio.run(check())


def test_nothing_is_read_while_nobody_looks_and_little_while_nothing_changes(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, reads = [], []
    look, read = Watcher.look, watcher.status.of
    monkeypatch.setattr(Watcher, "look", lambda self: (looks.append(1), look(self))[1])
    monkeypatch.setattr(watcher.status, "of", lambda *of: (reads.append(of[1].id), read(*of))[1])

    async def check() -> None:
        office.begin("run00001", "one")
        async with served(office) as app:
            assert (len(looks), reads) == (1, ["run00001"])
            await asyncio.sleep(0.05)
            assert len(looks) == 1
            async with listening(app, f"/events/runs?seen={seen(app)}"):
                await asyncio.sleep(0.05)
            assert len(looks) > 1 and reads == ["run00001"]
            office.begin("run00002", "one")
            app.state.desk.watcher.look()
            assert reads == ["run00001", "run00002"], "only what changed"
            after = len(looks)
            await asyncio.sleep(0.05)
            assert len(looks) == after

    asyncio.run(check())


def test_rows_that_come_between_others_make_the_list_another_one() -> None:
    assert events._kept(["b", "a"], ["c", "b", "a"]) == ["b", "a"]
    assert events._kept(["c", "b", "a"], ["d", "c", "b"]) == ["c", "b"]
    assert events._kept(["c", "a"], ["c", "b", "a"]) == []
    assert listing.whole("٣", 1) == 1 and listing.whole("-1", 1) == 1 and listing.whole("7", 1) == 7
