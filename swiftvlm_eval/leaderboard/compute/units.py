"""From per-sample scores to the units a statistic resamples.

A unit is what is drawn as a whole: an image with all its questions where every sample names its image, otherwise what
the task scores as one. Every reduction used here makes the task score a *sum of contributions* of what it scores as
one, and a unit contributes their sum, so one bootstrap and one permutation test serve all of them:

* `mean`: each document contributes score / number of documents;
* `mme`: a pair of questions on one image contributes 100 (accuracy + both-right) / pairs of its category (MME,
  arXiv 2306.13394), which adds up to the sum over categories of accuracy and accuracy+;
* `circular`: a question contributes 100 / questions if every rotation of its options was answered right (MMBench,
  arXiv 2307.06281);
* `subset_f1`: F1 of the answer yes, mean over subsets (POPE, arXiv 2305.10355). It is no sum, so its first-order
  expansion is taken: with F = A / D over n documents a document contributes F / n + (a - F d) / D, where a counts
  twice a right yes and d what it adds to 2 right yes + wrong yes + missed. These add up to F, and their spread over
  units is that of F up to terms of second order.

The sum is compared with the number lmms-eval printed. If they differ (an answer we cannot match the way lmms-eval
did), the task gets no interval rather than a wrong one.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swiftvlm_eval.results.benchmarks import Benchmark
from swiftvlm_eval.results.samples import SampleLine


@dataclass(frozen=True)
class Units:
    """Contributions of the units of one task in one run.

    Attributes:
        ids: Unit names [units], ascending.
        contributions: Contribution of each unit to the task score [units], on lmms-eval's scale.
        expected: What each unit would contribute if all documents (of its category) scored the same [units].
        clustered: Some unit holds several documents, or several of what the task scores as one.
        named: Units are images, under the names that other tasks on the same images use as well.
    """

    ids: NDArray[np.str_]
    contributions: NDArray[np.float64]
    expected: NDArray[np.float64]
    clustered: bool
    named: bool

    @property
    def stderr(self) -> float | None:
        """Standard error of the score over units (cluster-robust where units are images); None for a single unit."""
        count = self.ids.size
        if count < 2:
            return None
        return float(np.sqrt(count / (count - 1) * np.sum((self.contributions - self.expected) ** 2)))


def reduce_samples(lines: Sequence[SampleLine], benchmark: Benchmark, reported: float) -> Units:
    """Turns the per-sample lines of one task into units.

    Args:
        lines: The lines of `benchmark.task`.
        benchmark: The column.
        reported: The score lmms-eval printed, on its own scale.

    Raises:
        ValueError: No line has the metric, or the lines do not add up to `reported`.
    """
    units = units_of(lines, benchmark)
    total = math.fsum(units.contributions)
    if not math.isclose(total, reported, rel_tol=1e-6, abs_tol=1e-6):
        raise ValueError(
            f"per-sample scores of {benchmark.task!r} add up to {total:.6g}, lmms-eval reported {reported:.6g}"
        )
    return units


def units_of(lines: Sequence[SampleLine], benchmark: Benchmark) -> Units:
    """Turns per-sample lines into units whatever lmms-eval reported. Arguments and errors as in `reduce_samples`."""
    scored = [line for line in lines if benchmark.metric in line.scores]
    if not scored:
        raise ValueError(f"no per-sample score {benchmark.metric!r} for task {benchmark.task!r}")
    groups = [_group(line, benchmark) for line in scored]
    images = _images(scored, groups, benchmark)
    contributions, expected = _REDUCTIONS[benchmark.reduction](scored, groups, benchmark.metric)
    contributions, expected = _by_unit(contributions, images), _by_unit(expected, images)
    ids = sorted(contributions)
    values = np.array([contributions[unit] for unit in ids])
    several = len(ids) < len(set(groups))
    return Units(
        ids=np.array(ids),
        contributions=values,
        expected=np.array([expected[unit] for unit in ids]),
        clustered=several,
        named=bool(images),
    )


_BY_DOCUMENT = ("mean", "subset_f1")  # reductions that score every document by itself


def _group(line: SampleLine, benchmark: Benchmark) -> str:
    """What the task scores as one."""
    document = f"doc {line.doc_id:09d}"
    if benchmark.reduction in _BY_DOCUMENT:
        return document
    group = line.group or line.cluster_id or document
    return f"{line.stratum or ''} {group}" if benchmark.reduction == "mme" else group


def _images(lines: Sequence[SampleLine], groups: Sequence[str], benchmark: Benchmark) -> dict[str, str]:
    """The image of each group; empty unless every line names it and no group has two."""
    images: dict[str, str] = {}
    for line, group in zip(lines, groups, strict=True):
        # lines from before `group` existed hold it in place of the image
        known = line.cluster_id is not None and (benchmark.reduction in _BY_DOCUMENT or line.group is not None)
        if not known or images.setdefault(group, str(line.cluster_id)) != line.cluster_id:
            return {}
    return images


def _by_unit(values: dict[str, float], images: dict[str, str]) -> dict[str, float]:
    """Sums over the groups of an image."""
    if not images:
        return values
    sums: dict[str, float] = defaultdict(float)
    for group, value in values.items():
        sums[images[group]] += value
    return dict(sums)


_ANSWERED_YES = "pope_yes_ratio"
Contributions = tuple[dict[str, float], dict[str, float]]


def _mean(lines: Sequence[SampleLine], groups: Sequence[str], metric: str) -> Contributions:
    shares = {group: line.scores[metric] / len(lines) for line, group in zip(lines, groups, strict=True)}
    return shares, dict.fromkeys(shares, math.fsum(shares.values()) / len(shares))


def _mme(lines: Sequence[SampleLine], groups: Sequence[str], metric: str) -> Contributions:
    pairs: dict[str, list[float]] = defaultdict(list)
    category: dict[str, str] = {}
    for line, group in zip(lines, groups, strict=True):
        pairs[group].append(line.scores[metric])
        category[group] = line.stratum or ""
    sizes = Counter(category.values())
    contributions: dict[str, float] = {}
    totals: dict[str, float] = defaultdict(float)
    for group, scores in pairs.items():
        contributions[group] = 100 * (sum(scores) / len(scores) + (min(scores) == 1.0)) / sizes[category[group]]
        totals[category[group]] += contributions[group]
    return contributions, {group: totals[name] / sizes[name] for group, name in category.items()}


def _circular(lines: Sequence[SampleLine], groups: Sequence[str], metric: str) -> Contributions:
    questions: dict[str, float] = {}
    for line, group in zip(lines, groups, strict=True):
        questions[group] = min(questions.get(group, 1.0), line.scores[metric])
    right = math.fsum(questions.values())
    contributions = {group: 100 * score / len(questions) for group, score in questions.items()}
    return contributions, dict.fromkeys(questions, 100 * right / len(questions) ** 2)


def _subset_f1(lines: Sequence[SampleLine], units: Sequence[str], metric: str) -> Contributions:
    """Right or wrong is the metric's own per-sample score; the answer itself stands under `_ANSWERED_YES`."""
    if any(_ANSWERED_YES not in line.scores for line in lines):
        raise ValueError(f"no per-sample score {_ANSWERED_YES!r}, which F1 is computed from")
    subsets: dict[str, list[tuple[str, float, float]]] = defaultdict(list)
    for line, unit in zip(lines, units, strict=True):
        right, yes = line.scores[metric] == 1.0, line.scores[_ANSWERED_YES] == 1.0
        subsets[line.stratum or ""].append((unit, 2.0 * (right and yes), 2.0 * (right and yes) + (not right)))
    sums: dict[str, float] = defaultdict(float)
    expected: dict[str, float] = defaultdict(float)
    for documents in subsets.values():
        whole = math.fsum(d for _, _, d in documents)
        f1 = math.fsum(a for _, a, _ in documents) / whole if whole else 0.0
        for unit, a, d in documents:
            even = f1 / len(documents)
            sums[unit] += (even + ((a - f1 * d) / whole if whole else 0.0)) / len(subsets)
            expected[unit] += even / len(subsets)
    return dict(sums), dict(expected)


_REDUCTIONS = {"mean": _mean, "mme": _mme, "circular": _circular, "subset_f1": _subset_f1}
