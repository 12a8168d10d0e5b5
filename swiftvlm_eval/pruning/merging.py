"""Merging of visual rows as pure tensor functions: anchors, grouping, group means.

Everything is computed in float32 and without atomics, so that results do not depend on the device's scheduling.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from swiftvlm_eval.pruning.scores import counting, rows_where, top_k

COMPARED_BY_DIFFERENCES = 64
"""Rows up to which `distances` needs no matrix product: fewer operations, and little work."""
EQUAL_ROWS = 1e-14
"""Share of two rows' squared lengths below which a squared distance is rounding: what float32 resolves, squared."""
AnchorRule = Literal["strided", "top", "floor_step"]
MergedPosition = Literal["anchor", "mean", "round"]


class Groups(NamedTuple):
    """R rows in Z groups, numbered in the order in which their merged rows stand in the sequence."""

    merged: Tensor  # [Z, D], group means in the dtype of the members
    places: Tensor  # [Z], places of the merged rows in the sequence, ascending
    members: Tensor  # int64, [R], group of each member


@dataclass(frozen=True)
class Bypass:
    """The R waiting tokens, the groups in which they were merged, and the places of all N tokens."""

    states: Tensor  # [R, D]
    index: Tensor  # int64, [R], visual indices
    groups: Groups
    places: Tensor  # [N]
    active: Tensor  # int64, [N - R], visual indices of the tokens that do not wait, ascending

    def aligned(self, live: Tensor, index: Tensor) -> Tensor:
        """All N tokens in original order; to those that wait is added what their group's row has gained.

        Args:
            live: [V, D], the rows of the tokens that do not wait and of the groups.
            index: int64, [V], visual index of each; -1 is a group's.

        Returns:
            [N, D].
        """
        sent = self.groups.merged
        present = live[index.argsort(dim=0, stable=True)]  # the groups first, then tokens by index
        waiting = self.states
        if len(sent):
            waiting = waiting + (present[: len(sent)] - sent)[self.groups.members]
        whole = live.new_empty((len(self.places), live.shape[1]))
        return whole.index_copy(0, self.active, present[len(sent) :]).index_copy(0, self.index, waiting)


