"""Rows that leave or merge inside the vision tower, against CLIP layers that are run by hand, head by head."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
import torch
from probe_methods import Probe
from reference.vision import start_state, tiles
from torch import Tensor

from swiftvlm_eval import prune
from swiftvlm_eval.models.tower_rows import TowerPoint, TowerRows
from swiftvlm_eval.pruning.contract import RowEdit, Signals
from swiftvlm_eval.pruning.schedule import Stage
from swiftvlm_eval.pruning.tiles import instead
from swiftvlm_eval.pruning.words import Need, PositionRule
from swiftvlm_eval.testing.greedy import generate
from swiftvlm_eval.testing.tiny_models import SYSTEM, make_image, make_inputs, tiny_llava, tiny_llava_next

Edit = Callable[[TowerRows, TowerPoint], TowerRows]
MERGED = 5  # pairs merged in every layer
LIMIT = 0.1  # mean cosine of a window above which it is merged


@dataclass(frozen=True, kw_only=True)
class TowerProbe(Probe):
    """Edits the tower's rows by `edit` and hands what comes out to the decoder."""

    position_rule: ClassVar[PositionRule] = "compact"
    needs: ClassVar[frozenset[Need]] = frozenset({"tower_rows"})

    edit: Edit
    act: Callable[[Signals], RowEdit] = lambda signals: instead(
        signals, signals.vision.in_order([rows.states[1:] for rows in signals.vision.edited or ()])
    )
    boundary: int = 0
    asked: list[tuple[int, int, int]] = field(default_factory=list)

    def edit_tower(self, rows: TowerRows, point: TowerPoint, stage: Stage) -> TowerRows:
        self.asked.append((point.tile, point.tiles, stage.kept))
        return self.edit(rows, point)


def merge_pairs(rows: TowerRows, point: TowerPoint) -> TowerRows:
    """Token merging between attention and MLP: even rows into odd ones, the strongest pairs first."""
    if point.after != "attention" or point.keys is None or point.layer > point.feature_layer:
        return rows
    metric = torch.nn.functional.normalize(point.keys.mean(dim=0), dim=-1)
    links = metric[0::2] @ metric[1::2].T
    links[0] = -torch.inf
    best, partner = links.max(dim=1)
    order = best.argsort(descending=True, stable=True)
    gone, stays = order[:MERGED], order[MERGED:].sort().values
    weighed, sizes = rows.states * rows.sizes[:, None], rows.sizes[1::2].clone()
    odd = weighed[1::2].index_add(0, partner[gone], weighed[0::2][gone])
    sizes = sizes.index_add(0, partner[gone], rows.sizes[0::2][gone])
    states = torch.cat([rows.states[0::2][stays], odd / sizes[:, None]])
    return TowerRows(states, torch.cat([rows.sizes[0::2][stays], sizes]), carry=(rows.carry or 0) + MERGED)


