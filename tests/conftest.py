"""What holds for every test: GPUs that exist only in a config are not shared with other runs on this machine, Ctrl-C
and a hang-up are heard, and what is drawn at random is drawn alike in every run."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from launcher.platforms.local import gpulocks

UNIT = Path(__file__).parent / "unit"


def pytest_configure() -> None:
    """A shell lets what it starts in the background ignore Ctrl-C, nohup a hang-up; what tests start would inherit it.

    NV_EVAL_TEST_RANDOM=1 draws other examples in every run, as python -m tests.machine does.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    with contextlib.suppress(ImportError):  # the environment of the exporters' tests does without
        from hypothesis import settings

        settings.register_profile("alike", derandomize="NV_EVAL_TEST_RANDOM" not in os.environ)
        settings.load_profile("alike")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Coverage is counted in the fast tests: counting takes as long again as running.

    What starts real processes has a second chance, which the summary tells: a machine that others use, too, starves one
    now and then. NV_EVAL_TEST_ENGINE leaves the tests of one real engine.
    """
    for item in items:
        if item.get_closest_marker("e2e") is not None:
            item.add_marker(pytest.mark.no_cover)
        if UNIT not in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=2))
    wanted = os.environ.get("NV_EVAL_TEST_ENGINE")
    others = [item for item in items if wanted not in (None, "slurm" if "slurm" in item.nodeid else "docker")]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many kills the crash tests tried, what 300 batch jobs cost, and why a test had its second chance."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name in ("chaos", "slurm") and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {text}")
    for report in terminalreporter.getreports("rerun"):
        said = [line for line in report.longreprtext.splitlines() if line.startswith("E ")]
        terminalreporter.write_line(f"{report.nodeid} ran again, as it had failed: {' '.join(said)[:500]}")


@pytest.fixture(autouse=True, scope="session")
def gpu_locks_of_ones_own(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(gpulocks.FOLDER_VARIABLE, raising=False)
        patch.setattr(gpulocks, "FOLDER", tmp_path_factory.mktemp("gpu-locks"))
        yield
