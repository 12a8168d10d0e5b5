"""IVC-Prune's reference by hand, and by properties of its description."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from reference.full_length import Row, State
from reference.ivcprune import (
    coordinates,
    ivc_prune,
    llava_rule,
    question_rows,
    seed_count,
    target_rule,
    value_likeness,
)
from reference.vision import start_state
from tiny_models import SYSTEM, make_image, make_inputs, tiny_llava
from torch import Tensor


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


def tiny(image: int = 3, system: str = SYSTEM, **options: Any) -> tuple[Any, Any]:
    model, processor = tiny_llava(grid=8, layers=6, **options)
    return model, make_inputs(processor, make_image(150, 110, seed=image), system=system)


def rows(before: int, visual: int, after: int) -> State:
    labels = [Row("text", i) for i in range(before)] + [Row("visual", i) for i in range(visual)]
    labels += [Row("text", before + visual + i) for i in range(after)]
    return State(tuple(labels), torch.zeros(len(labels), 2), tuple(float(i) for i in range(len(labels))), len(labels))


def test_two_rows_after_the_image_are_skipped() -> None:
    assert question_rows(rows(3, 4, 5)) == [9, 10, 11]
    assert question_rows(rows(3, 4, 2)) == [8] and question_rows(rows(3, 4, 1)) == [7]


def test_counts_of_the_rules() -> None:
    assert [seed_count(576, count) for count in (166, 98, 30, 1)] == [6, 4, 1, 1]
    assert seed_count(576, None) == 6 and seed_count(30, None) == 1
    falling = torch.arange(576, 0, -1.0)
    cosine, sine = falling.flip(0), torch.zeros(576)  # the last rows, and the first ones by the rule of ties
    kept = target_rule([300], falling, cosine, sine, 166)
    assert kept == [*range(166 - 30), 300, *range(576 - 29, 576)]
    assert len(llava_rule([300], falling, cosine, sine)) == 115 + 1 + 29
    for count in range(1, 60):
        seeds = list(range(100, 100 + seed_count(576, count)))
        sine = torch.arange(576.0).sub(200).abs().neg()
        assert len(target_rule(seeds, falling, cosine, sine, count)) == count


def test_likeness_of_values_by_hand() -> None:
    """Two heads of size one: the value of a row is the row itself."""
    attention = SimpleNamespace(v_proj=lambda hidden: hidden)
    layer = SimpleNamespace(input_layernorm=lambda hidden: hidden, self_attn=attention)
    decoder = SimpleNamespace(layers=[layer], config=SimpleNamespace(head_dim=1))
    state = State((Row("text", 0),) * 2, torch.tensor([[1.0, 0.0], [math.log(3), 2.0]]), (0.0, 1.0), 2)
    found = value_likeness(decoder, 0, state, [0, 1])
    one, other = math.e / (math.e + 3), 0.5
    assert float(found[0, 0]) == pytest.approx((one + other) / 2, abs=1e-6)
    assert float(value_likeness(decoder, 0, state, [1])[0, 0]) == 1.0
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2, dtype=torch.float64))


def test_coordinates_are_the_means_of_the_library_s_tables() -> None:
    model, _ = tiny()
    decoder = model.model.language_model
    positions = torch.arange(90)[None]
    cos, sin = decoder.rotary_emb(torch.zeros(1, 90, 64), positions)
    found = coordinates(decoder, [float(p) for p in range(90)])
    for mine, theirs in zip(found, (cos, sin), strict=True):
        torch.testing.assert_close(mine, theirs[0].mean(dim=1), atol=1e-6, rtol=0)


def extreme(model: Any, inputs: Any) -> tuple[set[int], set[int]]:
    state = start_state(model, inputs)
    found: list[Tensor] = list(coordinates(model.model.language_model, [state.positions[p] for p in state.visual]))
    best = [set(values.topk(9).indices.tolist()) for values in found]
    return best[0], best[1]


def test_coordinates_follow_the_prompt_and_not_the_picture() -> None:
    model, inputs = tiny()
    assert extreme(model, inputs) == extreme(model, tiny(image=8)[1])
    other = tiny(system="A chat. ")[1]
    assert extreme(model, inputs) != extreme(model, other)
    for given in (inputs, other):
        cosine, sine = extreme(model, given)
        assert cosine | sine <= set(ivc_prune(model, given, boundary=2, count=50).kept_indices[0])


def test_counts_are_exact_and_the_union_is_bounded() -> None:
    model, inputs = tiny()
    for count in (1, 7, 20, 63):
        assert ivc_prune(model, inputs, boundary=2, count=count).visual_rows() == [64, 64, *[count] * 4]
    kept = ivc_prune(model, inputs, boundary=2, rule="llava").kept_indices[0]
    assert 13 <= len(kept) <= 1 + 13 + 3 + 3


def test_only_generated_rows_notice_what_the_caches_forget() -> None:
    model, inputs = tiny()
    runs = [ivc_prune(model, inputs, [7, 9], boundary=4, count=10, forget_from=first) for first in (0, 1, 4)]
    for run in runs[1:]:
        assert torch.equal(run.boundaries[4], runs[0].boundaries[4])
        torch.testing.assert_close(run.logits[0], runs[0].logits[0], atol=1e-5, rtol=0)
        assert (run.logits[1] - runs[0].logits[1]).abs().max() > 1e-3
    default = ivc_prune(model, inputs, [7, 9], boundary=4, count=10)
    assert torch.equal(default.logits, runs[0].logits)
    length = inputs["input_ids"].shape[1]
    assert all(ids == (length, length + 1) for ids in default.generated_positions)


def test_a_forgotten_row_is_one_that_masking_hides() -> None:
    """The stock model on prompt and answer, with the dropped keys hidden from the layers that forget them."""
    model, inputs = tiny()
    token, first, boundary = 7, 1, 3
    run = ivc_prune(model, inputs, [token], boundary=boundary, rule="llava")
    start = start_state(model, inputs)
    dropped = [p for p in start.visual if start.rows[p].index not in run.kept_indices[0]]
    decoder, length = model.model.language_model, len(start.rows)
    state = torch.cat([start.hidden, decoder.embed_tokens(torch.tensor([token]))])[None]
    tables = decoder.rotary_emb(state, torch.arange(length + 1)[None])
    for number, layer in enumerate(decoder.layers):
        seen = torch.ones(length + 1, length + 1, dtype=torch.bool).tril()
        seen[length if number < boundary else 0 :, dropped] = number < first
        seen.fill_diagonal_(True)
        state = layer(state, attention_mask=seen[None, None], position_embeddings=tables)
    logits = model.lm_head(decoder.norm(state))[0, -2:]
    torch.testing.assert_close(run.logits, logits, atol=1e-4, rtol=1e-4)


def test_all_rows_are_the_whole_model() -> None:
    model, inputs = tiny()
    stock = model(**inputs).logits[0, -1]
    torch.testing.assert_close(ivc_prune(model, inputs, boundary=2, count=64).logits[0], stock, atol=1e-4, rtol=1e-4)
