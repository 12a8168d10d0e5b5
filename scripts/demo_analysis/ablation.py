"""On the ablation: what layer selection, merging and bypass add, beside the paper's table 3."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from demo_analysis.words import Effect, beside_the_paper, told
from swiftvlm_eval.leaderboard.board import Board, Row, Section
from swiftvlm_eval.leaderboard.build import collect
from swiftvlm_eval.leaderboard.render.markdown import table
from swiftvlm_eval.results.benchmarks import shipped_benchmarks

COLUMNS = {"demo_refcoco": "refcoco", "demo_textvqa": "textvqa"}
"""Column of ours -> the paper's column that asks for the same skill."""
STEPS = ("baseline", "S", "S+M", "S+M+B")
ADDED = {"S": "layer selection", "S+M": "merging", "S+M+B": "bypass"}
SCALED, CHOSEN = "the paper's, scaled", "chosen"

Printed = Mapping[tuple[int, str], Mapping[str, float]]


@dataclass(frozen=True)
class Step:
    """One row of the table against the row before it, on one column.

    Attributes:
        tokens: of 576.
        name: of the later row.
        layers: where its layers come from.
        column: ours.
        effect: in points of percent of vanilla.
        printed: the paper's; None where it has none.
    """

    tokens: int
    name: str
    layers: str
    column: str
    effect: Effect
    printed: float | None

    @property
    def beside(self) -> str:
        """How it lies beside the paper's."""
        return "-" if self.printed is None else beside_the_paper(self.effect, self.printed)

    @property
    def line(self) -> list[str]:
        """A row of the table."""
        value = told(self.effect.difference, self.effect.low, self.effect.high)
        p = "<0.001" if self.effect.p < 0.001 else f"{self.effect.p:.3f}"
        paper = "-" if self.printed is None else f"{self.printed:+.1f}"
        return [str(self.tokens), ADDED[self.name], self.layers, self.column, value, p, paper, self.beside]


def ablation_values(folder: Path, table_of_paper: Path) -> dict[str, Any]:
    """What is said of the ablation.

    Args:
        folder: with the records of the grid.
        table_of_paper: published table 3.
    """
    (board,), _ = collect([folder], shipped_benchmarks(), include_limited=True)
    printed = printed_shares(table_of_paper)
    header = ["tokens of 576", "step", "layers", *COLUMNS, *(f"paper: {name}" for name in COLUMNS.values())]
    heading = ["tokens of 576", "added", "layers", "column", "difference [95 %]", "p", "paper", "beside it"]
    steps = list(_steps(board, printed))
    beside = [step.beside for step in steps if step.printed is not None]
    first = next(row for _, _, rows in _sections(board) for (_, layers), row in rows.items() if layers == CHOSEN)
    whole = _whole_layers(first)
    return {
        "scores": table(header, list(_scores(board, printed)), names=3),
        "steps": table(heading, [step.line for step in steps], names=4),
        "compared": len(beside),
        "same": beside.count("as in the paper"),
        "opposite": beside.count("the other way"),
        "unclear": beside.count("not shown here"),
        "whole_layers": whole[0],
        "least": f"{whole[0] / whole[1]:.0%}",
        "sentences": list(_sentences(steps)),
        "bypass_shown": any(step.effect.low > 0 for step in steps if step.name == "S+M+B"),
    }


def _whole_layers(row: Row) -> tuple[int, int]:
    """Layers that saw all visual tokens, and all layers, as executed."""
    executions = [task.execution for record in row.records for task in record.tasks.values() if task.execution]
    rows = executions[0].rows_per_layer
    return sum(value == executions[0].visual_tokens for value in rows), len(rows)


def _sentences(steps: list[Step]) -> Iterator[str]:
    """One sentence for every step: where it shows which way."""
    for name, added in ADDED.items():
        own = [step for step in steps if step.name == name]
        up = [step for step in own if step.effect.low > 0]
        down = [step for step in own if step.effect.high < 0]
        yield (
            f"{added.capitalize()} raises the score in {len(up)} of {len(own)} comparisons{_where(up)}, lowers it in "
            f"{len(down)}{_where(down)}."
        )


def _where(steps: list[Step]) -> str:
    told = ", ".join(f"{step.column} at {step.tokens} ({step.layers})" for step in steps)
    return f" ({told})" if told else ""


def printed_shares(path: Path) -> Printed:
    """Percent of the unpruned model by tokens and step, from scores as the paper prints them."""
    rows = yaml.safe_load(path.read_text())["rows"]
    full = next(row for row in rows if row["method"] == "vanilla")
    return {
        (row["budget"], row["variant"]): {name: 100 * row[name] / full[name] for name in COLUMNS.values()}
        for row in rows
        if row is not full
    }


def step_of(row: Row) -> tuple[str, str]:
    """The step that a row is, and where its layers come from."""
    if row.method == "pdrop":
        return "baseline", SCALED
    merge, bypass = row.options["merge"], row.options["bypass"]
    step = {(False, False): "S", (True, False): "S+M", (True, True): "S+M+B"}[bool(merge), bool(bypass)]
    return step, SCALED if row.options["layers"] is None else CHOSEN


def _sections(board: Board) -> Iterator[tuple[int, Section, dict[tuple[str, str], Row]]]:
    """Every pruned budget: tokens of 576, section, rows by step."""
    for section in board.sections:
        rows = [row for row in section.rows if not row.is_vanilla]
        if rows:
            yield round(576 * (rows[0].budget or 0)), section, {step_of(row): row for row in rows}


def _scores(board: Board, printed: Printed) -> Iterator[list[str]]:
    for tokens, _, rows in _sections(board):
        for step, layers in ((step, layers) for layers in (SCALED, CHOSEN) for step in STEPS):
            if row := rows.get((step, layers)):
                cells = [row.cells[column] for column in COLUMNS]
                ours = [told(cell.relative or 0, cell.low, cell.high) for cell in cells]
                paper = printed.get((tokens, step), {})
                theirs = [f"{paper[name]:.1f}" if name in paper else "-" for name in COLUMNS.values()]
                where = "its own, scaled" if step == "baseline" else layers
                yield [str(tokens), step, where, *ours, *theirs]


def _steps(board: Board, printed: Printed) -> Iterator[Step]:
    pairs = list(zip(STEPS, STEPS[1:], strict=False))
    for tokens, section, rows in _sections(board):
        for layers, (before, after) in ((layers, pair) for layers in (SCALED, CHOSEN) for pair in pairs):
            later, earlier = rows.get((after, layers)), rows.get((before, SCALED if before == "baseline" else layers))
            if later and earlier:
                for column, name in COLUMNS.items():
                    change = None
                    if (tokens, after) in printed:
                        change = printed[tokens, after][name] - printed[tokens, before][name]
                    yield Step(tokens, after, layers, column, effect_of(section, column, later, earlier), change)


def effect_of(section: Section, column: str, later: Row, earlier: Row) -> Effect:
    """Later less earlier, as the board compares the pair.

    Raises:
        ValueError: it does not.
    """
    for found in section.comparisons:
        if found.column == column and (found.first, found.second) == (later.key, earlier.key):
            return Effect(found.difference, found.low, found.high, found.p)
        if found.column == column and (found.second, found.first) == (later.key, earlier.key):
            return Effect(-found.difference, -found.high, -found.low, found.p)
    raise ValueError(f"{later.label} and {earlier.label}: not compared on {column}")
