"""How often a row is wrongly called worse than the best, and how often rightly: the table in docs/statistics.md.

Rows are compared as in a leaderboard. "Now" is `best_p_values`. "Against the best alone" is the rule it replaced: the
best row is picked from the data and tested against each other row (McNemar's exact test on documents, sign flips on
images), corrected by Holm over the others.

Run: python scripts/simulate_marks.py [--repeats 2000] [--seed 0]
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats
from tabulate import tabulate

from swiftvlm_eval.leaderboard.compute.statistics import Floats, best_p_values

LEVEL = 0.05
FLIPS = 999
QUESTIONS = 4


@dataclass(frozen=True)
class Truth:
    """One simulated column.

    Attributes:
        rows: Methods at one budget.
        accuracy: Expected accuracy of the best ones.
        units: Documents, or images of four questions each.
        clustered: Units are images.
        worse: Rows that are truly worse than the others.
        gap: By how much, in accuracy.
    """

    rows: int
    accuracy: float
    units: int
    clustered: bool
    worse: int = 0
    gap: float = 0.0

    def draw(self, rng: np.random.Generator) -> Floats:
        """Returns right answers by unit [rows, units]; rows share what is easy, images fail row by row as wholes."""
        accuracy = np.repeat([self.accuracy, self.accuracy - self.gap], [self.rows - self.worse, self.worse])
        ease = rng.beta(2 * self.accuracy, 2 * (1 - self.accuracy), self.units)
        chance = ease[None] * (accuracy / self.accuracy)[:, None]
        if not self.clustered:
            return (rng.random(chance.shape) < chance) * 1.0
        chance = rng.beta(2 * chance + 1e-9, 2 * (1 - chance) + 1e-9)
        return rng.binomial(QUESTIONS, chance) * 1.0


def against_best_alone(scores: Floats, clustered: bool, rng: np.random.Generator) -> Floats:
    """Returns Holm-adjusted p-values of each row against the one that happened to come out best [rows]."""
    best = int(np.argmax(scores.sum(axis=1)))
    others = np.delete(np.arange(len(scores)), best)
    difference = scores[best] - scores[others]
    if clustered:
        flipped = np.abs(difference @ rng.choice([-1.0, 1.0], (scores.shape[1], FLIPS)))
        beyond = np.count_nonzero(flipped >= np.abs(difference.sum(axis=1))[:, None] - 1e-9, axis=1)
        raw = (beyond + 1) / (FLIPS + 1)
    else:
        wins, losses = (difference > 0).sum(axis=1), (difference < 0).sum(axis=1)
        raw = np.minimum(1, 2 * stats.binom.cdf(np.minimum(wins, losses), wins + losses, 0.5))
    order = np.argsort(raw)
    adjusted = np.ones(len(scores))
    steps = raw[order] * np.arange(order.size, 0, -1)
    adjusted[others[order]] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted


def rates(truth: Truth, repeats: int, seed: int) -> dict[str, float]:
    """Returns shares of columns with a false alarm, and of truly worse rows that were found, for both rules."""
    rng = np.random.default_rng(seed)
    equal = truth.rows - truth.worse
    found: dict[str, list[float]] = {"alarm": [], "old alarm": [], "power": [], "old power": []}
    for number in range(repeats):
        scores = truth.draw(rng)
        now = best_p_values(scores, seed=number, flips=FLIPS) <= LEVEL
        old = against_best_alone(scores, truth.clustered, rng) <= LEVEL
        for name, called in (("", now), ("old ", old)):
            found[f"{name}alarm"].append(bool(called[:equal].any()))
            if truth.worse:
                found[f"{name}power"].append(float(called[equal:].mean()))
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def truths() -> Iterator[Truth]:
    """Yields the simulated columns: all rows equal, then some truly worse by little and by much."""
    for clustered, units in ((False, 500), (True, 125)):
        for accuracy in (0.5, 0.8, 0.95):
            yield from (Truth(rows, accuracy, units, clustered) for rows in (2, 3, 5, 10, 15))
    for clustered, units in ((False, 100), (True, 40)):
        yield from (Truth(rows, 0.8, units, clustered) for rows in (2, 10))
    for clustered, units in ((False, 500), (True, 125)):
        for rows, worse in ((2, 1), (5, 2), (10, 5), (10, 9), (15, 5)):
            yield from (Truth(rows, 0.8, units, clustered, worse, gap) for gap in (0.05, 0.15))


def main() -> None:
    """Prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2000, help="simulated columns for each line")
    parser.add_argument("--seed", type=int, default=0, help="another one simulates other columns")
    arguments = parser.parse_args()
    header = ["units", "accuracy", "rows", "truly worse", "gap", "false alarms", "before", "found", "before"]
    body = []
    for number, truth in enumerate(truths()):
        measured = rates(truth, arguments.repeats, seed=1000 * arguments.seed + number)
        percent = [
            f"{100 * measured[name]:.1f} %" if name in measured else "-"
            for name in ("alarm", "old alarm", "power", "old power")
        ]
        units = f"{truth.units} images x {QUESTIONS}" if truth.clustered else f"{truth.units} documents"
        body.append([units, truth.accuracy, truth.rows, truth.worse, truth.gap or "-", *percent])
    print(tabulate(body, header, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
