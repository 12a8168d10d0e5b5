"""Boards as Markdown pages."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from urllib.parse import quote

from tabulate import tabulate

from swiftvlm_eval.leaderboard.board import Board, Cell, Row, Section
from swiftvlm_eval.leaderboard.columns import column_table
from swiftvlm_eval.leaderboard.render.budgets import is_vanilla
from swiftvlm_eval.leaderboard.render.cost import cost_attribute, cost_ratio, flops_unit
from swiftvlm_eval.leaderboard.render.grid import Figure, budget_flag, figures, headings
from swiftvlm_eval.leaderboard.render.pairs import ENDING, has_pairs
from swiftvlm_eval.leaderboard.render.text import MISSING, interval, markdown, number

_WIDEST = 8
LEGEND = (
    "A cell holds the score and, in brackets, percent of our own vanilla run; tokens are visual tokens executed per "
    "layer, cost is operations of the prefill over vanilla's. **Bold**: best at this budget. ≈: may still be the "
    "best: no row of the budget is significantly better (5 % over all rows). `?`: that could not be tested, for want "
    "of per-sample scores. `off budget`: executed so many visual tokens per layer for those asked, and takes "
    "no part in these marks. `-`: not measured."
)
INTERVAL_LEGEND = (
    "95 % intervals of the percentages of vanilla (paired Bayesian bootstrap; each end allows for one event that was "
    "not seen)."
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
        pictures: Picture file names by alternative text; the first is shown, the others are linked.
    """
    links = [f"[the page](index.html#{quote(board.slug)})", f"[CSV]({board.slug}.csv)", f"[JSON]({board.slug}.json)"]
    links += [f"[pairs of rows]({board.slug}{ENDING}.csv)"] if has_pairs(board) else []
    lead, *rest = board.caption or ("",)
    page = [f"# {markdown(board.title)}", "", markdown(lead), "", f"Sortable, with a card for every row: {links[0]}."]
    page += [f"All figures unrounded: {', '.join(links[1:])}.", ""]
    for place, (text, name) in enumerate(pictures.items()):
        page += [f"![{markdown(text)}]({name})", ""] if place == 0 else []
    if board.benchmarks:
        page += ["## Accuracy", "", LEGEND if board.measured else PUBLISHED_LEGEND, ""]
        for section in board.sections:
            page += [f"### {markdown(section.title)}", "", accuracy_table(board, section), ""]
    if any(row.figures.get("prefill_ms") is not None for row in board.rows):
        page += ["## Time", "", *([TIMING_LEGEND, ""] if board.measured else []), timing_table(board), ""]
    page += _intervals(board)
    page += ["## What was run" if board.measured else "## What was printed", ""]
    page += ["\n".join(f"- {markdown(sentence)}" for sentence in rest), ""] if rest else ["Nothing more is said.", ""]
    if board.notes:
        page += ["## Notes", "", *(f"- {markdown(note)}" for note in board.notes), ""]
    if len(pictures) > 1:
        page += [
            "## More pictures",
            "",
            *(f"- [{markdown(text)}]({name})" for text, name in list(pictures.items())[1:]),
        ]
    return "\n".join(page).rstrip() + "\n"


def _intervals(board: Board) -> list[str]:
    """The ends of all intervals, in tables of their own."""
    if all(cell.low is None for row in board.rows for cell in (*row.cells.values(), *row.means.values())):
        return []
    page = ["## Intervals", "", INTERVAL_LEGEND, ""]
    for section in board.sections:
        if not is_vanilla(section):
            page += [f"### {markdown(section.title)}: intervals", "", interval_table(board, section), ""]
    return page


def accuracy_table(board: Board, section: Section) -> str:
    """Returns the scores of one budget, group means, and what they cost: tables of at most eight columns."""
    blocks = _blocks(board)
    base = board.vanilla
    tokens = any(row.figures.get("visual_tokens") is not None for row in board.rows)
    cost = base is not None and any(cost_ratio(board, row) is not None for row in board.rows)
    last: list[_Column] = [("tokens", lambda row: number(row.figures.get("visual_tokens"), 1))] if tokens else []
    last += [("cost", lambda row: _times(cost_ratio(board, row)))] if cost else []
    if not board.measured and cost_attribute(board):
        last += [(f"FLOPs ({flops_unit(board)[1]})", partial(_flops, board=board))]
    shown = [[(title, partial(_figure, key=key, digits=digits)) for title, key, digits in block] for block in blocks]
    return _tables(section, [*shown[:-1], [*shown[-1], *last]] if shown else [last])


