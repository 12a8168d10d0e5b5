"""Checks of the reference itself: against the stock library where nothing is pruned, by hand where something is."""

import functools
import math
from typing import Any

import pytest
import torch
from reference.downsampling import adaptive_mean, downsampling
from reference.feather import feather_fill, feather_union, fill, uniform_indices, union
from reference.full_length import Row, Run, State, last_row_scores, rotate, top
from reference.pyramid_drop import geometric_counts, pyramid_drop
from reference.single_stage import fastv, random_drop, vanilla
from reference.sparsevlm import (
    density_peak_clusters,
    gravity,
    recycled_counts,
    sparsevlm,
    sparsevlm_plus,
    sparsevlm_rank_adaptive,
    text_raters,
)
from reference.swiftvlm import Options, Stages, anchor_positions, group_by_cosine, swiftvlm
from reference.vision import best_tiling, clip_layers, pack, start_state, tiles, visual_tokens
from reference.visionzip import target_places, visionzip
from torch import Tensor, nn
from transformers import DynamicCache

from swiftvlm_eval.testing.tiny_models import make_image, make_inputs, tiny_llava, tiny_llava_next

TOLERANCE = 1e-4
CASES = {
    "llava": lambda: tiny_llava(),
    "llava-gqa-eager-64": lambda: tiny_llava(grid=8, kv_heads=2, attn="eager"),
    "next": lambda: tiny_llava_next(),
    "next-mistral-gqa": lambda: tiny_llava_next(language="mistral", kv_heads=2),
}


class Case:
    """A tiny model, one prompt, and what the stock library answers."""

    def __init__(self, name: str) -> None:
        self.model, processor = CASES[name]()
        self.inputs = make_inputs(processor, make_image(80, 50, seed=3))
        with torch.no_grad():
            out = self.model.generate(
                **self.inputs,
                max_new_tokens=5,
                min_new_tokens=5,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        self.generated = out.sequences[0, -5:-1].tolist()
        self.logits = torch.cat(out.logits)
        self.visual = int((self.inputs["input_ids"] == self.model.config.image_token_id).sum())
        self.prompt = self.inputs["input_ids"].shape[1]

    @property
    def arguments(self) -> tuple[Any, Any, list[int]]:
        return self.model, self.inputs, self.generated


case = functools.lru_cache(Case)


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


def keep_all_runs(made: Case) -> dict[str, Run]:
    n, arguments = made.visual, made.arguments
    stages: dict[str, Any] = {"boundaries": [3, 10, 14], "selected": [n, n, n], "merged": [4, 4]}
    return {
        "vanilla": vanilla(*arguments),
        "random": random_drop(*arguments, kept_indices=range(n), boundary=2),
        "fastv": fastv(*arguments, boundary=2, count=n),
        "pdrop": pyramid_drop(*arguments, boundaries=[4, 8, 12], counts=[n, n, n]),
        "pdrop-keep": pyramid_drop(*arguments, boundaries=[4, 8, 12], counts=[n, n, n], positions="keep"),
        "feather": feather_fill(*arguments, boundaries=(8, 12), counts=(n, n), stride=3),
        "sparsevlm+": sparsevlm_plus(*arguments, boundaries=[3, 7], counts=[n, n], heads=2),
        "swiftvlm": swiftvlm(*arguments, **stages),
        "swiftvlm-full": swiftvlm(*arguments, **stages, options=Options(scope="full", anchors="top")),
        "swiftvlm-select": swiftvlm(*arguments, **stages, options=Options(parts="select")),
        "swiftvlm-merge": swiftvlm(*arguments, **stages, options=Options(parts="select+merge")),
    }


@pytest.mark.parametrize("name", CASES)
def test_keep_all_gives_the_stock_logits_of_prefill_and_decode(name: str) -> None:
    made = case(name)
    assert made.logits.std() > 0.5
    for method, run in keep_all_runs(made).items():
        assert (run.logits - made.logits).abs().max() < TOLERANCE, method
        assert run.visual_rows() == [made.visual] * 16, method
        assert run.prompt_positions[-1] == tuple(range(made.prompt)), method
        assert run.generated_positions[-1] == tuple(range(made.prompt, made.prompt + 4)), method


@pytest.mark.parametrize("name", CASES)
def test_hidden_states_at_each_boundary_are_those_of_the_stock_model(name: str) -> None:
    made = case(name)
    stock = made.model(**made.inputs, output_hidden_states=True).hidden_states
    run = vanilla(*made.arguments)
    for boundary in range(16):
        difference = (run.boundaries[boundary] - stock[boundary][0]).abs().max()
        assert difference < TOLERANCE * stock[boundary].std()


def test_fastv_scores_are_the_stock_attention_map_of_the_layer_before_the_boundary() -> None:
    made = case("llava-gqa-eager-64")
    maps = made.model(**made.inputs, output_attentions=True).attentions
    slots = (made.inputs["input_ids"][0] == made.model.config.image_token_id).nonzero()[:, 0]
    for boundary in (1, 2, 9):
        expected = maps[boundary - 1][0, :, -1].mean(dim=0)[slots]
        run = fastv(*made.arguments, boundary=boundary, count=20)
        assert (run.scores[0] - expected).abs().max() < 1e-5
        assert run.kept_indices[0] == sorted(expected.topk(20).indices.tolist())


def test_clip_layers_are_those_of_the_stock_tower() -> None:
    made = case("llava-gqa-eager-64")
    tower = made.model.model.vision_tower
    stock = tower(made.inputs["pixel_values"], output_hidden_states=True, output_attentions=True)
    layers = clip_layers(tower, tiles(made.inputs)[0])
    for number, layer in enumerate(layers):
        assert (layer.before - stock.hidden_states[number][0]).abs().max() < 1e-5
        assert (layer.after - stock.hidden_states[number + 1][0]).abs().max() < 1e-5
        assert (layer.attention - stock.attentions[number][0]).abs().max() < 1e-5
    small = nn.functional.interpolate(made.inputs["pixel_values"], size=70, mode="bilinear")
    stock = tower(small, output_hidden_states=True, interpolate_pos_encoding=True)
    layers = clip_layers(tower, small[0], interpolate=True)
    assert (layers[-1].after - stock.hidden_states[-1][0]).abs().max() < 1e-5


@pytest.mark.parametrize("size", [(80, 50), (50, 120), (300, 40), (56, 56), (130, 101)])
def test_packing_of_next_is_that_of_the_stock_model(size: tuple[int, int]) -> None:
    model, processor = tiny_llava_next()
    inputs = make_inputs(processor, make_image(*size))
    stock = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).pooler_output[0]
    assert (visual_tokens(model, inputs) - stock).abs().max() < TOLERANCE
    packing = pack(model, inputs["image_sizes"][0].tolist(), 4)
    assert packing.entries.count(None) == len(packing.grids[1])
    assert packing.entries[:16] == [(0, patch) for patch in range(16)]


