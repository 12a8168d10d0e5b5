"""A vision-side method of your own: the visual tokens whose patches CLS attends to most, as in FasterVLM.

swiftvlm-eval sweep --model demo --methods vanilla,examples/own_method/cls_top.py:ClsTop --tasks demo --out results
"""

from dataclasses import dataclass
from typing import ClassVar

from swiftvlm_eval import PromptWork, PruningMethod, RowEdit, Signals, Work, top_k


@dataclass(frozen=True, kw_only=True)
class ClsTop(PruningMethod):
    """Keeps the tokens with the highest CLS attention, before the decoder."""

    name: ClassVar[str] = "cls_top"
    title: ClassVar[str] = "CLS top"
    source: ClassVar[str] = "after arXiv 2412.01818"
    summary: ClassVar[str] = "before the decoder: the patches that CLS attends to most"
    needs: ClassVar = frozenset({"cls_attention"})
    default_layers: ClassVar[tuple[int, ...]] = (0,)

    def select(self, signals: Signals) -> RowEdit:
        """Newline tokens of LLaVA-NeXT stand for no patch and go first."""
        layout, attention = signals.layout, signals.vision.cls_attention.mean(dim=1)  # [tiles, patches]
        scores = attention[layout.tile.clamp(min=0), layout.patch.clamp(min=0)]
        return signals.keep(top_k(scores.masked_fill(layout.newline.to(scores.device), -1), signals.stage.kept))

    def work(self, prompt: PromptWork) -> Work:
        """One query per tile against its keys."""
        tokens = prompt.encoder_inputs * (1 + prompt.patches)
        return Work(tower_queries=prompt.encoder_inputs, tower_keys=tokens, tower_attention=tokens)
