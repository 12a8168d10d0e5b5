"""Scores of one column for all entries of a setting: relative accuracy, intervals, and tests against the best row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from swiftvlm_eval.leaderboard.board import Cell, Mark
from swiftvlm_eval.leaderboard.entries import Entry
from swiftvlm_eval.leaderboard.evidence import Evidence
from swiftvlm_eval.results import statistics as st
from swiftvlm_eval.results.benchmarks import Benchmark
from swiftvlm_eval.results.store import Problem
from swiftvlm_eval.results.units import Units

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class ColumnScores:
    """One benchmark column of one board.

    Attributes:
        benchmark: The column.
        cells: Cells by entry key, without marks.
        units: Per-unit contributions by entry key, where they add up to the reported score.
        vanilla: Entry key of the unpruned model, None if it has no score in this column.
    """

    benchmark: Benchmark
    cells: Mapping[str, Cell]
    units: Mapping[str, Units]
    vanilla: str | None

    @property
    def vanilla_score(self) -> float | None:
        """Vanilla's score on the printed scale; None or 0 where there is nothing to relate to."""
        return self.cells[self.vanilla].score if self.vanilla else None


def column_scores(
    benchmark: Benchmark, entries: Sequence[Entry], evidence: Evidence
) -> tuple[ColumnScores, list[Problem]]:
    """Collects one column.

    Args:
        benchmark: The column.
        entries: Comparable entries that ran the task.
        evidence: What the per-sample files say.
    """
    cells: dict[str, Cell] = {}
    units: dict[str, Units] = {}
    problems: list[Problem] = []
    for entry in entries:
        file, result = entry.tasks[benchmark.task].path.name, entry.task(benchmark.task)
        metric = result.metrics.get(benchmark.metric) if result else None
        if result is None or metric is None or metric.value is None:
            what = "has no finite value" if metric else "is missing"
            problems.append(Problem(file, f"{benchmark.task}: metric {benchmark.metric!r} {what}"))
            continue
        if metric.higher_is_better is False:
            problems.append(Problem(file, f"{benchmark.task}: {benchmark.metric!r} is declared lower-is-better"))
            continue
        found = evidence.units.get((entry.key, benchmark.key))
        stderr = metric.stderr if found is None else found.stderr
        cells[entry.key] = Cell(
            score=metric.value * benchmark.scale,
            stderr=None if stderr is None else stderr * benchmark.scale,
            documents=result.answered if result.answered is not None else result.expected,
        )
        if found is not None:
            units[entry.key] = found
    vanilla = next((entry.key for entry in entries if entry.is_vanilla and entry.key in cells), None)
    return ColumnScores(benchmark, _with_relative(cells, vanilla), units, vanilla), problems


def _with_relative(cells: Mapping[str, Cell], vanilla: str | None) -> dict[str, Cell]:
    base = cells[vanilla].score if vanilla else None
    if not base:
        return dict(cells)
    return {
        key: replace(cell, relative=None if cell.score is None else 100 * cell.score / base)
        for key, cell in cells.items()
    }


class Resampling:
    """Bootstrap distributions of relative accuracy, in percent, for all columns of a board.

    Columns whose units are images of one collection are resampled together, because the same image is easy or hard
    in all of them; this is what makes the interval of a group mean honest.
    """

    def __init__(self, columns: Sequence[ColumnScores], resamples: int = st.RESAMPLES) -> None:
        """Draws the distributions.

        Args:
            columns: The columns of a board.
            resamples: Number of draws.
        """
        self._draws: dict[tuple[str, str], st.Floats] = {}
        names = {column.benchmark.key: collection(column) for column in columns}
        for column in columns:
            if column.vanilla is None or column.vanilla not in column.units:
                continue
            name = names[column.benchmark.key]
            together = [other for other in columns if names[other.benchmark.key] == name and other.vanilla]
            ids = sorted({str(unit) for other in together for units in _vanilla_units(other) for unit in units.ids})
            base = column.units[column.vanilla]
            keys = [key for key in column.cells if key != column.vanilla and _same_units(column.units.get(key), base)]
            if not keys or len(ids) < 2:
                continue
            scores = np.array([_spread(column.units[key], ids) for key in keys])
            seed = st.seed_of(name)
            draws = 100 * st.bootstrap_ratios(scores, _spread(base, ids), seed=seed, resamples=resamples)
            self._draws.update({(column.benchmark.key, key): row for key, row in zip(keys, draws, strict=True)})

    def draws(self, benchmark: str, entry: str) -> st.Floats | None:
        """Returns the distribution of one row in one column [resamples], None if there is none."""
        return self._draws.get((benchmark, entry))

    def mean_draws(self, benchmarks: Sequence[str], entry: str) -> st.Floats | None:
        """Returns the distribution of a row's mean over columns, None unless every column has one."""
        rows = [self.draws(benchmark, entry) for benchmark in benchmarks]
        present = [row for row in rows if row is not None]
        return np.mean(present, axis=0) if present and len(present) == len(rows) else None


def collection(column: ColumnScores) -> str:
    """Returns what the column's units are drawn from: its images where the logs name them, else its own documents."""
    named = any(units.named for units in column.units.values())
    return column.benchmark.clusters if named else column.benchmark.key


