"""The HTML report as a person meets it: opened from disk, with a keyboard, on a phone, in light and dark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize

from launcher.results.report import MAX_BYTES, write
from tests.browser.conftest import watch
from tests.unit.past_runs import PastTask, write_run
from tests.unit.report_runs import HOSTILE, SpokenTask, add_failures, many_tasks, write_pair, write_timeline

TASKS, SAMPLES = 30, 20_000
READY = 'html[data-samples="ready"]'
PHONE: ViewportSize = {"width": 380, "height": 780}
CONTRAST_AA = 4.5
CONTRASTS = """() => {
  const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || element.closest("script, style, title")) continue;
    if (!element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const [one, two] = [light(parse(element.closest("svg") ? style.fill : style.color)), light(behind(element))];
    found.push([(Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05), node.textContent.trim().slice(0, 40)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of 30 tasks with 20,000 samples each, of the same questions."""
    return write_pair(tmp_path_factory.mktemp("runs"), tasks=TASKS, samples=SAMPLES)


@pytest.fixture(scope="module")
def large(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(runs, tmp_path_factory.mktemp("report") / "report.html").path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A report of two small runs, one of them with texts that a page could take for markup."""
    base = SpokenTask("hostile", {"acc": [1] * len(HOSTILE), "f1": [0.5] * len(HOSTILE)})
    plain = PastTask("plain", {"acc": [1, 0, 1]}, prompt="Word{id}" + "x" * 500)
    folders = [
        write_run(tmp_path, "aaaa", base, plain),
        write_run(
            tmp_path, "bbbb", SpokenTask("hostile", {"acc": [1, 0] * (len(HOSTILE) // 2), "f1": [0.5] * 8}), plain
        ),
    ]
    write_timeline(folders[0])
    add_failures(folders[1])
    return write(folders, tmp_path / "report.html").path


def show(page: Page, report: Path) -> Page:
    page.goto(report.as_uri())
    page.wait_for_selector(READY)
    return page


def found(page: Page) -> str:
    page.wait_for_selector(READY)
    return page.inner_text("#found")


def search(page: Page, words: str) -> str:
    page.fill("#search", words)
    return found(page)


def right(place: int, better: float) -> list[int]:
    values: list[int] = list(many_tasks(TASKS, SAMPLES, better=better)[place].values["acc"])
    return values


def test_it_is_small_and_opens_at_once(large: Path, browser: Browser, problems: list[str]) -> None:
    times = []
    for _ in range(3):
        context = browser.new_context()
        page = show(watch(context.new_page(), problems), large)
        times.append(page.evaluate("performance.getEntriesByName('samples-ready')[0].startTime") / 1000)
        assert found(page) == "20,000 samples of 20,000"
        context.close()

    assert large.stat().st_size <= MAX_BYTES
    assert min(times) < 2, times


def test_search_goes_through_the_texts_of_all_samples(large: Path, runs: list[Path], page: Page) -> None:
    path = next((runs[0] / "benchmark_07" / "output").glob("samples_*"))
    sample = json.loads(path.read_text().splitlines()[123])
    words = sample["arguments"]["gen_args_0"]["arg_0"].split()[2:9]
    show(page, large)

    assert search(page, " ".join(words).upper()) == "1 sample of 20,000"
    assert page.inner_text("#detail h3") == "benchmark_07 #123"
    assert page.locator("#detail pre").last.inner_text() == sample["arguments"]["gen_args_0"]["arg_0"]
    assert page.locator("#detail mark").count() >= len(set(words))
    assert search(page, "no such words") == "0 samples of 20,000" and "No sample fits" in page.inner_text("#detail")
    assert search(page, "") == "20,000 samples of 20,000"


def test_filters_leave_what_they_say(large: Path, page: Page) -> None:
    pairs = list(zip(right(4, 0.0), right(4, 0.06), strict=True))
    show(page, large)
    page.select_option("#set", label=f"benchmark_04 ({len(pairs)})")
    expected = {
        "scored differently": sum(one != two for one, two in pairs),
        "B above A": sum(one < two for one, two in pairs),
        "B below A": sum(one > two for one, two in pairs),
        "A scored 0": sum(not one for one, _ in pairs),
        "B scored above 0": sum(two for _, two in pairs),
        "A has no score": 0,
        "all": len(pairs),
    }
    for name, count in expected.items():
        page.select_option("#show", label=name)
        assert found(page) == f"{count} samples of 20,000", name
    page.select_option("#order", label="changed most first")
    found(page)
    assert page.locator("#list .row .chips").first.inner_text().endswith(("▲", "▼"))


def test_the_list_holds_only_what_is_in_sight(large: Path, page: Page) -> None:
    show(page, large)
    page.focus("#list")
    page.keyboard.press("End")
    page.wait_for_selector('#list .row[aria-posinset="20000"][aria-selected="true"]')

    assert page.locator("#list .row").count() < 40
    page.wait_for_function("document.querySelector('#detail h3').textContent.startsWith('benchmark_29 #')")


def test_all_can_be_done_with_the_keyboard(small: Path, page: Page) -> None:
    show(page, small)
    press, active = page.keyboard.press, "document.activeElement.id"

    press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    press("Enter")
    assert page.evaluate(active) == "main"
    press("/")
    assert page.evaluate(active) == "search"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    press("ArrowDown")
    assert page.evaluate(active) == "list"
    press("ArrowDown")
    assert page.get_attribute("#list", "aria-activedescendant") == "row-1"
    assert page.get_attribute("#row-1", "aria-selected") == "true"
    page.wait_for_function("document.querySelector('#detail h3').textContent === 'hostile #1'")
    for key, place in (("End", 10), ("ArrowUp", 9), ("Home", 0), ("PageDown", None), ("PageUp", 0)):
        press(key)
        if place is not None:
            assert page.get_attribute("#list", "aria-activedescendant") == f"row-{place}"
    press("Enter")
    assert page.evaluate(active) == "detail"
    press("Escape")
    assert page.evaluate(active) == "list"
    assert page.evaluate("[...document.querySelectorAll('[tabindex]')].every((one) => one.tabIndex <= 0)")


def test_texts_of_strangers_do_nothing_and_are_shown_as_they_are(small: Path, page: Page) -> None:
    show(page, small)
    for place, text in enumerate(HOSTILE):
        page.locator(f"#row-{place}").click()
        page.wait_for_function(f"document.querySelector('#detail h3').textContent === 'hostile #{place}'")
        shown = page.evaluate("[...document.querySelectorAll('#detail pre')].map((one) => one.textContent)")
        assert set(shown) == {text.encode("utf-8", "backslashreplace").decode()}
    assert page.locator("#detail pre").last.get_attribute("dir") == "auto"
    assert search(page, "window.harmed") == "5 samples of 11"
    assert page.evaluate("window.harmed") is None
    assert page.locator("main img, main iframe, main script").count() == 0


def test_even_markup_that_got_in_could_not_run(small: Path, page: Page, problems: list[str]) -> None:
    show(page, small)
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=\"x.png\" onerror=\"window.harmed = 9\">')")
    page.wait_for_timeout(200)

    assert page.evaluate("window.harmed") is None
    assert [line for line in problems if "Content Security Policy" in line]
    problems.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_light_and_dark(
    small: Path, browser: Browser, problems: list[str], tmp_path: Path, scheme: str
) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    page = show(watch(context.new_page(), problems), small)
    weak = [(round(ratio, 2), text) for ratio, text in page.evaluate(CONTRASTS) if ratio < CONTRAST_AA]
    picture = page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    context.close()

    assert weak == []
    assert len(picture) > 50_000 and (back == "rgb(255, 255, 255)") == (scheme == "light")


def test_the_theme_can_be_chosen(small: Path, page: Page) -> None:
    show(page, small)
    backs = []
    for name in ("light", "dark", "system"):
        page.click("#theme")
        assert page.inner_text("#theme") == f"Theme: {name}"
        backs.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    assert backs[0] == "rgb(255, 255, 255)" != backs[1]


@pytest.mark.parametrize("size", ["small", "large"])
def test_a_phone_needs_no_scrolling_to_the_side(
    size: str, request: pytest.FixtureRequest, browser: Browser, problems: list[str], tmp_path: Path
) -> None:
    context = browser.new_context(viewport=PHONE, is_mobile=True, has_touch=True, reduced_motion="reduce")
    page = show(watch(context.new_page(), problems), request.getfixturevalue(size))
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    page.select_option("#set", index=page.locator("#set option").count() - 1)
    page.wait_for_selector(READY)
    page.locator("#list .row").first.tap()
    widths = page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]")
    shown = page.evaluate("[...document.querySelectorAll('figure .narrow')].every((one) => one.clientWidth > 250)")
    picture = page.screenshot(path=tmp_path / "phone.png")
    context.close()

    assert widths == [380, 380, 380] and shown
    assert len(picture) > 10_000


def test_charts_stand_in_the_page_and_tell_what_they_show(large: Path, page: Page) -> None:
    show(page, large)

    assert page.locator("#differences figure .wide svg").count() == 1
    assert page.locator("#time figure .wide svg").count() == 2
    labels = page.locator("figure [role=img]").evaluate_all("(all) => all.map((one) => one.getAttribute('aria-label'))")
    assert all(labels) and any("better" in label for label in labels)
    assert page.locator("#time figure .wide svg title").first.text_content().startswith("benchmark_00: endpoint starts")


def test_a_row_of_the_comparison_leads_to_its_samples(small: Path, page: Page) -> None:
    show(page, small)
    page.locator("#differences button[data-key]").first.click()

    assert found(page) == "4 samples of 11"
    assert page.input_value("#show") == "changed" and page.evaluate("document.activeElement.id") == "list"


def test_without_scripts_all_but_the_samples_is_there(small: Path, browser: Browser, problems: list[str]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = watch(context.new_page(), problems)
    page.goto(small.as_uri())

    assert page.locator("#scores tbody tr").count() > 3 and page.locator("#failures .failure").count() == 3
    assert page.get_by_text("with JavaScript switched on").is_visible() and not page.locator("#list").is_visible()
    context.close()


def test_on_paper_there_is_nothing_to_press(small: Path, page: Page) -> None:
    show(page, small)
    page.emulate_media(media="print", color_scheme="dark")

    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for selector in ("nav", "#theme", "#list", ".tools"):
        assert not page.locator(selector).first.is_visible()
    assert page.locator("#scores table").is_visible()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() > 0


def test_a_report_of_one_broken_and_one_good_run_opens(
    tmp_path: Path, context: BrowserContext, problems: list[str]
) -> None:
    good, broken = (
        write_run(tmp_path, name, PastTask("t", {"acc": [1, 0]}, logged=False)) for name in ("aaaa", "bbbb")
    )
    (broken / "results.json").write_text("{")
    page = watch(context.new_page(), problems)
    page.goto(write([good, broken], tmp_path / "report.html").path.as_uri())

    assert "results.json: broken" in page.inner_text("#runs") and "There are no samples to show" in page.inner_text(
        "#samples"
    )
    assert "Only one run can be read" in page.inner_text("#differences")