def test_best_tiling_by_hand() -> None:
    pinpoints = [(672, 672), (336, 672), (672, 336), (336, 1008), (1008, 336)]
    assert best_tiling(480, 640, pinpoints) == (672, 672)  # keeps all 307200 pixels, (336, 672) only 448 x 336
    assert best_tiling(200, 600, pinpoints) == (336, 672)  # both keep all pixels, this one wastes the fewest
    assert best_tiling(1000, 300, pinpoints) == (1008, 336)


def additive_mask(rows: int, masked: list[int]) -> Tensor:
    """Causal mask in which no row but themselves sees the masked ones; (1, 1, rows, rows)."""
    seen = torch.ones(rows, rows).tril().bool()
    seen[:, masked] = False
    seen |= torch.eye(rows).bool()
    return torch.zeros(rows, rows).masked_fill(~seen, -1e30)[None, None]


@pytest.mark.parametrize("name", ["llava", "next-mistral-gqa"])
def test_dropping_with_kept_positions_is_masking_in_a_full_length_stock_run(name: str) -> None:
    made = case(name)
    run = fastv(*made.arguments, boundary=3, count=5)
    decoder = made.model.model.language_model
    start = start_state(made.model, made.inputs)
    dropped = [p for p in start.visual if start.rows[p].index not in run.kept_indices[0]]
    hidden = torch.cat([start.hidden, decoder.embed_tokens(torch.tensor(made.generated))])[None]
    rows = hidden.shape[1]
    rope = decoder.rotary_emb(hidden, torch.arange(rows)[None])
    for number, layer in enumerate(decoder.layers):
        mask = additive_mask(rows, dropped if number >= 3 else [])
        hidden = layer(hidden, attention_mask=mask, position_embeddings=rope)
    logits = made.model.lm_head(decoder.norm(hidden[0, made.prompt - 1 :]))
    assert (run.logits - logits).abs().max() < TOLERANCE
    assert (run.logits - made.logits).abs().max() > 0.1
    assert run.visual_rows() == [made.visual] * 3 + [5] * 13


