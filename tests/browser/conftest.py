"""A page in headless Chromium, and all that goes wrong in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright

CHROMIUM = os.environ.get("NV_EVAL_TEST_CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for all tests. Its event loop runs in this thread: servers belong into processes of their own."""
    if not Path(CHROMIUM).is_file():
        pytest.fail(f"{CHROMIUM} is missing; python3 tasks.py browser installs it")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(ARGUMENTS))
        yield opened
        opened.close()


@pytest.fixture
def problems() -> Iterator[list[str]]:
    """What the page complained of, and what it asked of other machines.

    A test fails if there is anything left in it at its end; one that expects a problem takes it out.
    """
    found: list[str] = []
    yield found
    assert found == []


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A visitor of one's own: no cookies, nothing cached."""
    made = browser.new_context()
    made.set_default_timeout(20_000)
    yield made
    made.close()


@pytest.fixture
def page(problems: list[str], context: BrowserContext) -> Page:
    """An empty page, watched."""
    return watch(context.new_page(), problems)


def watch(page: Page, problems: list[str]) -> Page:
    """Note console errors and warnings, uncaught exceptions, and requests that failed or left this machine."""

    def on_request(request: Request) -> None:
        if not is_local(request.url):
            problems.append(f"request to {request.url}")

    page.on("console", lambda said: problems.append(f"{said.type}: {said.text}") if is_complaint(said.type) else None)
    page.on("pageerror", lambda error: problems.append(f"exception: {error}"))
    page.on("request", on_request)
    page.on("requestfailed", lambda request: problems.append(f"failed: {request.url}: {request.failure}"))
    return page


def is_complaint(kind: str) -> bool:
    return kind in ("error", "warning", "assert")


def is_local(url: str) -> bool:
    """Whether nothing of it leaves this machine."""
    parts = urlsplit(url)
    return parts.scheme in ("file", "data", "blob", "about") or parts.hostname in LOOPBACK