def merge_windows(rows: TowerRows, point: TowerPoint) -> TowerRows:
    """Uniform windows of 2 x 2 patches become one row after layer 0, placed first: as many as the image has."""
    if (point.layer, point.after) != (0, "layer"):
        return rows
    side = int(point.patches**0.5)
    grid = torch.arange(point.patches).view(side // 2, 2, side // 2, 2).transpose(1, 2).reshape(-1, 4)
    unit = torch.nn.functional.normalize(rows.states[1:], dim=-1)[grid]
    alike = (unit @ unit.transpose(1, 2)).sum(dim=(1, 2)).sub(4).div(12) >= LIMIT
    rest = torch.ones(point.patches, dtype=torch.bool)
    rest[grid[alike].flatten()] = False
    states = torch.cat([rows.states[:1], rows.states[1:][grid[alike]].mean(dim=1), rows.states[1:][rest]])
    return TowerRows(states, torch.ones(len(states)))


@dataclass
class Hand:
    """One row in the slow computation."""

    vector: Tensor
    size: float


def pairs_by_hand(rows: list[Hand], keys: list[list[Tensor]]) -> list[Hand]:
    """`keys` are one vector a head of every row."""
    mean = [sum(heads) / len(heads) for heads in keys]
    links = []
    for even in range(2, len(rows), 2):
        cosines = [
            float(mean[even] @ mean[odd] / mean[odd].norm() / mean[even].norm()) for odd in range(1, len(rows), 2)
        ]
        links.append((-max(cosines), even, 1 + 2 * cosines.index(max(cosines))))
    chosen = sorted(links)[:MERGED]
    found = [rows[even] for even in range(0, len(rows), 2) if even not in [link[1] for link in chosen]]
    for odd in range(1, len(rows), 2):
        group = [rows[odd], *(rows[even] for _, even, into in chosen if into == odd)]
        size = sum(row.size for row in group)
        found.append(Hand(sum(row.vector * row.size for row in group) / size, size))  # type: ignore[arg-type]
    return found


def windows_by_hand(rows: list[Hand]) -> list[Hand]:
    side = int((len(rows) - 1) ** 0.5)
    merged, gone = [], set()
    for top in range(0, side, 2):
        for left in range(0, side, 2):
            places = [1 + (top + i) * side + left + j for i in (0, 1) for j in (0, 1)]
            vectors = [rows[place].vector for place in places]
            pairs = [(a, b) for a in range(4) for b in range(a)]
            cosines = [float(vectors[a] @ vectors[b] / vectors[a].norm() / vectors[b].norm()) for a, b in pairs]
            if sum(cosines) / 6 >= LIMIT:
                merged.append(Hand(sum(vectors) / 4, 1.0))  # type: ignore[arg-type]
                gone |= set(places)
    return [rows[0], *merged, *(row for place, row in enumerate(rows) if place > 0 and place not in gone)]


@torch.no_grad()
def tower_by_hand(model: Any, pixels: Tensor, kind: str) -> Tensor:
    """[n, hidden_size] decoder rows of one encoder input (3, height, width)."""
    tower = model.model.vision_tower
    start = tower.pre_layrnorm(tower.embeddings(pixels[None]))[0]
    rows = [Hand(vector, 1.0) for vector in start]
    last = len(tower.encoder.layers) + model.config.vision_feature_layer
    for number, layer in enumerate(tower.encoder.layers[: last + 1]):
        attention, heads = layer.self_attn, tower.config.num_attention_heads
        normed = [layer.layer_norm1(row.vector) for row in rows]
        queries, keys, values = (
            [[*part(row).split(attention.head_dim)] for row in normed]
            for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        middle = []
        for here, row in enumerate(rows):
            mixed = []
            for head in range(heads):
                logits = [
                    float(queries[here][head] @ keys[other][head]) / attention.head_dim**0.5
                    + torch.tensor(rows[other].size).log().item()
                    for other in range(len(rows))
                ]
                weights = torch.tensor(logits).softmax(dim=0)
                mixed.append(sum(weight * value[head] for weight, value in zip(weights, values, strict=True)))
            middle.append(Hand(row.vector + attention.out_proj(torch.cat(mixed)), row.size))  # type: ignore[arg-type]
        rows = pairs_by_hand(middle, keys) if kind == "pairs" else middle
        rows = [Hand(row.vector + layer.mlp(layer.layer_norm2(row.vector)), row.size) for row in rows]
        if kind == "windows" and number == 0:
            rows = windows_by_hand(rows)
    projected: Tensor = model.model.multi_modal_projector(torch.stack([row.vector for row in rows[1:]]))
    return projected


def stock_logits(model: Any, inputs: Any, visual: Tensor, tokens: list[int]) -> Tensor:
    """Logits of the prompt's end and of every forced token, by the stock decoder on rows made by hand."""
    state = start_state(model, inputs, visual, "made")
    answer = model.get_input_embeddings()(torch.tensor(tokens, dtype=torch.int64))
    with torch.no_grad():
        hidden = model.model.language_model(inputs_embeds=torch.cat([state.hidden, answer])[None]).last_hidden_state
        logits: Tensor = model.lm_head(hidden[0, len(state.hidden) - 1 :])
    return logits


EDITS: dict[str, Edit] = {"pairs": merge_pairs, "windows": merge_windows}


@pytest.mark.parametrize("kind", EDITS)
@pytest.mark.parametrize(("family", "attn"), [("llava", "sdpa"), ("llava", "eager"), ("llava_next", "sdpa")])
def test_prefill_and_generation_equal_the_tower_by_hand(kind: str, family: str, attn: str) -> None:
    model, processor = (tiny_llava if family == "llava" else tiny_llava_next)(grid=6, layers=8, attn=attn)
    inputs = make_inputs(processor, make_image(150, 110, seed=3))
    method = TowerProbe(edit=EDITS[kind])
    with prune(model, method, budget=0.4) as session:
        answer = generate(model, inputs)
    parts = [tower_by_hand(model, pixels, kind) for pixels in tiles(inputs)]
    counts = [len(part) for part in parts]
    patches = 36 * len(parts)
    assert sum(counts) < patches
    if kind == "pairs":  # the tower has two layers up to the features
        assert counts == [36 - 2 * MERGED] * len(parts)
    elif family == "llava_next":
        assert len(set(counts)) > 1, "encoder inputs with equally many rows would not show the padding"
    assert session.traces[0].rows_per_layer == [sum(counts)] * 8
    tokens = answer.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    expected = stock_logits(model, inputs, torch.cat(parts), tokens[:-1])
    torch.testing.assert_close(torch.stack([step[0] for step in answer.logits]), expected, atol=2e-4, rtol=2e-4)
    assert set(method.asked) == {(tile, len(parts), method.kept) for tile in range(len(parts))}


def test_sizes_weigh_attention() -> None:
    """Merging without sizes gives another answer, so the test above can see them."""
    model, processor = tiny_llava(grid=6, layers=8)
    inputs = make_inputs(processor, make_image(150, 110, seed=3))

    def plain(rows: TowerRows, point: TowerPoint) -> TowerRows:
        found = merge_pairs(rows, point)
        return found if found is rows else replace(found, sizes=torch.ones_like(found.sizes))

    logits = []
    for edit in (merge_pairs, plain):
        with prune(model, TowerProbe(edit=edit)):
            logits.append(generate(model, inputs).logits[0])
    assert not torch.allclose(*logits, atol=1e-3)


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_an_edit_that_changes_nothing_is_the_stock_model(family: str) -> None:
    model, processor = (tiny_llava if family == "llava" else tiny_llava_next)(grid=6, layers=8)
    inputs = make_inputs(processor, make_image(150, 110, seed=3))
    stock = generate(model, inputs)
    with prune(model, TowerProbe(edit=lambda rows, point: rows, act=lambda signals: signals.keep_all())):
        ours = generate(model, inputs)
    for expected, got in zip(stock.logits, ours.logits, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    assert not any("forward" in vars(layer) for layer in model.model.vision_tower.encoder.layers)


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_batches_beams_and_several_images(family: str) -> None:
    model, processor = (tiny_llava if family == "llava" else tiny_llava_next)(grid=6, layers=8)
    images = [make_image(150, 110, seed=1), make_image(90, 160, seed=2), make_image(100, 100, seed=3)]
    texts = [f"{SYSTEM}USER: <image>\n<image>\nWhat? ASSISTANT:", "USER: <image>\nRed? ASSISTANT:"]
    together = processor(images=images, text=texts, padding=True, return_tensors="pt")
    with prune(model, TowerProbe(edit=merge_windows)) as session:
        joint = generate(model, together)
        rows = [trace.rows_per_layer[0] for trace in session.traces]
        model.generate(**together, num_beams=2, max_new_tokens=2, do_sample=False)
        assert [trace.rows_per_layer[0] for trace in session.traces] == [rows[0], rows[0], rows[1], rows[1]]
    for number, own in enumerate((images[:2], images[2:])):
        with prune(model, TowerProbe(edit=merge_windows)) as session:
            single = generate(model, processor(images=own, text=texts[number], return_tensors="pt"))
        assert session.traces[0].rows_per_layer[0] == rows[number]
        for whole, part in zip(joint.logits, single.logits, strict=True):
            torch.testing.assert_close(whole[number], part[0], atol=2e-4, rtol=2e-4)


def test_what_an_edit_may_not_do_is_refused() -> None:
    model, processor = tiny_llava(grid=6, layers=8)
    inputs = make_inputs(processor, make_image(150, 110, seed=3))

    def run(edit: Edit, **options: Any) -> None:
        with prune(model, TowerProbe(edit=edit, **options)), torch.no_grad():
            model(**inputs)

    with pytest.raises(ValueError, match=r"tower rows of shape \[0, 32\].* after attention 0: allowed are 1 to 37"):
        run(lambda rows, point: TowerRows(rows.states[:0], rows.sizes[:0]))
    with pytest.raises(ValueError, match=r"of shape \[74, 32\] .*allowed are 1 to 37 rows of width 32"):
        run(lambda rows, point: TowerRows(rows.states.repeat(2, 1), rows.sizes.repeat(2)))
    with pytest.raises(ValueError, match=r"with sizes \[37\] .*with a size each"):
        run(lambda rows, point: TowerRows(rows.states[:3], rows.sizes))
    with pytest.raises(RuntimeError, match="queries and keys are shown to the edit alone"):
        run(merge_pairs, act=lambda signals: signals.vision.cls_attention)
    with pytest.raises(NotImplementedError, match="probe does not edit rows inside the tower"):
        with prune(model, type("Bare", (Probe,), {"needs": TowerProbe.needs})(act=lambda signals: None, boundary=0)):
            model(**inputs)
    assert not any("forward" in vars(layer) for layer in model.model.vision_tower.encoder.layers)


def test_without_a_stage_at_the_decoders_input_nothing_is_edited() -> None:
    model, processor = tiny_llava(grid=6, layers=8)
    method = TowerProbe(edit=merge_pairs, act=lambda signals: signals.keep_all(), boundary=3)
    with prune(model, method) as session:
        generate(model, make_inputs(processor, make_image(150, 110, seed=3)))
    assert method.asked == []
    assert session.traces[0].rows_per_layer[0] == 36


def test_what_an_edit_leaves_is_handed_on_to_the_decoder() -> None:
    model, processor = tiny_llava(grid=6, layers=8)
    carried: list[Any] = []

    def act(signals: Signals) -> RowEdit:
        edited = signals.vision.edited or ()
        carried.extend((rows.carry, float(rows.sizes.sum())) for rows in edited)
        return instead(signals, signals.vision.in_order([rows.states[1:] for rows in edited]))

    with prune(model, TowerProbe(edit=merge_pairs, act=act)), torch.no_grad():
        model(**make_inputs(processor, make_image(150, 110, seed=3)))
    assert carried == [(2 * MERGED, 37.0)]
