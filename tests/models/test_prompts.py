"""The conversation form and the token ids around an image."""

from itertools import groupby
from typing import Any

import pytest
import torch
from tiny_checkpoint import in_memory
from tokenizers import Tokenizer, models, normalizers
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from swiftvlm_eval.models.prompts import continuation_ids, prompt_ids, vicuna_v1
from swiftvlm_eval.testing.tiny_models import make_image, tiny_llava

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
IMAGE = 99


PIECES = ["<unk>", "<s>", "</s>", "<0x0A>", "▁", ":", *"AEGHINRSTUi"]
VOCABULARY = {piece: number for number, piece in enumerate(PIECES)}


def spelling_tokenizer(**options: bool) -> LlamaTokenizer:
    """A Llama tokenizer that knows single characters only, so that its ids can be worked out by hand."""
    return LlamaTokenizer(vocab=VOCABULARY, merges=[], **options)


def legacy_tokenizer() -> PreTrainedTokenizerFast:
    """The same, as Llama's tokenizer files of 2023 have it: a space in front of *every* text."""
    tokenizer = Tokenizer(models.BPE(vocab=VOCABULARY, merges=[], fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


TOKENIZERS = {
    "adds-bos": lambda: spelling_tokenizer(add_bos_token=True),
    "no-bos": spelling_tokenizer,
    "legacy": legacy_tokenizer,
}


@pytest.fixture(params=list(TOKENIZERS))
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return TOKENIZERS[request.param]()


def spell(ids: list[int]) -> list[str]:
    return ["image" if key == IMAGE else PIECES[key] for key in ids]


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("Why?", {}, f"{SYSTEM} USER: <image>\nWhy? ASSISTANT:"),
        ("Why?", {"num_images": 2}, f"{SYSTEM} USER: <image>\n<image>\nWhy? ASSISTANT:"),
        ("Why?", {"num_images": 0}, f"{SYSTEM} USER: Why? ASSISTANT:"),
        ("A <image> B", {}, f"{SYSTEM} USER: A <image> B ASSISTANT:"),
        ("<image> or <image>?", {"num_images": 2}, f"{SYSTEM} USER: <image> or <image>? ASSISTANT:"),
        ("Why?", {"system_prompt": "Be brief."}, "Be brief. USER: <image>\nWhy? ASSISTANT:"),
        ("Why?", {"system_prompt": ""}, "USER: <image>\nWhy? ASSISTANT:"),
    ],
)
def test_the_rendered_prompt(text: str, options: dict[str, Any], expected: str) -> None:
    assert vicuna_v1(text, **options) == expected


@pytest.mark.parametrize(("text", "images"), [("<image> <image>", 1), ("<image>", 0), ("<image>", 2)])
def test_other_numbers_of_placeholders_are_refused(text: str, images: int) -> None:
    with pytest.raises(ValueError, match=rf"{text.count('<image>')} <image> placeholders for {images} images"):
        vicuna_v1(text, images)


def test_ids_around_an_image_as_the_original_scripts_make_them(tokenizer: Any) -> None:
    ids = prompt_ids(tokenizer, "USER: <image>\nHi ASSISTANT:", IMAGE, [3])
    spelled = spell(ids)
    # Each piece of text gets the lone space piece of a text of its own: "… : ▁ [image] ▁ \n …"
    before = ["<s>", "▁", *"USER:", "▁"]
    after = ["▁", "<0x0A>", *"Hi", "▁", *"ASSISTANT:"]
    assert spelled[: len(before)] == before
    assert spelled[len(before) : len(before) + 3] == ["image"] * 3
    assert spelled[len(before) + 3 :] == after
    assert spelled.count("<s>") == 1


def test_ids_of_a_prompt_without_and_with_two_images(tokenizer: Any) -> None:
    assert spell(prompt_ids(tokenizer, "USER", IMAGE, [])) == ["<s>", "▁", *"USER"]
    ids = prompt_ids(tokenizer, "U<image>S<image>E", IMAGE, [2, 1])
    assert spell(ids) == ["<s>", "▁", "U", "image", "image", "▁", "S", "image", "▁", "E"]


@pytest.mark.parametrize(("text", "spelled"), [(" A", "▁A"), ("A", "A"), (" A HIT", "▁A▁HIT"), ("\nA", "\nA")])
def test_ids_of_a_continuation_are_those_of_the_whole_text(tokenizer: Any, text: str, spelled: str) -> None:
    expected = ["<0x0A>" if character == "\n" else character for character in spelled]
    assert spell(continuation_ids(tokenizer, "<image>\nHi ASSISTANT:", text)) == expected


def test_an_empty_continuation_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="continuation='': allowed is a text"):
        continuation_ids(tokenizer, "ASSISTANT:", "")


@pytest.mark.parametrize(("prompt", "counts"), [("USER: no image", [4]), ("<image> <image>", [4])])
def test_ids_need_one_placeholder_for_each_image(prompt: str, counts: list[int]) -> None:
    with pytest.raises(ValueError, match=rf"{prompt.count('<image>')} image placeholders for 1 images"):
        prompt_ids(tiny_llava()[1].tokenizer, prompt, IMAGE, counts)


def test_an_encoded_batch_is_padded_left_with_one_run_of_visual_tokens_a_row() -> None:
    checkpoint = in_memory(grid=4, layers=2)
    prompts = [vicuna_v1("Why?"), vicuna_v1("What is in the picture? A red square left of a blue circle.")]
    inputs = checkpoint.encode(prompts, [[make_image(60, 40)], [make_image(40, 60)]])
    assert inputs["pixel_values"].shape == (2, 3, 56, 56)
    tokenizer, token = checkpoint.tokenizer, checkpoint.model.config.image_token_id
    for prompt, row, mask in zip(prompts, inputs["input_ids"], inputs["attention_mask"], strict=True):
        padding = int((mask == 0).sum())
        assert not mask[:padding].any() and mask[padding:].all()
        assert (row[:padding] == tokenizer.pad_token_id).all()
        ids = row[padding:].tolist()
        assert [len(list(run)) for visual, run in groupby(ids, lambda key: key == token) if visual] == [16]
        assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
        # with a byte-level tokenizer the ids spell the prompt exactly
        assert tokenizer.decode([key for key in ids[1:] if key != token]) == prompt.replace("<image>", "")
    assert inputs["attention_mask"].sum(dim=1).unique().numel() == 2


def test_prompts_without_images_have_no_pixels() -> None:
    inputs = in_memory(grid=4, layers=2).encode([vicuna_v1("Why?", 0)], [[]])
    assert set(inputs) == {"input_ids", "attention_mask"}
    assert bool(torch.all(inputs["attention_mask"] == 1))


def test_images_and_placeholders_must_match() -> None:
    with pytest.raises(ValueError, match="0 image placeholders for 1 images"):
        in_memory(grid=4, layers=2).encode(["USER: Why? ASSISTANT:"], [[make_image(60, 40)]])


def test_mistral_checkpoints_have_their_own_conversation_form() -> None:
    from swiftvlm_eval.models.families import FAMILIES
    from swiftvlm_eval.models.prompts import FORMS, mistral_instruct

    assert mistral_instruct("What is it?") == "[INST] <image>\nWhat is it? [/INST]"
    assert mistral_instruct("What is it?", 0, "A system sentence.") == "[INST] What is it? [/INST]"
    assert {FORMS[family.prompts["mistral"]] for family in FAMILIES.values()} == {mistral_instruct}
    with pytest.raises(ValueError, match="2 <image> placeholders for 1 images"):
        mistral_instruct("<image><image>")
