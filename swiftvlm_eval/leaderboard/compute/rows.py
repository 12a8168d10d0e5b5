"""Makes the rows of one board: sections by budget, labels, marks, cost figures and notes."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from swiftvlm_eval.leaderboard.board import Cell, Mark, Row, Section
from swiftvlm_eval.leaderboard.columns import column_table
from swiftvlm_eval.leaderboard.compute.caption import budget_title
from swiftvlm_eval.leaderboard.compute.entries import Entry
from swiftvlm_eval.leaderboard.compute.scores import (
    ColumnScores,
    Resampling,
    column_p_values,
    marked,
    mean_p_values,
)
from swiftvlm_eval.leaderboard.compute.standings import Standings, standings
from swiftvlm_eval.leaderboard.compute.timing import (
    Times,
    execution_figures,
    implied_speedup,
    measured_figures,
    speedups,
    timing_difference,
)
from swiftvlm_eval.results.benchmarks import Group
from swiftvlm_eval.results.reproduce import reproduce

# Two nominal budgets closer than this share of the visual tokens are the same budget (1/3 and 0.333).
BUDGET_DIGITS = 3
# The executed mean may miss the budget by half a token through rounding, not by more; the rest is for sums of floats.
_TOKEN_TOLERANCE = 0.5 + 1e-6


@dataclass(frozen=True)
class Setting:
    """Everything the rows of one board are made from.

    Attributes:
        entries: Configurations with at least one score.
        columns: Benchmark columns.
        groups: Benchmark keys of each group mean.
        resampling: Resampled distributions.
        cells: Cells with intervals by benchmark key and entry key.
        times: Times by entry key and lmms-eval task.
    """

    entries: Sequence[Entry]
    columns: Sequence[ColumnScores]
    groups: Mapping[Group, tuple[str, ...]]
    resampling: Resampling
    cells: Mapping[str, Mapping[str, Cell]]
    times: Mapping[str, Mapping[str, Times]]

    def members(self, group: Group) -> list[ColumnScores]:
        """The columns that a group mean is taken over."""
        return [column for column in self.columns if column.benchmark.key in self.groups[group]]

    @property
    def vanilla(self) -> Entry | None:
        """The unpruned model, None if it was not run."""
        return next((entry for entry in self.entries if entry.is_vanilla), None)


def sections(parts: Setting) -> tuple[Section, ...]:
    """Returns vanilla, then one section for each budget, largest first; rows best first."""
    by_budget: dict[tuple[int, float], list[Entry]] = defaultdict(list)
    for entry in parts.entries:
        by_budget[_budget_key(entry)].append(entry)
    return tuple(_section(parts, by_budget[key]) for key in sorted(by_budget))


def _budget_key(entry: Entry) -> tuple[int, float]:
    """Vanilla first, then budgets from large to small, then runs whose budget is not recorded."""
    budget = entry.record.method.budget
    if entry.is_vanilla:
        return 0, 0.0
    return (2, 0.0) if budget is None else (1, -round(budget, BUDGET_DIGITS))


def _section(parts: Setting, entries: Sequence[Entry]) -> Section:
    columns, means = _cells(parts, entries)
    stood = _standings(parts, columns, means)
    columns = {name: _with_ranks(cells, stood[name]) for name, cells in columns.items()}
    means = {group: _with_ranks(cells, stood[group]) for group, cells in means.items()}
    labels = _labels(entries)
    rows = [
        Row(
            key=entry.key,
            label=labels[entry.key],
            method=entry.record.method.name,
            budget=entry.record.method.budget,
            is_vanilla=entry.is_vanilla,
            cells={name: cells[entry.key] for name, cells in columns.items() if entry.key in cells},
            means={group: cells[entry.key] for group, cells in means.items() if entry.key in cells},
            figures=_figures(parts, entry),
            options=entry.record.method.options,
            files=tuple(run.path.name for run in entry.runs),
            records=tuple(run.record for run in entry.runs),
            notes=_row_notes(parts, entry),
            reproduce=reproduce([run.record for run in entry.runs]),
        )
        for entry in entries
    ]
    return Section(
        budget_title(entries),
        _best_first(rows),
        comparisons=tuple(each for found in stood.values() for each in found.comparisons),
        detectable={name: found.detectable for name, found in stood.items() if found.detectable is not None},
    )


def _cells(
    parts: Setting, entries: Sequence[Entry]
) -> tuple[dict[str, dict[str, Cell]], dict[Group, dict[str, Cell]]]:
    """Marked cells of one budget by entry key, of every column and of every group mean."""
    columns: dict[str, dict[str, Cell]] = {}
    for column in parts.columns:
        found = parts.cells[column.benchmark.key]
        cells = {e.key: _on_budget(e, column.benchmark.task, found[e.key]) for e in entries if e.key in found}
        columns[column.benchmark.key] = marked(cells, column_p_values(column, cells))
    means: dict[Group, dict[str, Cell]] = {}
    for group, members in parts.groups.items():
        keys = [entry.key for entry in entries]
        cells = {key: cell for key in keys if (cell := _mean_cell(parts, columns, key, members)) is not None}
        means[group] = marked(cells, mean_p_values(cells, parts.members(group)))
    return columns, means


def _standings(
    parts: Setting, columns: Mapping[str, Mapping[str, Cell]], means: Mapping[Group, Mapping[str, Cell]]
) -> dict[str, Standings]:
    """How the rows of one budget stand to each other, by benchmark key and group; a mean over one column is that."""
    stood = {
        column.benchmark.key: standings(
            column.benchmark.key, columns[column.benchmark.key], [column], parts.resampling
        )
        for column in parts.columns
    }
    groups: dict[str, Standings] = {}
    for group, members in parts.groups.items():
        alone = stood[members[0]].named(group) if len(members) == 1 else None
        groups[group] = alone or standings(group, means[group], parts.members(group), parts.resampling)
    return stood | groups


def _with_ranks(cells: Mapping[str, Cell], found: Standings) -> dict[str, Cell]:
    return {key: replace(cell, rank=found.ranks.get(key)) for key, cell in cells.items()}


def _on_budget(entry: Entry, task: str, cell: Cell) -> Cell:
    """Adds what the row executed and was asked for on a task, and marks the cell where the two differ.

    A budget is a share of each image's own visual tokens, so it is compared at their mean number. A row that was given
    a budget and did not report what it executed is marked as well; a row without a budget has nothing to miss.
    """
    budget, execution = entry.record.method.budget, entry.tasks[task].record.tasks[task].execution
    if budget is None or entry.is_vanilla:
        return cell
    if execution is None:
        return replace(cell, mark="off_budget")
    asked, executed = (share * execution.visual_tokens for share in (budget, execution.executed_share))
    mark: Mark = "off_budget" if abs(executed - asked) > _TOKEN_TOLERANCE else cell.mark
    return replace(cell, executed=executed, asked=asked, mark=mark)


def _mean_cell(
    parts: Setting, columns: Mapping[str, Mapping[str, Cell]], key: str, members: Sequence[str]
) -> Cell | None:
    """Plain mean of the ratios over a group; None unless the row has all of them. One column off budget marks it."""
    cells = [columns[name][key] for name in members if key in columns[name]]
    values = [cell.relative for cell in cells if cell.relative is not None]
    if not values or len(values) < len(members):
        return None
    low, high = parts.resampling.interval(members, key) or (None, None)
    mean = Cell(relative=sum(values) / len(values), low=low, high=high)
    missed = [cell for cell in cells if cell.mark == "off_budget"]
    if not missed:
        return mean
    worst = max(missed, key=lambda cell: abs((cell.executed or 0.0) - (cell.asked or 0.0)))
    return replace(mean, mark="off_budget", executed=worst.executed, asked=worst.asked)


def _best_first(rows: Sequence[Row]) -> tuple[Row, ...]:
    """By group means; where there are none, by the mean over the columns that all rows have, the best at 1."""
    shared = set.intersection(*(set(row.cells) for row in rows))
    best = {name: top for name in sorted(shared) if (top := max(row.cells[name].score or 0.0 for row in rows)) > 0}

    def rank(row: Row) -> tuple[float | str, ...]:
        means = [row.means.get(group) for group in column_table().row_order]
        values = [cell.relative if cell and cell.relative is not None else float("-inf") for cell in means]
        plain = sum((row.cells[name].score or 0.0) / top for name, top in best.items())
        return (*(-value for value in values), -plain, row.label, row.key)

    return tuple(sorted(rows, key=rank))


def _labels(entries: Sequence[Entry]) -> dict[str, str]:
    """Names rows by method; equal names get the options and the seed that tell them apart."""
    names = {entry.key: entry.record.method.name or entry.record.model.lmms_eval_model for entry in entries}
    counts = Counter(names.values())
    details = {
        entry.key: {
            **{option: _as_typed(value) for option, value in entry.record.method.options.items()},
            "seed": json.dumps(entry.record.settings.seed),
            "budget": json.dumps(entry.record.method.budget),
        }
        for entry in entries
    }
    labels: dict[str, str] = {}
    for key, name in names.items():
        rivals = [details[other] for other, theirs in names.items() if theirs == name and other != key]
        differing = sorted(
            option
            for option in {option for each in [details[key], *rivals] for option in each}
            if any(each.get(option) != details[key].get(option) for each in rivals)
        )
        shown = ", ".join(f"{option}={details[key].get(option, 'default')}" for option in differing)
        labels[key] = f"{name} ({shown})" if counts[name] > 1 and shown else name
    return labels


def _as_typed(value: object) -> str:
    """An option as people type it: lists with colons; one that was not given is the method's default."""
    if value is None:
        return "default"
    if isinstance(value, list | tuple):
        return ":".join(str(part) for part in value)
    return value if isinstance(value, str) else json.dumps(value)


