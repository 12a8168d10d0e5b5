"""How often the 95 % interval of relative accuracy holds the truth: the table in docs/statistics.md.

"Coverage" is that of `ratio_draws`. "Percentile" is the interval it replaced: central quantiles of a bootstrap that
draws units with replacement. The expected numbers of gains (right where vanilla is wrong), of losses (the reverse) and
of hits decide how well both do; the corner with few of them is the reason for the change.

Run: python scripts/simulate_intervals.py [--repeats 2000]
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tabulate import tabulate

from swiftvlm_eval.leaderboard.compute.statistics import Floats, ratio_draws

RESAMPLES = 1000
# So many data sets share the counts of the plain bootstrap, which are slow to draw.
FRESH = 50
QUESTIONS = 4


@dataclass(frozen=True)
class Truth:
    """A method beside vanilla.

    Attributes:
        units: Documents, or images of four questions each.
        accuracy: Vanilla's expected accuracy.
        lost: Chance that an answer vanilla has right is lost.
        gained: Chance that an answer vanilla has wrong is gained.
        clustered: Units are images: hard ones fail as wholes, and the method loses or gains whole images.
    """

    units: int
    accuracy: float
    lost: float
    gained: float
    clustered: bool = False

    @property
    def ratio(self) -> float:
        """The true ratio of expected scores."""
        return (self.accuracy * (1 - self.lost) + (1 - self.accuracy) * self.gained) / self.accuracy

    def draw(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Returns right answers by unit of the method and of vanilla [units]."""
        each = QUESTIONS if self.clustered else 1
        shape = (self.units, each)
        chance = rng.beta(2 * self.accuracy, 2 * (1 - self.accuracy), (self.units, 1))
        vanilla = rng.random(shape) < chance
        lost, gained = (rng.random((self.units, 1)) < rate for rate in (self.lost, self.gained))
        method = np.where(vanilla, ~lost, gained)
        return method.sum(axis=1) * 1.0, vanilla.sum(axis=1) * 1.0


def percentile_interval(method: Floats, vanilla: Floats, counts: Floats) -> tuple[float, float]:
    """Returns the interval of the plain paired bootstrap; draws without a right answer of vanilla are left out."""
    base = counts @ vanilla
    low, high = np.quantile((counts @ method)[base > 0] / base[base > 0], [0.025, 0.975])
    return float(low), float(high)


def coverage(truth: Truth, repeats: int, seed: int) -> dict[str, float]:
    """Returns coverage and mean length (in percent of vanilla) of both intervals."""
    rng = np.random.default_rng(seed)
    ends = np.empty((2, repeats, 2))
    for number in range(repeats):
        if number % FRESH == 0:
            counts = rng.multinomial(truth.units, np.full(truth.units, 1 / truth.units), RESAMPLES) * 1.0
        method, vanilla = truth.draw(rng)
        while not vanilla.any():
            method, vanilla = truth.draw(rng)
        ends[0, number] = ratio_draws(method[None], vanilla, seed=number, resamples=RESAMPLES)[0].interval()
        ends[1, number] = percentile_interval(method, vanilla, counts)
    holds = (ends[..., 0] <= truth.ratio + 1e-9) & (truth.ratio - 1e-9 <= ends[..., 1])
    lengths = 100 * (ends[..., 1] - ends[..., 0]).mean(axis=1)
    return dict(zip(("now", "old", "length", "old length"), (*holds.mean(axis=1), *lengths), strict=True))


def truths() -> Iterator[Truth]:
    """Yields few and many events, for documents and for images."""
    for gains, losses in ((0.5, 0.5), (2, 0.5), (1, 3), (3, 3), (5, 10), (20, 40)):
        for units, accuracy in ((100, 0.8), (500, 0.98), (500, 0.5)):
            gained, lost = gains / units / (1 - accuracy), losses / units / accuracy
            if max(gained, lost) < 0.9:
                yield Truth(units, accuracy, lost, gained)
    for hits in (1, 3, 6, 10, 30):
        for units, accuracy in ((100, 0.8), (500, 0.5)):
            yield Truth(units, accuracy, 1 - hits / (units * accuracy), 0.0)
    for units in (60, 150, 400):
        for lost, gained in ((0.005, 0.01), (0.02, 0.02), (0.05, 0.1), (0.2, 0.0), (0.9, 0.02), (0.97, 0.01)):
            yield Truth(units, 0.7, lost, gained, clustered=True)
    yield from (Truth(20, 0.7, 0.2, 0.1, clustered) for clustered in (False, True))
    yield from (Truth(2000, accuracy, 0.2, 0.05) for accuracy in (0.5, 0.8))


def main() -> None:
    """Prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2000, help="simulated data sets for each line")
    repeats = parser.parse_args().repeats
    header = [
        "units",
        "accuracy",
        "gains",
        "losses",
        "hits",
        "ratio",
        "coverage",
        "percentile",
        "length",
        "percentile",
    ]
    body = []
    for number, truth in enumerate(truths()):
        measured = coverage(truth, repeats, seed=number)
        documents = truth.units * (QUESTIONS if truth.clustered else 1)
        right = documents * truth.accuracy
        events = ((documents - right) * truth.gained, right * truth.lost, right * truth.ratio)
        body.append(
            [f"{truth.units} images x {QUESTIONS}" if truth.clustered else f"{truth.units} documents", truth.accuracy]
            + [f"{count:.1f}" for count in events]
            + [f"{100 * value:.1f} %" for value in (truth.ratio, *measured.values())]
        )
    print(tabulate(body, header, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
