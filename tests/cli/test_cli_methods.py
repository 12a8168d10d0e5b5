"""`methods` as a user starts it: the table of all, one method in words, the same as JSON, and what is refused."""

import json
import re
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from typer.testing import CliRunner

from swiftvlm_eval.cli import app
from swiftvlm_eval.pruning.budget import parse_budget
from swiftvlm_eval.pruning.contract import PruningMethod
from swiftvlm_eval.pruning.registry import make_method, method_class, method_names

EXAMPLES = Path(__file__).parents[2] / "examples" / "own_method"
FEASIBLE = ("1/3", "2/9", "1/9", "1/2", "1")
OUTSIDE = '''"""A file [bold]of one's own[/bold].

\x1b[31mSecond[/] paragraph.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from swiftvlm_eval import PromptWork, PruningMethod, RowEdit, Signals, Work

print("said while it is imported")


@dataclass(frozen=True, kw_only=True)
class Mine(PruningMethod):
    """[red]Mine[/red].

    Attributes:
        names: what [link] it
            takes: several.
    """

    name: ClassVar[str] = "mine"
    title: ClassVar[str] = "Mine [/] \x1b[2J"
    source: ClassVar[str] = "[source]"
    summary: ClassVar[str] = "[dim]summary"
    default_layers: ClassVar[tuple[int, ...]] = (5,)

    size: int
    names: tuple[str, ...] = field(default_factory=lambda: ("a", "b"))

    def select(self, signals: Signals) -> RowEdit:
        return signals.keep_all()

    def work(self, prompt: PromptWork) -> Work:
        return Work()
'''


def told(*arguments: str) -> list[dict[str, Any]]:
    """The JSON that was printed; it is the same a second time."""
    texts = [run("methods", *arguments, "--json", columns=columns) for columns in (40, 200)]
    assert [status for status, _, _ in texts] == [0, 0]
    assert texts[0][1] == texts[1][1]
    return json.loads(texts[0][1], parse_constant=lambda word: pytest.fail(word))


def feasible(method: PruningMethod) -> str:
    """A budget that the method meets."""
    for budget in FEASIBLE:
        try:
            method.plan(576, 32, parse_budget(budget, 576))
        except ValueError:
            continue
        return budget
    raise AssertionError(method.name)


def cells(line: str) -> list[str]:
    """What stands in the columns of a table's line."""
    return [cell for cell in re.split(r"\s{2,}", line.strip()) if cell]


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(OUTSIDE)
    return f"{path}:Mine[size=3]"


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_names_every_method_where_it_acts_and_what_it_does(columns: int) -> None:
    status, output, words = run("methods", columns=columns)
    assert status == 0 and max(map(len, output.splitlines())) <= columns
    for name in method_names():
        cls = method_class(name)
        assert re.search(rf"^  {re.escape(name)}\s", output, re.MULTILINE), "no name is folded"
        assert " ".join(cls.title.split()[:1]) in words
    rest = re.sub(r"\s", "", output)
    shown = {signs for name in method_names() for signs in method_class(name).summary.split()}
    assert not [word for word in shown if word not in rest], "words may be folded, none is lost"


def test_the_json_of_all_says_what_the_classes_say() -> None:
    found = told()
    assert [facts["name"] for facts in found] == method_names()
    for facts in found:
        method = make_method(facts["name"])
        for word in ("title", "source", "code", "summary", "draws"):
            assert facts[word] == getattr(method, word), facts["name"]
        assert facts["needs"] == sorted(method.needs) and facts["adaptive"] == method.adaptive
        assert [preset["budget"] for preset in facts["presets"]] == sorted(method.presets)
        assert [preset["budget"] for preset in facts["paper_presets"]] == sorted(method.paper_presets)
        for kind in ("presets", "paper_presets"):
            for preset in facts[kind]:
                declared = getattr(method, kind)[preset["budget"]]
                assert [stage["kept"] for stage in preset["stages"]] == [kept for kept, _ in declared]
                assert len(preset["rows"]) == len(declared)
        assert "plans" not in facts


def test_the_options_are_the_fields_with_their_defaults() -> None:
    for facts in told():
        declared, method = fields(method_class(facts["name"])), make_method(facts["name"])
        assert [option["name"] for option in facts["options"]] == [option.name for option in declared]
        for said, option in zip(facts["options"], declared, strict=True):
            assert said["required"] is False
            assert said["default"] == json.loads(json.dumps(getattr(method, option.name))) == said["value"]
            assert said["meaning"], f"{facts['name']}: the docstring says nothing of {option.name}"
            for value in said["allowed"] or []:
                try:
                    make_method(facts["name"], {option.name: value})
                except ValueError as error:  # it may not go with another option
                    assert "Input should be" not in str(error)
            if said["allowed"]:
                with pytest.raises(ValueError, match="Input should be"):
                    make_method(facts["name"], {option.name: "none of these"})


