"""Scores and choices of rows as pure tensor functions: ordered top-k, rankings, masks, outliers, raters."""

import torch
from torch import Tensor


def top_k(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest scores, ascending.

    Ties go to the lower index and NaN counts as the lowest score, so that the result does not depend on a back-end.

    Args:
        scores: [n].
        count: how many, clamped to n.

    Returns:
        int64, [min(count, n)], ascending.
    """
    return ranking(scores)[:count].sort().values


def ranking(scores: Tensor) -> Tensor:
    """All indices by descending score; ties by ascending index.

    Args:
        scores: [n].

    Returns:
        int64, [n].
    """
    clean = scores.float().nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    return clean.argsort(dim=0, descending=True, stable=True)


def rows_where(mask: Tensor, count: int) -> Tensor:
    """The rows where a mask holds, when it is known how many these are.

    `mask.nonzero()` finds them too, but the size of its result depends on data, so the host would wait for the device.
    A stable sort brings them to the front in order, and the size is known before the device has run.

    Args:
        mask: bool, [n].
        count: how often it holds.

    Returns:
        int64, [count], ascending.
    """
    return (~mask).int().argsort(dim=0, stable=True)[:count]


def outlier_share(scores: Tensor) -> float:
    """Share of scores that lie above the third quartile by more than 1.5 interquartile ranges.

    A number for the host, for those who need it as a count; this waits for the device.

    Args:
        scores: of any shape, taken together.
    """
    flat = scores.float().flatten()
    low, high = torch.quantile(flat, torch.tensor([0.25, 0.75], device=flat.device))
    return int((flat > high + 1.5 * (high - low)).sum()) / len(flat)


def rater_weights(visual: Tensor, question: Tensor) -> Tensor:
    """Which text rows may rate the image (SparseVLM, arXiv 2410.04417, section 3.2), as weights that sum to one.

    A text row rates if its share of the visual rows' softmax similarity to the question is above average; if none is
    (all equal), every one rates.

    Args:
        visual: [N, hidden_size], visual rows of the decoder's input.
        question: [Q, hidden_size], text rows after the image, Q >= 1.

    Returns:
        float32, [Q]; 1 / (number of raters) for a rater, else 0.
    """
    share = (visual.float() @ question.float().T).softmax(dim=1).mean(dim=0)
    rates = share > share.mean()
    rates = rates | ~rates.any()
    return rates / rates.sum()
