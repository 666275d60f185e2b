"""The tests' own page: it notices what a report or a view must not do."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page


def show(page: Page, folder: Path, script: str) -> None:
    """Open a page with a script, and wait until what it began has failed or gone through."""
    path = folder / "page.html"
    path.write_text(f"<!doctype html><meta charset=utf-8><title>t</title><p>shown</p><script>{script}</script>")
    page.goto(path.as_uri())
    page.wait_for_load_state("networkidle")


def test_a_page_that_behaves_has_no_problems(page: Page, problems: list[str], tmp_path: Path) -> None:
    show(page, tmp_path, "document.querySelector('p').textContent = 'changed'")

    assert page.inner_text("p") == "changed" and problems == []


def test_complaints_exceptions_and_requests_to_elsewhere_are_noticed(
    page: Page, problems: list[str], tmp_path: Path
) -> None:
    show(page, tmp_path, "console.error('oh'); new Image().src = 'https://example.com/x.png'; throw Error('thrown')")

    assert [line for line in problems if line == "error: oh"]
    assert [line for line in problems if line.startswith("request to https://example.com")]
    assert [line for line in problems if line.startswith("exception: ") and "thrown" in line]
    problems.clear()
