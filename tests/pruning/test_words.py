"""Every word of the contract against a slow computation on the stock model."""

from typing import Any

import pytest
import torch
from probe_methods import apply_edit, probe
from transformers import Qwen3Config

from swiftvlm_eval import prune
from swiftvlm_eval.models.adapter import DecoderPart, adapter_for
from swiftvlm_eval.pruning.contract import RowEdit, Signals
from swiftvlm_eval.pruning.rows import initial_rows
from swiftvlm_eval.testing.greedy import generate
from swiftvlm_eval.testing.tiny_models import make_image, make_inputs, tiny_llava


def prepared(**options: Any) -> tuple[Any, Any, torch.Tensor]:
    model, processor = tiny_llava(grid=4, layers=8, **options)
    inputs = make_inputs(processor, make_image(60, 50, seed=1), system="A chat. ")
    return model, inputs, (inputs["input_ids"][0] == model.config.image_token_id).nonzero()[:, 0]


def seen(model: Any, inputs: Any, read: Any, **options: Any) -> Any:
    """What a probe saw in one prefill."""
    found: list[Any] = []
    with prune(model, probe(lambda signals: found.append(read(signals)), **options)) as session, torch.no_grad():
        session.questions = ["What?"]
        model(**inputs)
    return found[0]


def test_layer_keys_are_those_of_the_stock_cache() -> None:
    model, inputs, visual = prepared(kv_heads=2)
    ours = seen(model, inputs, lambda signals: signals.layer_run().keys, needs=["layer_keys"])
    with torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    torch.testing.assert_close(ours, cache.layers[2].keys[0][:, visual])


def test_module_rows_are_those_of_the_stock_modules() -> None:
    model, inputs, visual = prepared()
    ours = seen(model, inputs, lambda signals: signals.layer_run().modules, needs=["module_io"])
    rows: dict[str, torch.Tensor] = {}
    layer = model.model.language_model.layers[2]

    def keep(name: str) -> Any:
        def hook(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            rows[f"{name}_in"] = args[0] if args else kwargs["hidden_states"]
            rows[f"{name}_out"] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [layer.self_attn.register_forward_hook(keep("attention"), with_kwargs=True)]
    handles.append(layer.mlp.register_forward_hook(keep("mlp"), with_kwargs=True))
    with torch.no_grad():
        model(**inputs)
    for handle in handles:
        handle.remove()
    for name, whole in rows.items():
        torch.testing.assert_close(getattr(ours, name), whole[0, visual])
    with pytest.raises(RuntimeError, match="declare the need module_io"):
        seen(model, inputs, lambda signals: signals.layer_run().modules)


@pytest.mark.parametrize("scope", ["all", "visual"])
@pytest.mark.parametrize("scorer", ["previous", "next"])
def test_attention_among_visual_rows_is_that_of_the_eager_model(scorer: str, scope: Any) -> None:
    model, inputs, visual = prepared(attn="eager", kv_heads=2)
    asking = torch.tensor([0, 5, 15])
    ours = seen(model, inputs, lambda s: s.attention(visual_queries=asking, scope=scope), scorer=scorer)
    with torch.no_grad():
        whole = model(**inputs, output_attentions=True).attentions[2 if scorer == "previous" else 3][0]
    expected = whole[:, visual[asking]][:, :, visual]
    if scope == "visual":
        expected = expected / expected.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-4)


def test_pixels_and_question_are_what_was_given() -> None:
    model, inputs, _ = prepared()
    assert torch.equal(seen(model, inputs, lambda s: s.vision.pixels, needs=["pixels"]), inputs["pixel_values"])
    assert seen(model, inputs, lambda s: s.question_text, needs=["question_text"]) == "What?"
    with pytest.raises(ValueError, match="question_text: nobody gave the questions"), torch.no_grad():
        with prune(model, probe(lambda signals: signals.question_text)):
            model(**inputs)


def test_a_need_that_the_family_lacks_is_refused_when_the_block_is_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, _ = prepared()
    monkeypatch.setattr("swiftvlm_eval.models.adapter.TowerPart.offers", frozenset({"patch_features"}))
    method = probe(lambda signals: None, needs=["cls_attention"])
    with pytest.raises(ValueError, match="probe needs cls_attention, which llava does not have; it offers .*patch_"):
        with prune(model, method):
            pass