def test_pdrop_is_a_stock_cached_decode_with_shifted_positions_per_layer() -> None:
    made = case("llava")
    run = pyramid_drop(*made.arguments, boundaries=[4, 8, 12], counts=[8, 4, 2])
    decoder = made.model.model.language_model
    cache = DynamicCache(config=decoder.config)
    start = start_state(made.model, made.inputs)
    rows, hidden = list(start.rows), start.hidden[None]
    dropped_before = []
    for number, layer in enumerate(decoder.layers):
        if number in (4, 8, 12):
            kept = run.kept_indices[number // 4 - 1]
            places = [p for p, row in enumerate(rows) if row.kind == "text" or row.index in kept]
            rows, hidden = [rows[p] for p in places], hidden[:, places]
        dropped_before.append(made.prompt - len(rows))
        rope = decoder.rotary_emb(hidden, torch.arange(len(rows))[None])
        mask = additive_mask(len(rows), [])
        hidden = layer(hidden, attention_mask=mask, position_embeddings=rope, past_key_values=cache)
    logits = [made.model.lm_head(decoder.norm(hidden[0, -1]))]
    for step, token in enumerate(made.generated):
        hidden = decoder.embed_tokens(torch.tensor([[token]]))
        for number, layer in enumerate(decoder.layers):
            position = made.prompt + step - dropped_before[number]
            rope = decoder.rotary_emb(hidden, torch.tensor([[position]]))
            hidden = layer(hidden, position_embeddings=rope, past_key_values=cache)
        logits.append(made.model.lm_head(decoder.norm(hidden[0, -1])))
    assert dropped_before == [0] * 4 + [8] * 4 + [12] * 4 + [14] * 4
    assert (run.logits - torch.stack(logits)).abs().max() < TOLERANCE


def test_compact_drop_before_the_decoder_is_a_stock_run_on_the_shorter_prompt() -> None:
    made = case("next")
    kept = [0, 3, 17, 21, 43]
    run = random_drop(*made.arguments, kept_indices=kept, boundary=0, reindex=True)
    start = start_state(made.model, made.inputs)
    places = [p for p, row in enumerate(start.rows) if row.kind == "text" or row.index in kept]
    answer = made.model.model.language_model.embed_tokens(torch.tensor(made.generated))
    embeds = torch.cat([start.hidden[places], answer])[None]
    stock = made.model(inputs_embeds=embeds).logits[0, len(places) - 1 :]
    assert (run.logits - stock).abs().max() < TOLERANCE
    assert run.kept_indices == [kept]


def test_score_layers_stand_where_each_method_says() -> None:
    """Zero queries make scores uniform: only in the layer whose projections a method reads."""
    made = case("llava")
    methods: dict[str, Any] = {
        "fastv": (4, 3, lambda m: fastv(m, made.inputs, boundary=4, count=5)),
        "pdrop": (4, 4, lambda m: pyramid_drop(m, made.inputs, boundaries=[4], counts=[5])),
        "feather": (4, 3, lambda m: feather_fill(m, made.inputs, boundaries=(4, 8), counts=(9, 3), stride=3)),
        "sparsevlm": (4, 3, lambda m: sparsevlm(m, made.inputs, boundaries=[4], counts=[5])),
        "swiftvlm x": (4, 3, lambda m: swiftvlm(m, made.inputs, boundaries=[4], selected=[5], merged=[])),
    }
    for name, (boundary, reads, method) in methods.items():
        for layer in (boundary - 1, boundary):
            model, _ = tiny_llava(fresh=True)
            model.model.language_model.layers[layer].self_attn.q_proj.weight.zero_()
            spread = float(method(model).scores[0].std())
            assert (spread < 1e-7) == (layer == reads), (name, layer, spread)
    for layer in (9, 10):
        model, _ = tiny_llava(fresh=True)
        model.model.language_model.layers[layer].self_attn.q_proj.weight.zero_()
        run = swiftvlm(model, made.inputs, boundaries=[3, 10], selected=[8, 5], merged=[4])
        assert (float(run.scores[1].std()) < 1e-7) == (layer == 10)


def test_feather_scores_ignore_positions_and_rotary_scores_only_their_common_shift() -> None:
    made = case("llava")
    state = start_state(made.model, made.inputs)
    decoder = made.model.model.language_model
    shifted = State(state.rows, state.hidden, tuple(p + 7 for p in state.positions), 0)
    spread = State(state.rows, state.hidden, tuple(p * 3 for p in state.positions), 0)

    def scores(of: State, rope: bool) -> Tensor:
        return last_row_scores(decoder, 2, of, of.visual, scope="visual", rope=rope)

    assert torch.equal(scores(state, False), scores(spread, False))
    assert torch.allclose(scores(state, True), scores(shifted, True), atol=1e-6)
    assert not torch.allclose(scores(state, True), scores(spread, True), atol=1e-3)
    assert torch.allclose(scores(state, True).sum(), torch.tensor(1.0))


def test_top_sends_ties_to_the_lower_index() -> None:
    assert top(3, torch.tensor([0.1, 0.5, 0.5, 0.2, 0.5])) == [1, 2, 4]
    assert top(4, torch.tensor([0.1, 0.5, 0.5, 0.2, 0.5])) == [1, 2, 4, 3]
    with pytest.raises(ValueError, match="count is 6"):
        top(6, torch.zeros(5))


def test_rotary_embedding_by_hand() -> None:
    decoder = case("llava").model.model.language_model
    turned = rotate(decoder, torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), [0.0, math.pi / 2, math.pi / 2])
    assert torch.allclose(turned, torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), atol=1e-6)


