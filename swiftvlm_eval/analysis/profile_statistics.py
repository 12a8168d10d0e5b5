"""From scores of samples to x of layers: relative to vanilla, averaged over tasks, with intervals by bootstrap.

Intervals are those of the leaderboards (`leaderboard.compute.statistics`): documents of one image stand or fall
together, so that whole images are drawn, with equal weights for vanilla and all layers, and each end grants one unseen
event. Every draw also chooses layers: how often a set wins tells whether the choice would be the same on other
documents.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swiftvlm_eval.analysis.layer_choice import best_choices
from swiftvlm_eval.leaderboard.compute.statistics import LEVEL, RESAMPLES, mean_of, ratio_draws, seed_of

DIGITS = 9
"""x is rounded to so many decimals, so that equal scores added in another order are equal."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ScoredSample:
    """The scores of one document.

    Attributes:
        cluster: the image, or another unit that documents share.
        vanilla: with all tokens.
        by_layer: one score a layer, from layer 2 on.
    """

    cluster: str
    vanilla: float
    by_layer: tuple[float, ...]


@dataclass(frozen=True)
class Profile:
    """x of every layer, from layer 2 on.

    Attributes:
        x: means over tasks of score / vanilla score.
        low: lower ends of the 95 % intervals.
        high: upper ends.
        by_task: task -> score / vanilla score, layer by layer.
        scores: task -> vanilla's score, then the layers'.
        documents: task -> how many.
        clusters: task -> how many units they come from.
        draws: x of every bootstrap draw, [draws, layers].
    """

    x: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    by_task: Mapping[str, tuple[float, ...]]
    scores: Mapping[str, tuple[float, ...]]
    documents: Mapping[str, int]
    clusters: Mapping[str, int]
    draws: Floats

    def of_layers(self) -> dict[int, float]:
        """Layer -> x."""
        return dict(enumerate(self.x, start=2))


def make_profile(samples: Mapping[str, Sequence[ScoredSample]], *, seed: int = 0, draws: int = RESAMPLES) -> Profile:
    """The profile of scored samples.

    Args:
        samples: task -> its documents, two units or more.
        seed: of the bootstrap.
        draws: of the bootstrap.

    Raises:
        ValueError: a task whose vanilla score is not above zero, so that nothing is relative to it, a score that is
            not finite, or documents of fewer than two units.
    """
    ratios, drawn, scores, clusters = {}, [], {}, {}
    for task, own in sorted(samples.items()):
        table = np.array([[sample.vanilla, *sample.by_layer] for sample in own], dtype=np.float64)
        if not np.isfinite(table).all():
            raise ValueError(f"{task}: a score is not finite")
        names = sorted({sample.cluster for sample in own})
        if len(names) < 2:
            raise ValueError(f"{task}: all documents belong to one unit; intervals need two")
        units = np.zeros((len(names), table.shape[1]))
        np.add.at(units, [names.index(sample.cluster) for sample in own], table)
        total = units.sum(axis=0)
        if not total[0] > 0:
            raise ValueError(f"{task}: vanilla scores {total[0] / len(own):g} on these documents; x is relative to it")
        ratios[task] = total[1:] / total[0]
        scores[task] = tuple((total / len(own)).tolist())
        clusters[task] = len(names)
        own_seed = seed_of(f"{task} {seed}")
        drawn.append(ratio_draws(units[:, 1:].T / len(own), units[:, 0] / len(own), seed=own_seed, resamples=draws))
    mean = np.mean(list(ratios.values()), axis=0)
    over_tasks = [mean_of(list(columns)) for columns in zip(*drawn, strict=True)]
    low, high = zip(*(column.interval(LEVEL) for column in over_tasks), strict=True)
    return Profile(
        x=_rounded(mean),
        low=_rounded(np.array(low)),
        high=_rounded(np.array(high)),
        by_task={task: _rounded(values) for task, values in ratios.items()},
        scores=scores,
        documents={task: len(own) for task, own in samples.items()},
        clusters=clusters,
        draws=np.stack([column.middle for column in over_tasks], axis=1).round(DIGITS),
    )


def wins(profile: Profile, num_layers: int, stages: int) -> list[tuple[tuple[int, ...], float]]:
    """Sets of layers and in which share of the bootstrap draws each is the best one, most frequent first."""
    found: Counter[tuple[int, ...]] = Counter()
    for draw in profile.draws:
        found[best_choices(dict(enumerate(draw.tolist(), start=2)), num_layers, stages)[0].layers] += 1
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return [(layers, count / len(profile.draws)) for layers, count in ordered]


def _rounded(values: Floats) -> tuple[float, ...]:
    return tuple(np.round(values, DIGITS).tolist())
