"""Where each visual token comes from: counts at the real sizes, and the index maps against the models' own packing."""

from typing import Any

import pytest
import torch
from tiny_checkpoint import in_memory
from torch import nn

from swiftvlm_eval.models.adapter import UnsupportedModelError, adapter_for
from swiftvlm_eval.models.llava_next import LlavaNextAdapter
from swiftvlm_eval.testing.tiny_models import make_image, tiny_llava, tiny_llava_next

# (width, height), tiles (rows, columns), fine view without newlines (rows, columns), visual tokens
COUNTS = [
    ((640, 480), (2, 2), (36, 48), 2340),
    ((500, 375), (2, 2), (36, 48), 2340),
    ((1024, 768), (2, 2), (36, 48), 2340),
    ((480, 640), (2, 2), (48, 36), 2352),
    ((427, 640), (2, 2), (48, 32), 2160),
    ((640, 427), (2, 2), (32, 48), 2144),
    ((500, 500), (2, 2), (48, 48), 2928),
    ((1000, 400), (1, 3), (24, 60), 2040),
    ((400, 1000), (3, 1), (60, 24), 2076),
    ((336, 336), (1, 2), (24, 24), 1176),
]


@pytest.fixture(scope="module")
def real_size() -> LlavaNextAdapter:
    """336-pixel tiles of 24 x 24 patches and the five tilings of the checkpoints; only the widths are tiny."""
    adapter = adapter_for(tiny_llava_next(grid=24, layers=1)[0])
    assert isinstance(adapter, LlavaNextAdapter)
    return adapter


def sizes_of(*images: tuple[int, int]) -> dict[str, Any]:
    return {"image_sizes": torch.tensor([[height, width] for width, height in images])}


@pytest.mark.parametrize(("size", "tiling", "fine", "count"), COUNTS)
def test_next_token_counts(
    real_size: LlavaNextAdapter, size: tuple[int, int], tiling: tuple[int, int], fine: tuple[int, int], count: int
) -> None:
    (layout,) = real_size.layouts(sizes_of(size), [count])
    assert len(layout.patch) == count == 576 + fine[0] * (fine[1] + 1)
    assert layout.grids == ((24, 24), fine)
    # exact ties (small squares) may take either orientation; the count is the same
    assert layout.tilings in ((tiling,), (tiling[::-1],)) if size == (336, 336) else layout.tilings == (tiling,)
    assert int(layout.newline.sum()) == fine[0]


@pytest.mark.parametrize("size", [(480, 640), (1000, 400), (336, 336)])
def test_the_processor_makes_room_for_as_many_tokens(size: tuple[int, int]) -> None:
    checkpoint = in_memory("llava_next", grid=24, layers=1)
    inputs = checkpoint.encode(["USER: <image>\nWhy? ASSISTANT:"], [[make_image(*size)]])
    expected = next(count for known, _, _, count in COUNTS if known == size)
    assert int((inputs["input_ids"] == checkpoint.model.config.image_token_id).sum()) == expected
    (layout,) = checkpoint.adapter.layouts(inputs, [expected])
    assert len(layout.patch) == expected


@pytest.mark.parametrize(("size", "tiling", "fine", "count"), COUNTS)
def test_gathering_through_the_map_is_the_models_packing(
    real_size: LlavaNextAdapter, size: tuple[int, int], tiling: tuple[int, int], fine: tuple[int, int], count: int
) -> None:
    (layout,) = real_size.layouts(sizes_of(size), [count])
    tiles = torch.randn(1 + tiling[0] * tiling[1], 576, 64, generator=torch.Generator().manual_seed(0))
    core = real_size.core
    packed, _ = core.pack_image_features(
        [tiles], sizes_of(size)["image_sizes"], "default", image_newline=core.image_newline
    )
    gathered = tiles[layout.tile.clamp(min=0), layout.patch.clamp(min=0)]
    gathered[layout.newline] = core.image_newline
    assert torch.equal(gathered, packed[0])
    assert torch.equal(real_size.pack(tiles, layout.tilings[0], (size[1], size[0])), packed[0])


def test_rows_and_columns_of_a_cut_tile_map() -> None:
    """56 x 28 pixels in two tiles of 2 x 2 patches side by side: nothing is cut, so the map can be written down."""
    adapter = adapter_for(tiny_llava_next(grid=2, layers=1)[0])
    (layout,) = adapter.layouts(sizes_of((56, 28)), [4 + 2 * 5])
    assert layout.view.tolist() == [0] * 4 + [1] * 10
    assert layout.tile.tolist() == [0] * 4 + [1, 1, 2, 2, -1] * 2
    assert layout.patch.tolist() == [0, 1, 2, 3] + [0, 1, 0, 1, -1] + [2, 3, 2, 3, -1]
    assert layout.row.tolist() == [0, 0, 1, 1] + [0] * 5 + [1] * 5
    assert layout.column.tolist() == [0, 1, 0, 1] + [0, 1, 2, 3, 4] * 2


