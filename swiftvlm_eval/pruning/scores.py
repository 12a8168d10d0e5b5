"""Scores and choices of rows as pure tensor functions: ordered top-k, rankings, masks, norms, shares, raters."""

from functools import lru_cache

import numpy as np
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


@lru_cache(maxsize=256)
def counting(count: int, device: torch.device) -> Tensor:
    """0, 1, 2, ..., made once for every count; shared, so not to be written to.

    Args:
        count: how many.
        device: where.

    Returns:
        int64, [count].
    """
    with torch.inference_mode(False):  # as an index it may serve outside inference mode, too
        return torch.arange(count, device=device)


def key_norms(keys: Tensor) -> Tensor:
    """How loud rows are: the L1 norm of each row's keys, all heads together.

    Args:
        keys: [heads, n, head_dim]; grouped keys need not be repeated, that would multiply all norms alike.

    Returns:
        float32, [n].
    """
    return keys.float().abs().sum(dim=(0, 2))


def value_attention(asking: Tensor, values: Tensor, columns: int) -> Tensor:
    """How well rows fit one another by their values: softmax of scaled inner products, mean over heads.

    Args:
        asking: [heads, q, head_dim].
        values: [heads, n, head_dim], what is under the softmax; grouped heads need not be repeated.
        columns: how many of the n are asked for, the first ones.

    Returns:
        float32, [q, columns].
    """
    logits = asking.float() @ values.float().transpose(1, 2) * values.shape[-1] ** -0.5
    return logits.softmax(dim=-1)[..., :columns].mean(dim=0)


def quotas(weights: Tensor, sizes: Tensor, count: int, redistribute: bool) -> Tensor:
    """How many of `count` rows each group gets by its weight (HoloV, arXiv 2510.02912).

    A group gets its share rounded down; what the rounding leaves over goes to the groups of largest weight, one each.

    Args:
        weights: float64, [G], not negative; ties go to the lower group.
        sizes: int64, [G].
        count: rows in all; redistributed, at most the sum of the sizes.
        redistribute: cut to the sizes what is above them, and give it to the groups by falling weight, to each as much
            as it has room for.

    Returns:
        int64, [G].
    """
    order = weights.argsort(dim=0, descending=True, stable=True)
    share = (weights / (weights.sum() + 1e-6) * count).floor().nan_to_num(nan=0.0).long()[order]
    share = share + (torch.arange(len(order), device=order.device) < count - share.sum())
    if redistribute:
        share = share.minimum(sizes[order])
        room = sizes[order] - share
        share = share + (count - share.sum() - room.cumsum(dim=0) + room).clamp(min=0).minimum(room)
    return share[order.argsort(dim=0)]


def outlier_share(scores: Tensor) -> float:
    """Share of scores that lie above the third quartile by more than 1.5 interquartile ranges.

    A number for the host, for those who need it as a count; this waits for the device.

    Args:
        scores: of any shape, taken together.
    """
    flat = scores.float().flatten()
    low, high = torch.quantile(flat, torch.tensor([0.25, 0.75], device=flat.device))
    return int((flat > high + 1.5 * (high - low)).sum()) / len(flat)


def rank_of_rows(matrix: Tensor, empty: Tensor) -> int:
    """Numerical rank of a float32 matrix some of whose rows are zero, as `torch.linalg.matrix_rank` gives it.

    A number for the host: one transfer, of the inner products of the rows. Their eigenvalues are the squares of the
    singular values; in float64 these are told apart far below the tolerance, float32's resolution times the larger
    side of the matrix without its empty rows.

    Args:
        matrix: [r, n]; what is not a number counts as 0.
        empty: bool, [r], which rows are zero and no part of the matrix.
    """
    exact = matrix.nan_to_num().double()
    products = exact @ exact.T
    known = torch.cat([products, empty[:, None]], dim=1).cpu().numpy()
    squares = np.linalg.eigvalsh(known[:, :-1])
    larger = max(matrix.shape[1], int((known[:, -1] == 0).sum()))
    least = (larger * np.finfo(np.float32).eps) ** 2 * squares.max()
    return int((squares > least).sum())


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
