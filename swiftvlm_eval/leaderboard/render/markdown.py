"""Boards as Markdown pages."""

from collections.abc import Mapping, Sequence

from tabulate import tabulate

from swiftvlm_eval.leaderboard.board import Board, Section
from swiftvlm_eval.leaderboard.render.grid import Figure, figures, headings
from swiftvlm_eval.leaderboard.render.text import markdown

LEGEND = (
    "A cell holds the score and, below it, percent of our own vanilla run with its 95 % interval (paired Bayesian "
    "bootstrap; each end allows for one event that was not seen). **Bold**: best at this budget. ≈: may still be the "
    "best: no row of the budget is significantly better (5 % over all rows). `?`: that could not be tested, for want "
    "of per-sample scores. `off budget`: executed so many visual tokens per layer for those asked, and takes no part "
    "in these marks. `-`: not measured."
)
PUBLISHED_LEGEND = (
    "Numbers as printed in the paper; percent is relative to the paper's own vanilla row. Nothing on this page was "
    "measured here. **Bold**: best at this budget. `-`: not reported."
)
TIMING_LEGEND = (
    "Prefill: median over documents with quartiles. Prefill speed-up: median of vanilla's time over the row's, "
    "document by document, with its 95 % interval over documents; drift between two runs is not in it "
    "(`swiftvlm-eval latency` interleaves them). Total: all answers together."
)


def board_page(board: Board, pictures: Mapping[str, str]) -> str:
    """Returns the Markdown page of one board.

    Args:
        board: The board.
        pictures: Picture file names by alternative text, embedded in this order.
    """
    parts = [f"# {markdown(board.title)}", *(f"- {markdown(sentence)}" for sentence in board.caption)]
    page = [parts[0], "", "\n".join(parts[1:]), ""]
    if board.benchmarks:
        page += ["## Accuracy", "", LEGEND if board.measured else PUBLISHED_LEGEND, ""]
        for section in board.sections:
            page += [f"### {markdown(section.title)}", "", accuracy_table(board, section), ""]
    if any(row.figures.get("prefill_ms") is not None for row in board.rows):
        page += ["## Time", "", *([TIMING_LEGEND, ""] if board.measured else []), timing_table(board), ""]
    for text, name in pictures.items():
        page += [f"![{markdown(text)}]({name})", ""]
    if board.notes:
        page += ["## Notes", "", *(f"- {markdown(note)}" for note in board.notes), ""]
    return "\n".join(page).rstrip() + "\n"


def accuracy_table(board: Board, section: Section) -> str:
    """Returns table 1 for one budget: scores, group means, and what they cost."""
    header = ["method", *(markdown(heading.text) for heading in headings(board, "cost"))]
    body = [[markdown(row.label), *map(_cell, figures(board, row, "cost"))] for row in section.rows]
    return table(header, body)


def timing_table(board: Board) -> str:
    """Returns table 2: times and speed-ups over vanilla."""
    header = ["budget", "method", *(markdown(heading.text) for heading in headings(board, "timing"))]
    body = [
        [markdown(section.title), markdown(row.label), *map(_cell, figures(board, row, "timing"))]
        for section in board.sections
        for row in section.rows
    ]
    return table(header, body, names=2)


def _cell(figure: Figure) -> str:
    first, *rest = figure.lines
    marks = {"best": f"**{first}**", "tied": f"{first} ≈", "untested": f"{first} ?"}
    return "<br>".join([marks.get(figure.mark, first), *rest, *([figure.flag] if figure.flag else [])])


def table(header: Sequence[str], body: Sequence[Sequence[str]], names: int = 1) -> str:
    """Returns a Markdown table: the first `names` columns to the left, figures to the right."""
    align = ["left" if index < names else "right" for index in range(len(header))]
    return tabulate(body, header, tablefmt="pipe", colalign=align, disable_numparse=True)


def index_page(
    boards: Sequence[Board],
    published: Sequence[Board],
    other: Mapping[str, str],
    problems: Mapping[str, Sequence[str]],
) -> str:
    """Returns the index page.

    Args:
        boards: Measured boards.
        published: Boards of papers' numbers.
        other: Further pages, title by file name.
        problems: What was refused or left out, one line each, by heading.
    """
    page = ["# Leaderboards", "", "The same tables, sortable and with the run records: [index.html](index.html).", ""]
    page += ["Measured with swiftvlm-eval:", ""]
    page += [f"- [{markdown(board.title)}]({board.slug}.md): {_summary(board)}" for board in boards] or ["- none"]
    if published:
        page += ["", "Published by papers, not measured here:", ""]
        page += [f"- [{markdown(board.title)}]({board.slug}.md)" for board in published]
    if other:
        page += ["", *(f"- [{markdown(title)}]({name})" for name, title in other.items())]
    for heading, lines in problems.items():
        page += ["", f"## {heading}", "", *(f"- {markdown(line)}" for line in lines)]
    return "\n".join(page).rstrip() + "\n"


def _summary(board: Board) -> str:
    pruned = [section.rows for section in board.sections if not section.rows[0].is_vanilla]
    methods = {row.method or row.label for rows in pruned for row in rows}
    return f"{len(methods)} methods besides vanilla, {len(pruned)} budgets"
