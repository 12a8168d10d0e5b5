"""The four stages of training, as data, and the loss of each.

1. `tower`: tower and projector learn to write the code of each patch (`tower.py`).
2. `words`: the decoder learns to answer in words from perfect codes (`patches.py`), without any image.
3. `boxes`: the same with boxes among the answers.
4. `joint`: everything trains on the answers, from pixels; the tower's losses stay on with a small weight.

LLaVA (arXiv 2304.08485) aligns a projector between a trained tower and a trained decoder before it trains both. Here
neither half exists beforehand, so the stages before the last train them apart towards a common code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from transformers import LlavaForConditionalGeneration

from demo_model.answers import AnswerLoss, Tally
from demo_model.batches import FULL_MIX, WORD_MIX, Mix, Packer, pixel_batch, target_batch
from demo_model.patches import PatchCode
from demo_model.tower import (
    TowerHeads,
    alignment_loss,
    tower_losses,
    tower_states,
    visual_tokens,
)
from swiftvlm_eval.demo.questions import Question
from swiftvlm_eval.demo.scenes import Scene

StageName = Literal["tower", "words", "boxes", "joint"]
ALIGNMENT_WEIGHT = 2.0


@dataclass(frozen=True)
class Stage:
    """Schedule of one stage.

    `seed` numbers the stream of training scenes; `tower_weight` scales the tower's losses and `vision_scale` the
    learning rate of the vision side; `coordinate_weight` is the weight of a coordinate beside a word. `mix` says which
    questions are asked, without the kinds in `skip`.

    `reluctance` is taken off the attention logits from the end of a prompt and from the answer to the image, and falls
    to 0 within `reluctant_steps`. Otherwise the answer's rows first learn to look at all objects alike, which is worth
    something for every question, and then never look at the question. With it, what an answer knows of the image has
    to come through the words of the question, as it mostly does in trained LLaVAs (arXiv 2411.18620).

    `alternate` feeds the decoder the tokens of the frozen tower in every other step, so that it gets used to the
    tower's mistakes.
    """

    name: StageName
    steps: int
    images: int
    learning_rate: float
    seed: int
    warmup: int = 50
    tower_weight: float = 0.0
    vision_scale: float = 1.0
    coordinate_weight: float = 1.0
    reluctance: float = 0.0
    reluctant_steps: int = 1
    alternate: bool = False
    mix: Mix = field(default_factory=lambda: FULL_MIX)
    skip: tuple[str, ...] = ()


STAGES: tuple[Stage, ...] = (
    Stage("tower", 7000, images=32, learning_rate=1.5e-3, seed=1, warmup=200, tower_weight=1.0),
    Stage("words", 200, images=24, learning_rate=1.5e-3, seed=2, mix=WORD_MIX, reluctance=8.0, reluctant_steps=400),
    Stage("boxes", 2000, images=16, learning_rate=1.5e-3, seed=3, alternate=True, reluctance=4.0, reluctant_steps=150),
    Stage("joint", 4000, images=16, learning_rate=8e-4, seed=4, tower_weight=0.3, vision_scale=0.25),
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


def vision_parameters(learner: Learner) -> list[torch.nn.Parameter]:
    """Parameters of the tower, the projector and the tower's read-outs."""
    core = learner.model.model
    return [*core.vision_tower.parameters(), *core.multi_modal_projector.parameters(), *learner.heads.parameters()]


def trained_parameters(learner: Learner, stage: Stage) -> list[torch.nn.Parameter]:
    """Parameters that a stage changes."""
    vision = vision_parameters(learner)
    language = [*learner.model.model.language_model.parameters(), *learner.model.lm_head.parameters()]
    return {"tower": vision, "words": language, "boxes": language, "joint": vision + language}[stage.name]


def stage_loss(
    learner: Learner, stage: Stage, step: int, scenes: list[Scene], questions: list[list[Question]], tally: Tally
) -> torch.Tensor:
    """Scalar loss of a batch at a step of a stage; every part of it is counted in `tally`."""
    targets = {name: value.to(learner.device) for name, value in target_batch(scenes).items()}
    loss = torch.zeros((), device=learner.device)
    if stage.name in ("words", "boxes"):
        visual = learner.code.encode(targets)
        if stage.alternate and step % 2:
            with torch.no_grad():
                visual = visual_tokens(learner.model, tower_states(learner.model, _pixels(learner, scenes))[0])
    else:
        states, pooled = tower_states(learner.model, _pixels(learner, scenes))
        visual = visual_tokens(learner.model, states)
        parts = tower_losses(learner.heads, states, pooled, targets)
        if stage.name == "tower":
            parts["align"] = ALIGNMENT_WEIGHT * alignment_loss(visual, learner.code, targets)
        for name, part in parts.items():
            tally.add(f"tower/{name}", part.item())
            loss = loss + stage.tower_weight * part.float()
    if stage.name != "tower":
        packed = learner.packer.pack(questions).to(learner.device)
        reluctance = stage.reluctance * max(0.0, 1 - step / stage.reluctant_steps)
        loss = loss + learner.answers(learner.model, visual, packed, stage.coordinate_weight, reluctance, tally)
    return loss


def _pixels(learner: Learner, scenes: list[Scene]) -> torch.Tensor:
    return pixel_batch(scenes).to(learner.device)
