"""How far tokens that bypassed layers are from what the unpruned model made of them (arXiv 2602.03134, section 3.4).

A token that waited is given what the merged row of its group has gained meanwhile. Two controls say what that is
worth: the token as it was stored (no alignment), and the token moved by what a random other group gained.

Pure functions of states; everything is computed in float64.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

SIZE_CLASSES = ((1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, None))
"""Group sizes that are told together, first and last; None is open."""
ARMS = ("aligned", "stored", "other", "live")
"""What is compared with the unpruned model: waiting tokens aligned, as they were stored, moved by a random other
group; and tokens that did not wait, for scale."""


@dataclass(frozen=True)
class Waiting:
    """The R tokens that wait at one re-entry, and what the method made of them.

    Attributes:
        candidates: [N, hidden_size], all tokens as the method scores them: waiting ones aligned.
        index: int64, [R], which of them waited.
        stored: [R, hidden_size], as they were stored.
        members: int64, [R], the group of each, 0..Z-1; no group is empty.
    """

    candidates: Tensor
    index: Tensor
    stored: Tensor
    members: Tensor


@dataclass(frozen=True)
class Distances:
    """Distances from the unpruned model's states.

    Attributes:
        relative: float64, [n], length of the difference over the length of the unpruned state.
        cosine: float64, [n], cosine similarity.
    """

    relative: Tensor
    cosine: Tensor


def distances(states: Tensor, unpruned: Tensor) -> Distances:
    """Row by row.

    Args:
        states: [n, hidden_size].
        unpruned: [n, hidden_size].

    Raises:
        ValueError: a row that is not finite, or a row of zeros, which has no direction.
    """
    states, unpruned = states.double(), unpruned.double()
    own, length = states.norm(dim=1), unpruned.norm(dim=1)
    if not bool((own.isfinite() & length.isfinite() & (own > 0) & (length > 0)).all()):
        raise ValueError("states that are not finite, or zero: allowed are finite ones (try --dtype float32)")
    return Distances((states - unpruned).norm(dim=1) / length, (states * unpruned).sum(dim=1) / (own * length))


def group_offsets(waiting: Waiting) -> Tensor:
    """What each group gained, float64, [Z, hidden_size], read off its aligned tokens.

    Raises:
        ValueError: the tokens of a group did not gain the same; what the method did was another alignment.
    """
    gained = waiting.candidates[waiting.index].double() - waiting.stored.double()
    groups = int(waiting.members.max()) + 1
    sizes = torch.bincount(waiting.members, minlength=groups)
    if bool((sizes == 0).any()):
        raise ValueError("members: a group without tokens; allowed are groups numbered 0..Z-1, each with one at least")
    sums = gained.new_zeros((groups, gained.shape[1])).index_add_(0, waiting.members, gained)
    offsets = sums / sizes[:, None]
    rounding = 32 * torch.finfo(waiting.candidates.dtype).eps * float(waiting.candidates.abs().max())
    if float((gained - offsets[waiting.members]).abs().max()) > rounding:
        raise ValueError("alignment: tokens of one group were moved differently; allowed is one offset a group")
    return offsets


def other_groups(members: Tensor, groups: int, generator: torch.Generator) -> Tensor:
    """For every token another group than its own, drawn evenly; int64, [R].

    Raises:
        ValueError: there is no other group.
    """
    if groups < 2:
        raise ValueError(f"{groups} group: allowed are two or more, else there is no other one")
    drawn = torch.randint(groups - 1, (len(members),), generator=generator).to(members.device)
    return drawn + (drawn >= members)


def drift(waiting: Waiting, unpruned: Tensor, generator: torch.Generator) -> dict[str, Distances]:
    """Distances of the aligned tokens, of both controls, and of tokens that did not wait.

    Args:
        waiting: of one sample at one re-entry.
        unpruned: [N, hidden_size], at the same boundary.
        generator: draws the other group.

    Returns:
        By `ARMS`; `other` is not there if all tokens form one group, `live` if all waited.

    Raises:
        ValueError: as `distances` and `group_offsets`.
    """
    index, offsets = waiting.index, group_offsets(waiting)
    found = {
        "aligned": distances(waiting.candidates[index], unpruned[index]),
        "stored": distances(waiting.stored, unpruned[index]),
    }
    if len(offsets) > 1:
        other = offsets[other_groups(waiting.members, len(offsets), generator)]
        found["other"] = distances(waiting.stored.double() + other, unpruned[index])
    alive = torch.ones(len(unpruned), dtype=torch.bool, device=unpruned.device).index_fill(0, index, False)
    if bool(alive.any()):
        found["live"] = distances(waiting.candidates[alive], unpruned[alive])
    return found


def size_class(size: int) -> str:
    """`3-4` for a group of three or four.

    Raises:
        ValueError: no group is smaller than one.
    """
    for first, last in SIZE_CLASSES:
        if size >= first and (last is None or size <= last):
            return f"{first}+" if last is None else str(first) if first == last else f"{first}-{last}"
    raise ValueError(f"size={size}: allowed are whole numbers from 1")


def by_group_size(found: Mapping[str, Distances], members: Tensor) -> list[dict[str, str | int | float]]:
    """Means over the tokens of one sample, for each arm and class of group sizes, and over all sizes (`all`).

    Args:
        found: of `drift`.
        members: int64, [R]; an aligned token's group has as many members as waited together.

    Returns:
        Dicts with `arm`, `size`, `tokens`, `relative` and `cosine`; `live` has only the size `all`.
    """
    sizes = torch.bincount(members)[members].tolist()
    classes = [size_class(size) for size in sizes]
    rows: list[dict[str, str | int | float]] = []
    for arm in (arm for arm in ARMS if arm in found):
        parts = {"all": list(range(len(found[arm].relative)))}
        if arm != "live":
            for token, name in enumerate(classes):
                parts.setdefault(name, []).append(token)
        for name, tokens in parts.items():
            relative, cosine = (float(values[tokens].mean()) for values in (found[arm].relative, found[arm].cosine))
            rows.append({"arm": arm, "size": name, "tokens": len(tokens), "relative": relative, "cosine": cosine})
    return rows
