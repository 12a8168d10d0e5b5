"""What the vision tower showed of each sample: captured while the model encodes its images, read by those who ask."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, wraps
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from swiftvlm_eval.models.adapter import FamilyAdapter
from swiftvlm_eval.models.attention import attention_rows
from swiftvlm_eval.models.layout import VisualLayout
from swiftvlm_eval.models.tower_rows import EditRows, TowerRows, TowerRowsLoop


class TowerView:
    """The vision tower's view of one sample: T encoder inputs of P patches each, feature width D.

    Args:
        adapter: the model.
        layer_input: [T, 1 + P, D], what entered the feature layer, CLS first; None where nobody needs it.
        features: [T, 1 + P, D], the hidden states that feed the projector, CLS first.
        layout: the sample's layout.
        image_sizes: [images, 2], (height, width) in pixels, for families that pack by them.
        pixels: [T, 3, S, S], normalised, as the encoder saw them; None where nobody needs them.
        all_states: [T, 1 + P, D] before the first layer and after each one; None unless somebody needs them.
        edited: the rows of each encoder input that came out of the feature layer, where an edit changed them inside
            the tower; `features` are then padded, and None stands for no edits.
    """

    def __init__(
        self,
        adapter: FamilyAdapter,
        layer_input: Tensor | None,
        features: Tensor,
        layout: VisualLayout,
        image_sizes: Tensor | None,
        pixels: Tensor | None,
        all_states: Sequence[Tensor] | None = None,
        edited: Sequence[TowerRows] | None = None,
    ) -> None:
        self.adapter = adapter
        self._layer_input = layer_input
        self.features = features
        self.layout = layout
        self.image_sizes = image_sizes
        self._pixels = pixels
        self.all_states = all_states
        self.edited = edited

    @property
    def parts(self) -> dict[str, Any]:
        """What it was made of, by argument; everything else follows."""
        return {
            "adapter": self.adapter,
            "layer_input": self._layer_input,
            "features": self.features,
            "layout": self.layout,
            "image_sizes": self.image_sizes,
            "pixels": self._pixels,
            "all_states": self.all_states,
            "edited": self.edited,
        }

    @property
    def layer_input(self) -> Tensor:
        """[T, 1 + P, D], what entered the feature layer. Needs: `cls_attention`, `patch_keys` or `tower_states`."""
        return _kept(self._layer_input, "layer_input", "cls_attention, patch_keys or tower_states")

    @property
    def pixels(self) -> Tensor:
        """[T, 3, S, S], normalised, as the encoder saw them. Need: `pixels`."""
        return _kept(self._pixels, "pixels", "pixels")

    @property
    def feature_layer(self) -> int:
        """The 0-based layer whose output feeds the projector."""
        return self.adapter.tower.feature_number

    @property
    def num_layers(self) -> int:
        """Layers of the tower."""
        return len(self.adapter.tower.layers)

    def states(self, index: int) -> Tensor:
        """[T, 1 + P, D]: what `index` layers have made of the embeddings. Need: `tower_states`.

        Those that enter and leave the feature layer are there without it.
        """
        if index == self.feature_layer:
            return self.layer_input
        if index == self.feature_layer + 1:
            return self.features
        if self.all_states is None:
            raise RuntimeError(f"tower states {index}: declare the need tower_states")
        return self.all_states[index]

    def queries(self, layer: int, rows: slice = slice(None)) -> Tensor:
        """[T, heads, 1 + P, head_dim]: query projections of a layer, with bias, unscaled; of some `rows` only."""
        return self.adapter.tower.queries(layer, self._input(layer)[:, rows])

    def keys_of(self, layer: int) -> Tensor:
        """[T, heads, 1 + P, head_dim]: key projections of a layer, with bias, unscaled."""
        return self.keys if layer == self.feature_layer else self.adapter.tower.keys(layer, self._input(layer))

    @cached_property
    def keys(self) -> Tensor:
        """[T, heads, 1 + P, head_dim]: key projections of the feature layer, with bias, unscaled."""
        return self.adapter.tower.keys(self.feature_layer, self._input(self.feature_layer))

    @cached_property
    def cls_attention(self) -> Tensor:
        """float32, [T, heads, P]: attention of CLS to the patches in the feature layer, see `cls_attention_of`."""
        return self.cls_attention_of(self.feature_layer)

    def cls_attention_of(self, layer: int) -> Tensor:
        """float32, [T, heads, P]: attention of CLS to the patches in a layer, softmax over all 1 + P keys.

        Only the CLS row is computed, whatever the attention kernel.
        """
        pairs = zip(self.queries(layer, slice(1)), self.keys_of(layer), strict=True)
        return torch.stack([attention_rows(q, k)[:, 0, 1:] for q, k in pairs])

    def received_attention(self, layer: int) -> Tensor:
        """float32, [T, P]: attention that each patch receives in a layer, mean over heads and all 1 + P queries."""
        pairs = zip(self.queries(layer), self.keys_of(layer), strict=True)
        return torch.stack([attention_rows(q, k).mean(dim=(0, 1))[1:] for q, k in pairs])

    def _input(self, layer: int) -> Tensor:
        if self.edited is not None:
            raise RuntimeError("rows were edited inside the tower: queries and keys are shown to the edit alone")
        return self.states(layer)

    def project(self, features: Tensor) -> Tensor:
        """[n, D] vision features -> [n, hidden_size] decoder rows."""
        return self.adapter.tower.project(features)

    def pack(self, tiles: Tensor) -> list[Tensor]:
        """[T, g * g, hidden_size] -> rows per image."""
        images = tiles.split(list(self.layout.tiles_per_image))
        sizes = [None] * len(images) if self.image_sizes is None else self.image_sizes.tolist()
        return [
            self.adapter.pack(image, tiling, size)
            for image, tiling, size in zip(images, self.layout.tilings, sizes, strict=True)
        ]

    def in_order(self, tiles: Sequence[Tensor]) -> list[Tensor]:
        """Vision features [n, D] of each encoder input -> decoder rows per image, one input after the other.

        For features whose grid is lost: nothing is unpadded, and no row marks the end of a line.
        """
        starts = [sum(self.layout.tiles_per_image[:image]) for image in range(len(self.layout.tilings) + 1)]
        return [self.project(torch.cat([*tiles[start:end]])) for start, end in pairwise(starts)]


class TowerCapture:
    """Keeps what the vision tower showed in the pass that fed the current prefill."""

    def __init__(self, adapter: FamilyAdapter) -> None:
        self.adapter = adapter
        self.image_inputs: Mapping[str, Any] = {}
        self._seen: tuple[Tensor | None, Tensor] | None = None
        self._states: list[Tensor] = []
        self._pixels: Tensor | None = None
        self._layouts: tuple[tuple[int, ...], list[VisualLayout]] | None = None
        self._loop: TowerRowsLoop | None = None

    def install(
        self,
        resize: Callable[[Tensor], Tensor] | None = None,
        edit: EditRows | None = None,
        every_layer: bool = False,
    ) -> list[Any]:
        """Watches the encoder layer that feeds the projector; returns the hooks' handles.

        Args:
            every_layer: watch all of them.
            resize: changes the encoder's input. What comes out of a smaller input is stretched to the usual grid, so
                that the model finds as many features as placeholders; `signals` show it as it was.
            edit: changes rows between the tower's layers, see `TowerRowsLoop`.
        """

        def watch(module: Any, args: tuple[Any, ...], output: Any) -> None:
            self._seen = args[0], output[0] if isinstance(output, tuple) else output

        def watch_all(module: Any, args: tuple[Any, ...], output: Any) -> None:
            first = [args[0]] if module is tower.layers[0] else self._states
            self._states = [*first, output[0] if isinstance(output, tuple) else output]

        def shrink(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
            pixels = kwargs.pop("pixel_values", None)
            pixels, rest = (args[0], args[1:]) if pixels is None else (pixels, args)
            resized = resize(pixels) if resize else pixels
            self._pixels = resized
            if resized.shape != pixels.shape:
                kwargs["interpolate_pos_encoding"] = True
            return (resized, *rest), kwargs

        def stretch(module: Any, args: Any, output: Any) -> Any:
            side = self.adapter.tower.patches_per_side
            if output.hidden_states is not None:
                output.hidden_states = tuple(
                    states if states is None else _stretched(states, side) for states in output.hidden_states
                )
            return output

        tower = self.adapter.tower
        self._loop = None if edit is None else TowerRowsLoop(tower, edit)
        handles = [] if self._loop is None else self._loop.install()
        handles.append(tower.feature_layer.register_forward_hook(watch))
        handles += [layer.register_forward_hook(watch_all) for layer in tower.layers] if every_layer else []
        handles.append(tower.module.register_forward_pre_hook(shrink, with_kwargs=True))
        if resize is not None:
            handles.append(tower.module.register_forward_hook(stretch))
        return handles

    def watching(self, stock: Callable[..., Any]) -> Callable[..., Any]:
        """The core's `get_image_features`, in a form that notes what it is given."""

        @wraps(stock)
        def get_image_features(*args: Any, **kwargs: Any) -> Any:
            self.image_inputs = {"image_sizes": kwargs.get("image_sizes", args[1] if len(args) > 1 else None)}
            return stock(*args, **kwargs)

        return get_image_features

    def take(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A hook before the core's forward: images that the tower saw earlier stand for a pass of it now."""
        shown = getattr((kwargs.get("mm_encoder_outputs") or {}).get("image"), "shown", None)
        if shown is not None:
            self._seen, self._pixels, self._states = (shown.layer_input, shown.features), shown.pixels, shown.states
            self._layouts, self.image_inputs = None, {"image_sizes": shown.image_sizes}

    def forget(self) -> None:
        """Drops the captured tensors."""
        self._seen, self._pixels, self._layouts, self._states, self.image_inputs = None, None, None, [], {}
        if self._loop is not None:
            self._loop.forget()

    def owner(self, counts: Sequence[int], tile: int) -> tuple[int, int, int]:
        """Whose encoder input that is.

        Args:
            counts: visual tokens of every sample; where beams repeat a sample the tower sees it once.
            tile: number of the encoder input in the tower's pass.

        Returns:
            Number of the (first) sample, of the encoder input among the sample's own, and how many these are.
        """
        tiles = [self.layout(counts, sample).num_tiles for sample in range(len(counts))]
        copies = sum(tiles) // len(self._pixels) if self._pixels is not None else 1
        first = 0
        for sample in range(0, len(counts), copies):
            if tile < first + tiles[sample]:
                return sample, tile - first, tiles[sample]
            first += tiles[sample]
        raise IndexError(f"tile={tile}: the samples have {first} encoder inputs")

    def layout(self, counts: Sequence[int], number: int) -> VisualLayout:
        """The layout of one sample of a batch with those visual token counts."""
        if self._layouts is None or self._layouts[0] != tuple(counts):  # beams repeat the samples later
            self._layouts = tuple(counts), self.adapter.layouts(self.image_inputs, counts)
        return self._layouts[1][number]

    def signals(self, counts: Sequence[int], number: int) -> TowerView:
        """The tower's view of one sample."""
        if self._seen is None:
            raise RuntimeError("the vision tower has not run inside this prune() block")
        tiles = [self.layout(counts, sample).num_tiles for sample in range(len(counts))]
        copies = sum(tiles) // len(self._seen[1])  # beams repeat every sample after the tower has run
        start = sum(tiles[: number - number % copies : copies])
        part = slice(start, start + tiles[number])
        images = [len(self.layout(counts, sample).tilings) for sample in range(len(counts))]
        first = sum(images[: number - number % copies : copies])
        sizes = self.image_inputs.get("image_sizes")
        own = None if sizes is None else torch.as_tensor(sizes)[first : first + images[number]]
        before, after = self._seen
        edited = self._loop.features[part] if self._loop and self._loop.edited and self._loop.features else None
        layout = self.layout(counts, number)
        states = [layer[part] for layer in self._states] or None
        entered = before if before is not None or states is None else self._states[self.adapter.tower.feature_number]
        first_input, pixels = (None if given is None else given[part] for given in (entered, self._pixels))
        return TowerView(self.adapter, first_input, after[part], layout, own, pixels, states, edited)


def _kept(given: Tensor | None, name: str, needs: str) -> Tensor:
    if given is None:
        raise RuntimeError(f"{name}: not kept of images that the tower saw earlier; declare the need {needs}")
    return given


def _stretched(states: Tensor, side: int) -> Tensor:
    """[T, 1 + g * g, D] -> [T, 1 + side * side, D], every patch taken from the nearest one."""
    grid = math.isqrt(states.shape[1] - 1)
    if grid == side:
        return states
    nearest = torch.arange(side) * grid // side
    index = (nearest[:, None] * grid + nearest).flatten() + 1
    return states[:, torch.cat([torch.zeros(1, dtype=torch.int64), index]).to(states.device)]
