"""Published numbers beside ours: the difference and its interval where both are alike, and why where they are not.

The interval is that of our score (plus or minus 1.96 standard errors), with the paper's own spread over seeds where it
gives one; the sampling error of the paper's number, which was taken on the same documents, is unknown and treated as
part of the number.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace

import pandas as pd
from scipy import stats

from swiftvlm_eval.leaderboard.board import Board, Cell, Row
from swiftvlm_eval.leaderboard.compute.counterparts import Counterpart, first_counterpart, is_papers_own
from swiftvlm_eval.leaderboard.compute.published import Paper
from swiftvlm_eval.leaderboard.render.markdown import table
from swiftvlm_eval.leaderboard.render.text import MISSING, interval, markdown, number, spreadsheet

PAGE = "published-vs-ours.md"
TITLE = "Published numbers and ours"
_Z = float(stats.norm.ppf(0.975))


@dataclass(frozen=True)
class Comparison:
    """One published score and ours.

    Attributes:
        source: Slug of the published board.
        budget: Nominal share of the visual tokens.
        method: Label of the published row.
        column: Column of the published table.
        metric: What it measures; split and protocol as the file states them.
        benchmark: Our column it is compared with; None if it may be compared with none.
        published: The paper's score.
        our_row: Label of our row, with the schedule where it is the paper's.
        ours: Our score, None if not measured.
        difference: Ours minus published, where the two are alike.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end.
        published_relative: The paper's score in percent of the paper's vanilla.
        our_relative: Our score in percent of our vanilla.
        published_tokens: Visual tokens per layer as the paper names them; None where it gives a share.
        our_tokens: Visual tokens per layer that ours executed.
        our_attributed_tokens: The count by the method's own bookkeeping, where that differs.
        published_tflops: The paper's FLOPs, where counted as ours are.
        our_tflops: Ours in the same convention.
        unlike: Why the two are not alike; None if they are, or if there is no row of ours.
    """

    source: str
    budget: float | None
    method: str
    column: str
    metric: str
    benchmark: str | None
    published: float
    our_row: str | None = None
    ours: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    published_relative: float | None = None
    our_relative: float | None = None
    published_tokens: float | None = None
    our_tokens: float | None = None
    our_attributed_tokens: float | None = None
    published_tflops: float | None = None
    our_tflops: float | None = None
    unlike: str | None = None


def compare(paper: Paper, boards: Sequence[Board]) -> list[Comparison]:
    """Compares every published score with ours of the same checkpoint, method and budget.

    Args:
        paper: A published table.
        boards: Measured boards of complete runs; where several settings of a checkpoint were measured, the first (by
            slug) whose row is alike and has the score counts.
    """
    same = [board for board in boards if board.pretrained == paper.board.pretrained]
    return [
        _comparison(paper, row, key, row.cells[key], same)
        for row in paper.board.rows
        for key in paper.table.columns
        if key in row.cells
    ]


def _comparison(paper: Paper, row: Row, key: str, cell: Cell, boards: Sequence[Board]) -> Comparison:
    column, flops = paper.table.columns[key], _flops(paper)
    whole = paper.table.visual_tokens
    found = Comparison(
        source=paper.board.slug,
        budget=row.budget,
        method=row.label,
        column=key,
        metric=f"{column.metric}; {column.split}; {column.protocol}",
        benchmark=column.comparable or None,
        published=cell.score or 0.0,
        published_relative=cell.relative,
        published_tokens=None if whole is None or row.budget is None else row.budget * whole,
        published_tflops=row.figures.get(flops) if flops else None,
    )
    if column.comparable is False:
        return replace(found, unlike=column.reason)
    other = first_counterpart(row, boards, flops, column.comparable)
    return found if other is None else _beside(found, cell, other, column.comparable, flops)


def _flops(paper: Paper) -> str | None:
    figure = paper.table.figures.get("flops_t")
    return figure.comparable or None if figure else None


def _beside(found: Comparison, cell: Cell, other: Counterpart, key: str, flops: str | None) -> Comparison:
    if other.row is None:
        return replace(found, unlike=other.reason)
    ours, figures = other.row.cells[key], other.row.figures
    found = replace(
        found,
        our_row=f"{other.row.label}, paper's counts" if is_papers_own(other.row) else other.row.label,
        ours=ours.score,
        our_relative=ours.relative,
        our_tokens=figures.get("visual_tokens"),
        our_attributed_tokens=figures.get("attributed_tokens"),
        our_tflops=figures.get(flops) if flops else None,
        unlike=other.reason,
    )
    if ours.score is None or other.reason is not None:
        return found
    difference = ours.score - found.published
    found = replace(found, difference=difference)
    half = None if ours.stderr is None else _Z * math.hypot(ours.stderr, cell.stderr or 0.0)
    return found if half is None else replace(found, low=difference - half, high=difference + half)


def versus_page(papers: Sequence[Paper], comparisons: Sequence[Comparison]) -> str:
    """Returns the Markdown page: for each published table that has scores what is alike, and what is not and why."""
    page = [
        f"# {TITLE}",
        "",
        "A cell holds published → ours and, below, ours minus published with its 95 % interval. Visual tokens are the "
        "paper's nominal count per layer → what ours executed. Rows of ours with the paper's own counts come first. "
        "What is not alike is listed apart, without a difference.",
        "",
    ]
    for paper in papers:
        own = [each for each in comparisons if each.source == paper.board.slug]
        if own:
            page += [f"## {markdown(paper.board.title)}", "", *_alike(paper, own), *_apart(paper, own)]
    return "\n".join(page).rstrip() + "\n"


def _alike(paper: Paper, own: Sequence[Comparison]) -> list[str]:
    shown = [each for each in paper.board.benchmarks if paper.table.columns[each.key].comparable]
    if not shown:
        return []
    header = ["budget", "method", "ours", "visual tokens", "FLOPs (T)", *(markdown(each.title) for each in shown)]
    body = []
    for section in paper.board.sections:
        for row in section.rows:
            cells = {each.column: each for each in own if (each.budget, each.method) == (row.budget, row.label)}
            alike = next((each for each in cells.values() if each.difference is not None), None)
            names = [markdown(section.title), markdown(row.label)]
            scores = [_cell(cells.get(each.key), each.digits) for each in shown]
            body.append([*names, *_costs(alike or next(iter(cells.values())), alike is not None), *scores])
    return [table(header, body, names=3), ""]


def _costs(each: Comparison, alike: bool) -> list[str]:
    """Our row, tokens and FLOPs, published → ours."""
    name = markdown(each.our_row) if alike and each.our_row else MISSING
    executed = _tokens(each) if alike else MISSING
    if each.published_tokens is not None:
        executed = f"{number(each.published_tokens, 0)} → {executed}"
    ours = each.our_tflops if alike else None
    flops = MISSING if each.published_tflops is None else f"{number(each.published_tflops, 2)} → {number(ours, 2)}"
    return [name, executed, flops]


def _tokens(each: Comparison) -> str:
    executed = number(each.our_tokens, 1)
    counted = each.our_attributed_tokens
    return executed if counted is None else f"{executed} ({number(counted, 1)} by the method's own count)"


def _cell(comparison: Comparison | None, digits: int) -> str:
    if comparison is None:
        return MISSING
    alike = comparison.difference is not None
    scores = f"{number(comparison.published, digits)} → {number(comparison.ours if alike else None, digits)}"
    if comparison.difference is None:
        return scores
    sign = "+" if comparison.difference > 0 else ""
    bounds = interval(comparison.low, comparison.high, digits)
    return f"{scores}<br>{sign}{number(comparison.difference, digits)} {bounds}".rstrip()


def _apart(paper: Paper, own: Sequence[Comparison]) -> list[str]:
    """Rows and columns that have no like among ours, with the reason; columns once."""
    titles = {each.key: each for each in paper.board.benchmarks}
    rows: dict[tuple[str, str, str], list[Comparison]] = defaultdict(list)
    for each in own:
        if each.unlike is not None and each.benchmark is not None:
            budget = MISSING if each.budget is None else f"{number(100 * each.budget, 1)} %"
            rows[budget, each.method, each.unlike].append(each)
    lines = [
        f"- {markdown(titles[key].title)} ({markdown(column.metric)}): {markdown(column.reason)}"
        for key, column in paper.table.columns.items()
        if column.reason is not None
    ]
    body = [
        [
            budget,
            markdown(method),
            markdown(cells[0].our_row or MISSING),
            *_costs(cells[0], True)[1:],
            markdown(reason),
        ]
        + ["<br>".join(_apart_score(each, titles[each.column].title, titles[each.column].digits) for each in cells)]
        for (budget, method, reason), cells in rows.items()
    ]
    header = ["budget", "method", "ours", "visual tokens", "FLOPs (T)", "why it is not alike", "scores"]
    page = ["### Not alike", "", *([table(header, body, names=7), ""] if body else []), *lines]
    return [*page, ""] if body or lines else []


def _apart_score(each: Comparison, title: str, digits: int) -> str:
    return f"{markdown(title)} {number(each.published, digits)} → {number(each.ours, digits)}"


def versus_csv(comparisons: Iterable[Comparison]) -> str:
    """Returns one line a published score."""
    texts = ("method", "column", "metric", "our_row", "unlike")
    frame = pd.DataFrame([asdict(each) for each in comparisons], columns=[field.name for field in fields(Comparison)])
    for name in texts:
        frame[name] = [spreadsheet(value) if isinstance(value, str) else value for value in frame[name]]
    text: str = frame.to_csv(index=False, float_format="%.10g", lineterminator="\n")
    return text
