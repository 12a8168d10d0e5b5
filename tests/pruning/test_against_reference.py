"""Every method against a slow, plain implementation written from its description alone.

The oracle runs the whole sequence through each layer without a cache; the engine prunes in prefill and decodes with
the stock `generate()`. Logits of the prompt and of every generated token, kept tokens, rows and positions must agree.
"""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from reference import downsampling, feather, pyramid_drop, single_stage, sparsevlm, swiftvlm, visionzip
from reference.full_length import Run
from tiny_models import make_image, make_inputs, tiny_llava, tiny_llava_next

from swiftvlm_eval import make_method, method_names, prune

STEPS = 4
Oracle = Callable[..., Run]


def swift(**options: Any) -> Oracle:
    """SwiftVLM's oracle at boundaries 3, 6, 9 with counts (60, 12, 40, 8, 20)."""
    return lambda model, inputs, generated: swiftvlm.swiftvlm(
        model,
        inputs,
        generated,
        boundaries=(3, 6, 9),
        selected=(60, 40, 20),
        merged=(12, 8),
        options=swiftvlm.Options(**options),
    )


def tiles_of(inputs: Any) -> int:
    """Encoder inputs of the image."""
    return int(inputs["pixel_values"].shape[-4]) if inputs["pixel_values"].dim() == 5 else 1


