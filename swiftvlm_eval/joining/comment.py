"""Shows a checked submission as Markdown for a comment: what was refused, and new rows beside those that are there.

Everything that comes from a submission is written as character references inside `<code>`: it can be neither a link, a
mention, an image, a heading nor the end of a table cell.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from swiftvlm_eval.joining.against_reference import Placed
from swiftvlm_eval.joining.findings import MOST, cut
from swiftvlm_eval.joining.submission import Submission
from swiftvlm_eval.leaderboard.board import Board, Cell, Row, Section
from swiftvlm_eval.leaderboard.build import collect
from swiftvlm_eval.leaderboard.columns import column_table
from swiftvlm_eval.leaderboard.render.text import MISSING, interval, number, plain
from swiftvlm_eval.results.benchmarks import BenchmarkTable, shipped_benchmarks

MOST_LINES, MOST_ROWS = 60, 24
# GitHub takes comments of 65536 characters.
LONGEST = 60_000
_MARKS = {
    "best": "best",
    "tied": "not different from the best",
    "untested": "not tested",
    "off_budget": "off budget",
}
_FIGURES = ("visual_tokens", "executed_tflops", "prefill_ms")


def quoted(text: str) -> str:
    """Returns hostile text that any Markdown renderer shows as it is, in one line."""
    signs = (sign if sign.isalnum() or sign in " -" else f"&#{ord(sign)};" for sign in cut(text, 300))
    return f"<code>{''.join(signs)}</code>"


@dataclass(frozen=True)
class _Beside:
    """A new row and those it is shown with, by heading; `None` where there is no such row."""

    board: Board
    title: str
    columns: dict[str, Row | None]


def comment(submission: Submission, *, baselines: Sequence[str] = (), table: BenchmarkTable | None = None) -> str:
    """Returns the check's outcome as Markdown.

    Args:
        submission: As returned by `check_submission`.
        baselines: Names of methods that are shown beside every new row (random choice).
        table: The benchmark columns, the shipped ones by default.
    """
    findings = submission.findings
    count = f"{'at least ' if len(findings.refusals) == MOST else ''}{len(findings.refusals)}"
    verdict = "Nothing was refused" if submission.ok else f"**Reasons to refuse: {count}**"
    lines = ["## Submission check", "", f"{verdict}; records that can be compared: {len(submission.accepted)}.", ""]
    if findings.refusals:
        lines += ["### Refused", ""]
        lines += _bulleted(
            f"{quoted(each.file)}: {quoted(each.field)} is {quoted(str(each.value))}; "
            f"allowed is {quoted(each.allowed)}"
            for each in findings.refusals
        )
    if findings.notes:
        lines += ["### Look at this", "", *_bulleted(f"{quoted(n.file)}: {quoted(n.text)}" for n in findings.notes)]
    shown = _rows(submission, baselines, table or shipped_benchmarks())
    for each in shown[:MOST_ROWS]:
        lines += [*_row_table(each), ""]
    if len(shown) > MOST_ROWS:
        lines += [f"... and {len(shown) - MOST_ROWS} more rows.", ""]
    if shown:
        lines += [
            "Scores with percent of vanilla and its 95 % interval. `before` is the same configuration as it is now; "
            "`first` leads its budget now.",
            "",
        ]
    return _cut(lines)


def _cut(lines: Sequence[str]) -> str:
    """Whole lines, as many as a comment takes."""
    kept: list[str] = []
    left = LONGEST
    for line in lines:
        left -= len(line) + 1
        if left < 0:
            return "\n".join(
                [*kept, "", "... cut here; `swiftvlm-eval submit-check` prints every reason to refuse.", ""]
            )
        kept.append(line)
    return "\n".join(kept)


def _bulleted(texts: Iterable[str]) -> list[str]:
    given = list(texts)
    more = [f"* ... and {len(given) - MOST_LINES} more"] if len(given) > MOST_LINES else []
    return [*(f"* {text}" for text in given[:MOST_LINES]), *more, ""]


def _rows(submission: Submission, baselines: Sequence[str], table: BenchmarkTable) -> list[_Beside]:
    """One table a new configuration, on a board of the rows of its budgets and vanilla."""
    shown = []
    for setting in sorted({each.setting for each in submission.accepted}):
        new = [each for each in submission.accepted if each.setting == setting]
        budgets = {_budget(each) for each in new}
        kept = [
            each
            for each in submission.reference
            if each.setting == setting and (each.is_vanilla or _budget(each) in budgets)
        ]
        after, before = (_board([each.run.path for each in runs], table) for runs in ([*kept, *new], kept))
        if after is None:
            continue
        names = {each.name for each in new}
        for section in after.sections:
            for row in section.rows:
                if names & set(row.files):
                    shown.append(
                        _Beside(after, section.title, _columns(row, section, after, before, names, baselines))
                    )
    return shown


def _budget(each: Placed) -> float | None:
    budget = each.record.method.budget
    return None if budget is None else round(budget, 3)


def _board(paths: Sequence[Path], table: BenchmarkTable) -> Board | None:
    boards, _ = collect(paths, table) if paths else ([], [])
    return boards[0] if boards else None


def _columns(
    row: Row, section: Section, after: Board, before: Board | None, new: set[str], baselines: Sequence[str]
) -> dict[str, Row | None]:
    others = [other for other in section.rows if not new & set(other.files) and not other.is_vanilla]
    old = [other for other in (before.rows if before else ()) if other.key == row.key]
    columns: dict[str, Row | None] = {"new": row, "before": old[0] if old else None}
    if not row.is_vanilla:
        columns["vanilla"] = after.vanilla
        columns["first"] = others[0] if others else None
        for name in baselines:
            found = [other for other in section.rows if other.method == name and other is not row]
            columns[name] = found[0] if found else None
    return columns


def _row_table(each: _Beside) -> list[str]:
    row = each.columns["new"]
    assert row is not None
    names = [
        f"{heading}: {quoted(shown.label)}" if shown is not None and heading not in ("before", "vanilla") else heading
        for heading, shown in each.columns.items()
    ]
    lines = [f"### {quoted(row.label)}, {quoted(each.title)}", "", f"{quoted(each.board.title)}", ""]
    lines += [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for benchmark in each.board.benchmarks:
        cells = [
            _cell(shown.cells.get(benchmark.key) if shown else None, benchmark.digits)
            for shown in each.columns.values()
        ]
        lines.append(f"| {benchmark.title} | {' | '.join(cells)} |")
    for group in each.board.groups:
        cells = [_cell(shown.means.get(group) if shown else None, 1) for shown in each.columns.values()]
        lines.append(f"| {column_table().groups[group]} | {' | '.join(cells)} |")
    for column in column_table().columns:
        if column.attribute in _FIGURES:
            values = [shown.figures.get(column.attribute) if shown else None for shown in each.columns.values()]
            figures = [MISSING if value is None else f"{value:.4g}" for value in values]
            lines.append(f"| {column.heading} | {' | '.join(figures)} |")
    files = ", ".join(quoted(name) for name in row.files)
    notes = [f"* {quoted(plain(note))}" for note in row.notes[:MOST_LINES]]
    return [*lines, "", f"Files: {files}", *(["", *notes] if notes else [])]


def _cell(cell: Cell | None, digits: int) -> str:
    if cell is None:
        return MISSING
    relative = "" if cell.relative is None else f"{number(cell.relative, 1)} % {interval(cell.low, cell.high, 1)}"
    score = "" if cell.score is None else number(cell.score, digits)
    mark = _MARKS.get(cell.mark, "")
    texts = [score, f"({relative.strip()})" if score and relative else relative.strip(), mark]
    return " ".join(text for text in texts if text) or MISSING