def _figures(parts: Setting, entry: Entry) -> dict[str, float | None]:
    tasks = sorted({column.benchmark.task for column in parts.columns if entry.key in column.cells})
    figures = {**execution_figures(entry, tasks), **measured_figures(parts.times[entry.key])}
    vanilla = parts.vanilla
    if vanilla is None or entry is vanilla:
        return figures
    figures["implied_speedup"] = implied_speedup(entry, vanilla, tasks)
    if timing_difference(entry, vanilla) is None:
        figures |= speedups(parts.times[entry.key], parts.times[vanilla.key])
        measured, implied = figures["prefill_speedup"], figures["implied_speedup"]
        figures["merit"] = measured / implied if measured and implied else None
    return figures


def _row_notes(parts: Setting, entry: Entry) -> tuple[str, ...]:
    notes: list[str] = []
    record, vanilla = entry.record, parts.vanilla
    if record.method.caveat:
        notes.append(record.method.caveat)
    for run in entry.runs:
        if run.record.status != "complete":
            notes.append(f"{run.record.status} run: {'; '.join(run.record.status_reasons)}")
    notes.extend(_token_notes(entry))
    for group, members in parts.groups.items():
        missing = [name for name in members if entry.key not in parts.cells[name]]
        if missing and len(missing) < len(members):
            notes.append(f"no {column_table().groups[group]}: no score on {', '.join(missing)}")
    if vanilla is not None and entry is not vanilla:
        difference = timing_difference(entry, vanilla)
        if difference:
            notes.append(f"not timed against vanilla: {difference}")
        ours, base = record.settings.attn_implementation, vanilla.record.settings.attn_implementation
        if ours != base:
            notes.append(f"attention kernel {ours} (vanilla: {base})")
        notes.extend(_timed_documents(parts.times[entry.key], parts.times[vanilla.key]))
    return tuple(notes)