def _vanilla_units(column: ColumnScores) -> list[Units]:
    units = column.units.get(column.vanilla or "")
    return [] if units is None else [units]


def _same_units(units: Units | None, base: Units) -> bool:
    return units is not None and np.array_equal(units.ids, base.ids)


def _spread(units: Units, ids: Sequence[str]) -> st.Floats:
    """Places contributions on the units of several columns; a unit a column does not have contributes zero."""
    positions = np.searchsorted(np.array(ids), units.ids)
    spread = np.zeros(len(ids))
    spread[positions] = units.contributions
    return spread


def with_intervals(column: ColumnScores, resampling: Resampling) -> dict[str, Cell]:
    """Returns the column's cells with the 95 % interval of the relative figure."""
    cells: dict[str, Cell] = {}
    for key, cell in column.cells.items():
        draws = resampling.draws(column.benchmark.key, key)
        interval = None if draws is None else st.percentile_interval(draws)
        cells[key] = cell if interval is None else replace(cell, low=interval[0], high=interval[1])
    return cells


def marked(cells: Mapping[str, Cell], p_values: Mapping[tuple[str, str], float] | None) -> dict[str, Cell]:
    """Marks the best cell of one budget and those not significantly worse.

    Args:
        cells: Cells of one column and one budget by entry key.
        p_values: Unadjusted p-values by (best key, other key); a missing pair could not be tested. None for published
            numbers, which nobody can test.
    """
    values = {key: _ranked_by(cell) for key, cell in cells.items()}
    scored = {key: value for key, value in values.items() if value is not None}
    if len(scored) < 2:
        return dict(cells)
    best = min(scored, key=lambda key: (-scored[key], key))
    tested = (
        {} if p_values is None else {key: p_values[best, key] for key in sorted(scored) if (best, key) in p_values}
    )
    adjusted = dict(zip(tested, st.holm(list(tested.values())), strict=True))
    result = dict(cells)
    for key in scored:
        if scored[key] == scored[best]:
            result[key] = replace(cells[key], mark="best", p_best=adjusted.get(key))
        elif key in adjusted:
            mark: Mark = "tied" if adjusted[key] > SIGNIFICANCE else ""
            result[key] = replace(cells[key], mark=mark, p_best=adjusted[key])
        elif p_values is not None:
            result[key] = replace(cells[key], mark="untested")
    return result


def _ranked_by(cell: Cell) -> float | None:
    return cell.relative if cell.score is None else cell.score


def column_p_values(column: ColumnScores, keys: Sequence[str]) -> dict[tuple[str, str], float]:
    """Tests the best of `keys` against each other one on the units of a column."""
    scored = {key: column.cells[key].score or 0.0 for key in keys if key in column.cells}
    units = {key: column.units[key] for key in scored if key in column.units}
    return _against_best(scored, units, column.benchmark.key)


def mean_p_values(means: Mapping[str, Cell], columns: Sequence[ColumnScores]) -> dict[tuple[str, str], float]:
    """Tests the best group mean against the others, vanilla's scores taken as given.

    A mean of ratios is then a sum of contributions of units as well, so the columns' test serves; an image that
    several columns share is one unit. The mean over one column is tested as that column.

    Args:
        means: Group means by entry key.
        columns: The columns that the mean is taken over.
    """
    scored = {key: cell.relative for key, cell in means.items() if cell.relative is not None}
    if len(columns) == 1:
        return column_p_values(columns[0], list(scored))
    units = {key: each for key in scored if (each := _mean_units(columns, key)) is not None}
    return _against_best(scored, units, " ".join(column.benchmark.key for column in columns))


def _mean_units(columns: Sequence[ColumnScores], key: str) -> Units | None:
    """What each unit adds to a row's group mean, in percent; None unless every column has units."""
    parts = []
    for column in columns:
        units, vanilla = column.units.get(key), column.vanilla_score
        if units is None or not vanilla:
            return None
        percent = 100 * column.benchmark.scale / vanilla / len(columns)
        shares = {"contributions": percent * units.contributions, "expected": percent * units.expected}
        parts.append(pd.DataFrame(shares, index=[f"{collection(column)} {unit}" for unit in units.ids]))
    total = pd.concat(parts).groupby(level=0).sum()
    return Units(
        ids=total.index.to_numpy(dtype=str),
        contributions=total["contributions"].to_numpy(),
        expected=total["expected"].to_numpy(),
        binary=False,
        clustered=True,
        named=False,
    )


def _against_best(scored: Mapping[str, float], units: Mapping[str, Units], seed: str) -> dict[tuple[str, str], float]:
    """P-values by (best key, other key), for the rows that have the best row's units."""
    if len(scored) < 2:
        return {}
    best = min(scored, key=lambda key: (-scored[key], key))
    base = units.get(best)
    if base is None:
        return {}
    return {
        (best, key): st.paired_p_value(
            base.contributions,
            units[key].contributions,
            binary=base.binary and units[key].binary,
            clustered=base.clustered,
            seed=st.seed_of(seed),
        )
        for key in sorted(scored)
        if key != best and _same_units(units.get(key), base)
    }