def hidden_from(model: Any, blocked: dict[int, torch.Tensor]) -> list[Any]:
    """Hooks that hide the given key columns from each layer of the stock model, whoever asks (itself apart)."""
    handles = []
    for number, layer in enumerate(model.model.language_model.layers):

        def hook(module: Any, args: Any, kwargs: Any, number: int = number) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            past = kwargs["past_key_values"].get_seq_length(number) if kwargs.get("past_key_values") else 0
            rows, columns = hidden.shape[1], past + hidden.shape[1]
            visible = torch.ones(rows, columns, dtype=torch.bool).tril(columns - rows)
            visible[:, blocked[number][blocked[number] < columns]] = False
            visible |= torch.arange(columns) == torch.arange(past, columns)[:, None]
            return args, {**kwargs, "attention_mask": visible[None, None]}

        handles.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
    return handles


def masked_logits(model: Any, inputs: Any, tokens: list[int], prefill: Any, decode: Any) -> list[torch.Tensor]:
    """Logits of prefill and of every forced token in the stock model with hidden columns."""
    handles = hidden_from(model, prefill)
    with torch.no_grad():
        output = model(**inputs, use_cache=True)
    for handle in handles:
        handle.remove()
    logits, handles = [output.logits[0, -1]], hidden_from(model, decode)
    with torch.no_grad():
        for token in tokens:
            output = model(input_ids=torch.tensor([[token]]), past_key_values=output.past_key_values, use_cache=True)
            logits.append(output.logits[0, -1])
    for handle in handles:
        handle.remove()
    return logits


@pytest.mark.parametrize("evict_from", [None, 0, 2])
@pytest.mark.parametrize("kept", [[], [1, 4, 9]])
def test_zero_rows_and_removal_from_earlier_caches_equal_masking(kept: list[int], evict_from: int | None) -> None:
    model, inputs, visual = prepared()
    rows = torch.tensor(kept, dtype=torch.int64)

    def act(signals: Signals) -> RowEdit:
        return RowEdit(signals.states[rows], signals.index[rows], signals.places[rows], evict_from=evict_from)

    with prune(model, probe(act, boundary=5, kept=len(kept))) as session:
        ours = generate(model, inputs)
    assert session.traces[0].rows_per_layer == [16] * 5 + [len(kept)] * 3
    dropped = visual[[number for number in range(16) if number not in kept]]
    none = torch.zeros(0, dtype=torch.int64)
    prefill = {layer: dropped if layer >= 5 else none for layer in range(8)}
    first = 5 if evict_from is None else evict_from
    decode = {layer: dropped if layer >= first else none for layer in range(8)}
    tokens = ours.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    expected = masked_logits(model, inputs, tokens[:-1], prefill, decode)
    for got, wanted in zip(ours.logits, expected, strict=True):
        torch.testing.assert_close(got[0], wanted, atol=1e-4, rtol=1e-4)


def test_removal_from_caches_is_alike_in_a_batch() -> None:
    model, processor = tiny_llava(grid=4, layers=8)
    images = [make_image(60, 50, seed=1), make_image(50, 80, seed=2)]
    texts = ["USER: <image>\nWhat is in the picture? ASSISTANT:", "USER: <image>\nRed? ASSISTANT:"]

    def act(signals: Signals) -> RowEdit:
        rows = signals.states.float().norm(dim=1).argsort()[: 2 + signals.num_question % 3].sort().values
        return RowEdit(signals.states[rows], signals.index[rows], signals.places[rows], evict_from=1)

    with prune(model, probe(act, boundary=4)):
        joint = generate(model, processor(images=images, text=texts, padding=True, return_tensors="pt"))
    for number in range(2):
        with prune(model, probe(act, boundary=4)):
            single = generate(model, processor(images=images[number], text=texts[number], return_tensors="pt"))
        for whole, part in zip(joint.logits, single.logits, strict=True):
            torch.testing.assert_close(whole[number], part[0], atol=2e-4, rtol=2e-4)