def _token_notes(entry: Entry) -> list[str]:
    """Where the executed mean is not the planned one, or the planned one not the section's budget.

    The latter comes of published counts, or of a method that has few sizes.
    """
    missed, beside = [], set()
    budget = None if entry.is_vanilla else entry.record.method.budget
    for name in sorted(entry.tasks):
        execution = entry.tasks[name].record.tasks[name].execution
        if execution is None or execution.planned_share is None:
            continue
        planned, count = execution.planned_share * execution.visual_tokens, execution.visual_tokens
        surplus = (execution.executed_share - execution.planned_share) * count
        if abs(surplus) > _TOKEN_TOLERANCE:
            missed.append(f"{name}: executed mean differs from the planned one by {surplus:+.1f} visual tokens")
        if budget is not None and abs(planned - budget * count) > _TOKEN_TOLERANCE:
            beside.add(f"{planned:.1f} visual tokens per layer planned, the budget is {budget * count:.1f}")
    return [*missed, *sorted(beside)]


def _timed_documents(times: Mapping[str, Times], vanilla: Mapping[str, Times]) -> list[str]:
    ours, base = (sum(each.doc_ids.size for each in row.values()) for row in (times, vanilla))
    return [f"{ours} documents timed (vanilla: {base}); totals are not comparable"] if ours != base else []