@pytest.mark.parametrize("name", method_names())
def test_one_method_in_words_and_its_plan(name: str) -> None:
    method = make_method(name)
    budget = feasible(method)
    plan = method.plan(576, 32, parse_budget(budget, 576))
    status, output, words = run("methods", name, "--budget", budget, columns=120)
    assert status == 0 and "…" not in output and max(map(len, output.splitlines())) <= 120
    assert words.startswith(f"{method.title} ({name})") and method.source in words and method.code in words
    for option in fields(method_class(name)):
        assert re.search(rf"^  {option.name}\s", output, re.MULTILINE)
    rows: list[int] = []
    for line in output[output.index(f"budget {budget}:") :].splitlines():
        if found := re.match(r"  (\d+)(?:-(\d+))?\s+(\d+)(?:\s|$)", line):
            first, last, each = int(found[1]), int(found[2] or found[1]), int(found[3])
            assert first == len(rows) + 1
            rows += [each] * (last - first + 1)
    assert tuple(rows) == plan.rows_per_layer
    assert f"mean {plan.mean_visual_tokens:.1f} of 576 rows a layer" in words
    assert ("not adaptive" in words) is not plan.adaptive
    off = abs(plan.mean_visual_tokens - parse_budget(budget, 576) * 576)
    assert ("NOT the budget" in words) is (off > 0.5 + 1e-9)


@pytest.mark.parametrize("name", method_names())
def test_the_plan_as_json_is_the_methods_own(name: str) -> None:
    method = make_method(name)
    budget = feasible(method)
    (facts,) = told(name, "--budgets", budget)
    (said,) = facts["plans"]
    plan = method.plan(576, 32, said["share"])
    assert said["rows_per_layer"] == list(plan.rows_per_layer)
    assert said["mean_visual_tokens"] == plan.mean_visual_tokens and said["adaptive"] == plan.adaptive
    from_steps = [step["rows"] for step in said["steps"] for _ in range(step["layers"][0], step["layers"][1] + 1)]
    assert from_steps == said["rows_per_layer"]
    assert all(before["layers"][1] + 1 == after["layers"][0] for before, after in pairwise(said["steps"]))
    stages = [step["stage"] for step in said["steps"] if step["stage"]]
    assert [(stage["boundary"], stage["kept"], stage["merged"]) for stage in stages] == [
        (stage.boundary, stage.kept, stage.merged) for stage in plan.stages
    ]
    if budget != "1":
        assert [stage.boundary for stage in plan.stages] in [*facts["boundaries_by_budget"], []]
        assert {method.rule_at(stage) for stage in plan.stages} <= set(facts["position_rule"].split(", then "))
        assert facts["merges_rows"] or not any(stage.merged for stage in plan.stages)


def test_what_an_engine_can_serve_stands_in_table_words_and_json() -> None:
    output = run("methods", columns=200)[1]
    served = {
        line.split()[0]: cells(line)[-2] for line in output.splitlines() if re.match(r"  \w+ .*  (yes|no)  ", line)
    }
    assert served.keys() == set(method_names())
    assert (served["visionzip"], served["fastv"], served["vanilla"], served["nuwa"]) == ("yes", "no", "yes", "no")
    assert {name for name, word in served.items() if word == "yes"} == {
        facts["name"] for facts in told() if facts["servable"]
    }
    assert re.search(r"served by engines +yes, with `export-embeddings`", run("methods", "visionzip")[1])
    assert re.search(r"served by engines +no: keeps the position ids", run("methods", "fastervlm[positions=keep]")[1])
    (facts,) = told("pdrop")
    assert facts["servable"] is False and "inside the decoder" in facts["not_servable_because"]


def test_a_plan_by_hand() -> None:
    # 10 layers of 100 tokens: a cut after layer 2 that leaves x has the mean (2 * 100 + 8 * x) / 10 = 40 at x = 25.
    command = ("methods", "fastv[layers=2]", "--budgets", "40%", "--visual-tokens", "100", "--decoder-layers", "10")
    status, output, words = run(*command)
    lines = [cells(line) for line in output.splitlines()]
    assert status == 0
    assert ["1-2", "100"] in lines and ["3-10", "25", "after layer 2", "layer 2", "25", "0"] in lines
    assert "mean 40.0 of 100 rows a layer (0.4); not adaptive" in words


def test_the_layer_that_is_about_to_run_is_named() -> None:
    (facts,) = told("pdrop", "--budgets", "1/3")
    stages = [step["stage"] for step in facts["plans"][0]["steps"] if step["stage"]]
    assert [(stage["boundary"], stage["scored_by_layer"]) for stage in stages] == [(8, 9), (16, 17), (24, 25)]


def test_several_methods_and_budgets() -> None:
    found = told("random", "pdrop[positions=keep]", "--budgets", "1/3, 192,2/9")
    assert [facts["name"] for facts in found] == ["random", "pdrop"]
    assert [plan["budget"] for plan in found[0]["plans"]] == ["1/3", "192", "2/9"]
    assert found[1]["position_rule"] == "keep" and told("pdrop")[0]["position_rule"] == "compact"
    positions = next(option for option in found[1]["options"] if option["name"] == "positions")
    assert (positions["default"], positions["value"]) == ("compact", "keep")


