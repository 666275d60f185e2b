"""What holds for every test: GPUs that exist only in a config are not shared with other runs on this machine, and
Ctrl-C is heard."""

from __future__ import annotations

import signal

import pytest

from launcher.platforms.local import gpulocks


def pytest_configure() -> None:
    """A shell lets what it starts in the background ignore Ctrl-C, and programs that tests start would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Coverage is counted in the fast tests: counting takes as long again as running."""
    for item in items:
        if item.get_closest_marker("e2e") is not None:
            item.add_marker(pytest.mark.no_cover)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many kills the crash tests tried, and what 300 batch jobs cost."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name in ("chaos", "slurm") and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {text}")


@pytest.fixture(autouse=True, scope="session")
def gpu_locks_of_ones_own(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(gpulocks.FOLDER_VARIABLE, raising=False)
        patch.setattr(gpulocks, "FOLDER", tmp_path_factory.mktemp("gpu-locks"))
        yield