def test_pdrop_counts_by_hand() -> None:
    assert geometric_counts(576, [0.25, 0.25**2, 0.25**3]) == [144, 36, 9]
    assert geometric_counts(576, [0.5, 0.25, 0.125]) == [288, 144, 72]
    assert geometric_counts(576, [0.19, 0.19**2, 0.19**3]) == [109, 20, 3]


def test_feather_grid_and_union_by_hand() -> None:
    grid = [[[row * 24 + column for column in range(24)] for row in range(24)]]
    uniform = uniform_indices(grid, 3)
    assert len(uniform) == 64 and uniform[:9] == [0, 3, 6, 9, 12, 15, 18, 21, 72]
    assert len(uniform_indices(grid, 4)) == 36
    inside, outside = torch.zeros(576), torch.ones(576)
    inside[uniform] = 1.0
    outside[uniform] = 0.0
    assert int(576 * 0.3) == 172
    assert len(union(inside, uniform, 172)) == 172
    assert len(union(outside, uniform, 172)) == 236
    kept = fill(outside, uniform, 144)
    assert len(kept) == 144 and set(uniform) < set(kept)
    # all others tie, so the first 80 of them are taken
    others = [index for index in range(576) if index % 24 % 3 or index // 24 % 3]
    assert sorted(set(kept) - set(uniform)) == others[:80]


def captured(module: nn.Module, call: Any) -> Tensor:
    """Output of a module during the call, batch dimension taken off."""
    seen: list[Tensor] = []
    handle = module.register_forward_hook(lambda _module, _arguments, output: seen.append(output[0]))
    call()
    handle.remove()
    return seen[0]


def test_feather_scores_from_projections_of_the_stock_run() -> None:
    made = case("llava-gqa-eager-64")
    visual = made.inputs["input_ids"][0] == made.model.config.image_token_id
    attention = made.model.model.language_model.layers[4].self_attn
    query = captured(attention.q_proj, lambda: made.model(**made.inputs))[-1].reshape(4, 16)
    key = captured(attention.k_proj, lambda: made.model(**made.inputs))[visual].reshape(64, 2, 16)
    logits = torch.einsum("hd,nhd->hn", query, key.repeat_interleave(2, dim=1)) / 4
    run = feather_fill(*made.arguments, boundaries=(5, 9), counts=(20, 6), stride=3)
    assert torch.allclose(run.scores[0], logits.softmax(dim=1).mean(dim=0), atol=1e-5)


def test_feather_stages_on_a_model() -> None:
    made = case("llava-gqa-eager-64")
    run = feather_fill(*made.arguments, boundaries=(3, 9), counts=(20, 6), stride=3)
    assert run.visual_rows() == [64] * 3 + [20] * 6 + [6] * 7
    assert {0, 3, 6, 24, 27, 30, 48, 51, 54} <= set(run.kept_indices[0])
    assert set(run.kept_indices[1]) < set(run.kept_indices[0])
    run = feather_union(*made.arguments, boundaries=(3, 9), keep_ratio=0.3, stride=3)
    first = len(run.kept_indices[0])
    assert 19 <= first <= 28 and len(run.kept_indices[1]) == int(first * 0.09)
    grids = pack(case("next").model, case("next").inputs["image_sizes"][0].tolist(), 4).grids
    uniform = uniform_indices(grids, 2)
    # 80 x 50 on two tiles: base 4 x 4, then a 4 x 6 grid of rows of 6 tokens and a newline
    assert [len(line) for line in grids[1]] == [6] * 4
    assert uniform == [0, 2, 8, 10, 16, 18, 20, 30, 32, 34]


@pytest.mark.parametrize(
    ("counts", "after"),
    [((300, 200, 110), (309, 204, 113)), ((303, 110, 36), (312, 117, 39)), ((66, 30, 17), (82, 32, 18))],
)
def test_recycled_counts_follow_the_published_chain(counts: tuple[int, ...], after: tuple[int, ...]) -> None:
    current = 576
    for count, expected in zip(counts, after, strict=True):
        current = count + recycled_counts(current - count)[1]
        assert current == expected


def test_density_peak_clusters_by_hand() -> None:
    points = torch.tensor([[0.0], [1.0], [10.0], [12.0]])
    # densities e^-.5, e^-.5, e^-2, e^-2; the earlier of an equal pair is the denser one, so deltas are 12, 1, 9, 2
    assert density_peak_clusters(points, 2) == [[0, 1], [2, 3]]
    assert density_peak_clusters(points.flip(0), 2) == [[2, 3], [0, 1]]
    assert density_peak_clusters(points, 1) == [[0, 1, 2, 3]]
    # gammas 3.64, .61, .13, .09: the closest pair gives both centres, and the earlier of it is the first one
    assert density_peak_clusters(torch.tensor([[0.0], [1.0], [3.4], [6.0]]), 2) == [[0], [1, 2, 3]]


def test_text_raters_by_hand() -> None:
    rows = (Row("text", 0), Row("visual", 0), Row("visual", 1), Row("text", 3), Row("text", 4), Row("text", 5))
    hidden = torch.tensor([[9.0, 9.0], [1.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 5.0], [0.1, 0.0]])
    # each image row gives softmax(2, 0, 0.1) = .79, .11, .12 to the text; the system prompt takes no part
    assert text_raters(State(rows, hidden, tuple(range(6)), 6)) == [3]
    equal = torch.ones(6, 2)
    assert text_raters(State(rows, equal, tuple(range(6)), 6)) == [3, 4, 5]


def test_gravity_is_the_sum_of_cosines_of_the_distance() -> None:
    made = case("llava")
    state = start_state(made.model, made.inputs)
    matrix = gravity(made.model.model.language_model, state, [30, 33], [10, 12])
    frequencies = [10000 ** (-i / 8) for i in range(8)]
    for row, query in enumerate([30, 33]):
        for column, key in enumerate([10, 12]):
            expected = sum(2 * math.cos((query - key) * f) for f in frequencies) / 4
            assert float(matrix[row, column]) == pytest.approx(expected, abs=1e-4)


def test_sparsevlm_rows_and_positions_on_576_tokens() -> None:
    model, processor = tiny_llava(grid=24, layers=17)
    inputs = make_inputs(processor, make_image(90, 70))
    run = sparsevlm(model, inputs, [5, 6], boundaries=[3, 7, 16], counts=[300, 200, 110])
    text = inputs["input_ids"].shape[1] - 576
    assert run.visual_rows() == [576] * 3 + [309] * 4 + [204] * 9 + [113]
    assert run.prompt_positions[16] == tuple(range(113 + text))
    assert [run.generated_positions[layer] for layer in (2, 3, 16)] == [
        (576.0 + text, 577.0 + text),
        (309.0 + text, 310.0 + text),
        (113.0 + text, 114.0 + text),
    ]
    first = [merged for merged in run.merged if merged.boundary == 3]
    assert len(first) == 9 and sum(len(merged.members) for merged in first) == int(0.3 * 276) + 1
    for merged in first:
        assert not set(merged.members) & set(run.kept_indices[0])
        assert torch.allclose(merged.vector, run.outputs[2][_places(run, 3, merged.members)].mean(0), atol=1e-4)


def _places(run: Run, boundary: int, visual: Any) -> list[int]:
    return [run.rows[boundary - 1].index(Row("visual", index)) for index in visual]


def test_sparsevlm_scores_and_candidates_from_the_stock_attention_map() -> None:
    made = case("llava-gqa-eager-64")
    attention = made.model(**made.inputs, output_attentions=True).attentions[2][0]
    visual = (made.inputs["input_ids"][0] == made.model.config.image_token_id).nonzero()[:, 0].tolist()
    run = sparsevlm(*made.arguments, boundaries=[3], counts=[20])
    rows = attention[:, run.raters][:, :, visual]
    expected = rows.mean(dim=(0, 1))
    assert (run.scores[0] - expected).abs().max() < 1e-5
    order = expected.argsort(descending=True).tolist()
    assert run.kept_indices[0] == sorted(order[:20])
    # 44 are dropped, int(13.2) + 1 = 14 of them are candidates for int(1.4) + 1 = 2 clusters
    assert sorted(member for merged in run.merged for member in merged.members) == sorted(order[20:34])
    assert len(run.merged) == 2
    frequencies = [10000 ** (-i / 8) for i in range(8)]
    pull = [[sum(math.cos((q - k) * f) for f in frequencies) / 2 for k in visual] for q in run.raters]
    weighed = rows / torch.tensor(pull)
    heads = weighed.sum(dim=(1, 2)).topk(2).indices
    plus = sparsevlm_plus(*made.arguments, boundaries=[3], counts=[20], heads=2)
    assert torch.allclose(plus.scores[0], weighed[heads].mean(dim=(0, 1)), rtol=1e-3, atol=1e-6)
    assert plus.merged == [] and plus.prompt_positions[15][-1] == made.prompt - 1


def test_sparsevlm_rank_adaptive_counts() -> None:
    made = case("llava")
    run = sparsevlm_rank_adaptive(*made.arguments, boundaries=[3], scale=0.5, bias=1)
    # the matrix of raters x 16 tokens has as many independent rows as there are raters
    assert 0 < len(run.raters) < 16
    assert len(run.kept_indices[0]) == int(len(run.raters) * 0.5 + 1)
    run = sparsevlm_rank_adaptive(*made.arguments, boundaries=[3], scale=100, bias=0)
    assert len(run.kept_indices[0]) == 15 and run.visual_rows()[3] == 16


@pytest.mark.parametrize(
    ("rest", "contextual", "step", "last"), [(415, 30, 13, 377), (469, 20, 23, 437), (523, 10, 52, 468)]
)
def test_visionzip_targets_by_hand(rest: int, contextual: int, step: int, last: int) -> None:
    places = target_places(rest, contextual)
    assert len(places) == contextual and places[:2] == [0, step] and places[-1] == last


def test_visionzip_on_llava() -> None:
    made = case("llava-gqa-eager-64")
    run = visionzip(*made.arguments, dominant=10, contextual=4)
    tower = made.model.model.vision_tower
    stock = tower(made.inputs["pixel_values"], output_hidden_states=True, output_attentions=True)
    best = stock.attentions[-2][0, :, 0, 1:].sum(dim=0).topk(9).indices
    assert run.kept_indices[0] == sorted(best.tolist())
    assert run.sources[0] == ("cls", 0) and [s[0] for s in run.sources[-4:]] == ["merged"] * 4
    assert run.visual_rows() == [14] * 16
    assert sum(len(merged.members) for merged in run.merged) == 65 - 10
    features = stock.hidden_states[-2][0, 1:]
    keys = captured(tower.encoder.layers[-2].self_attn.k_proj, lambda: tower(made.inputs["pixel_values"]))[1:]
    metric = nn.functional.normalize(keys.reshape(64, 4, 8).mean(dim=1), dim=1)
    targets = [merged.members[0][1] for merged in run.merged]
    for number, merged in enumerate(run.merged):
        for _, patch in merged.members[1:]:
            assert int((metric[targets] @ metric[patch]).argmax()) == number
    for merged in run.merged:
        (_, target), *others = merged.members
        expected = features[target] + (features[[p for _, p in others]].mean(0) if others else 0)
        assert torch.allclose(merged.vector, expected, atol=1e-4)
    embeds = torch.cat([run.boundaries[0], made.model.get_input_embeddings()(torch.tensor(made.generated))])
    logits = made.model(inputs_embeds=embeds[None]).logits[0, -5:]
    assert (run.logits - logits).abs().max() < TOLERANCE


def test_visionzip_on_next_has_no_newlines_and_reads_the_stitched_grid() -> None:
    made = case("next")
    run = visionzip(*made.arguments, dominant=5, contextual=2)
    assert [s[0] for s in run.sources[:7]] == ["cls"] + ["patch"] * 4 + ["merged"] * 2
    rest = run.sources[7:]
    assert [s[0] for s in rest] == ["patch"] * 8 + ["cls"] * 2 + ["merged"] * 4
    assert [s[1] for s in rest[8:]] == [1, 2, 1, 1, 2, 2]
    # two tiles side by side: raster order of the stitched grid is by row, then tile, then column
    order = [(patch // 4, tile, patch % 4) for _, tile, patch in rest[:8]]
    assert order == sorted(order)
    assert run.visual_rows() == [3 * 7] * 16


@pytest.mark.parametrize(
    ("rest", "groups", "rule", "expected"),
    [
        (10, 3, "strided", [1, 5, 8]),
        (4, 2, "strided", [1, 3]),
        (10, 3, "floor-step", [0, 3, 6]),
        (5, 2, "top", [1, 4]),
        (3, 3, "strided", [0, 1, 2]),
        (2, 5, "top", [0, 1]),
    ],
)
def test_anchor_positions_by_hand(rest: int, groups: int, rule: Any, expected: list[int]) -> None:
    scores = [0.1, 0.4, 0.2, 0.0, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0][:rest]
    assert anchor_positions(rest, groups, rule, scores) == expected


def test_strided_anchors_of_the_default_preset() -> None:
    anchors = anchor_positions(336, 32, "strided", [])
    assert anchors[:3] == [5, 15, 26] and anchors[-1] == 330 and len(set(anchors)) == 32


def test_grouping_by_hand() -> None:
    vectors = torch.tensor([[5.0, 0.0], [1.0, 0.1], [1.0, 1.0], [0.0, 2.0], [-1.0, 0.1], [3.0, 3.0]])
    groups = group_by_cosine(vectors, [0, 3])
    # the diagonal is as close to both anchors and goes to the earlier one
    assert [group.members for group in groups] == [(0, 1, 2, 5), (3, 4)]
    assert [group.anchor for group in groups] == [0, 3]


def test_swiftvlm_with_singletons_equals_vanilla_up_to_the_next_stage() -> None:
    made = case("llava")
    run = swiftvlm(*made.arguments, boundaries=[3, 10, 14], selected=[6, 16, 16], merged=[10, 0])
    assert len(run.kept_indices[0]) == 6 and run.kept_indices[1] == list(range(16))
    assert (run.logits - made.logits).abs().max() < TOLERANCE


@pytest.mark.parametrize("position", ["anchor", "mean", "round"])
def test_swiftvlm_alignment_preserves_group_means(position: Any) -> None:
    made = case("llava-gqa-eager-64")
    options = Options(merged_position=position)
    run = swiftvlm(*made.arguments, boundaries=[3, 10, 14], selected=[20, 64, 9], merged=[6, 3], options=options)
    first = [merged for merged in run.merged if merged.boundary == 3]
    assert run.visual_rows() == [64] * 3 + [26] * 7 + [64] * 4 + [9] * 2
    assert sorted([*run.kept_indices[0], *(m for merged in first for m in merged.members)]) == list(range(64))
    slots = {row.index: place for place, row in enumerate(run.rows[10]) if row.kind == "visual"}
    for number, merged in enumerate(first):
        entered = run.outputs[2][_places(run, 3, merged.members)].mean(dim=0)
        assert torch.allclose(merged.vector, entered, atol=1e-5)
        aligned = run.boundaries[10][[slots[member] for member in merged.members]]
        assert torch.allclose(aligned.mean(dim=0), run.outputs[9][run.rows[9].index(Row("merged", number))], atol=1e-4)
        place = run.prompt_positions[9][run.rows[9].index(Row("merged", number))]
        mean = sum(member + slots[0] for member in merged.members) / len(merged.members)
        assert place == pytest.approx({"mean": mean, "round": round(mean)}.get(position, place))
        assert position != "anchor" or place - slots[0] in merged.members
    assert list(run.prompt_positions[9]) == sorted(run.prompt_positions[9])
    assert run.generated_positions[15] == tuple(range(made.prompt, made.prompt + 4))


def test_swiftvlm_lets_a_bypassed_token_return_and_the_ablations_do_not() -> None:
    made = case("llava-gqa-eager-64")
    stages: dict[str, Any] = {"boundaries": [3, 10, 14], "selected": [12, 10, 8], "merged": [4, 4]}
    complete = swiftvlm(*made.arguments, **stages)
    assert set(complete.kept_indices[1]) - set(complete.kept_indices[0])
    select = swiftvlm(*made.arguments, **stages, options=Options(parts="select"))
    assert set(select.kept_indices[2]) < set(select.kept_indices[1]) < set(select.kept_indices[0])
    assert select.visual_rows() == [64] * 3 + [12] * 7 + [10] * 4 + [8] * 2
    merge = swiftvlm(*made.arguments, **stages, options=Options(parts="select+merge"))
    assert set(merge.kept_indices[1]) <= set(merge.kept_indices[0])
    assert merge.visual_rows() == [64] * 3 + [16] * 7 + [14] * 4 + [8] * 2
    assert [len(scores) for scores in merge.scores] == [64, 16, 14]
    assert [len(scores) for scores in complete.scores] == [64, 64, 64]


def test_swiftvlm_bypassed_tokens_stand_still_where_merged_rows_do() -> None:
    made = case("llava")
    model, _ = tiny_llava(fresh=True)
    for layer in model.model.language_model.layers[3:10]:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    run = swiftvlm(model, made.inputs, boundaries=[3, 10], selected=[5, 16], merged=[3])
    assert torch.allclose(run.boundaries[10], run.outputs[2], atol=1e-5)


def test_swiftvlm_aligned_by_hand() -> None:
    stages = Stages(None, Options())
    rows = (Row("text", 0), Row("visual", 1), Row("merged", 0), Row("text", 4))
    start = State(
        (Row("text", 0), Row("visual", 0), Row("visual", 1), Row("visual", 2), Row("text", 4)),
        torch.tensor([[0.0], [1.0], [2.0], [5.0], [0.0]]),
        (0.0, 1.0, 2.0, 3.0, 4.0),
        5,
    )
    record = Run(logits=torch.empty(0))
    after = stages.split(start, [2], [1, 3], [0.1, 0.2], 1, 3, record)
    # one group of visual 0 and 2, mean 3, at the position of the second of two (strided anchor), after the kept one
    assert (after.rows, after.positions) == (rows, (0.0, 2.0, 3.0, 4.0))
    assert after.hidden[:, 0].tolist() == [0.0, 2.0, 3.0, 0.0]
    collided = Stages(None, Options(merged_position="round")).split(start, [2], [1, 3], [0.1, 0.2], 1, 3, record)
    # the mean position is that of the kept token, which comes first
    assert (collided.rows, collided.positions) == (rows, (0.0, 2.0, 2.0, 4.0))
    moved = State(after.rows, torch.tensor([[0.0], [7.0], [3.5], [1.0]]), after.positions, 5)
    assert stages.aligned(moved).hidden[:, 0].tolist() == [0.0, 1.5, 7.0, 5.5, 1.0]
    assert stages.aligned(moved).rows == start.rows


def test_adaptive_mean_is_the_library_pooling() -> None:
    grid = torch.randn(24, 24, 3, generator=torch.Generator().manual_seed(0))
    for side in (14, 11, 8, 24):
        pooled = nn.functional.adaptive_avg_pool2d(grid.permute(2, 0, 1)[None], side)[0].permute(1, 2, 0)
        assert torch.allclose(adaptive_mean(grid, side), pooled, atol=1e-6)


@pytest.mark.parametrize(("form", "tokens"), [("low-resolution", 25), ("pool", 25), ("blur", 64)])
def test_downsampling_token_counts(form: Any, tokens: int) -> None:
    made = case("llava-gqa-eager-64")
    run = downsampling(*made.arguments, side=5, form=form)
    assert run.visual_rows() == [tokens] * 16
    assert (run.logits - made.logits).abs().max() > 0.05
    same = downsampling(*made.arguments, side=8, form=form)
    assert (same.logits - made.logits).abs().max() < TOLERANCE


def test_downsampling_of_next_keeps_a_newline_per_row() -> None:
    made = case("next")
    assert (downsampling(*made.arguments, side=4, form="pool").logits - made.logits).abs().max() < TOLERANCE
    # 80 x 50 on 1 x 2 tiles of 2 x 2: stitched 2 x 4, of which int(80 * 2 / 50) = 3 columns show the image: border 0
    assert downsampling(*made.arguments, side=2, form="pool").visual_rows()[0] == 4 + 2 * (4 + 1)
