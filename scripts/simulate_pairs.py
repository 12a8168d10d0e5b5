"""How well pairs, places and the smallest detectable difference hold: the tables in docs/statistics.md.

Rows are compared as in a leaderboard, on data whose truth is known. "Resampled places" is the rule that was not taken:
the central 95 % of the places that the bootstrap draws give, equal rows sharing the places they take.

Run: python scripts/simulate_pairs.py [--repeats 1000] [--seed 0]
"""

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from swiftvlm_eval.leaderboard.compute.pairs import (
    detectable_difference,
    pair_intervals,
    pair_p_values,
    pairs_of,
    rank_intervals,
)
from swiftvlm_eval.leaderboard.compute.statistics import Floats, Resampled, resample

LEVEL = 0.05
FLIPS = 999
RESAMPLES = 1000
QUESTIONS = 4


@dataclass(frozen=True)
class Truth:
    """One simulated budget.

    Attributes:
        accuracies: Expected accuracy of each row.
        units: Documents, or images of four questions each.
        clustered: Units are images.
        vanilla: Vanilla's expected accuracy, not below any row's.
    """

    accuracies: tuple[float, ...]
    units: int
    clustered: bool = False
    vanilla: float = 0.8

    def draw(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Returns right answers by unit of the rows [rows, units] and of vanilla [units]; all share what is easy."""
        accuracies = np.array([self.vanilla, *self.accuracies])
        ease = rng.beta(2 * self.vanilla, 2 * (1 - self.vanilla), self.units)
        chance = np.minimum(ease[None] * (accuracies / self.vanilla)[:, None], 1.0)
        if self.clustered:
            chance = rng.beta(2 * chance + 1e-9, 2 * (1 - chance) + 1e-9)
            right: Floats = rng.binomial(QUESTIONS, chance).astype(np.float64)
        else:
            right = (rng.random(chance.shape) < chance).astype(np.float64)
        return right[1:], right[0]

    @property
    def places(self) -> NDArray[np.int_]:
        """First and last place of each row, equal rows sharing theirs [rows, 2]."""
        own = np.array(self.accuracies)
        return np.array([[1 + np.sum(own > each), np.sum(own >= each)] for each in own])


def resampled_places(resampled: Resampled) -> NDArray[np.int_]:
    """Returns the central 95 % of the resampled places of each row [rows, 2]."""
    drawn = resampled.middle
    first = 1 + (drawn[None] > drawn[:, None]).sum(axis=1)
    last = (drawn[None] >= drawn[:, None]).sum(axis=1)
    low = np.quantile(first, 0.025, axis=1, method="inverted_cdf")
    high = np.quantile(last, 0.975, axis=1, method="inverted_cdf")
    return np.stack([low, high], axis=1)


def rates(truth: Truth, repeats: int, seed: int) -> dict[str, float]:
    """Returns shares of data sets with a false alarm, of truths covered, and of different pairs found."""
    rng = np.random.default_rng(seed)
    first, second = pairs_of(len(truth.accuracies))
    own = np.array(truth.accuracies)
    gaps = (own[first] - own[second]) / truth.vanilla
    found: dict[str, list[float]] = {name: [] for name in ("alarm", "power", "covered", "places", "resampled", "wide")}
    for number in range(repeats):
        scores, vanilla = truth.draw(rng)
        resampled = resample(scores, vanilla, seed=number, resamples=RESAMPLES)
        called = pair_p_values(scores, seed=number, flips=FLIPS) <= LEVEL
        low, high = pair_intervals([resampled])
        places = rank_intervals([resampled])
        found["alarm"].append(bool(called[gaps == 0].any()))
        found["power"].append(float(called[gaps != 0].mean()) if (gaps != 0).any() else float("nan"))
        found["covered"].append(float(np.mean((low <= gaps) & (gaps <= high))))
        found["places"].append(covering(places, truth.places))
        found["resampled"].append(covering(resampled_places(resampled), truth.places))
        found["wide"].append(float(np.mean(places[:, 1] - places[:, 0] + 1)))
    return {name: float(np.mean(values)) for name, values in found.items()}


def covering(intervals: NDArray[np.int_], places: NDArray[np.int_]) -> float:
    """Returns the share of rows whose interval holds all the places that the row shares."""
    return float(np.mean((intervals[:, 0] <= places[:, 0]) & (intervals[:, 1] >= places[:, 1])))


def power(units: int, accuracy: float, clustered: bool, repeats: int, seed: int) -> tuple[float, float]:
    """Returns the difference that two rows must have to be the smallest detectable one, and how often it is found.

    Args:
        units: Documents, or images of four questions each.
        accuracy: Mean of the two rows.
        clustered: Units are images.
        repeats: Data sets on which it is looked for.
        seed: Another one simulates other data.

    Returns:
        The difference in accuracy, and the share of data sets on which it was found.
    """
    rng = np.random.default_rng(seed)
    questions = units * (QUESTIONS if clustered else 1)
    gap = 0.0
    for _ in range(4):  # rows that differ more also disagree more, which makes the difference larger again
        truth = Truth((accuracy + gap / 2, accuracy - gap / 2), units, clustered, vanilla=accuracy + gap / 2)
        drawn = [truth.draw(rng)[0] for _ in range(100)]
        seen = [detectable_difference(each, np.tile(each.mean(axis=1, keepdims=True), units)) for each in drawn]
        gap = float(np.mean([each for each in seen if each is not None])) / questions
    truth = Truth((accuracy + gap / 2, accuracy - gap / 2), units, clustered, vanilla=accuracy + gap / 2)
    called = [pair_p_values(truth.draw(rng)[0], seed=number, flips=FLIPS)[0] <= LEVEL for number in range(repeats)]
    return gap, float(np.mean(called))


def main() -> None:
    """Prints the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000, help="simulated data sets for each line")
    parser.add_argument("--seed", type=int, default=0, help="another one simulates other data")
    arguments = parser.parse_args()
    kinds = {
        "all equal": lambda rows: (0.7,) * rows,
        "half of them 0.05 worse": lambda rows: (0.7,) * (rows - rows // 2) + (0.65,) * (rows // 2),
        "0.01 from row to row": lambda rows: tuple(0.7 - 0.01 * place for place in range(rows)),
    }
    body: list[list[str | int | float]] = []
    for clustered, units in ((False, 500), (True, 125), (True, 40)):
        name = f"{units} images x {QUESTIONS}" if clustered else f"{units} documents"
        for kind, accuracies in kinds.items():
            for rows in (2, 5, 15):
                truth = Truth(accuracies(rows), units, clustered)
                seen = rates(truth, arguments.repeats, seed=1000 * arguments.seed + len(body))
                shown = [_percent(seen[each]) for each in ("alarm", "power", "covered", "places", "resampled")]
                body.append([name, kind, rows, *shown, f"{seen['wide']:.1f}"])
    header = ["units", "rows differ by", "rows", "false alarms", "found", "differences covered", "places covered"]
    print(tabulate(body, [*header, "by resampled places", "places wide"], tablefmt="pipe", disable_numparse=True))
    print()
    body = []
    for clustered, units in ((False, 100), (False, 500), (False, 2000), (True, 40), (True, 125), (True, 500)):
        for accuracy in (0.5, 0.8, 0.95):
            gap, seen_power = power(units, accuracy, clustered, 2 * arguments.repeats, seed=len(body))
            name = f"{units} images x {QUESTIONS}" if clustered else f"{units} documents"
            body.append([name, accuracy, _percent(gap / accuracy), _percent(seen_power)])
    header = ["units", "accuracy", "smallest detectable difference", "found"]
    print(tabulate(body, header, tablefmt="pipe", disable_numparse=True))


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f} %"


if __name__ == "__main__":
    main()
