"""What README and docs say of the methods is what the methods' classes say."""

import re

import make_leaderboards as script
from make_leaderboards import END, METHODS

from swiftvlm_eval import make_method, method_names


def test_the_list_of_methods_is_made_from_the_classes() -> None:
    page = script.README.read_text(encoding="utf-8")
    listed = page.split(METHODS)[1].split(END)[0].strip()
    assert listed == script.methods_list(), "run make leaderboard"
    assert sorted(re.findall(r"`(\w+)`", listed)) == method_names()
    lines = listed.replace("\n  ", " ").splitlines()
    assert "`vanilla`" in lines[0] and "`visionzip`" in lines[1] and "`nuwa`" in lines[2] and "`fastv`" in lines[3]


def test_the_page_of_methods_is_made_from_the_classes() -> None:
    page = script.METHODS_PAGE.read_text(encoding="utf-8")
    assert page == script.methods_page(), "run make leaderboard"
    parts = {part.split("\n", 1)[0]: part for part in page.split("\n## ")[1:]}
    assert sorted(parts) == method_names()
    for name, part in parts.items():
        assert make_method(name).summary in part and make_method(name).title in part


def test_the_readme_is_short() -> None:
    assert len(script.README.read_text(encoding="utf-8").splitlines()) < 200


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    page = f"a\n{METHODS}\nold\n{END}\nb\n{END}\n"
    assert script.replaced(page, METHODS, ["new"]) == f"a\n{METHODS}\nnew\n{END}\nb\n{END}\n"
