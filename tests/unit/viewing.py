"""The pages of `nv-eval view` over a journal, without a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from starlette.testclient import TestClient

from launcher.orchestrator.journal import Fact, Journal
from launcher.view.app import application
from launcher.view.pages import Desk
from tests.unit.past_runs import PastTask, write_run

TOKEN = "a-token"


@dataclass(frozen=True)
class Office:
    """A state folder, its journal and its pages."""

    root: Path
    journal: Journal
    browser: TestClient

    @property
    def desk(self) -> Desk:
        found: Desk = self.browser.app.state.desk  # type: ignore[attr-defined]
        return found

    def begin(self, invocation: str, *tasks: str, model: str = "small", hold: bool = False) -> Path:
        """An invocation whose launcher is gone, unless `hold`: then it is this process."""
        folder = self.root / "results" / invocation
        self.journal.begin(
            invocation,
            execution="local",
            deployment="smollm",
            folder=str(folder),
            tasks=list(tasks),
            plan=msgspec.json.encode({"tasks": [{"target": {"model": model}}]}),
            hold=hold,
        )
        self.journal.record(invocation, Fact.RUN_STARTED)
        return folder

    def past(self, invocation: str, *tasks: PastTask, **fields: Any) -> Path:
        """An invocation that has ended with scores."""
        folder = self.begin(invocation, *(task.folder for task in tasks))
        write_run(self.root / "results", invocation, *tasks, **fields)
        for task in tasks:
            self.journal.record(invocation, Fact.TASK_COLLECTED, task.folder, reason="completed")
        self.journal.record(invocation, Fact.RUN_ENDED, exit_code=0, leftovers=[])
        return folder

    def text(self, address: str, status: int = 200) -> str:
        answer = self.browser.get(address)
        assert answer.status_code == status, answer.text
        return answer.text


def enter(browser: TestClient) -> TestClient:
    """Hand over the token, as the printed address does."""
    assert browser.get("/", params={"token": TOKEN}).status_code == 200
    return browser


def client(journal: Path) -> TestClient:
    return TestClient(application(journal, token=TOKEN, hosts=["testserver"]))
