"""The HTML page as text: what it may fetch and run, how large it is, what a reader without scripts has of it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fake_runs import description, grid
from hostile_board import EVIL
from small_runs import RIGHT, one_run

from swiftvlm_eval.leaderboard import build
from swiftvlm_eval.leaderboard.board import Board
from swiftvlm_eval.leaderboard.render.html import script_json, themes
from swiftvlm_eval.results import import_run, write_record


class Addresses(HTMLParser):
    """Collects what a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.handlers: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if tag == "a" and name == "href":
                self.links.append(value or "")
            elif name in {"src", "href", "action", "data", "poster", "srcset", "style"}:
                self.fetched.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)


def read(page: Path) -> Addresses:
    parser = Addresses()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


def data_of(page: Path) -> Any:
    text = page.read_text(encoding="utf-8")
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(block)


@pytest.mark.parametrize("which", ["page", "poisoned_page"])
def test_the_page_fetches_nothing_and_names_from_records_run_nothing(
    which: str, request: pytest.FixtureRequest
) -> None:
    found = read(request.getfixturevalue(which))
    assert found.fetched == [] and found.handlers == []
    assert found.tags.count("script") == 2
    assert not {"link", "iframe", "b", "img", "object", "embed", "form"} & (set(found.tags) - {"b"})
    text = request.getfixturevalue(which).read_text(encoding="utf-8")
    assert "default-src 'none'" in text and "unsafe" not in text.partition("</head>")[0]
    assert not re.search(r"@import|url\(|innerHTML|insertAdjacentHTML|eval\(|document\.write", text)


def test_links_are_relative_and_lead_to_files(page: Path) -> None:
    for link in read(page).links:
        assert link.startswith("#") or (page.parent / link).is_file(), link


def test_a_record_is_linked_where_it_lies_beside_the_page_alone(page: Path, board: Board) -> None:
    rows = [row for section in data_of(page)["boards"][0]["sections"] for row in section["rows"]]
    linked = {name: address for row in rows for name, address in row["card"]["files"]}
    there = board.sections[1].rows[0].files[0]
    assert {name for name, address in linked.items() if address} == {there}
    assert (page.parent / linked[there]).is_file()


def test_every_text_of_the_data_survives_as_it_was(poisoned_page: Path, board: Board) -> None:
    found = data_of(poisoned_page)["boards"][0]
    assert found["title"] == board.title + EVIL
    labels = [row["label"] for section in found["sections"] for row in section["rows"]]
    assert labels == [row.label + EVIL for row in board.rows]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_page_is_made_of_what_is_no_number(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json({"figure": value})


def test_a_lone_surrogate_is_still_json() -> None:
    text = script_json({"name": "a\ud800</script>&\u2028"})
    assert text.encode() and not re.search("[<>&\u2028]", text)
    assert json.loads(text) == {"name": "a\ud800</script>&\u2028"}


def test_a_reader_without_scripts_has_every_score(page: Path, board: Board) -> None:
    text = page.read_text(encoding="utf-8").partition('<script type="application/json"')[0]
    rows = dict(re.findall(r'<tr><th scope="row">([^<]+)</th>(.*?)</tr>', text))
    assert {row.label for row in board.rows} == rows.keys()
    row = board.sections[-1].rows[0]
    for benchmark in board.benchmarks:
        assert f"{row.cells[benchmark.key].score:.{benchmark.digits}f}" in rows[row.label]


def test_the_page_is_small(tmp_path: Path) -> None:
    grid(tmp_path / "in", {f"method{number}": 0.1 for number in range(20)}, documents=20)
    build([tmp_path / "in"], tmp_path / "out")
    page = tmp_path / "out" / "index.html"
    assert page.stat().st_size < 120_000 + 41 * 6_000
    assert "base64" not in page.read_text(encoding="utf-8")


def test_records_that_are_broken_are_listed(tmp_path: Path) -> None:
    for number, value in enumerate(("NaN", "-Infinity", "1e999", "[" * 5000 + "]" * 5000)):
        path = one_run(tmp_path / "lmms" / str(number), "fastv", RIGHT, run=description("fastv", options={"k": "@"}))
        record = write_record(*import_run(path), tmp_path / "bad" / str(number))
        record.write_text(record.read_text().replace('"@"', value))
    one_run(tmp_path / "good", "vanilla", RIGHT)
    build([tmp_path / "good", tmp_path / "bad"], tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    (refused,) = re.findall(r"<summary>Refused[^<]*</summary><ul>(.*?)</ul>", text)
    assert refused.count("<li>") == 4 and "NaN is not JSON" in refused and "nested" in refused


def luminance(colour: str) -> float:
    """WCAG 2.2's relative luminance of a hexadecimal colour."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def mixed(colour: str, ground: str, share: float) -> str:
    pairs = [(int(colour[at : at + 2], 16), int(ground[at : at + 2], 16)) for at in (1, 3, 5)]
    return "#" + "".join(f"{round(share * top + (1 - share) * below):02x}" for top, below in pairs)


def test_the_rule_of_contrast_is_the_known_one() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # the well-known grey that just fails
    assert mixed("#ff0000", "#0000ff", 0.5) == "#800080"


@pytest.mark.parametrize("name", ["light", "dark"])
def test_text_and_marks_stand_out_in_both_themes(name: str) -> None:
    theme = themes()[name]
    grounds = [theme[ground] for ground in ("bg", "card", "soft", "hot")]
    shaded = [mixed(theme[key], theme["bg"], 0.18) for key in theme if key.startswith("g-")]
    for text in ("fg", "muted", "accent", "warn"):
        low = min(contrast(theme[text], ground) for ground in (grounds if text != "warn" else grounds[:3]))
        assert low >= 4.5, (text, low)
    for text in ("fg", "muted", "accent", "warn"):
        assert min(contrast(theme[text], ground) for ground in shaded) >= 4.5, text
    assert contrast(theme["bg"], theme["accent"]) >= 4.5  # a chosen switch: ground on accent
    for key in theme:
        if key.startswith("c-"):
            assert contrast(theme[key], theme["bg"]) >= 3, key
            assert contrast(theme[key], theme["card"]) >= 3, key