def test_samples_with_several_images_and_beams() -> None:
    adapter = adapter_for(tiny_llava_next(grid=2, layers=1)[0])
    images = sizes_of((56, 28), (28, 56), (56, 28))
    wide, tall = 4 + 2 * 5, 4 + 4 * 3
    first, second = adapter.layouts(images, [wide + tall, wide])
    assert (len(first.patch), len(second.patch)) == (wide + tall, wide)
    assert first.image.tolist() == [0] * wide + [1] * tall
    assert int(first.tile.max()) == 5 and first.tilings == ((1, 2), (2, 1))
    # tiles 0 to 2 are the first image's, 3 to 5 the second's; newline tokens of either lie on no tile
    assert first.tile[:wide].tolist() == [0] * 4 + [1, 1, 2, 2, -1] * 2
    assert first.tile[wide:].tolist() == [3] * 4 + [4, 4, -1] * 2 + [5, 5, -1] * 2
    assert first.patch[wide:].tolist() == [0, 1, 2, 3] + [0, 1, -1, 2, 3, -1] * 2
    assert first.view.tolist() == [0] * 4 + [1] * 10 + [2] * 4 + [3] * 12
    # beams repeat a sample's tokens, not its images
    beams = adapter.layouts(sizes_of((56, 28), (28, 56)), [wide, wide, tall, tall])
    assert [len(layout.patch) for layout in beams] == [wide, wide, tall, tall]


def test_what_does_not_add_up_is_refused() -> None:
    adapter = adapter_for(tiny_llava_next(grid=2, layers=1)[0])
    with pytest.raises(ValueError, match="13 visual tokens, but the images make 14"):
        adapter.layouts(sizes_of((56, 28)), [13])
    with pytest.raises(ValueError, match="image_sizes=None"):
        adapter.layouts({}, [14])
    with pytest.raises(ValueError, match="tiling"):
        adapter.pack(torch.zeros(3, 4, 64), None, None)
    with pytest.raises(ValueError, match="17 visual tokens: LLaVA-1.5 has 16"):
        adapter_for(tiny_llava(grid=4, layers=1)[0]).layouts({}, [17])


def test_llava_tokens_are_one_grid_in_raster_order() -> None:
    adapter = adapter_for(tiny_llava(grid=4, layers=1)[0])
    one, two = adapter.layouts({}, [16, 32])
    assert [(int(one.row[place]), int(one.column[place])) for place in (0, 3, 4, 15)] == [
        (0, 0),
        (0, 3),
        (1, 0),
        (3, 3),
    ]
    assert one.patch.tolist() == list(range(16)) and one.grids == ((4, 4),) and not one.newline.any()
    assert two.view.tolist() == [0] * 16 + [1] * 16 and two.patch.tolist() == list(range(16)) * 2
    tiles = torch.randn(2, 16, 64)
    assert torch.equal(adapter.pack(tiles, None, None), torch.cat([tiles[0], tiles[1]]))


@pytest.mark.parametrize("index", [-2, -1, 2])
def test_the_layer_whose_output_is_used(index: int) -> None:
    model, _ = tiny_llava(grid=4, layers=1, fresh=True)
    model.config.vision_feature_layer = index
    adapter = adapter_for(model)
    seen: list[torch.Tensor] = []
    adapter.tower.feature_layer.register_forward_hook(
        lambda module, args, output: seen.append(output[0] if isinstance(output, tuple) else output)
    )
    with torch.no_grad():
        states = adapter.tower.module(torch.randn(1, 3, 56, 56), output_hidden_states=True).hidden_states
    assert torch.equal(seen[0], states[index])


def test_several_feature_layers_are_refused() -> None:
    model, _ = tiny_llava(grid=4, layers=1, fresh=True)
    model.config.vision_feature_layer = [-2, -1]
    with pytest.raises(UnsupportedModelError, match=r"vision_feature_layer=\[-2, -1\]"):
        _ = adapter_for(model).tower.feature_layer


def test_the_decoder_is_described_as_configured() -> None:
    shape = adapter_for(tiny_llava(grid=4, layers=2, kv_heads=2)[0]).decoder.shape
    assert (shape.hidden_size, shape.intermediate_size, shape.num_layers, shape.num_heads) == (64, 128, 2, 4)
    assert shape.num_kv_heads == 2


def test_recommended_layers_come_from_the_configuration() -> None:
    model, _ = tiny_llava(grid=4, layers=4, fresh=True)
    assert adapter_for(model).recommended_layers == {}
    model.config.pruning_layers = {"swiftvlm": [1, 2, 3]}
    assert tuple(adapter_for(model).recommended_layers["swiftvlm"]) == (1, 2, 3)
    assert "fastv" not in adapter_for(model).recommended_layers


def test_other_models_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="model_type='Linear': allowed are llava, llava_next"):
        adapter_for(nn.Linear(1, 1))