def test_a_budget_that_a_method_ignores_or_misses_is_marked() -> None:
    assert "NOT the budget: 384.0 rows above it; no stage" in run("methods", "vanilla")[2]
    assert "NOT the budget: 4.0 rows above it; adaptive" in run("methods", "downsample")[2]  # 14 x 14 = 196


def test_methods_one_after_the_other() -> None:
    text = "visionzip+random[layers=16]"
    (facts,) = told(text, "--budgets", "1/3")
    method = make_method(text)
    assert facts["name"] == "visionzip+random" and [part["name"] for part in facts["parts"]] == ["visionzip", "random"]
    assert facts["boundaries"] == [0, 16] and facts["position_rule"] == "compact, then keep"
    assert facts["plans"][0]["rows_per_layer"] == list(method.plan(576, 32, 1 / 3).rows_per_layer)
    status, output, words = run("methods", text, columns=80)
    assert status == 0 and "VisionZip + Random (visionzip+random)" in words and "Random (random)" in words
    assert [cells(line)[2:4] for line in output.splitlines() if re.match(r"  \d+-\d+ ", line)] == [
        ["before the decoder", "visionzip"],
        ["after layer 16", "random"],
    ]


def test_files_of_ones_own() -> None:
    status, _, words = run("methods", f"{EXAMPLES / 'last_row.py'}:LastRow[heads=max]")
    assert status == 0 and "Last row (last_row)" in words and "A decoder method of your own" in words
    assert "one of mean, max mean max" in words


def test_text_from_a_file_is_text_and_controls_no_terminal(own: str) -> None:
    status, output, words = run("methods", own)
    assert status == 0 and "\x1b" not in output
    said = ("Mine [/] [2J (mine)", "[source]", "[dim]summary", "A file [bold]of one's own[/bold].", "[31mSecond[/]")
    assert not [text for text in (*said, "[red]Mine[/red].", "what [link] it takes: several.") if text not in words]
    size, names = (cells(line) for line in output.splitlines() if re.match(r"  (size|names) ", line))
    assert size == ["size", "whole number", "required", "3", "(its docstring does not say)"]
    assert names[:3] == ["names", "list of: text", "a:b"]


def test_what_a_file_prints_is_not_taken_for_json(own: str) -> None:
    done = CliRunner().invoke(app, ["methods", own.replace("mine.py", "./mine.py"), "--json"])
    (facts,) = json.loads(done.stdout)
    assert done.exit_code == 0 and "said while it is imported" not in done.stdout
    assert facts["options"][-1]["default"] == ["a", "b"] and facts["options"][-2]["required"]


@pytest.mark.parametrize("more", [(), ("--json",)])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("fastvv",), "method='fastvv': unknown.* Did you mean 'fastv'"),
        (("fastv", "random", "nosuch"), "method='nosuch': unknown"),
        (("fastv", "--budget", "700"), "budget='700': allowed is a share"),
        (("fastv", "--budget", "192", "--visual-tokens", "2880"), "budget='192': allowed is .* are 2880"),
        (("fastv", "--budgets", "1/3,,"), "budget='': allowed"),
        (("swiftvlm", "--budgets", "1/3,1%"), "budget=0.01 of 576 visual tokens .*feasible"),
        (("fastv", "--decoder-layers", "2"), "feasible with edits after layers"),
        (("fastv[scoop=all]",), "option scoop='all': fastv has no such option; allowed are layers,"),
        (("feather[keep_ratio=2]",), "option keep_ratio='2' of feather: "),
        (("fastv[layers=40]",), r"layers=\[40\]: allowed are"),
        (("fastv[scope",), "options are written as name"),
        (("random+visionzip",), "visionzip acts before the decoder"),
        (("nofile.py:X",), "there is no file 'nofile.py'"),
        (("--budgets", "1/3"), "budgets='1/3': belongs to the plan of a method; name one"),
        (("--decoder-layers", "8"), "decoder_layers=8: belongs to the plan"),
    ],
)
def test_bad_input_is_one_line_and_a_status(arguments: tuple[str, ...], says: str, more: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, ["methods", *arguments, *more], env={"COLUMNS": "60"})
    assert done.exit_code == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and re.search(says, done.stderr)


def test_a_file_without_an_option_that_it_needs_is_refused(own: str) -> None:
    done = CliRunner().invoke(app, ["methods", own.partition("[")[0]])
    assert done.exit_code == 1 and "option size=" in done.stderr and "Field required" in done.stderr


def test_help_warns_that_a_file_is_run() -> None:
    words = run("methods", "--help", columns=200)[2].replace("│ ", "")
    assert "WARNING: that file is run" in " ".join(words.split())
