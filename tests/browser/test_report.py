"""The report page in a browser: `make browser-test`. Screenshots go to `$SCREENSHOTS`, or to a temporary folder."""

from __future__ import annotations

import os
import shutil
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from report_runs import PIXEL, RULES, runs, settings, twenty

from locallearn.report import read_run, write_page

pytestmark = pytest.mark.browser

DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
MOST_BYTES = 10 * 10**6
MOST_SECONDS = 2.0
TRIES = 3  # other work may slow some down


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium is not None, "chromium is not installed: run make browser-test"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_page(runs(), path)
    return path


class Visit:
    """A page in a browser; errors and requests are recorded."""

    def __init__(self, context: BrowserContext, path: Path) -> None:
        self.page: Page = context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type != "log" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-plotly=ready]", state="attached")

    def draw_all(self) -> None:
        """Scroll to each figure, which draws it."""
        self.page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        for figure in self.page.locator("figure.chart:has(.plot):visible").all():
            figure.scroll_into_view_if_needed()
            figure.locator(".plot svg.main-svg").first.wait_for()
        self.page.wait_for_function("[...document.querySelectorAll('.drawn')].every((one) => one.dataset.ready)")

    def refuse_errors(self) -> None:
        assert self.errors == []
        assert [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.fixture
def visit(browser, report, request) -> Iterator[Visit]:
    context = browser.new_context(**getattr(request, "param", DESKTOP))
    found = Visit(context, report)
    yield found
    found.refuse_errors()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_fits_and_its_figures_are_drawn(browser, report, tmp_path, device, scheme):
    context = browser.new_context(**device, color_scheme=scheme)
    visit = Visit(context, report)
    visit.draw_all()
    width = device["viewport"]["width"]
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    ink, ground = (
        visit.page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor")
    )
    assert (brightness(ink) < brightness(ground)) == (scheme == "light")
    drawn = visit.page.locator("#figure-accuracy-epoch .xtick text").first.evaluate(
        "(one) => getComputedStyle(one).fill"
    )
    assert drawn == ink
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    visit.page.screenshot(path=folder / f"report-{width}-{scheme}.png", full_page=True)
    visit.refuse_errors()
    context.close()


def brightness(colour: str) -> int:
    return sum(int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(","))


def test_a_change_of_the_scheme_draws_the_figures_again(visit):
    visit.draw_all()
    tick = visit.page.locator("#figure-accuracy-epoch .xtick text").first
    before = tick.evaluate("(one) => getComputedStyle(one).fill")
    visit.page.emulate_media(color_scheme="dark")
    visit.page.wait_for_function(
        "(before) => getComputedStyle(document.querySelector('#figure-accuracy-epoch .xtick text')).fill !== before",
        arg=before,
    )


def test_a_button_of_the_legend_hides_a_line_and_shows_it_again(visit):
    figure = visit.page.locator("#figure-accuracy-epoch")
    figure.scroll_into_view_if_needed()
    button = figure.get_by_role("button", name="bp", exact=True)
    lines = figure.locator(".plot .scatterlayer .trace.scatter .lines path")
    button.wait_for()
    count = lines.count()
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    visit.page.wait_for_function(
        "(count) => document.querySelectorAll('#figure-accuracy-epoch .scatterlayer .lines path').length < count",
        arg=count,
    )
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    visit.page.wait_for_function(
        "(count) => document.querySelectorAll('#figure-accuracy-epoch .scatterlayer .lines path').length === count",
        arg=count,
    )


def test_tabs_choose_a_run_by_mouse_and_by_keys(visit):
    tabs = visit.page.get_by_role("tablist", name="Schedule of one step").get_by_role("tab")
    assert tabs.count() == 3
    tabs.nth(1).click()
    assert tabs.nth(1).get_attribute("aria-selected") == "true"
    panel = visit.page.locator(f"#{tabs.nth(1).get_attribute('aria-controls')}")
    panel.locator(".plot svg.main-svg").first.wait_for()
    visit.page.keyboard.press("ArrowRight")
    assert tabs.nth(2).get_attribute("aria-selected") == "true"
    assert panel.is_hidden()


def test_every_link_has_a_picture_for_print_which_is_downloaded(visit, tmp_path):
    """One is downloaded, by a key: a click may miss while figures are drawn, and browsers hold back many downloads."""
    visit.draw_all()
    links = visit.page.locator("a.download:visible")
    assert links.count() == 12
    contents = {link.get_attribute("download"): link.get_attribute("href") for link in links.all()}
    assert len(contents) == 12
    assert all(name.endswith(".png") for name in contents)
    pictures = [b64decode(address.removeprefix("data:image/png;base64,")) for address in contents.values()]
    assert all(picture.startswith(PIXEL[:4]) for picture in pictures)
    with visit.page.expect_download() as download:
        links.first.press("Enter")
    download.value.save_as(tmp_path / "picture.png")
    assert download.value.suggested_filename == next(iter(contents))
    assert (tmp_path / "picture.png").read_bytes() == pictures[0]


def test_details_open_and_links_of_the_page_lead_to_its_parts(visit):
    details = visit.page.locator("details").first
    assert not details.locator("table").is_visible()
    details.locator("summary").click()
    assert details.locator("table").is_visible()
    for link in visit.page.locator("nav a").all():
        link.click()
        assert visit.page.locator(f"#{visit.page.url.partition('#')[2]}").count() == 1


def test_a_command_is_copied(browser, report):
    context = browser.new_context(**DESKTOP, permissions=["clipboard-read", "clipboard-write"])
    visit = Visit(context, report)
    visit.page.locator(".copy").first.click()
    visit.page.get_by_text("Copied").or_(visit.page.get_by_text("Selected")).wait_for()
    visit.refuse_errors()
    context.close()


def test_without_scripts_all_figures_are_pictures(browser, report):
    context = browser.new_context(**DESKTOP, java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    pictures = page.locator("figure img")
    assert pictures.count() > 12
    assert all(picture.is_visible() for picture in pictures.all())
    context.close()


def test_twenty_runs_are_small_and_open_fast(browser, tmp_path):
    """A page is open when its text, tables and pictures are there; plotly then takes the place of the pictures."""
    path = tmp_path / "report.html"
    found = [read_run(run, settings(RULES["dgl"], batch=64 + i)) for i, run in enumerate(twenty(tmp_path))]
    write_page(found, path)
    assert path.stat().st_size < MOST_BYTES
    opened: list[float] = []
    interactive: list[float] = []
    for _ in range(TRIES):
        context = browser.new_context(**DESKTOP)
        visit = Visit(context, path)
        interactive.append(visit.page.evaluate("performance.now()") / 1000)
        opened.append(visit.page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000)
        visit.page.locator("#figure-accuracy-epoch").scroll_into_view_if_needed()
        visit.page.locator("#figure-accuracy-epoch[data-ready]").wait_for()
        visit.refuse_errors()
        context.close()
    size = path.stat().st_size / 1e6
    print(f"20 runs: {size:.1f} MB, open after {min(opened):.2f} s, interactive after {min(interactive):.2f} s")
    assert 0 < min(opened) < MOST_SECONDS