SWIFT = {"layers": (3, 6, 9), "counts": (60, 12, 40, 8, 20)}
CASES: dict[str, tuple[str, dict[str, Any], Oracle]] = {
    "vanilla": ("vanilla", {}, single_stage.vanilla),
    "fastv": (
        "fastv",
        {"layers": (2,), "counts": (50,)},
        lambda m, i, g: single_stage.fastv(m, i, g, boundary=2, count=50),
    ),
    "fastv-k3": (
        "fastv",
        {"layers": (3,), "counts": (20,)},
        lambda m, i, g: single_stage.fastv(m, i, g, boundary=3, count=20),
    ),
    "fastv-visual-softmax": (
        "fastv",
        {"layers": (2,), "counts": (50,), "scope": "visual"},
        lambda m, i, g: single_stage.fastv(m, i, g, boundary=2, count=50, scope="visual"),
    ),
    "swiftvlm": ("swiftvlm", SWIFT, swift()),
    "swiftvlm-full-softmax": ("swiftvlm", {**SWIFT, "scope": "all"}, swift(scope="full")),
    "swiftvlm-top-anchors": ("swiftvlm", {**SWIFT, "anchors": "top"}, swift(anchors="top")),
    "swiftvlm-step-anchors": ("swiftvlm", {**SWIFT, "anchors": "floor_step"}, swift(anchors="floor-step")),
    "swiftvlm-mean-position": ("swiftvlm", {**SWIFT, "merged_position": "mean"}, swift(merged_position="mean")),
    "swiftvlm-round-position": ("swiftvlm", {**SWIFT, "merged_position": "round"}, swift(merged_position="round")),
    "swiftvlm-select": (
        "swiftvlm",
        {**SWIFT, "counts": (60, 0, 40, 0, 20), "merge": False, "bypass": False},
        swift(parts="select"),
    ),
    "swiftvlm-merge-off": (
        "swiftvlm",
        {**SWIFT, "counts": (60, 0, 40, 0, 20), "merge": False},
        swift(parts="select"),
    ),
    "pdrop": (
        "pdrop",
        {"layers": (3, 6, 9), "counts": (70, 40, 10)},
        lambda m, i, g: pyramid_drop.pyramid_drop(m, i, g, boundaries=(3, 6, 9), counts=(70, 40, 10)),
    ),
    "pdrop-keep": (
        "pdrop",
        {"layers": (3, 6, 9), "counts": (70, 40, 10), "positions": "keep"},
        lambda m, i, g: pyramid_drop.pyramid_drop(
            m, i, g, boundaries=(3, 6, 9), counts=(70, 40, 10), positions="keep"
        ),
    ),
    "feather-fill": (
        "feather",
        {"layers": (4, 8), "counts": (60, 20), "stride": 3},
        lambda m, i, g: feather.feather_fill(m, i, g, boundaries=(4, 8), counts=(60, 20), stride=3),
    ),
    "feather-fill-stride": (
        "feather",
        {"layers": (4, 8), "counts": (60, 20), "stride": 2},
        lambda m, i, g: feather.feather_fill(m, i, g, boundaries=(4, 8), counts=(60, 20), stride=2),
    ),
    "feather-union-stride": (
        "feather",
        {"layers": (4, 8), "mode": "union", "budget": 192, "keep_ratio": 0.5, "stride": 5},
        lambda m, i, g: feather.feather_union(m, i, g, boundaries=(4, 8), keep_ratio=0.5, stride=5),
    ),
    "feather-union": (
        "feather",
        {"layers": (4, 8), "mode": "union", "budget": "1/3"},
        lambda m, i, g: feather.feather_union(m, i, g, boundaries=(4, 8), keep_ratio=0.3, stride=3),
    ),
    "sparsevlm": (
        "sparsevlm",
        {"layers": (3, 6, 9), "counts": (80, 40, 25)},
        lambda m, i, g: sparsevlm.sparsevlm(m, i, g, boundaries=(3, 6, 9), counts=(80, 40, 25)),
    ),
    "sparsevlm-v1": (
        "sparsevlm_v1",
        {"layers": (2, 4, 6, 9), "scale": 3.0, "bias": 4.0},
        lambda m, i, g: sparsevlm.sparsevlm_rank_adaptive(m, i, g, boundaries=(2, 4, 6, 9), scale=3.0, bias=4.0),
    ),
    "sparsevlm-plus": (
        "sparsevlm_plus",
        {"layers": (3, 6, 9), "counts": (80, 40, 25), "heads": 2},
        lambda m, i, g: sparsevlm.sparsevlm_plus(m, i, g, boundaries=(3, 6, 9), counts=(80, 40, 25), heads=2),
    ),
    "visionzip": (
        "visionzip",
        {"counts": (45, 15)},
        lambda m, i, g: visionzip.visionzip(m, i, g, dominant=45 // tiles_of(i), contextual=15 // tiles_of(i)),
    ),
    **{
        f"downsample-{form}": (
            "downsample",
            {"form": form, "grid": 4},
            lambda m, i, g, plain=plain: downsampling.downsampling(m, i, g, side=4, form=plain),
        )
        for form, plain in (("low_res", "low-resolution"), ("pool", "pool"), ("blur", "blur"))
    },
    "swiftvlm-select-merge": ("swiftvlm", {**SWIFT, "bypass": False}, swift(parts="select+merge")),
}


def without_oracle(cases: Iterable[str], names: Iterable[str]) -> list[str]:
    """One sentence for every method that no case compares with a slow implementation."""
    return [
        f"{name} has no oracle: add a case to CASES in tests/pruning/test_against_reference.py and a slow, plain "
        f"implementation, written from the paper, to tests/reference/"
        for name in sorted(set(names) - set(cases))
    ]


def test_every_registered_method_has_an_oracle() -> None:
    compared = [name for name, _, _ in CASES.values()]
    # a draw has no slow form; what is kept of it is compared with a masked stock model in test_engine.py
    chosen = [name for name in method_names() if not make_method(name).draws]
    assert not (missing := without_oracle(compared, chosen)), "\n".join(missing)
    (sentence,) = without_oracle(compared, [*chosen, "newcomer"])
    assert sentence.startswith("newcomer has no oracle: add a case to CASES")


def generate(model: Any, inputs: Any, steps: int = STEPS) -> Any:
    """Greedy decoding with raw logits, without an early end."""
    return model.generate(
        **inputs,
        max_new_tokens=steps,
        min_new_tokens=steps,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )


def check(model: Any, inputs: Any, name: str, options: dict[str, Any], oracle: Oracle) -> None:
    """Runs the engine, forces its answer on the oracle, and compares everything that both can see."""
    options = dict(options)
    budget = options.pop("budget", None)
    with prune(model, make_method(name, options), budget=budget) as session:
        answer = generate(model, inputs)
        trace = session.traces[0]
    generated = answer.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    truth = oracle(model, inputs, generated[:-1])
    assert trace.rows_per_layer == truth.visual_rows()
    if truth.kept_indices and not truth.sources:  # VisionZip's oracle counts patches of tiles
        assert [stage.kept_indices for stage in trace.stages] == truth.kept_indices
    logits = torch.stack([step[0] for step in answer.logits])
    torch.testing.assert_close(logits, truth.logits, atol=2e-4, rtol=2e-4)
    assert truth.logits.std() > 0.5, "logits that hardly vary would hide an error"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("attn", "kv_heads"), [("sdpa", 4), ("eager", 2)])
def test_llava15(case: str, attn: str, kv_heads: int) -> None:
    model, processor = tiny_llava(grid=12, attn=attn, kv_heads=kv_heads)
    check(model, make_inputs(processor, make_image(150, 110, seed=3)), *CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_llava_next(case: str) -> None:
    model, processor = tiny_llava_next(grid=6, language="mistral", kv_heads=2)
    check(model, make_inputs(processor, make_image(150, 110, seed=4)), *CASES[case])