def test_rows_rewritten_in_place_are_rewritten_for_the_layers_that_follow() -> None:
    model, inputs, visual = prepared()
    with prune(model, probe(lambda s: RowEdit(2 * s.states, s.index, s.places))), torch.no_grad():
        ours = model(**inputs).logits

    def double(module: Any, args: Any) -> Any:
        hidden = args[0].clone()
        hidden[:, visual] *= 2
        return (hidden, *args[1:])

    handle = model.model.language_model.layers[3].register_forward_pre_hook(double)
    with torch.no_grad():
        expected = model(**inputs).logits
    handle.remove()
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_tensors_that_the_decoder_does_not_know_are_refused() -> None:
    model, inputs, _ = prepared()
    with prune(model, probe(lambda signals: None)), torch.no_grad():
        with pytest.raises(ValueError, match="deepstack_visual_embeds: tensors that the pruning engine does not know"):
            model.model.language_model(
                inputs_embeds=torch.zeros(1, 4, 64), deepstack_visual_embeds=[torch.zeros(1, 2, 64)]
            )


class ThreeAxes(DecoderPart):
    position_axes = 3


def test_position_ids_of_another_number_of_axes_are_refused() -> None:
    model, _, _ = prepared()
    decoder = adapter_for(model).decoder
    cos, _ = decoder.rotary(torch.zeros(1, 5, 64), torch.arange(5.0)[None, None])
    assert cos.shape == (1, 5, 16)
    for wrong in (torch.arange(5.0)[None], torch.zeros(3, 1, 5)):
        with pytest.raises(ValueError, match=r"position_ids of shape .*: allowed is \[1, batch, length\]"):
            decoder.rotary(torch.zeros(1, 5, 64), wrong)
    with pytest.raises(ValueError, match=r"allowed is \[3, batch, length\]"):
        ThreeAxes(model.model.language_model).rotary(torch.zeros(1, 5, 64), torch.arange(5.0)[None, None])


def test_rows_that_return_get_their_ids_from_the_prompt_and_merged_rows_those_of_their_place() -> None:
    # text, a 2 x 2 image at time 1, text: ids as a multimodal rotary embedding numbers them
    ids = torch.tensor([[0, 1, 1, 1, 1, 3], [0, 1, 1, 2, 2, 3], [0, 1, 2, 1, 2, 3]])
    rows = initial_rows([False, True, True, True, True, False], ids)
    states = torch.arange(6.0)[:, None]
    one = RowEdit(states[[2]], torch.tensor([1]), torch.tensor([2.0]))
    fewer, hidden = apply_edit(rows, states, one, renumber=False)
    assert fewer.position_ids.tolist() == [[0, 1, 3], [0, 1, 3], [0, 2, 3]]
    back = RowEdit(torch.zeros(3, 1), torch.tensor([3, 0, -1]), torch.tensor([4.0, 1.0, 2.5]))
    again, _ = apply_edit(fewer, hidden, back, renumber=False)
    assert again.index.tolist() == [0, -1, 3]
    assert again.position_ids.tolist() == [[0, 1, 1, 1, 3], [0, 1, 1.5, 2, 3], [0, 1, 1.5, 2, 3]]
    packed, _ = apply_edit(rows, states, one, renumber=True)
    assert packed.position_ids.tolist() == [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    assert packed.places.tolist() == [0, 1, 2]


def test_queries_and_keys_are_normalised_where_the_layer_does() -> None:
    model, inputs, visual = prepared(attn="eager")
    config = Qwen3Config(
        vocab_size=model.config.text_config.vocab_size,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,  # four heads of 32 on rows of 64
    )
    config._attn_implementation = "eager"
    from transformers import Qwen3Model

    torch.manual_seed(0)
    language_model = Qwen3Model(config).eval()
    with torch.no_grad():
        for layer in language_model.layers:
            layer.self_attn.q_norm.weight.uniform_(0.5, 1.5)
            layer.self_attn.k_norm.weight.uniform_(0.5, 1.5)
    decoder = DecoderPart(language_model)
    assert (decoder.shape.query_width, decoder.shape.key_width) == (128, 64)
    rows = torch.randn(1, 7, 64)
    with torch.no_grad():
        output = language_model(inputs_embeds=rows, output_attentions=True, output_hidden_states=True)
        from swiftvlm_eval.models.attention import attention_rows, rotate

        before = output.hidden_states[3][0]
        table = [part[0] for part in decoder.rotary(before[None], torch.arange(7.0)[None, None])]
        query, keys = (rotate(part, *table) for part in (decoder.queries(3, before), decoder.keys(3, before)))
        ours = attention_rows(query[:, -1:], keys)
    torch.testing.assert_close(ours, output.attentions[3][0][:, -1:], atol=1e-6, rtol=1e-4)