def interval_table(board: Board, section: Section) -> str:
    """Returns the 95 % intervals of one budget, in percent of vanilla: tables of at most eight columns."""
    return _tables(
        section, [[(title, partial(_ends, key=key)) for title, key, _ in block] for block in _blocks(board)]
    )


_Column = tuple[str, Callable[[Row], str]]


def _blocks(board: Board) -> list[list[tuple[str, str, int]]]:
    """Title, key and decimals of benchmarks by group, and of the means over more than one; the means last."""
    kinds = list(dict.fromkeys(benchmark.group for benchmark in board.benchmarks))
    blocks = [
        [(each.title, each.key, each.digits) for each in board.benchmarks if each.group == kind] for kind in kinds
    ]
    names = column_table().groups
    means = [(names[group], str(group), 0) for group, keys in board.groups.items() if len(keys) > 1]
    return [*blocks, means]


def _tables(section: Section, blocks: Sequence[Sequence[_Column]]) -> str:
    """Packs blocks of columns into tables of at most eight, the method's name included; the last block comes first."""
    room = _WIDEST - 1
    parts = [list(block[at : at + room]) for block in blocks for at in range(0, len(block), room)]
    last = [parts.pop()] if len(parts) > 1 else []
    tables: list[list[_Column]] = []
    tail = last[0] if last else []
    for part in parts:
        free = room - (len(tail) if len(tables) < 2 else 0)
        if tables and len(tables[-1]) + len(part) <= (free if len(tables) == 1 else room):
            tables[-1] += part
        else:
            tables.append(part)
    if tables and len(tables[0]) + len(tail) <= room:
        tables[0] += tail
    elif tail:
        tables.insert(0, tail)
    return "\n\n".join(
        table(
            ["method", *(markdown(title) for title, _ in part)],
            [[markdown(row.label), *(show(row) for _, show in part)] for row in section.rows],
        )
        for part in tables
    )


def _figure(row: Row, key: str, digits: int) -> str:
    """Score with percent of vanilla, on one line, with its mark."""
    cell = row.cells.get(key) or next((mean for group, mean in row.means.items() if group == key), None)
    if cell is None or (cell.score is None and cell.relative is None):
        return MISSING
    percent = None if cell.relative is None else f"{number(cell.relative, column_table().relative_digits)} %"
    score = None if cell.score is None else number(cell.score, digits)
    first = score or percent or MISSING
    rest = f" ({percent})" if score and percent else ""
    marks = {"best": f"**{first}**{rest}", "tied": f"{first}{rest} ≈", "untested": f"{first}{rest} ?"}
    flag = budget_flag(cell)
    return marks.get(cell.mark, f"{first}{rest}<br>{flag}" if flag else f"{first}{rest}")


def _ends(row: Row, key: str) -> str:
    cell = row.cells.get(key) or next((mean for group, mean in row.means.items() if group == key), Cell())
    return interval(cell.low, cell.high, column_table().relative_digits) or MISSING


def _flops(row: Row, board: Board) -> str:
    value = row.figures.get(cost_attribute(board) or "")
    return number(None if value is None else value * flops_unit(board)[0], 2)


def _times(ratio: float | None) -> str:
    return MISSING if ratio is None else f"{number(ratio, 2)} ×"


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
    page = [
        "# Leaderboards",
        "",
        "The same tables, sortable and with a card for every row: [index.html](index.html).",
        "",
    ]
    page += ["Measured with swiftvlm-eval:", ""]
    page += [_entry(board, f": {_summary(board)}") for board in boards] or ["- none"]
    if published:
        page += ["", "Published by papers, not measured here:", ""]
        page += [_entry(board, "") for board in published]
    if other:
        page += ["", *(f"- [{markdown(title)}]({name})" for name, title in other.items())]
    for heading, lines in problems.items():
        page += ["", f"## {heading}", "", *(f"- {markdown(line)}" for line in lines)]
    return "\n".join(page).rstrip() + "\n"


def _entry(board: Board, summary: str) -> str:
    others = (f"[page](index.html#{quote(board.slug)})", f"[CSV]({board.slug}.csv)", f"[JSON]({board.slug}.json)")
    return f"- [{markdown(board.title)}]({board.slug}.md){summary} ({', '.join(others)})"


def _summary(board: Board) -> str:
    pruned = [section.rows for section in board.sections if not section.rows[0].is_vanilla]
    methods = {row.method or row.label for rows in pruned for row in rows}
    return f"{len(methods)} methods besides vanilla, {len(pruned)} budgets"