def choose_anchors(
    count: int,
    groups: int,
    rule: AnchorRule = "strided",
    scores: Tensor | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Representatives of `groups` groups among `count` rows given in order of place.

    Args:
        count: R, rows to be grouped.
        groups: Z; more than R means every row on its own.
        rule: `strided` takes element floor((j + 0.5) R / Z); `top` the Z best-scored; `floor_step` every
            floor(R / Z)-th from the first.
        scores: [R], needed by `top`.
        device: of the result; that of the scores under `top`.

    Returns:
        int64, [min(Z, R)], ascending, distinct.

    Raises:
        ValueError: rule `top` without scores.
    """
    groups = min(groups, count)
    if rule == "top":
        if scores is None:
            raise ValueError("anchors=top: needs scores")
        return top_k(scores, groups)
    return _regular_anchors(count, groups, rule, torch.device("cpu") if device is None else device)


@lru_cache(maxsize=256)
def _regular_anchors(count: int, groups: int, rule: AnchorRule, device: torch.device) -> Tensor:
    """Anchors that follow from the counts alone; shared, so not to be written to."""
    with torch.inference_mode(False):
        steps = torch.arange(groups, device=device)
        if rule == "floor_step":
            return steps * max(1, count // max(groups, 1))
        return ((2 * steps + 1) * count).div(2 * max(groups, 1), rounding_mode="floor")


def assign_to_anchors(states: Tensor, anchors: Tensor) -> Tensor:
    """Puts every row into the group of the anchor with the highest cosine similarity; ties to the lower anchor.

    Args:
        states: [R, D].
        anchors: int64, [Z], rows of `states`; each anchor belongs to its own group.

    Returns:
        int64, [R], group numbers 0..Z-1.
    """
    groups = nearest(states, states[anchors])
    return groups.index_copy(0, anchors, counting(len(anchors), groups.device))


def nearest(queries: Tensor, keys: Tensor) -> Tensor:
    """Which key each query is most alike.

    Args:
        queries: [n, D].
        keys: [k, D], k >= 1.

    Returns:
        int64, [n]; by cosine similarity in float32, ties to the lower key.
    """
    # a query's own length changes nothing for which key is the best one
    similarity = queries.float() @ normalize(keys.float(), dim=-1).T
    return similarity.nan_to_num(nan=-torch.inf).argmax(dim=-1)


def sums_and_sizes(states: Tensor, groups: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Sum and number of the members of each group; groups may be empty.

    Args:
        states: [n, D].
        groups: int64, [n], in 0..num_groups-1.
        num_groups: Z.

    Returns:
        float32, [Z, D] and [Z, 1].
    """
    membership = (groups == counting(num_groups, groups.device)[:, None]).float()
    return membership @ states.float(), membership.sum(dim=1, keepdim=True)


def group_means(states: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Arithmetic mean of the members of each group.

    Args:
        states: [R, D].
        groups: int64, [R], in 0..num_groups-1; no group is empty.
        num_groups: Z.

    Returns:
        float32, [Z, D].
    """
    sums, sizes = sums_and_sizes(states, groups, num_groups)
    return sums / sizes


def density_peak_clusters(states: Tensor, num_clusters: int) -> Tensor:
    """Clusters rows around density peaks (kNN variant of DPC, as used by SparseVLM, arXiv 2410.04417).

    Density is exp(-mean squared distance to the `num_clusters` nearest rows, itself included); a centre is dense and
    far from anything denser. Of two equally dense rows the earlier one counts as denser: the noise that the authors
    add to break such ties would make results irreproducible.

    Args:
        states: [c, D].
        num_clusters: C, at most c.

    Returns:
        int64, [c], cluster of each row; clusters are numbered by falling centre weight.
    """
    count = len(states)
    if num_clusters == 1:
        return torch.zeros(count, dtype=torch.int64, device=states.device)
    distance = distances(states.float())
    width = states.shape[1]
    nearest = distance.topk(num_clusters, dim=1, largest=False).values
    density = ((nearest**2).mean(dim=1) * (-1 / width)).exp()
    rank = density.argsort(dim=0, descending=True, stable=True).argsort(dim=0)
    # the densest row is as far from anything denser as can be: its weight is the largest in any case
    peak = distance.masked_fill(rank >= rank[:, None], torch.inf).amin(dim=1)
    centres = (density * peak).argsort(dim=0, descending=True, stable=True)[:num_clusters]
    clusters = distance[:, centres].argmin(dim=1)
    return clusters.index_copy(0, centres, counting(num_clusters, states.device))


def distances(points: Tensor) -> Tensor:
    """Euclidean distances of all pairs of rows.

    Few rows are compared by differences. Of many the inner products are taken, in float64, so that what float32 can
    tell apart stays apart, and equal rows have distance 0.

    Args:
        points: float32, [c, D].

    Returns:
        float32, [c, c].
    """
    if len(points) <= COMPARED_BY_DIFFERENCES:
        return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    exact = points.double()
    products = exact @ exact.T
    squares = products.diagonal()
    apart = (squares[:, None] + squares).sub(products, alpha=2 * (1 + EQUAL_ROWS))
    return apart.clamp(min=0).float().sqrt()


def recycled_counts(pruned: int) -> tuple[int, int]:
    """How many of the pruned rows SparseVLM recycles, and into how many rows (arXiv 2410.04417, section 3.4).

    The code's integer arithmetic: 30 % plus one candidates, a tenth of these plus one clusters.
    """
    candidates = int(0.3 * pruned) + 1
    return candidates, int(candidates / 10) + 1


def recycled_rows(num_visual: int, kept: Sequence[int]) -> list[int]:
    """Rows that recycling adds at each stage; a stage that keeps all rows adds none.

    Args:
        num_visual: rows before the first stage.
        kept: rows kept at each stage, clamped to those that are left.
    """
    merged, rows = [], num_visual
    for count in kept:
        merged.append(recycled_counts(rows - count)[1] if count < rows else 0)
        rows = min(count, rows) + merged[-1]
    return merged


def recycle(states: Tensor, pruned: Tensor) -> Tensor:
    """Clusters the best of the pruned rows and averages each cluster.

    Args:
        states: [V, D].
        pruned: int64, rows of `states` that were pruned, best first, at least one.

    Returns:
        [C, D] in the dtype of `states`, clusters in order of their centres' weight.
    """
    candidates, clusters = recycled_counts(len(pruned))
    chosen = states[pruned[:candidates]]
    return group_means(chosen, density_peak_clusters(chosen, clusters), clusters).to(states.dtype)


def merge_into_targets(features: Tensor, metric: Tensor, count: int) -> Tensor:
    """VisionZip's contextual tokens (arXiv 2412.04467, section 3.3): target plus mean of what is assigned to it.

    Targets are every floor(m / count)-th token from the first; every other token joins the target whose metric is most
    alike (cosine; ties to the lower target). As in the authors' code the result is the sum of the target and the mean
    of the others, not a mean of all; a target without others stays as it is.

    Args:
        features: [m, D], in raster order.
        metric: [m, E], compared by cosine.
        count: targets, at most m.

    Returns:
        [count, D].
    """
    count = min(count, len(features))
    if count == 0:
        return features[:0]
    targets, others = _targets_and_others(len(features), count, features.device)
    sums, sizes = sums_and_sizes(features[others], nearest(metric[others], metric[targets]), count)
    return (features[targets].float() + sums / sizes.clamp(min=1)).to(features.dtype)


@lru_cache(maxsize=256)
def _targets_and_others(total: int, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Every floor(total / count)-th of `total` numbers, `count` of them, and all others; not to be written to."""
    with torch.inference_mode(False):
        is_target = torch.zeros(total, dtype=torch.bool)
        is_target[torch.arange(count) * max(1, total // count)] = True
        return is_target.nonzero()[:, 0].to(device), (~is_target).nonzero()[:, 0].to(device)


def means_with_joined(states: Tensor, kept: Tensor) -> Tensor:
    """Kept rows as means of themselves and of the dropped rows that are most alike to them.

    Args:
        states: [n, D].
        kept: int64, [k], k >= 1, distinct rows; every other row joins one of them, as `nearest` says.

    Returns:
        [k, D] in the dtype of `states`.
    """
    unchosen = torch.ones(len(states), dtype=torch.bool, device=states.device).index_fill(0, kept, False)
    rest = states[rows_where(unchosen, len(states) - len(kept))]
    sums, sizes = sums_and_sizes(rest, nearest(rest, states[kept]), len(kept))
    return ((states[kept].float() + sums) / (1 + sizes)).to(states.dtype)


def add_nearest(
    features: Tensor, keys: Tensor, weights: Tensor, centres: Tensor, count: int = 32
) -> tuple[Tensor, Tensor]:
    """LLaVA-PruMerge's merging (arXiv 2403.15388): a centre plus the weighted sum of the rows that are most alike.

    Nothing is normalised, and a row may be added to several centres, other centres among them. As in the authors'
    code, P rows stand beside one another in any case: for each centre that repeats another one, the lowest row that is
    no centre takes no part, while the repeated one is there twice.

    Args:
        features: [P, D].
        keys: [P, E], compared by cosine; ties to the lower row.
        weights: float32, [P].
        centres: int64, [m], m <= P; they may repeat.
        count: rows added to each centre, fewer if there are fewer.

    Returns:
        float32, [m, D], and [D], the weighted sum of the rows that take part and are no centres.
    """
    total, number = len(features), len(centres)
    chosen = torch.zeros(total, dtype=torch.bool, device=centres.device).index_fill(0, centres, True)
    pool = torch.cat([centres, rows_where(chosen, total)[number:]])  # the others stand behind those chosen
    order = pool.argsort(dim=0, stable=True)
    pool, place = pool[order], order.argsort(dim=0)
    unit = normalize(keys.float(), dim=-1)
    alike = (unit[centres] @ unit[pool].T).nan_to_num(nan=torch.finfo(torch.float32).min)
    alike = alike.scatter(1, place[:number, None], -torch.inf)  # itself
    nearest_ones = alike.argsort(dim=1, descending=True, stable=True)[:, : min(count, total - 1)]
    added = torch.zeros_like(alike).scatter(1, nearest_ones, 1.0)
    parts = torch.cat([added, (order >= number).float()[None]]) * weights[pool]
    sums = parts @ features[pool].float()
    return features[centres].float() + sums[:-1], sums[-1]


def merge_by_anchors(
    states: Tensor, places: Tensor, anchors: Tensor, merged_position: MergedPosition = "anchor"
) -> Groups:
    """Groups rows around anchors and averages each group.

    Args:
        states: [R, D], in order of place.
        places: float, [R].
        anchors: int64, [Z], rows of `states`.
        merged_position: a merged row takes its anchor's place, the members' mean, or that mean rounded.
    """
    members = assign_to_anchors(states, anchors)
    merged = group_means(states, members, len(anchors)).to(states.dtype)
    if merged_position == "anchor":  # ascending already
        return Groups(merged, places[anchors], members)
    merged_places = group_means(places[:, None], members, len(anchors))[:, 0].to(places.dtype)
    merged_places = merged_places.round() if merged_position == "round" else merged_places
    order = merged_places.argsort(dim=0, stable=True)
    return Groups(merged[order], merged_places[order], order.argsort(dim=0)[members])
