"""Scores of one column for all entries of a setting: relative accuracy, intervals, and which rows may be the best."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from swiftvlm_eval.leaderboard.board import Cell, Mark
from swiftvlm_eval.leaderboard.compute import statistics as st
from swiftvlm_eval.leaderboard.compute.entries import Entry
from swiftvlm_eval.leaderboard.compute.evidence import Evidence
from swiftvlm_eval.leaderboard.compute.units import Units
from swiftvlm_eval.results.benchmarks import Benchmark
from swiftvlm_eval.results.store import Problem

SIGNIFICANCE = 0.05
DIGITS = 6


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
    """Resampled distributions of relative accuracy for all columns of a board.

    Columns whose units are images of one collection are resampled together, because the same image is easy or hard
    in all of them; this is what makes the interval of a group mean honest.
    """

    def __init__(self, columns: Sequence[ColumnScores], resamples: int = st.RESAMPLES) -> None:
        """Draws the distributions.

        Args:
            columns: The columns of a board.
            resamples: Number of draws.
        """
        self._draws: dict[tuple[str, str], st.RatioDraws] = {}
        self._columns: dict[str, tuple[list[str], st.Resampled]] = {}
        names = {column.benchmark.key: collection(column) for column in columns}
        for column in columns:
            if column.vanilla is None or column.vanilla not in column.units:
                continue
            name = names[column.benchmark.key]
            together = [other for other in columns if names[other.benchmark.key] == name and other.vanilla]
            ids = sorted({str(unit) for other in together for units in _vanilla_units(other) for unit in units.ids})
            base = column.units[column.vanilla]
            keys = [key for key in column.cells if key != column.vanilla and _same_units(column.units.get(key), base)]
            if not keys or len(ids) < 2 or not base.contributions.sum() > 0:
                continue
            scores = np.array([_spread(column.units[key], ids) for key in keys])
            seed = st.seed_of(name)
            resampled = st.resample(scores, _spread(base, ids), seed=seed, resamples=resamples)
            self._columns[column.benchmark.key] = keys, resampled
            rows = zip(keys, resampled.ratios(), strict=True)
            self._draws.update({(column.benchmark.key, key): row for key, row in rows})

    def draws(self, benchmark: str, entry: str) -> st.RatioDraws | None:
        """Returns the distribution of one row in one column, None if there is none."""
        return self._draws.get((benchmark, entry))

    def rows(self, benchmark: str) -> frozenset[str]:
        """Returns the keys of the entries that have draws in a column."""
        return frozenset(self._columns[benchmark][0]) if benchmark in self._columns else frozenset()

    def resampled(self, benchmark: str, entries: Sequence[str]) -> st.Resampled:
        """Returns the draws of some entries in a column, each of which must be among its `rows`."""
        keys, resampled = self._columns[benchmark]
        return resampled.of([keys.index(entry) for entry in entries])

    def interval(self, benchmarks: Sequence[str], entry: str) -> tuple[float, float] | None:
        """Returns the 95 % interval, in percent, of a row's mean over columns, None unless every column has draws."""
        rows = [self.draws(benchmark, entry) for benchmark in benchmarks]
        present = [row for row in rows if row is not None]
        if not present or len(present) < len(rows):
            return None
        low, high = st.mean_of(present).interval()
        # Another processor adds in another order; so many digits are the same on all of them.
        return round(100 * low, DIGITS), round(100 * high, DIGITS)


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
        interval = resampling.interval([column.benchmark.key], key)
        cells[key] = cell if interval is None else replace(cell, low=interval[0], high=interval[1])
    return cells


def marked(cells: Mapping[str, Cell], p_values: Mapping[str, float] | None) -> dict[str, Cell]:
    """Marks the best cell of one budget and those that may still be the best.

    Cells off their budget keep that mark and take no part; where the best score is 0 nothing is marked.

    Args:
        cells: Cells of one column and one budget by entry key.
        p_values: Adjusted p-values by entry key; a missing row could not be tested. None for published numbers, which
            nobody can test.
    """
    scored = rankable(cells)
    if len(scored) < 2 or not max(scored.values()) > 0:
        return dict(cells)
    best = max(scored.values())
    result = dict(cells)
    for key, value in scored.items():
        if math.isclose(value, best, rel_tol=1e-9):
            result[key] = replace(cells[key], mark="best")
        elif p_values is not None and key in p_values:
            mark: Mark = "tied" if p_values[key] > SIGNIFICANCE else ""
            result[key] = replace(cells[key], mark=mark, p_best=p_values[key])
        elif p_values is not None:
            result[key] = replace(cells[key], mark="untested")
    return result


def rankable(cells: Mapping[str, Cell]) -> dict[str, float]:
    """What the cells of one budget are ranked by, those off their budget left out."""
    values = {key: cell.relative if cell.score is None else cell.score for key, cell in cells.items()}
    return {key: value for key, value in values.items() if value is not None and cells[key].mark != "off_budget"}


def column_p_values(column: ColumnScores, cells: Mapping[str, Cell]) -> dict[str, float]:
    """Tests for each row of one budget whether it may be the best, on the units of a column.

    Args:
        column: The column.
        cells: The cells of the budget by entry key; those off their budget take no part.

    Returns:
        Adjusted p-values by entry key, for the rows that have the units of the best one.
    """
    scored = rankable(cells)
    units = {key: column.units[key] for key in scored if key in column.units}
    return _best_p_values(scored, units, column.benchmark.key)


def mean_p_values(means: Mapping[str, Cell], columns: Sequence[ColumnScores]) -> dict[str, float]:
    """Tests for each row of one budget whether its group mean may be the best, vanilla's scores taken as given.

    A mean of ratios is then a sum of contributions of units as well, so the columns' test serves; an image that
    several columns share is one unit. The mean over one column is tested as that column.

    Args:
        means: Group means of the budget by entry key; those off their budget take no part.
        columns: The columns that the mean is taken over.
    """
    if len(columns) == 1:
        return column_p_values(columns[0], means)
    scored = rankable(means)
    units = {key: each for key in scored if (each := mean_units(columns, key)) is not None}
    return _best_p_values(scored, units, " ".join(column.benchmark.key for column in columns))


def mean_units(columns: Sequence[ColumnScores], key: str) -> Units | None:
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
        clustered=True,
        named=False,
    )


def _best_p_values(scored: Mapping[str, float], units: Mapping[str, Units], seed: str) -> dict[str, float]:
    """Adjusted p-values by entry key, for the rows that have the best row's units."""
    if len(scored) < 2:
        return {}
    base = units.get(min(scored, key=lambda key: (-scored[key], key)))
    if base is None:
        return {}
    keys = [key for key in sorted(scored) if _same_units(units.get(key), base)]
    values = st.best_p_values(np.array([units[key].contributions for key in keys]), seed=st.seed_of(seed))
    return {key: float(value) for key, value in zip(keys, values, strict=True)}
