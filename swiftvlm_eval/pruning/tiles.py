"""Selection inside each encoder input ("tile") and the order in which what stays enters the decoder.

Methods that act between the vision tower and the decoder choose per tile. A count is one of the whole sample and is
spread evenly over its tiles, the first ones taking what is left over. The sequence, as in VisionZip's code (arXiv
2412.04467): the base view; then the patches of all further tiles in the raster order of the stitched image; then the
further tiles' rows that show no patch. Nothing is unpadded, and there are no newline rows.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from swiftvlm_eval.models.layout import VisualLayout
from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.words import Need, PositionRule
from swiftvlm_eval.pruning.work import PromptWork, StageWork, Work


@dataclass(frozen=True)
class TileRows:
    """What stays of one tile, before the projector or after it; D is the width there.

    Attributes:
        patches: int64, [k], patch numbers in the order in which they enter the decoder, those of a further tile being
            sorted; -1 shows no single patch, and stands behind all patches of the further tiles.
        states: [k, D], their rows.
        before: [b, D], rows of no patch that stand before them.
        after: [c, D], rows of no patch that stand after them.
    """

    patches: Tensor
    states: Tensor
    before: Tensor | None = None
    after: Tensor | None = None


def spread(count: int, parts: int) -> list[int]:
    """A count in even parts; the first ones take what is left over."""
    each, rest = divmod(count, parts)
    return [each + (part < rest) for part in range(parts)]


def tile_counts(signals: Signals, fewest: int = 1) -> list[int]:
    """How many patches of each tile the stage keeps.

    Raises:
        BudgetError: fewer than `fewest` of a tile, or more than it has.
    """
    layout, kept = signals.layout, signals.stage.kept
    if not fewest * layout.num_tiles <= kept <= layout.num_tiles * layout.side**2:
        raise BudgetError(
            f"{kept} rows of {layout.num_tiles} encoder inputs: allowed are {fewest} to {layout.side**2} of each"
        )
    return spread(kept, layout.num_tiles)


def patches_per_view(layout: VisualLayout, kept: int) -> list[int]:
    """How many patches of each view stay if every newline row does, for methods that choose on whole views.

    An image has the share of the rows that it has of the tokens, by largest remainder; its patches are spread over its
    encoder inputs, of which the base view is one and the fine view all others.

    Args:
        layout: of the sample.
        kept: rows of the sample, newline rows included.

    Raises:
        BudgetError: an image's share is less than its newline rows and one patch of each view.
    """
    images, found = len(layout.tilings), list[int]()
    tokens = layout.image.bincount(minlength=images).tolist()
    shares = [divmod(kept * count, sum(tokens)) for count in tokens]
    order = sorted(range(images), key=lambda image: -shares[image][1])  # stable: ties to the earlier image
    more = order[: kept - sum(share for share, _ in shares)]
    for image, tiling in enumerate(layout.tilings):
        own, first = shares[image][0] + (image in more), len(found)
        grids = layout.grids[first : first + (1 if tiling is None else 2)]
        newlines, views = tokens[image] - sum(map(math.prod, grids)), sum(math.prod(grid) > 0 for grid in grids)
        if own < newlines + views:
            raise BudgetError(
                f"{own} rows of an image: its {newlines} newline rows and {views} views need {newlines + views}; "
                f"allowed are {newlines + views} to {tokens[image]}"
            )
        base = spread(own - newlines, layout.tiles_per_image[image])[0]
        fine = min(own - newlines - base, sum(map(math.prod, grids[1:])))
        found += [own - newlines - fine, fine][: len(grids)]
    return found


def shows_every_patch(layout: VisualLayout) -> bool:
    """Whether the N tokens are the patches of the tiles, one tile after the other, and nothing else."""
    return all(tiling is None for tiling in layout.tilings)


def tile_states(signals: Signals) -> Tensor:
    """[T, P, hidden_size]: the projected row of every patch, those that the decoder's input leaves out included."""
    layout = signals.layout
    if shows_every_patch(layout):
        return signals.states.unflatten(0, (layout.num_tiles, layout.side**2))
    return signals.vision.project(signals.vision.features[:, 1:])


def states_of_tile(signals: Signals, tile: int) -> Tensor:
    """[P, hidden_size]: the projected row of every patch of one tile, see `tile_states`."""
    layout, patches = signals.layout, signals.layout.side**2
    if shows_every_patch(layout):
        return signals.states[tile * patches : (tile + 1) * patches]
    return signals.vision.project(signals.vision.features[tile, 1:])


def keep_patches(signals: Signals, patches: Sequence[Tensor]) -> RowEdit:
    """The edit that keeps patches, int64 [k] of each tile, ascending, as they are."""
    layout = signals.layout
    if shows_every_patch(layout):
        return signals.keep(torch.cat([own + tile * layout.side**2 for tile, own in enumerate(patches)]))
    features = signals.vision.features[:, 1:]
    return assemble(signals, [TileRows(own, features[tile][own]) for tile, own in enumerate(patches)])


