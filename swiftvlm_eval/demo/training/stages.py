"""The three stages of training, as data, and the loss of each.

1. `tower`: tower and projector learn to write the code of each patch (`tower.py`).
2. `decoder`: the decoder learns to answer from perfect codes (`patches.py`), without any image.
3. `joint`: everything trains on the answers, from pixels; the tower's losses stay on with a small weight.

LLaVA (arXiv 2304.08485) aligns a projector between a trained tower and a trained decoder before it trains both. Here
neither half exists beforehand, so stages one and two train them apart towards a common code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from transformers import LlavaForConditionalGeneration

from swiftvlm_eval.demo.questions import Question
from swiftvlm_eval.demo.scenes import Scene
from swiftvlm_eval.demo.training.answers import AnswerLoss, Tally
from swiftvlm_eval.demo.training.batches import Packer, pixel_batch, target_batch
from swiftvlm_eval.demo.training.patches import PatchCode
from swiftvlm_eval.demo.training.tower import (
    TowerHeads,
    alignment_loss,
    tower_losses,
    tower_states,
    visual_tokens,
)

StageName = Literal["tower", "decoder", "joint"]
ALIGNMENT_WEIGHT = 2.0


@dataclass(frozen=True)
class Stage:
    """Schedule of one stage.

    `seed` numbers the stream of training scenes; `tower_weight` scales the tower's losses; `coordinate_weight` is the
    weight of a coordinate beside a word, small at first because boxes are many tokens and learn last.
    """

    name: StageName
    steps: int
    images: int
    learning_rate: float
    seed: int
    warmup: int = 50
    tower_weight: float = 0.0
    coordinate_weight: float = 1.0


STAGES: tuple[Stage, ...] = (
    Stage("tower", steps=3000, images=32, learning_rate=1.5e-3, seed=1, warmup=200, tower_weight=1.0),
    Stage("decoder", steps=1500, images=24, learning_rate=1e-3, seed=2, coordinate_weight=0.5),
    Stage("joint", steps=3000, images=24, learning_rate=6e-4, seed=3, tower_weight=0.1),
)


@dataclass
class Learner:
    """Everything that is trained or needed for training."""

    model: LlavaForConditionalGeneration
    heads: TowerHeads
    packer: Packer
    answers: AnswerLoss
    code: PatchCode
    device: torch.device


def trained_parameters(learner: Learner, stage: Stage) -> list[torch.nn.Parameter]:
    """Parameters that a stage changes."""
    core = learner.model.model
    vision = [*core.vision_tower.parameters(), *core.multi_modal_projector.parameters(), *learner.heads.parameters()]
    language = [*core.language_model.parameters(), *learner.model.lm_head.parameters()]
    return {"tower": vision, "decoder": language, "joint": vision + language}[stage.name]


def stage_loss(
    learner: Learner, stage: Stage, scenes: list[Scene], questions: list[list[Question]], tally: Tally
) -> torch.Tensor:
    """Scalar loss of a batch in a stage; every part of it is counted in `tally`."""
    targets = {name: value.to(learner.device) for name, value in target_batch(scenes).items()}
    loss = torch.zeros((), device=learner.device)
    if stage.name == "decoder":
        visual = learner.code.encode(targets)
    else:
        states, pooled = tower_states(learner.model, pixel_batch(scenes).to(learner.device))
        visual = visual_tokens(learner.model, states)
        parts = tower_losses(learner.heads, states, pooled, targets)
        if stage.name == "tower":
            parts["align"] = ALIGNMENT_WEIGHT * alignment_loss(visual, learner.code, targets)
        for name, part in parts.items():
            tally.add(f"tower/{name}", part.item())
            loss = loss + stage.tower_weight * part.float()
    if stage.name != "tower":
        packed = learner.packer.pack(questions).to(learner.device)
        loss = loss + learner.answers(learner.model, visual, packed, stage.coordinate_weight, tally)
    return loss
