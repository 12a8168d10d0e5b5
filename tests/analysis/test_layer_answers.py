"""One sample's answers for every layer, against the stock model's attention and against full runs without sharing."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from probe_methods import probe
from tiny_checkpoint import in_memory
from torch import Tensor

from swiftvlm_eval import prune
from swiftvlm_eval.analysis.layer_profile import LayerAnswers
from swiftvlm_eval.analysis.shared_prefill import SharedPrefill, shared_prefill
from swiftvlm_eval.analysis.token_probes import kept_count
from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.models.prompts import vicuna_v1
from swiftvlm_eval.testing.tiny_models import make_image

LAYERS, NEW = 6, 6
GENERATION = {"max_new_tokens": NEW, "until": []}
PROMPTS = [("What is in the picture?", (70, 50)), ("Yes or no.", (33, 61))]


@pytest.fixture(scope="module", params=[("llava", "sdpa"), ("llava_next", "sdpa"), ("llava", "eager")])
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    family, attn = request.param
    return in_memory(family, layers=LAYERS, grid=4, attn=attn)


@pytest.fixture
def shared(checkpoint: Checkpoint) -> Iterator[SharedPrefill]:
    with shared_prefill(checkpoint.adapter, 2) as opened:
        yield opened


def sample(number: int) -> tuple[str, list[Any]]:
    question, size = PROMPTS[number]
    return vicuna_v1(question), [make_image(*size, number)]


def stock_answer(checkpoint: Checkpoint, inputs: Any) -> Tensor:
    found: Tensor = checkpoint.model.generate(
        **inputs, max_new_tokens=NEW, do_sample=False, pad_token_id=checkpoint.tokenizer.pad_token_id
    )
    return found[0, inputs["input_ids"].shape[1] :]


def text_of(checkpoint: Checkpoint, ids: Tensor) -> str:
    text: str = checkpoint.tokenizer.decode(ids, skip_special_tokens=True)
    return text.strip()


def attended(checkpoint: Checkpoint, inputs: Any, share: float) -> dict[int, tuple[int, ...]]:
    """Layer -> tokens, from the attention matrices of the stock eager model."""
    model = checkpoint.model
    before = model.model.language_model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        output = model(**inputs, output_attentions=True)
    finally:
        model.set_attn_implementation(before)
    visual = (inputs["input_ids"][0] == model.config.image_token_id).nonzero()[:, 0]
    found = {}
    for layer, matrix in enumerate(output.attentions, start=1):
        rows = matrix[0, :, -1, visual].double()
        scores = (rows / rows.sum(dim=1, keepdim=True)).mean(dim=0)
        best = sorted(range(len(visual)), key=lambda token: (-float(scores[token]), token))
        found[layer] = tuple(sorted(best[: max(1, round(share * len(visual)))]))
    return found


@pytest.mark.parametrize("number", range(len(PROMPTS)))
def test_answers_are_those_of_full_runs(checkpoint: Checkpoint, number: int) -> None:
    """Nothing is shared on the right-hand side: a probe at boundary 2 runs the whole model for every layer."""
    prompt, images = sample(number)
    with shared_prefill(checkpoint.adapter, 2) as shared:
        answers = LayerAnswers(checkpoint, 0.2, shared).answer(prompt, images, GENERATION)
    inputs = checkpoint.encode([prompt], [images])
    with torch.inference_mode():
        assert answers.vanilla == text_of(checkpoint, stock_answer(checkpoint, inputs))
        tokens = attended(checkpoint, inputs, 0.2)
        assert answers.tokens == {layer: tokens[layer] for layer in range(2, LAYERS + 1)}
        assert len(set(answers.tokens.values())) > 2  # else the answers could be mixed up unseen
        for layer, text in answers.by_layer.items():
            kept = torch.tensor(tokens[layer])
            keeping = probe(lambda signals, kept=kept: signals.keep(kept), boundary=2, kept=len(kept))
            with prune(checkpoint.model, keeping) as session:
                assert text == text_of(checkpoint, stock_answer(checkpoint, inputs))
            assert session.traces[0].rows_per_layer == [session.traces[0].num_visual] * 2 + [len(kept)] * (LAYERS - 2)
    assert len({answers.vanilla, *answers.by_layer.values()}) > 2
    assert answers.num_visual == int((inputs["input_ids"] == checkpoint.adapter.image_token_id).sum())
    assert not answers.not_finite


def test_image_and_first_layers_run_once_a_sample(checkpoint: Checkpoint, shared: SharedPrefill) -> None:
    runs = {"tower": 0, "first": 0, "second": 0, "third": 0}

    def count(name: str) -> Any:
        def hook(module: Any, args: Any) -> None:
            prefill = name == "tower" or (args[0].dim() == 3 and args[0].shape[1] > 1)
            runs[name] += prefill

        return hook

    layers = checkpoint.adapter.decoder.layers
    counted = {
        "tower": checkpoint.adapter.core.vision_tower,
        "first": layers[0].self_attn.q_proj,
        "second": layers[1].self_attn.q_proj,
        "third": layers[2].self_attn.q_proj,
    }
    hooks = [module.register_forward_pre_hook(count(name)) for name, module in counted.items()]
    profile = LayerAnswers(checkpoint, 0.2, shared)
    for number in range(2):
        profile.answer(*sample(number), GENERATION)
    for hook in hooks:
        hook.remove()
    # a watched layer projects one query more, [1, hidden_size]; only the rows of a prompt count here
    assert runs == {"tower": 2, "first": 2, "second": 2, "third": 2 * LAYERS}
    assert (shared.encoded, shared.layers_run) == (2, 4)
    assert (shared.encodings_shared, shared.layers_shared) == (2 * (LAYERS - 1), 4 * (LAYERS - 1))


def test_a_sample_is_never_given_what_another_one_left(checkpoint: Checkpoint, shared: SharedPrefill) -> None:
    """Also without `forget`, and with equal images but other questions, or equal questions but other images."""
    first, second = sample(0), sample(1)
    mixed = [first, (first[0], second[1]), (second[0], first[1]), second, first]
    inputs = [checkpoint.encode([prompt], [images]) for prompt, images in mixed]
    with torch.inference_mode(), prune(checkpoint.model, probe(lambda signals: None)):
        together = [text_of(checkpoint, stock_answer(checkpoint, one)) for one in inputs]
    assert shared.layers_shared == 0  # no prompt came twice in a row
    assert len(set(together)) > 1
    fresh = in_memory(checkpoint.family, layers=LAYERS, grid=4)
    with torch.inference_mode():
        assert together == [text_of(fresh, stock_answer(fresh, one)) for one in inputs]


def test_the_model_is_itself_again(checkpoint: Checkpoint) -> None:
    layer, core = checkpoint.adapter.decoder.layers[0], checkpoint.adapter.core
    with pytest.raises(KeyError), shared_prefill(checkpoint.adapter, 2):
        assert "forward" in layer.__dict__ and "get_image_features" in core.__dict__
        raise KeyError
    assert "forward" not in layer.__dict__ and "get_image_features" not in core.__dict__


def test_logits_that_are_not_finite_are_named() -> None:
    broken = in_memory(layers=LAYERS, grid=4)
    with torch.no_grad():
        broken.model.lm_head.weight[5] = torch.nan
    with shared_prefill(broken.adapter, 2) as shared:
        answers = LayerAnswers(broken, 0.2, shared).answer(*sample(0), GENERATION)
    assert answers.not_finite == (0, *range(2, LAYERS + 1))


@pytest.mark.parametrize(
    ("share", "prompt", "images", "said"),
    [
        (0.0, 0, 1, "top=0.0"),
        (1.5, 0, 1, "top=1.5"),
        (0.2, "USER: Why? ASSISTANT:", 0, "no visual tokens"),
    ],
)
def test_what_cannot_be_profiled_is_refused(share: float, prompt: Any, images: int, said: str) -> None:
    tiny = in_memory(layers=LAYERS, grid=4)
    with pytest.raises(ValueError, match=said), shared_prefill(tiny.adapter, 2) as shared:
        profile = LayerAnswers(tiny, share, shared)
        profile.answer(prompt or sample(0)[0], sample(0)[1][:images], GENERATION)


def test_three_layers_are_too_few() -> None:
    with pytest.raises(ValueError, match="decoder of 3 layers"):
        LayerAnswers(in_memory(layers=3), 0.2, SharedPrefill())


def test_shares_are_rounded_and_never_nothing() -> None:
    assert [kept_count(0.2, count) for count in (1, 2, 4, 144, 576)] == [1, 1, 1, 29, 115]
    assert kept_count(1.0, 7) == 7
