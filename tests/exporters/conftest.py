"""Exporters against the real thing; `python3 tasks.py exporters` installs it all and runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.exporters.runs import ended_run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.exporter)
            item.add_marker(pytest.mark.filterwarnings("ignore"))  # the libraries' own


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that has ended."""
    monkeypatch.setenv("NV_EVAL_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return ended_run(tmp_path / "runs")
