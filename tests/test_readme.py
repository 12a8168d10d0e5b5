"""The README's table of methods is what the methods' classes say."""

import make_leaderboards as script
from make_leaderboards import END, METHODS

from swiftvlm_eval import method_names


def test_the_table_of_methods_is_made_from_the_classes() -> None:
    page = script.README.read_text(encoding="utf-8")
    table = page.split(METHODS)[1].split(END)[0].strip()
    assert table == script.methods_table(), "run make leaderboard"
    assert [line.split("`")[1] for line in table.splitlines()[2:5]] == ["downsample", "random", "vanilla"]
    assert sorted(line.split("`")[1] for line in table.splitlines()[2:]) == method_names()


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    page = f"a\n{METHODS}\nold\n{END}\nb\n{END}\n"
    assert script.replaced(page, METHODS, ["new"]) == f"a\n{METHODS}\nnew\n{END}\nb\n{END}\n"
