"""The page in a real browser: headless Chromium from the system's packages, driven by playwright, without a network."""

import csv
import io
import os
import re
import shutil

import hostile_run
import pytest
from hostile_run import DEFENSE, MODEL, SCRIPT

from sparring.suites.report import table as study_text
from sparring.suites.report.page import write as report
from sparring.suites.report.study import Study
from sparring.suites.report.tables import all as study_tables

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
NEEDED = os.environ.get("SPARRING_NEEDS_BROWSER") == "1"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
DESK, PHONE = {"width": 1400, "height": 900}, {"width": 400, "height": 800}


def absent() -> str | None:
    """Why there is no browser here."""
    if not os.path.exists(CHROMIUM):
        return "no Chromium: apt-get install chromium"
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "no playwright: pip install playwright"
    return None


pytestmark = pytest.mark.skipif(bool(absent()) and not NEEDED, reason=str(absent()))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    hostile_run.write_hostile(folder)
    return folder


@pytest.fixture(scope="module")
def written(run):
    return report.write(Study.open(run))


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def look(browser, written):
    """Open the page; at the end: nothing was complained about, nothing was asked for, no dialogue came up."""
    contexts, complaints, asked = [], [], []

    def opened(viewport=DESK, **settings):
        context = browser.new_context(viewport=viewport, accept_downloads=True, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(written.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url for url in asked if not url.startswith(("data:", "blob:"))} == {written.as_uri()}


def column(page, table, heading):
    """The texts of the visible cells beneath a heading."""
    return page.eval_on_selector(
        f"#rows-{table}",
        """(table, heading) => {
            const at = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === heading);
            return [...table.tBodies[0].rows].filter((row) => row.checkVisibility()).map((row) => row.cells[at].innerText);
        }""",
        heading,
    )


def numbers(texts):
    return [float(text.split(" ")[0]) for text in texts if text != "–"]


def head(page, table, heading):
    return page.locator(f"#rows-{table} thead th").filter(has_text=re.compile(f"^{re.escape(heading)}$"))


def test_a_script_as_a_name_is_text(look):
    page = look()
    assert MODEL in page.inner_text("#table-attacked")
    assert DEFENSE in page.inner_text("#rows-attacked")
    assert page.title().startswith("study")
    assert (
        page.locator("script", has_text="alert").count()
        == page.locator("script[type='application/json']", has_text="alert").count()
    )
    assert page.locator("img[onerror]").count() == 0


def test_numbers_sort_by_value_and_texts_by_their_letters(look):
    page = look()
    first = column(page, "attacked", "accuracy")
    button = head(page, "attacked", "accuracy").locator("button")
    for sort, order in (("descending", True), ("ascending", False)):
        button.click()
        assert head(page, "attacked", "accuracy").get_attribute("aria-sort") == sort
        shown = numbers(column(page, "attacked", "accuracy"))
        assert shown == sorted(shown, reverse=order)
        assert len(set(shown)) > 3
    button.click()
    assert column(page, "attacked", "accuracy") == first
    assert head(page, "attacked", "accuracy").get_attribute("aria-sort") == "none"
    head(page, "attacked", "attack").locator("button").click()
    assert column(page, "attacked", "attack") == sorted(column(page, "attacked", "attack"))
    assert page.locator("#rows-attacked th[aria-sort=ascending]").count() == 1


def test_what_has_no_value_sorts_last(look):
    page = look()
    page.evaluate("""() => {
        const cell = document.querySelector("#rows-attacked tbody tr td.n");
        cell.dataset.v = ""; cell.textContent = "–";
    }""")
    name = page.eval_on_selector(
        "#rows-attacked", "(t) => t.tHead.rows[0].cells[t.querySelector('td.n').cellIndex].textContent"
    )
    for _ in range(2):
        head(page, "attacked", name).locator("button").click()
        assert column(page, "attacked", name)[-1] == "–"


def test_filtering(look):
    page = look()
    every = column(page, "attacked", "attack")
    page.fill("[data-filter=attacked]", "PGD foolbox")
    left = column(page, "attacked", "attack")
    assert 0 < len(left) < len(every)
    assert set(left) == {"pgd"}
    assert set(column(page, "attacked", "library")) == {"foolbox"}
    assert page.inner_text("[data-count=attacked]") == f"{len(left)} of {len(every)} rows"
    head(page, "attacked", "accuracy").locator("button").click()  # what is hidden stays so
    assert len(column(page, "attacked", "attack")) == len(left)
    page.fill("[data-filter=attacked]", "no such words")
    assert column(page, "attacked", "attack") == []
    page.fill("[data-filter=attacked]", "")
    assert len(column(page, "attacked", "attack")) == len(every)


def test_downloads(look, run):
    page = look()
    table = study_tables.find(Study.open(run), "attacked")
    for form, kind in (("csv", "csv"), ("tex", "latex")):
        with page.expect_download() as waiting:
            page.click(f"[data-save=attacked][data-form={form}]")
        assert waiting.value.suggested_filename == f"study-attacked.{form}"
        with open(waiting.value.path(), encoding="utf-8", newline="") as file:
            content = file.read()
        assert content == study_text.render(table, kind)
        if form == "csv":
            rows = list(csv.DictReader(io.StringIO(content)))
            assert len(rows) == len(table.frame)
            assert {row["defense"] for row in rows} == {"none", DEFENSE}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme(look, scheme):
    page = look(color_scheme=scheme)

    def light():
        return page.evaluate("""() => {
            const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).map(Number);
            return r + g + b > 380;
        }""")

    def ink():
        return page.evaluate("() => getComputedStyle(document.querySelector('.drawing svg text')).fill")

    assert light() == (scheme == "light")
    before = ink()
    page.click("#theme")
    assert light() == (scheme == "dark")
    assert ink() != before  # the drawings follow
    page.reload()
    assert light() == (scheme == "dark")  # it is remembered
    page.click("#theme")
    assert (light(), ink()) == (scheme == "light", before)


def test_the_keyboard_alone(look):
    page = look()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.style.colorScheme") == "dark"
    head(page, "attacked", "accuracy").locator("button").focus()
    page.keyboard.press("Space")
    assert head(page, "attacked", "accuracy").get_attribute("aria-sort") == "descending"
    page.keyboard.press("Shift+Tab")  # every heading is a stop of its own
    page.keyboard.press("Enter")
    assert page.locator("#rows-attacked th[aria-sort]:not([aria-sort=none])").count() == 1
    assert head(page, "attacked", "accuracy").get_attribute("aria-sort") == "none"
    boxes = page.evaluate("[...document.querySelectorAll('.scroll')].filter((e) => e.tabIndex < 0).length")
    assert boxes == 0  # what scrolls can be reached
    missing = page.evaluate("""() => [...document.querySelectorAll("button, input, [role=region]")].filter(
        (e) => !(e.textContent.trim() || e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.labels?.length)
    ).length""")
    assert missing == 0


@pytest.mark.parametrize("viewport", [PHONE, {"width": 320, "height": 600}, DESK, {"width": 1920, "height": 1080}])
def test_nothing_is_wider_than_the_window(look, viewport):
    page = look(viewport)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    outside = page.evaluate("""() => [...document.querySelectorAll("main *")].filter((e) =>
        !e.closest(".scroll, pre, svg, .unseen, .guesses") && e.getBoundingClientRect().right > innerWidth + 1
    ).map((e) => e.outerHTML.slice(0, 100))""")
    assert outside == []


def test_every_link_leads_somewhere(look):
    page = look()
    links = page.evaluate("[...document.querySelectorAll('a[href]')].map((a) => a.getAttribute('href'))")
    assert len(links) > 10
    assert [link for link in links if not page.evaluate("(id) => !!document.getElementById(id)", link[1:])] == []


def test_pictures_are_drawn(look):
    page = look()
    broken = page.evaluate("[...document.images].filter((image) => !image.naturalWidth).length")
    assert (broken, page.evaluate("document.images.length") >= 9) == (0, True)
    assert page.evaluate("getComputedStyle(document.images[0]).imageRendering") == "pixelated"
    sizes = page.evaluate("[...document.querySelectorAll('.drawing svg')].map((e) => e.getBoundingClientRect().height)")
    assert sizes
    assert min(sizes) > 100


def test_on_paper(look):
    page = look(color_scheme="dark")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for gone in ("nav", "#theme", ".tools", "#copy"):
        assert not page.locator(gone).first.is_visible()
    assert page.locator("main details:not([open])").count() == 0
    clipped = page.evaluate(
        "[...document.querySelectorAll('.table .scroll')].filter((e) => e.scrollHeight > e.clientHeight + 2).length"
    )
    assert clipped == 0
    page.set_viewport_size({"width": 703, "height": 1000})  # A4 without its margins
    assert page.evaluate("document.documentElement.scrollWidth") == 703
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_without_scripts_everything_is_still_there(browser, written):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(written.as_uri())
    assert page.locator("#rows-attacked tbody tr").first.is_visible()
    assert not page.locator(".tools").first.is_visible()
    assert SCRIPT in page.inner_text("main")
    context.close()
