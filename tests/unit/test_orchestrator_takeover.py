"""A supervisor whose invocation was taken over while it was in the middle of something."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.errors import LeaseLost
from launcher.orchestrator.journal import Fact, Journal
from launcher.orchestrator.run import Run
from tests.fakes.clock import run_virtual
from tests.fakes.platform import FakePlatform
from tests.unit.test_orchestrator_run import make_plan


@pytest.mark.parametrize(
    "kind", [Fact.INTEND_CREATE_ENDPOINT, Fact.INTEND_SUBMIT_JOB, Fact.INTEND_CANCEL_JOB, Fact.INTEND_DELETE_ENDPOINT]
)
def test_what_another_supervisor_runs_now_is_neither_made_nor_removed(tmp_path: Path, kind: Fact):
    asked: list[str] = []

    class Watched(FakePlatform):
        async def create_endpoint(self, task, spec):
            asked.append("intend_create_endpoint")
            return await super().create_endpoint(task, spec)

        async def submit_job(self, task, spec, url):
            asked.append("intend_submit_job")
            return await super().submit_job(task, spec, url)

        async def cancel_job(self, name):
            asked.append("intend_cancel_job")
            await super().cancel_job(name)

        async def delete_endpoint(self, name):
            asked.append("intend_delete_endpoint")
            await super().delete_endpoint(name)

    class Taken(Journal):
        def record_all(self, invocation, entries):
            if any(entry.kind is kind for entry in entries):
                self._db.execute("UPDATE leases SET owner = 'another'")
            super().record_all(invocation, entries)

    journal = Taken(tmp_path / "journal.db")
    with pytest.raises(LeaseLost):
        run_virtual(Run(make_plan(tmp_path, 1), Watched(), journal).run())
    assert kind.value not in asked
