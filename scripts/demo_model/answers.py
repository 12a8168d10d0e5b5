"""Language-model loss on the answers, weighted and reported by kind of question."""

from __future__ import annotations

from collections import defaultdict

import torch
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from demo_model.batches import PackedQuestions, Packer
from demo_model.packed import packed_decoder
from swiftvlm_eval.demo.questions import SHORT_ANSWER

COORDINATES = 101
SPREAD = 1.0
"""Standard deviation, in hundredths, of the target distribution of a coordinate."""


class AnswerLoss:
    """Cross-entropy on answer tokens; a coordinate's target is spread over its neighbours.

    A box that is off by a hundredth is nearly right, which one-hot targets would not tell the model.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, packer: Packer) -> None:
        names = [f"{hundredths / 100:.2f}" for hundredths in range(COORDINATES)]
        self.coordinate_ids = torch.tensor(tokenizer.convert_tokens_to_ids(names))
        self._packer = packer
        self._prefix = torch.tensor(packer.prefix_ids)
        size = len(tokenizer)
        self._is_coordinate = torch.zeros(size, dtype=torch.bool)
        self._is_coordinate[self.coordinate_ids] = True
        steps = torch.arange(float(COORDINATES))
        spread = torch.exp(-((steps[:, None] - steps[None]) ** 2) / (2 * SPREAD**2))
        self._targets = torch.eye(size)
        self._targets[self.coordinate_ids[:, None], self.coordinate_ids] = spread / spread.sum(1, keepdim=True)
        ends = [tokenizer.convert_tokens_to_ids(phrase) for phrase in (SHORT_ANSWER, " ASSISTANT:")]
        self._prompt_end = torch.tensor(ends)
        marks = [tokenizer.eos_token_id, *tokenizer(" [0.00, 0.00]", add_special_tokens=False).input_ids]
        self._fixed = torch.tensor([mark for mark in marks if not self._is_coordinate[mark]])

    def to(self, device: torch.device) -> AnswerLoss:
        """Moves the tables to a device; returns self."""
        for name in ("coordinate_ids", "_prefix", "_is_coordinate", "_targets", "_fixed", "_prompt_end"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def __call__(
        self,
        model: LlavaForConditionalGeneration,
        visual: torch.Tensor,
        packed: PackedQuestions,
        coordinate_weight: float,
        reluctance: float,
        tally: Tally,
    ) -> torch.Tensor:
        """Mean weighted loss of a batch; adds each kind's loss and accuracy to `tally`.

        Args:
            model: The model whose embeddings, decoder and head are used.
            visual: [B, N, D] visual tokens.
            packed: The batch's questions.
            coordinate_weight: Weight of a coordinate relative to a word.
            reluctance: How much attention logits from a prompt's end and an answer to the prefix are lowered.
            tally: Where losses are counted.
        """
        embed = model.get_input_embeddings()
        prefix = torch.cat([embed(self._prefix).expand(len(visual), -1, -1), visual], dim=1)
        answered = packed.labels >= 0
        shy = reluctance * (answered | torch.isin(packed.ids, self._prompt_end)) if reluctance > 0 else None
        hidden = packed_decoder(model.model.language_model, prefix, embed(packed.ids), shy)
        labels, logits = packed.labels[answered], model.lm_head(hidden[answered]).float()
        losses = -(self._targets[labels] * logits.log_softmax(dim=-1)).sum(dim=-1)
        coordinate = self._is_coordinate[labels]
        self._count(tally, losses.detach(), logits.detach(), labels, packed.kind[answered])
        weights = torch.where(coordinate, coordinate_weight, 1.0)
        return (weights * losses).sum() / weights.sum()

    def _count(
        self, tally: Tally, losses: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor, kinds: torch.Tensor
    ) -> None:
        """Counts tokens that say something: no brackets, commas or ends."""
        telling = ~torch.isin(labels, self._fixed)
        right = (logits.argmax(dim=-1) == labels).float()
        for index, kind in enumerate(self._packer.kinds):
            chosen = telling & (kinds == index)
            if chosen.any():
                tally.add(kind, losses[chosen].sum().item(), right[chosen].sum().item(), int(chosen.sum()))


class Tally:
    """Running means of losses and accuracies by name."""

    def __init__(self) -> None:
        self._sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])

    def add(self, name: str, loss: float, right: float = 0.0, count: float = 1.0) -> None:
        """Adds sums over `count` items."""
        for position, value in enumerate((loss, right, count)):
            self._sums[name][position] += value

    def flush(self) -> dict[str, tuple[float, float]]:
        """Name -> (mean loss, share right) since the last call."""
        means = {name: (loss / n, right / n) for name, (loss, right, n) in sorted(self._sums.items())}
        self._sums.clear()
        return means