def instead(signals: Signals, images: Sequence[Tensor]) -> RowEdit:
    """The edit that puts rows of no patch, [n, hidden_size] for each image, in the place where the image begins."""
    _, starts = _whereabouts(signals.layout, signals.places.device)
    places = [signals.places[start].expand(len(rows)) for start, rows in zip(starts, images, strict=True)]
    states = torch.cat([*images])
    edit = RowEdit(states, signals.index.new_full((len(states),), -1), torch.cat(places))
    return edit.sure("ascending", whole=True)


def assemble(signals: Signals, tiles: Sequence[TileRows], projected: bool = False) -> RowEdit:
    """The edit that puts the rows of all tiles into the decoder, image by image.

    Args:
        signals: of the sample, at the decoder's input.
        tiles: what stays of each tile.
        projected: whether the rows have gone through the projector.
    """
    layout = signals.layout
    number, starts = _whereabouts(layout, tiles[0].states.device)
    states, index, places, first = [], [], [], 0
    for image, count in enumerate(layout.tiles_per_image):
        start = signals.places[starts[image]]
        for tile, patch, rows in _in_sequence(tiles[first : first + count], layout.tilings[image], layout.side):
            states.append(rows)
            index.append(number[first + tile, patch])
            places.append(start.expand(len(rows)))
        first += count
    whole = torch.cat(states)
    edit = RowEdit(whole if projected else signals.vision.project(whole), torch.cat(index), torch.cat(places))
    return edit.sure("ascending", whole=True)


@lru_cache(maxsize=64)
def _whereabouts(layout: VisualLayout, device: torch.device) -> tuple[Tensor, list[int]]:
    """int64, [T, P + 1], the token of every patch, -1 where none shows it; and each image's first token.

    The last column answers for patch -1. Shared by all samples of a layout, so not to be written to.
    """
    with torch.inference_mode(False):
        number = torch.full((layout.num_tiles, layout.side**2 + 1), -1)
        shown = ~layout.newline
        number[layout.tile[shown], layout.patch[shown]] = shown.nonzero()[:, 0]
        images = range(len(layout.tilings))
        return number.to(device), [int((layout.image == image).nonzero()[0, 0]) for image in images]


def _in_sequence(
    tiles: Sequence[TileRows], tiling: tuple[int, int] | None, side: int
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(tile, patch, rows) of one image in sequence order; rows of no patch have the number -1."""

    def without_patch(rows: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        rows = tiles[0].states[:0] if rows is None else rows
        none = torch.full((len(rows),), -1, device=rows.device)
        return torch.zeros_like(none), none, rows

    base, further = tiles[0], tiles[1:]
    parts = [without_patch(base.before), (torch.zeros_like(base.patches), base.patches, base.states)]
    parts.append(without_patch(base.after))
    if tiling is None:
        return parts
    tile = torch.cat([torch.full_like(part.patches, number) for number, part in enumerate(further)])
    patch = torch.cat([part.patches for part in further])
    raster = ((tile // tiling[1]) * side + patch // side) * tiling[1] * side + tile % tiling[1] * side + patch % side
    order = raster.masked_fill(patch < 0, torch.iinfo(raster.dtype).max).argsort(dim=0, stable=True)
    parts.append((tile[order] + 1, patch[order], torch.cat([part.states for part in further])[order]))
    parts += [without_patch(part.before) for part in further]
    return parts + [without_patch(part.after) for part in further]


@dataclass(frozen=True, kw_only=True)
class PatchSelector(PruningMethod):
    """Base of methods that keep some patches of every tile as they are, before the decoder."""

    position_rule: ClassVar[PositionRule] = "compact"
    needs: ClassVar[frozenset[Need]] = frozenset({"cls_attention", "patch_features"})
    default_layers: ClassVar[tuple[int, ...]] = (0,)

    @abstractmethod
    def choose(self, signals: Signals, tile: int, count: int) -> Tensor:
        """int64, [count]: the patches of one tile that stay, ascending."""

    def select(self, signals: Signals) -> RowEdit:
        """Chooses in every tile."""
        if signals.stage.kept >= signals.num_visual:
            return signals.keep_all()
        counts = tile_counts(signals)
        return keep_patches(signals, [self.choose(signals, tile, count) for tile, count in enumerate(counts)])

    def compared(self, prompt: PromptWork, kept: int) -> Work:
        """What `choose` computes in all tiles beside CLS attention, where `kept` rows of the sample stay."""
        return Work()

    def work(self, prompt: PromptWork) -> Work:
        """CLS attention, what is compared, and the projector for what the decoder's input leaves out."""

        def of_stage(at: StageWork) -> Work:
            if at.stage.kept >= prompt.num_visual:
                return Work()
            found = self.compared(prompt, at.stage.kept)
            return prompt.cls_attention + found + prompt.projected_anew(at.stage.kept)

        return prompt.over_stages(of_stage)
