"""FLOPs against the published table, against hand-made sums and against torch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from swiftvlm_eval import make_method, prune
from swiftvlm_eval.efficiency.flops import layer_flops, prefill_flops
from swiftvlm_eval.efficiency.table import flops_rows, parse_shape
from swiftvlm_eval.models.shape import LLAVA_7B, DecoderShape
from swiftvlm_eval.testing.tiny_models import make_image, make_inputs, tiny_llava

# arXiv 2602.03134, table 1, TFLOPs at budgets 192 and 128
PAPER = {
    "fastv": (1.71, 1.29),
    "visionzip": (1.71, 1.29),
    "pdrop": (1.72, 1.28),
    "sparsevlm": (1.72, 1.30),
    "feather": (1.82, 1.44),
    "swiftvlm": (1.75, 1.31),
}


def test_vanilla_prints_as_in_the_paper() -> None:
    assert round(prefill_flops([576] * 32, 70, LLAVA_7B) / 1e12, 2) == 4.29
    assert layer_flops(646, LLAVA_7B) == 4 * 646 * 4096**2 + 2 * 646**2 * 4096 + 3 * 646 * 4096 * 11008


@pytest.mark.parametrize("name", PAPER)
def test_methods_print_as_in_the_paper(name: str) -> None:
    for budget, published in zip(("192", "128"), PAPER[name], strict=True):
        row = flops_rows([(name, {})], [budget])[0]  # the published schedule comes first
        assert round(row["paper_tflops"], 2) == published
        assert flops_rows([(name, {})], [budget], text_tokens=200)[0]["paper_tflops"] == row["paper_tflops"]


def test_executed_flops_of_sparsevlm_are_printed_beside() -> None:
    executed = [flops_rows([("sparsevlm", {})], [budget])[0]["layers_tflops"] for budget in ("192", "128")]
    assert [round(value, 4) for value in executed] == [1.8155, 1.4141]


def test_overhead_of_swiftvlm_as_its_paper_counts_it() -> None:
    for budget, total in (("192", 0.0302), ("128", 0.0354)):
        items = flops_rows([("swiftvlm", {})], [budget])[0]["overhead_tflops"]
        assert set(items) == {"merging", "scoring"}
        assert sum(items.values()) == pytest.approx(total, abs=5e-5)


@pytest.mark.parametrize("name", ["vanilla", "fastv", "pdrop", "visionzip"])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_formula_agrees_with_torchs_counter(name: str, kv_heads: int) -> None:
    """The counter takes two FLOPs per multiply-accumulate, the papers' formula one."""
    model, processor = tiny_llava(grid=12, kv_heads=kv_heads, attn="eager")
    inputs = make_inputs(processor, make_image(150, 110))
    with prune(model, make_method(name), budget=0.4) as session, torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            model(**inputs, use_cache=True, logits_to_keep=1)
        trace = session.traces[0]
    shape = model_shape(model)
    counted = sum(
        sum(by_operator.values())
        for module, by_operator in counter.get_flop_counts().items()
        if module.endswith(tuple(f"language_model.layers.{layer}" for layer in range(shape.num_layers)))
    )
    formula = prefill_flops(trace.rows_per_layer, trace.num_text, shape)
    assert counted == pytest.approx(2 * formula, rel=0.01)


def model_shape(model: torch.nn.Module) -> DecoderShape:
    text = model.config.text_config  # type: ignore[union-attr]
    return DecoderShape(
        text.hidden_size,
        text.intermediate_size,
        text.num_hidden_layers,
        text.num_attention_heads,
        text.num_key_value_heads,
    )


def test_shapes_and_budgets_from_the_command_line() -> None:
    assert parse_shape("4096,11008,32,32") == LLAVA_7B
    assert parse_shape("4096,14336,32,32,8").num_kv_heads == 8
    for bad in ("4096", "a,b,c,d", "4096,11008,0,32"):
        with pytest.raises(ValueError, match="shape=.*hidden,intermediate"):
            parse_shape(bad)
    row = flops_rows([("fastv", {})], ["30"])[-1]
    assert row["tflops"] is None and "feasible" in row["note"]


def test_lengths_must_fit_the_decoder() -> None:
    with pytest.raises(ValueError, match="31 layers given, the decoder has 32"):
        prefill_flops([576] * 31, 70, LLAVA_7B)
