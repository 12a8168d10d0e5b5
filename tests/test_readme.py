"""What README and docs say is so: methods, commands, options, numbers, links."""

import json
import re
import shlex
from pathlib import Path

import make_leaderboards as script
import pytest
from make_leaderboards import END, METHODS
from typer.main import get_command
from typer.testing import CliRunner

from swiftvlm_eval import make_method, method_names
from swiftvlm_eval.cli import app


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


PAGE = script.README.read_text(encoding="utf-8")
DOCS = [script.README, *sorted(script.METHODS_PAGE.parent.glob("*.md"))]


def commands(page: str) -> list[str]:
    """Lines of shell in a page's blocks, continued ones joined, comments cut."""
    blocks = re.findall(r"^```\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.partition(" #")[0].strip() for line in lines]


def test_the_first_screen_has_a_clone_line_a_command_and_a_result() -> None:
    first = "\n".join(PAGE.splitlines()[:40])
    assert "git clone " in first and "make demo" in first
    assert "| vanilla, score " in first and len(re.findall(r"\d %? ?\[\d", first)) > 4


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.name)
def test_every_run_of_lmms_eval_leaves_what_a_leaderboard_reads(page: Path) -> None:
    for line in commands(page.read_text(encoding="utf-8")):
        if re.search(r"lmms_eval --model\b", line):
            assert "--output_path " in line and "--log_samples" in line, line


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.name)
def test_commands_have_options_that_exist(page: Path) -> None:
    group = get_command(app)
    for line in commands(page.read_text(encoding="utf-8")):
        if line.startswith("swiftvlm-eval "):
            name, *words = shlex.split(line)[1:]
            known = {option for parameter in group.commands[name].params for option in parameter.opts}  # type: ignore[attr-defined]
            assert {word for word in words if word.startswith("--")} <= known, line


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize(
    ("term", "words"),
    [
        ("visual token", "an image patch as vector"),
        ("budget", "mean visual tokens per layer"),
        ("Vanilla", "the model without any pruning"),
        ("merged row", "one vector for several tokens"),
        ("record", "one run's file of results"),
        ("localization group", "benchmarks answered with boxes"),
    ],
)
def test_a_term_is_defined_in_about_five_words(term: str, words: str) -> None:
    (line,) = re.findall(rf"^\* .*\*\*{term}\*\*.*$", PAGE, re.MULTILINE)
    assert words in line and 4 <= len(words.split()) <= 5


def test_the_drawing_of_a_budget_is_a_plan() -> None:
    plan = make_method("fastv").plan(576, 32, 1 / 3)
    assert list(plan.rows_per_layer) == [576] * 2 + [166] * 30
    assert "(2 x 576 + 30 x 166) / 32 = 192" in PAGE and round((2 * 576 + 30 * 166) / 32) == 192
    drawn = {line[:3]: line.count("#") for line in PAGE.splitlines() if re.match(r"\d{3}  #+", line)}
    assert drawn == {"576": 2, "166": 32}


def test_hours_and_memory_are_those_of_the_command_and_called_an_estimate() -> None:
    words = ["estimate", "--methods", "vanilla,fastv", "--budgets", "192", "--json"]
    told = json.loads(CliRunner().invoke(app, words).stdout)
    vanilla, fastv = (one["hours"] for one in told["hours"])
    memory = sum(told["memory_gib"].values())
    text = " ".join(PAGE.split())
    assert f"({sum(told['documents'].values()):,} documents), an estimate from FLOPs and no measurement" in text
    assert f"about {vanilla:.1f} hours for vanilla and {fastv:.1f} for a method" in text
    assert f"{memory:.0f} GiB of GPU memory" in text


def test_the_versions_of_python_are_those_that_set_up_takes() -> None:
    makefile = (script.README.parent / "Makefile").read_text(encoding="utf-8")
    tried = re.findall(r"python(3\.\d+)", makefile.split("\nVENV")[0])
    assert f"Python {tried[0]} or {tried[-1]} is needed" in PAGE and tried == ["3.11", "3.12"]
