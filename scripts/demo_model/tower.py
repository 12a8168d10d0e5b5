"""Stage one: the vision tower and the projector learn to say what each patch shows.

Losses are read at the tower's layer -2, which is what LLaVA passes on: colour, shape, label and box of the covering
object on the patches, and which things are present on the CLS token. The multi-label loss makes CLS attend to what is
in the picture, so that pruning methods which rank patches by CLS attention get a trained signal, as in CLIP.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlavaForConditionalGeneration

from demo_model.model import FEATURE_LAYER, WIDTH
from demo_model.patches import PRESENCE, PatchCode
from swiftvlm_eval.demo.scenes import COLOURS, LABELS, SHAPES

LABEL_WEIGHT = 3.0
"""Printed labels cover few patches; without the weight their loss drowns."""


class TowerHeads(nn.Module):
    """Linear read-outs of the tower, thrown away after training."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.cls_norm = nn.LayerNorm(WIDTH)
        self.colour = nn.Linear(WIDTH, len(COLOURS) + 1)
        self.shape = nn.Linear(WIDTH, len(SHAPES) + 1)
        self.label = nn.Linear(WIDTH, len(LABELS) + 1)
        self.box = nn.Linear(WIDTH, 4)
        self.presence = nn.Linear(WIDTH, PRESENCE)
        self.pooled_presence = nn.Linear(WIDTH, PRESENCE)


def tower_states(model: LlavaForConditionalGeneration, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states of layer -2, [B, 1 + N, WIDTH] with CLS first, and the pooled output [B, WIDTH]."""
    output = model.model.vision_tower(pixels, output_hidden_states=True)
    return output.hidden_states[FEATURE_LAYER], output.pooler_output


def visual_tokens(model: LlavaForConditionalGeneration, states: torch.Tensor) -> torch.Tensor:
    """[B, N, WIDTH]: what the decoder reads, as in LLaVA: CLS dropped, then the projector."""
    return model.model.multi_modal_projector(states[:, 1:])


def tower_losses(
    heads: TowerHeads, states: torch.Tensor, pooled: torch.Tensor, targets: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Scalar losses by name; `targets` as in `PatchTargets`, batched."""
    patches = heads.norm(states[:, 1:])
    cls = heads.cls_norm(states[:, 0])
    shown = (targets["colour"] > 0).unsqueeze(-1).float()
    box_error = F.smooth_l1_loss(heads.box(patches), targets["box"], beta=0.02, reduction="none")
    label = F.cross_entropy(heads.label(patches).flatten(0, 1), targets["label"].flatten(), reduction="none")
    printed = (targets["label"].flatten() > 0).float()
    presence = F.binary_cross_entropy_with_logits
    return {
        "colour": F.cross_entropy(heads.colour(patches).flatten(0, 1), targets["colour"].flatten()),
        "shape": F.cross_entropy(heads.shape(patches).flatten(0, 1), targets["shape"].flatten()),
        "label": (label * printed).sum() / printed.sum().clamp(min=1),
        "no_label": (label * (1 - printed)).mean(),
        "box": 10 * (box_error * shown).sum() / shown.sum().clamp(min=1) / 4,
        "cls": 4 * presence(heads.presence(cls), targets["presence"]),
        "pooled": 4 * presence(heads.pooled_presence(pooled), targets["presence"]),
    }


def alignment_loss(tokens: torch.Tensor, code: PatchCode, targets: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean squared distance of the visual tokens [B, N, WIDTH] to the fixed code of their patches.

    Patches that show a label weigh more (`LABEL_WEIGHT`), since there are few of them.
    """
    weight = 1 + LABEL_WEIGHT * (targets["label"] > 0).float() + (targets["colour"] > 0).float()
    distance = (tokens.float() - code.encode(targets)).square().mean(dim=-1)
    return (weight * distance).sum() / weight.sum()
