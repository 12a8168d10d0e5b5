"""How good each layer's own choice of tokens is: one sample answered once for every layer (arXiv 2602.03134).

A sample is answered with all its tokens, noting in every layer which share of them the last prompt token attends to
most; then once for each layer l from the second on, where layers 1 and 2 see all tokens and the others see layer l's.
All answers of a sample share its image encoding and the first two layers of its prefill (`shared_prefill`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import LogitsProcessorList

from swiftvlm_eval.analysis.shared_prefill import SharedPrefill
from swiftvlm_eval.analysis.token_probes import AttentionWatch, GivenTokens
from swiftvlm_eval.lmms.answering import cut_at, generation_arguments
from swiftvlm_eval.lmms.first_token import FirstTokenLogits
from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.pruning.contract import PruningMethod
from swiftvlm_eval.pruning.engine import PruningSession


@dataclass(frozen=True)
class Answers:
    """One sample's answers.

    Attributes:
        vanilla: with all tokens.
        by_layer: layer, from 2 -> with that layer's tokens from layer 3 on.
        tokens: layer -> these tokens, visual indices, ascending.
        num_visual: N.
        num_text: text tokens of the prompt.
        not_finite: layers (0 for vanilla) whose answer began on logits that are not finite, so that it means nothing.
    """

    vanilla: str
    by_layer: Mapping[int, str]
    tokens: Mapping[int, tuple[int, ...]]
    num_visual: int
    num_text: int
    not_finite: tuple[int, ...]


class LayerAnswers:
    """A checkpoint that answers one sample once for every layer.

    Args:
        checkpoint: loaded.
        share: of the visual tokens that every layer keeps, above 0 and at most 1.
        shared: entered on the checkpoint's adapter.

    Raises:
        ValueError: the share, or a decoder of fewer than four layers: there would be nothing to choose.
    """

    def __init__(self, checkpoint: Checkpoint, share: float, shared: SharedPrefill) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"top={share}: allowed is a share of the visual tokens above 0 and at most 1")
        self.num_layers = checkpoint.adapter.decoder.shape.num_layers
        if self.num_layers < 4:
            raise ValueError(f"decoder of {self.num_layers} layers: a profile needs at least 4")
        self.checkpoint = checkpoint
        self.share = share
        self.shared = shared

    @torch.inference_mode()
    def answer(self, prompt: str, images: Sequence[Image.Image], gen_kwargs: Mapping[str, Any]) -> Answers:
        """All answers of one sample.

        Args:
            prompt: rendered, with one placeholder per image.
            images: of the prompt.
            gen_kwargs: the task's generation arguments.

        Raises:
            ValueError: the prompt shows no image, or attention is not finite.
        """
        self.shared.forget()
        inputs = self.checkpoint.encode([prompt], [images])
        watch = AttentionWatch(share=self.share)
        generate = self._generator(inputs, gen_kwargs)
        vanilla, failed, session = generate(watch)
        trace = session.traces[0]
        if trace.num_visual == 0:
            raise ValueError("the prompt has no visual tokens; a layer profile needs an image")
        tokens = {layer: tuple(kept.tolist()) for layer, kept in sorted(watch.seen.items())}
        by_layer, not_finite = {}, [0] if failed else []
        for layer, kept in tokens.items():
            by_layer[layer], failed, _ = generate(GivenTokens(tokens=kept))
            not_finite += [layer] if failed else []
        return Answers(vanilla, by_layer, tokens, trace.num_visual, trace.num_text, tuple(not_finite))

    def _generator(
        self, inputs: Mapping[str, Any], gen_kwargs: Mapping[str, Any]
    ) -> Callable[[PruningMethod], tuple[str, bool, PruningSession]]:
        """A method -> answer, whether its first logits are not finite, and the session that it ran in."""
        model, tokenizer = self.checkpoint.model, self.checkpoint.tokenizer

        def generate(method: PruningMethod) -> tuple[str, bool, PruningSession]:
            first = FirstTokenLogits(1)
            session = PruningSession(self.checkpoint.adapter, method, None)
            with session.bound():
                sequences = model.generate(
                    **inputs,
                    **generation_arguments(gen_kwargs),
                    pad_token_id=tokenizer.pad_token_id,
                    logits_processor=LogitsProcessorList([first]),
                )
            emitted = sequences[0, inputs["input_ids"].shape[1] :]
            text = tokenizer.decode(emitted, skip_special_tokens=True)
            return cut_at(text, gen_kwargs.get("until")), first.failed[0], session

        return generate
