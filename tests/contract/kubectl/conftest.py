"""With NV_EVAL_TEST_NO_SKIPS set, as CI has it, a contract that could not be checked is a broken one."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and "NV_EVAL_TEST_NO_SKIPS" in os.environ:
        report.outcome = "failed"
        report.longrepr = f"skipped: {report.longrepr}"
    return report
