"""Two methods one after the other."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from swiftvlm_eval import make_method, prune
from swiftvlm_eval.efficiency.selection import executed_work, planned_work, selection_flops
from swiftvlm_eval.models.shape import TowerShape
from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.pruning.schedule import Plan
from swiftvlm_eval.pruning.work import Work
from swiftvlm_eval.sweep import make_grid, parse_methods
from swiftvlm_eval.testing.greedy import generate
from swiftvlm_eval.testing.tiny_models import make_image, make_inputs, tiny_llava, tiny_llava_next


def runs(text: str, num_visual: int = 576, layers: int = 32, budget: float | None = None) -> list[tuple[int, int]]:
    """(rows, layers) runs of a plan."""
    found: list[tuple[int, int]] = []
    for rows in make_method(text).plan(num_visual, layers, budget).rows_per_layer:
        found[-1:] = [(rows, found[-1][1] + 1)] if found and found[-1][0] == rows else [*found[-1:], (rows, 1)]
    return found


def test_counts_of_both_decide() -> None:
    assert runs("visionzip[counts=100:20]+random[layers=16;counts=30]") == [(120, 16), (30, 16)]
    assert runs("visionzip[counts=100:20]+random[layers=16;counts=0.25]", budget=0.9) == [(120, 16), (30, 16)]
    three = "visionzip[counts=100:20]+fastv[layers=4;counts=60]+random[layers=16;counts=30]"
    assert runs(three) == [(120, 4), (60, 12), (30, 16)]


def test_the_one_without_counts_meets_the_budget() -> None:
    # 192 = (288 * 16 + 96 * 16) / 32
    assert runs("visionzip[counts=260:28]+random[layers=16]", budget=1 / 3) == [(288, 16), (96, 16)]
    # x * (1 + 1 / 4) / 2 = 192 gives x = 307.2 and a quarter of 307 is 76.75, rounded 77
    assert runs("visionzip+random[layers=16;counts=0.25]", budget=1 / 3) == [(307, 16), (77, 16)]
    # 576 * 2 + x * 14 + 50 * 16 = 192 * 32 gives x = 299.4
    assert runs("fastv[layers=2]+random[layers=16;counts=50]", budget=1 / 3) == [(576, 2), (299, 14), (50, 16)]


def test_without_counts_both_cut_alike() -> None:
    # x (1 + x) / 2 = 1/3 gives x = 0.4574: 263.5 of 576, then 0.4574 of these
    (first, half), (then, rest) = runs("visionzip+random[layers=16]", budget=1 / 3)
    assert (half, rest) == (16, 16)
    assert first == pytest.approx(263.5, abs=1) and then == pytest.approx(120.5, abs=1.5)
    assert (first + then) / 2 == pytest.approx(192, abs=0.5)
    assert runs("visionzip+random[layers=16]", budget=1) == [(576, 32)]


@pytest.mark.parametrize("text", ["visionzip+pdrop", "fastv+random[layers=9]", "visionzip+fastv+random[layers=20]"])
@pytest.mark.parametrize("budget", [0.2, 1 / 3, 0.5, 0.8])
@pytest.mark.parametrize("num_visual", [576, 2144])
def test_budgets_are_met_within_half_a_token(text: str, budget: float, num_visual: int) -> None:
    plan = make_method(text).plan(num_visual, 32, budget)
    assert plan.mean_visual_tokens == pytest.approx(budget * num_visual, abs=0.5)
    assert [stage.boundary for stage in plan.stages] == sorted({stage.boundary for stage in plan.stages})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("random[layers=4]+fastv[layers=4]", r"fastv begins at boundary 4, and random ends at 4; .* from 5 to 31"),
        ("pdrop+fastv", r"fastv begins at boundary 2, and pdrop ends at 24"),
        ("random+visionzip", "visionzip acts before the decoder; allowed is to name it first"),
        ("vanilla+random", "vanilla has no stage"),
        ("visionzip+vanilla", "vanilla has no stage"),
        ("downsample+random", "downsample keeps as many rows as the image asks for"),
        ("visionzip[schedule=paper]+random", "schedule=paper of visionzip: published for the method alone"),
        ("visionzip+random+", "method='': unknown"),
        ("visionzip+rnadom", "method='rnadom': unknown.*Did you mean 'random'"),
    ],
)
def test_what_cannot_follow_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_method(text).plan(576, 32, 0.5)


def test_options_belong_to_one_of_them() -> None:
    with pytest.raises(ValueError, match=r"option layers='3': of visionzip\+random write it as name\[layers=3\]"):
        make_method("visionzip+random", {"layers": "3"})
    with pytest.raises(BudgetError, match=r"budget=0.2: visionzip\+random: .*feasible with edits after layers"):
        make_method("visionzip[counts=500:30]+random[layers=16]").plan(576, 32, 0.2)


def test_labels_and_records_show_both() -> None:
    text = "visionzip+random[layers=16]"
    assert parse_methods(f"vanilla,{text}") == [("vanilla", {}), (text, {})]
    (cell, again) = make_grid(parse_methods(text), ["1/3"], seeds=(0, 1))
    assert cell.label == f"{text} 0.333" and again.seed == 1, "it draws, because one of them does"
    method = make_method(text)
    assert method.name == "visionzip+random"
    assert method.options["then.layers"] == (16,) and method.options["first.counts"] is None
    assert method.needs == make_method("visionzip").needs
    assert method.source_sha256 is None


def image_inputs(processor: Any) -> Any:
    return make_inputs(processor, make_image(150, 110, seed=3))


@pytest.mark.parametrize("family", ["llava", "llava_next"])
@pytest.mark.parametrize(
    "text", ["visionzip+random[layers=9]", "visionzip+swiftvlm[layers=3:6:9]", "fastv[layers=2]+pdrop[layers=4:8:12]"]
)
def test_executed_rows_are_the_plan(text: str, family: str) -> None:
    model, processor = tiny_llava(grid=12) if family == "llava" else tiny_llava_next(grid=6)
    method = make_method(text)
    with prune(model, method, budget=0.4) as session:
        answer = generate(model, image_inputs(processor))
        trace, tower = session.traces[0], session.adapter.tower.shape
        shape = session.adapter.decoder.shape
    assert tuple(trace.rows_per_layer) == trace.plan.rows_per_layer
    assert trace.mean_visual_tokens == pytest.approx(0.4 * trace.num_visual, abs=0.5)
    assert torch.isfinite(answer.logits[-1]).all()
    for before, after in zip(trace.stages, trace.stages[1:], strict=False):
        if "swiftvlm" not in text:
            assert set(after.kept_indices) <= set(before.kept_indices), "original indices"
    if family == "llava":  # the work of a plan is the work that was done
        question = trace.num_question
        planned = planned_work(trace.plan, trace.num_text, question, tower)
        executed = executed_work(trace, tower)
        assert selection_flops(method, planned, shape, tower) == selection_flops(method, executed, shape, tower)


@pytest.mark.parametrize(
    "first", ["visionzip[counts=45:15]", "fastv[layers=2;counts=60]", "pdrop[layers=2:3:4;counts=90:80:60]"]
)
@pytest.mark.parametrize("then", ["random", "fastv", "pdrop"])
def test_a_second_method_that_keeps_all_changes_nothing(first: str, then: str) -> None:
    model, processor = tiny_llava(grid=12)
    second = {
        "random": "[layers=9;counts=60]",
        "fastv": "[layers=9;counts=60]",
        "pdrop": "[layers=8:9:10;counts=60:60:60;positions=keep]",
    }
    answers = []
    for text in (first, f"{first}+{then}{second[then]}"):
        with prune(model, make_method(text)) as session:
            answers.append(generate(model, image_inputs(processor)))
            assert session.traces[0].rows_per_layer[-1] == 60
    assert torch.equal(answers[0].sequences, answers[1].sequences)
    for mine, theirs in zip(answers[0].logits, answers[1].logits, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("first", ["visionzip[counts=45:15]", "random[layers=0;counts=60]"])
def test_the_second_method_acts_on_the_short_prompt(first: str) -> None:
    """Oracle: the rows that `first` alone lets in, as embeddings of the stock model, whose later layers are masked."""
    model, processor = tiny_llava(grid=12)
    inputs = image_inputs(processor)
    entered: list[Any] = []
    decoder = model.model.language_model
    seen = decoder.layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: entered.append((args[0], kwargs["position_embeddings"])), with_kwargs=True
    )
    with prune(model, make_method(first)), torch.no_grad():
        model(**inputs)
    seen.remove()
    (hidden, tables) = entered[0]
    text_before = int((inputs["input_ids"][0] == model.config.image_token_id).nonzero()[0])
    visual = range(text_before, text_before + 60)
    length = hidden.shape[1]
    lower = torch.ones(length, length, dtype=torch.bool).tril()
    # by hand: run the layers, and after layer 5 hide what the last row attends to least in the layer just run
    with torch.no_grad():
        before, state, mask = hidden, hidden, lower
        for number, layer in enumerate(decoder.layers):
            if number == 5:
                kept = best_rows(decoder.layers[4], before, tables, visual, 20)
                mask = lower.clone()
                mask[:, [row for row in visual if row not in kept]] = False
                mask.fill_diagonal_(True)
            before = state
            state = layer(state, attention_mask=mask[None, None], position_embeddings=tables)
        expected = model.lm_head(decoder.norm(state))[0, -1]
    with prune(model, make_method(f"{first}+fastv[layers=5;counts=20]")) as session, torch.no_grad():
        ours = model(**inputs).logits[0, -1]
    assert session.traces[0].rows_per_layer == [60] * 5 + [20] * 11
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    with prune(model, make_method(first)), torch.no_grad():
        assert (model(**inputs).logits[0, -1] - ours).abs().max() > 1e-2


def best_rows(layer: Any, states: torch.Tensor, tables: Any, visual: range, count: int) -> set[int]:
    """Rows that the last row attends to most, mean over heads, computed row by row."""
    attention, (cos, sin) = layer.self_attn, tables
    rows = layer.input_layernorm(states)[0]

    def rotated(projection: Any) -> torch.Tensor:
        heads = projection(rows).view(len(rows), -1, attention.head_dim)
        half = attention.head_dim // 2
        turned = torch.cat([-heads[..., half:], heads[..., :half]], dim=-1)
        return heads * cos[0][:, None] + turned * sin[0][:, None]

    queries, keys = rotated(attention.q_proj), rotated(attention.k_proj)
    total = torch.zeros(len(rows))
    for head in range(queries.shape[1]):
        group = head // (queries.shape[1] // keys.shape[1])
        logits = torch.stack([queries[-1, head] @ key * attention.head_dim**-0.5 for key in keys[:, group]])
        total += logits.softmax(dim=0)
    return set(sorted(visual, key=lambda row: float(total[row]), reverse=True)[:count])


def test_a_second_method_does_not_see_the_image() -> None:
    model, processor = tiny_llava(grid=12)
    method = make_method("fastv[layers=2;counts=60]+feather[layers=4:8;counts=40:20]")
    with prune(model, method), pytest.raises(ValueError, match="layout: it tells of the image's own tokens"):
        generate(model, image_inputs(processor))


def test_two_random_methods_draw_apart() -> None:
    model, processor = tiny_llava(grid=12)
    found = []
    for text in ("random[layers=2;counts=143]", "random[layers=2;counts=143]+random[layers=3;counts=142]"):
        with prune(model, make_method(text)) as session:
            session.sample_keys = ["sample"]
            generate(model, image_inputs(processor))
            found.append(session.traces[0].stages)
    assert found[0][0].kept_indices == found[1][0].kept_indices
    assert len(found[1][1].kept_indices) == 142


@pytest.mark.parametrize("parts", [("fastv[layers=2]", "pdrop[layers=4:8:12]"), ("visionzip", "random[layers=9]")])
def test_the_work_of_a_composition_is_that_of_its_methods_alone(parts: tuple[str, str]) -> None:
    tower = TowerShape(hidden_size=32, num_heads=4, patches=144)
    whole = make_method("+".join(parts))
    plan = whole.plan(144, 16, 0.4)
    first = [stage for stage in plan.stages if stage.part == 0]
    found = sum((first[-1].kept, first[-1].merged))
    own = [replace(stage, part=0) for stage in plan.stages if stage.part == 1]
    assert first and own
    alone = [
        make_method(part).work(planned_work(Plan(count, 16, tuple(stages)), 40, 12, tower))
        for part, count, stages in zip(parts, (144, found), (first, own), strict=True)
    ]
    assert whole.work(planned_work(plan, 40, 12, tower)) == alone[0] + alone[1]
    assert alone[0] != Work()
