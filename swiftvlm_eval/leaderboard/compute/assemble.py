"""Builds boards from runs: one board for each model and setting."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from swiftvlm_eval.leaderboard.board import Board, Section
from swiftvlm_eval.leaderboard.compute.caption import board_caption, board_slug, board_title
from swiftvlm_eval.leaderboard.compute.entries import Entry, comparable
from swiftvlm_eval.leaderboard.compute.evidence import Evidence, gather
from swiftvlm_eval.leaderboard.compute.means import mean_members
from swiftvlm_eval.leaderboard.compute.rows import Setting, sections
from swiftvlm_eval.leaderboard.compute.scores import ColumnScores, Resampling, column_scores, with_intervals
from swiftvlm_eval.leaderboard.compute.timing import Times
from swiftvlm_eval.leaderboard.render.names import page_names, tidy_board, tidy_sections
from swiftvlm_eval.results.benchmarks import BenchmarkTable
from swiftvlm_eval.results.record import RunRecord
from swiftvlm_eval.results.store import Problem


def assemble(entries: Sequence[Entry], table: BenchmarkTable) -> tuple[list[Board], list[Problem]]:
    """Builds one board for each setting found among the entries.

    Args:
        entries: As returned by `group_entries`.
        table: The benchmark columns.

    Returns:
        Boards sorted by slug, and what was left out of them.
    """
    boards: list[Board] = []
    problems: list[Problem] = []
    by_setting: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_setting[entry.setting].append(entry)
    slugs = _slugs({setting: members[0].record for setting, members in by_setting.items()})
    for setting, members in sorted(by_setting.items()):
        board, found = _board(slugs[setting], json.loads(setting), members, table)
        problems.extend(found)
        if board is not None:
            boards.append(board)
    return sorted(boards, key=lambda board: board.slug), problems


def _slugs(records: Mapping[str, RunRecord]) -> dict[str, str]:
    """Names boards by their model, with as much of the setting as tells them apart."""
    slugs = {setting: board_slug(record, full=False) for setting, record in records.items()}
    counts = Counter(slugs.values())
    return page_names(
        {key: board_slug(records[key], full=True) if counts[slug] > 1 else slug for key, slug in slugs.items()}
    )


def _board(
    slug: str, setting: Mapping[str, object], entries: Sequence[Entry], table: BenchmarkTable
) -> tuple[Board | None, list[Problem]]:
    tasks = {task for entry in entries for task in entry.tasks}
    benchmarks = table.of_tasks(tasks)
    problems = _unknown_tasks(entries, {benchmark.task for benchmark in benchmarks})
    evidence, found = gather(entries, benchmarks)
    problems.extend(found)
    columns: list[ColumnScores] = []
    for benchmark in benchmarks:
        members, incomparable = comparable(entries, benchmark.task)
        column, found = column_scores(benchmark, members, evidence)
        problems.extend([*incomparable, *found])
        if column.cells:
            columns.append(column)
    if not columns:
        return None, problems
    parts = _prepared(entries, columns, evidence, table)
    if parts.vanilla is not None:
        problems.extend(_without_ratio(entries, columns))
    else:
        files = ", ".join(sorted({run.path.name for entry in entries for run in entry.runs}))
        problems.append(Problem(files, "no vanilla run of the same model and setting: no relative figures"))
    made = tidy_sections(sections(parts))
    intervals = {key for key, cells in parts.cells.items() if any(cell.low is not None for cell in cells.values())}
    board = Board(
        slug=slug,
        title=board_title(entries[0].record, setting),
        measured=True,
        benchmarks=tuple(column.benchmark for column in columns),
        groups=parts.groups,
        sections=made,
        caption=board_caption(entries, columns, parts.groups, intervals),
        notes=_notes(made, problems),
        pretrained=entries[0].record.model.pretrained,
        limited=any(run.record.status in ("limited", "partial") for entry in entries for run in entry.runs),
    )
    return tidy_board(board), problems


def _unknown_tasks(entries: Sequence[Entry], known: set[str]) -> list[Problem]:
    return [
        Problem(entry.tasks[task].path.name, f"{task}: not in the benchmark table")
        for entry in entries
        for task in sorted(set(entry.tasks) - known)
    ]


def _without_ratio(entries: Sequence[Entry], columns: Sequence[ColumnScores]) -> list[Problem]:
    """Columns in which nothing can be a percentage of vanilla; they are in no group mean."""
    files = ", ".join(run.path.name for entry in entries if entry.is_vanilla for run in entry.runs)
    reasons = {
        column.benchmark.task: "scored 0" if column.vanilla else "was not run on it"
        for column in columns
        if not column.vanilla_score
    }
    return [Problem(files, f"{task}: vanilla {reason}: no percentages") for task, reason in reasons.items()]


def _prepared(
    entries: Sequence[Entry], columns: Sequence[ColumnScores], evidence: Evidence, table: BenchmarkTable
) -> Setting:
    """Draws the bootstrap distributions; a group mean is taken over the columns that have ratios to vanilla."""
    resampling = Resampling(columns)
    times: dict[str, dict[str, Times]] = defaultdict(dict)
    for column in columns:
        for key in column.cells:
            times[key][column.benchmark.task] = evidence.times[key, column.benchmark.key]
    return Setting(
        entries=[entry for entry in entries if entry.key in times],
        columns=columns,
        groups=mean_members(
            {each.benchmark.key: each.benchmark.group for each in columns if each.vanilla_score}, table
        ),
        resampling=resampling,
        cells={column.benchmark.key: with_intervals(column, resampling) for column in columns},
        times=times,
    )


def _notes(made: Sequence[Section], problems: Sequence[Problem]) -> tuple[str, ...]:
    rows = [f"{section.title}, {row.label}: {note}" for section in made for row in section.rows for note in row.notes]
    files = sorted({f"{problem.file}: {problem.reason}" for problem in problems})
    return (*rows, *files)
