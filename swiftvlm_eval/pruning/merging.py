"""Merging of visual tokens as pure tensor functions: anchors, grouping, group means.

Everything is computed in float32 and without atomics, so that results do not depend on the device's scheduling.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

AnchorRule = Literal["strided", "top", "floor_step"]
MergedPosition = Literal["anchor", "mean", "round"]


class Groups(NamedTuple):
    """R tokens in Z groups, numbered in the order in which their merged rows stand in the sequence."""

    merged: Tensor  # [Z, D], group means in the dtype of the tokens
    positions: Tensor  # [Z], position ids of the merged rows, ascending
    members: Tensor  # int64, [R], group of each token


def choose_anchors(count: int, groups: int, rule: AnchorRule = "strided", scores: Tensor | None = None) -> Tensor:
    """Representatives of `groups` groups among `count` tokens given in order of position.

    Args:
        count: R, tokens to be grouped.
        groups: Z; more than R means every token on its own.
        rule: `strided` takes element floor((j + 0.5) R / Z); `top` the Z best-scored; `floor_step` every
            floor(R / Z)-th from the first.
        scores: [R], needed by `top`.

    Returns:
        int64, [min(Z, R)], ascending, distinct.

    Raises:
        ValueError: rule `top` without scores.
    """
    groups = min(groups, count)
    if rule == "top":
        if scores is None:
            raise ValueError("anchors=top: needs scores")
        return scores.float().argsort(dim=0, descending=True, stable=True)[:groups].sort().values
    steps = torch.arange(groups)
    if rule == "floor_step":
        return steps * max(1, count // max(groups, 1))
    return ((2 * steps + 1) * count).div(2 * max(groups, 1), rounding_mode="floor")


def assign_to_anchors(states: Tensor, anchors: Tensor) -> Tensor:
    """Puts every token into the group of the anchor with the highest cosine similarity; ties to the lower anchor.

    Args:
        states: [R, D].
        anchors: int64, [Z], rows of `states`; each anchor belongs to its own group.

    Returns:
        int64, [R], group numbers 0..Z-1.
    """
    unit = normalize(states.float(), dim=-1)
    groups = (unit @ unit[anchors].T).nan_to_num(nan=-torch.inf).argmax(dim=-1)
    groups[anchors] = torch.arange(len(anchors), device=groups.device)
    return groups


def group_means(states: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Arithmetic mean of the members of each group.

    Args:
        states: [R, D].
        groups: int64, [R], in 0..num_groups-1; no group is empty.
        num_groups: Z.

    Returns:
        float32, [Z, D].
    """
    membership = one_hot(groups, num_groups).T.float()
    return membership @ states.float() / membership.sum(dim=1, keepdim=True)


def merge_by_anchors(
    states: Tensor, positions: Tensor, anchors: Tensor, merged_position: MergedPosition = "anchor"
) -> Groups:
    """Groups tokens around anchors and averages each group.

    Args:
        states: [R, D], tokens in order of position.
        positions: float, [R].
        anchors: int64, [Z], rows of `states`.
        merged_position: a merged row takes its anchor's position id, the members' mean, or that mean rounded.
    """
    members = assign_to_anchors(states, anchors)
    merged = group_means(states, members, len(anchors)).to(states.dtype)
    places = positions[anchors]
    if merged_position != "anchor":
        places = group_means(positions[:, None], members, len(anchors))[:, 0].to(positions.dtype)
        places = places.round() if merged_position == "round" else places
    order = places.argsort(dim=0, stable=True)
    return Groups(merged[order], places[order], order.argsort(dim=0)[members])
