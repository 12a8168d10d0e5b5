"""The HTML page, read as text and used in a real browser (Debian packages chromium and chromium-driver)."""

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fake_runs import description, grid
from small_runs import RIGHT, one_run

from swiftvlm_eval.leaderboard import build
from swiftvlm_eval.results import import_run, write_record

EVIL = '"><img src=x onerror="document.title=1"><b>'
# Kept as an extra of every run, so it stands in the script block of the page.
HOSTILE = {
    "end": "</script><script>document.title=2</script>",
    "comment": "<!--<script>",
    "lines": "\u2028\u2029\u0000\u202e\x1b[31m",
    "quotes": "\\\"'`${document.title=3}",
    "__proto__": {"polluted": True},
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    grid(folder / "in", {"swiftvlm": 0.05, "fastv": 0.3, EVIL: 0.5}, documents=120, hostile=HOSTILE)
    for number, value in enumerate(("NaN", "-Infinity", "1e999", "[" * 5000 + "]" * 5000)):
        path = one_run(folder / "lmms" / str(number), "fastv", RIGHT, run=description("fastv", options={"k": "@"}))
        record = write_record(*import_run(path), folder / "bad" / str(number))
        record.write_text(record.read_text().replace('"@"', value))
    build([folder / "in", folder / "bad"], folder / "out")
    return folder / "out" / "index.html"


class Addresses(HTMLParser):
    """Collects what a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.handlers: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in {"src", "href", "action", "data", "poster", "srcset"}:
                self.found.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)


def test_the_page_fetches_nothing_and_names_from_records_run_nothing(page: Path) -> None:
    parser = Addresses()
    parser.feed(page.read_text())
    assert parser.found and all(address.startswith("data:image/svg+xml;base64,") for address in parser.found)
    assert parser.handlers == []
    assert "link" not in parser.tags and "iframe" not in parser.tags and "b" not in parser.tags
    assert "default-src 'none'" in page.read_text()
    assert not re.search(r"@import|url\(", page.read_text())


def test_the_records_are_in_the_page(page: Path) -> None:
    match = re.search(r'<script type="application/json" id="records">(.*?)</script>', page.read_text(), re.DOTALL)
    assert match is not None
    records = json.loads(match.group(1))
    assert len(records) == 7
    assert {entry["records"][0]["method"]["name"] for entry in records.values()} == {
        "vanilla",
        "swiftvlm",
        "fastv",
        EVIL,
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield session
    session.quit()


@pytest.fixture
def opened(browser: Any, page: Path) -> Any:
    browser.get(page.as_uri())
    return browser


def methods(browser: Any) -> list[str]:
    rows = browser.find_elements("css selector", "tbody tr")
    return [row.find_elements("css selector", "td")[1].text for row in rows if row.is_displayed()]


def column(browser: Any, heading: str) -> list[float | None]:
    heads = [button.text for button in browser.find_elements("css selector", "thead button")]
    place = heads.index(heading)
    cells = [
        row.find_elements("css selector", "td")[place] for row in browser.find_elements("css selector", "tbody tr")
    ]
    values = [cell.get_attribute("data-value") for cell in cells]
    return [None if value is None else float(value) for value in values]


def press(browser: Any, heading: str) -> None:
    button = next(each for each in browser.find_elements("css selector", "thead button") if each.text == heading)
    browser.execute_script("arguments[0].click()", button)


def test_records_with_scripts_inside_run_nothing_and_bad_ones_are_listed(opened: Any) -> None:
    row = next(row for row in opened.find_elements("css selector", "tbody tr") if "vanilla" in row.text)
    opened.execute_script("arguments[0].click()", row)
    shown = json.loads(opened.execute_script("return document.querySelector('dialog pre').textContent"))
    assert shown["records"][0]["extra"]["hostile"] == HOSTILE
    assert opened.title == "swiftvlm-eval leaderboards"
    assert opened.execute_script("return ({}).polluted") is None
    assert len(opened.find_elements("css selector", "script")) == 2
    opened.find_element("css selector", "dialog button").click()
    sections = [each.text for each in opened.find_elements("css selector", "section")]
    (refused,) = [text for text in sections if text.startswith("Refused")]
    assert len(refused.splitlines()) == 5 and "NaN is not JSON" in refused and "nested" in refused


def test_it_opens_from_disk_without_errors(opened: Any) -> None:
    assert opened.title == "swiftvlm-eval leaderboards"
    assert [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"] == []
    images = opened.find_elements("css selector", "figure img")
    assert len(images) == 4
    assert all(opened.execute_script("return arguments[0].naturalWidth", image) > 100 for image in images)
    assert methods(opened)[0] == "vanilla"
    assert EVIL in methods(opened)


def test_headings_sort_by_number_both_ways_with_missing_values_last(opened: Any) -> None:
    press(opened, "GQA")
    falling = column(opened, "GQA")
    assert falling == sorted(falling, key=lambda value: -(value or 0))
    press(opened, "GQA")
    assert column(opened, "GQA") == falling[::-1]
    press(opened, "prefill (ms)")
    times = column(opened, "prefill (ms)")
    assert times == sorted(times, key=lambda value: value or 0)
    press(opened, "prefill speed-up (x)")
    assert column(opened, "prefill speed-up (x)")[-1] is None
    press(opened, "prefill speed-up (x)")
    assert column(opened, "prefill speed-up (x)")[-1] is None


def test_rows_are_filtered_by_name_and_budget(opened: Any) -> None:
    opened.find_element("css selector", ".filter").send_keys("FAST")
    assert methods(opened) == ["fastv", "fastv"]
    assert opened.find_element("css selector", ".count").text == "2 of 7 rows"
    choices = opened.find_elements("css selector", ".budget option")
    next(choice for choice in choices if choice.text.startswith("Budget 22.2 %")).click()
    assert methods(opened) == ["fastv"]


def test_a_click_on_a_row_shows_its_record(opened: Any) -> None:
    row = next(
        row
        for row in opened.find_elements("css selector", "tbody tr")
        if row.find_elements("css selector", "td")[1].text == EVIL
    )
    opened.execute_script("arguments[0].click()", row)
    dialog = opened.find_element("css selector", "dialog")
    assert dialog.is_displayed()
    shown = json.loads(dialog.find_element("css selector", "pre").text)
    assert shown["records"][0]["method"]["name"] == EVIL
    assert shown["records"][0]["status"] == "complete"
    assert opened.title == "swiftvlm-eval leaderboards"
    dialog.find_element("css selector", "button").click()
    assert not dialog.is_displayed()
