"""Tokenizer of the demo model: byte-level BPE in which a word of the generator or a coordinate is one token.

The fixed sentences of LLaVA's prompts are one token each as well: they carry one bit of meaning here, and spelling
them would double the length of a question. The 256 bytes underneath spell anything else: no text is ever lost.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from swiftvlm_eval.demo.questions import GROUNDING, RELATIONS, SHORT_ANSWER
from swiftvlm_eval.demo.scenes import COLOURS, LABELS, SHAPES

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
"""System sentence of the vicuna_v1 conversation (LLaVA-1.5, arXiv 2310.03744)."""

BEFORE_IMAGE = f"{SYSTEM} USER: "
AFTER_IMAGE = "\n{} ASSISTANT:"

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<image>")

PIECES = r"[01]\.\d\d|, (?=[01]\.\d)|\n| ?[A-Za-z]+| ?\d\d?| ?[^\sA-Za-z\d]+|\s+"
"""A coordinate is a piece without its space, so that all four corners of a box share one set of tokens."""

PHRASES = (SYSTEM, " USER:", " ASSISTANT:", GROUNDING.format("").removesuffix(" ."), SHORT_ANSWER)
"""Fixed sentences that are one token each."""

WORDINGS = (
    "What color is the ? What shape is the object? How many are there? what number word is on the ?",
    "Is there a an in the image? Yes No yes no crosses",
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Trains the tokenizer on the generator's own closed vocabulary; the result never varies."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PIECES), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,  # never reached: merging ends when every piece is one token
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(_corpus(), trainer)
    core.add_tokens([AddedToken(phrase, normalized=False) for phrase in PHRASES])
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", core.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )


def _corpus() -> Iterator[str]:
    yield "\n"
    yield from WORDINGS
    for word in (*COLOURS, *SHAPES, *RELATIONS, *(f"{shape}s" for shape in SHAPES), *LABELS):
        yield f" {word}"
    for hundredths in range(101):
        yield f" [{hundredths / 100:.2f}, {hundredths / 100:.2f}]"
