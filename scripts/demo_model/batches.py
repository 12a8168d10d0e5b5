"""Training batches: scenes drawn on the fly, several questions of a picture packed behind one visual prefix.

See `packed.py` for how the questions of a picture share its prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast

from demo_model.model import IMAGE_SIDE
from demo_model.patches import patch_targets
from demo_model.tokenizer import AFTER_IMAGE, BEFORE_IMAGE
from swiftvlm_eval.demo.drawing import draw_scene, pad_to_square
from swiftvlm_eval.demo.questions import Question, Task, sample_questions
from swiftvlm_eval.demo.scenes import Scene, Split, sample_scene, scene_generator

PIXEL_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
PIXEL_STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)

Mix = dict[Task, int]
"""Task -> questions of each picture, where the scene has that many."""

WORD_MIX: Mix = {"textvqa": 2, "gqa": 6, "pope": 2}
FULL_MIX: Mix = {"refcoco": 5, "textvqa": 2, "gqa": 3, "pope": 1}

IGNORED = -100


@dataclass
class PackedQuestions:
    """Text side of a batch: n questions a picture, right-padded to T tokens; absent questions are all padding.

    `ids` [B, n, T]; `labels` [B, n, T], the next token where it belongs to an answer, else `IGNORED`; `kind`
    [B, n, T], index into the packer's `kinds`, -1 outside answers.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    kind: torch.Tensor

    def to(self, device: torch.device) -> PackedQuestions:
        """The batch on another device."""
        return PackedQuestions(self.ids.to(device), self.labels.to(device), self.kind.to(device))


class Packer:
    """Turns questions into token ids; remembers what it has tokenised before.

    `kinds` grows as question kinds are met; a box answer's coordinates are a kind of their own.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.prefix_ids: list[int] = tokenizer(BEFORE_IMAGE).input_ids
        self.kinds: list[str] = []
        self._eos: int = tokenizer.eos_token_id
        self._encode = lru_cache(maxsize=100_000)(
            lambda text: tuple(tokenizer(text, add_special_tokens=False).input_ids)
        )

    def pack(self, questions: list[list[Question]]) -> PackedQuestions:
        """Packs the questions of each picture of a batch."""
        rows = [[self._row(question) for question in picture] for picture in questions]
        length = max(len(ids) for picture in rows for ids, _, _ in picture)
        shape = (len(rows), max(map(len, rows)), length)
        packed = [torch.full(shape, fill) for fill in (0, IGNORED, -1)]
        for b, picture in enumerate(rows):
            for n, columns in enumerate(picture):
                for tensor, column in zip(packed, columns, strict=True):
                    tensor[b, n, : len(column)] = torch.tensor(column)
        return PackedQuestions(*packed)

    def _row(self, question: Question) -> tuple[list[int], list[int], list[int]]:
        asked = self._encode(AFTER_IMAGE.format(question.prompt))
        answer = (*self._encode(f" {question.answer}"), self._eos)
        unlabelled = len(asked) - 1
        if question.kind not in self.kinds:
            self.kinds.append(question.kind)
        ids = [*asked, *answer[:-1]]
        labels = [IGNORED] * unlabelled + list(answer)
        return ids, labels, [-1] * unlabelled + [self.kinds.index(question.kind)] * len(answer)


def draw_batch(
    split: Split, seed: int, start: int, count: int, mix: Mix, skip: Sequence[str] = ()
) -> tuple[list[Scene], list[list[Question]]]:
    """Scenes `start` to `start + count - 1` of a split, with questions of the mix, kinds in `skip` left out."""
    drawn, asked = [], []
    for index in range(start, start + count):
        rng = scene_generator(split, seed, index)
        scene = sample_scene(rng)
        drawn.append(scene)
        asked.append([q for task, number in mix.items() for q in sample_questions(scene, task, number, rng, skip)])
    return drawn, asked


def pixel_batch(drawn: list[Scene]) -> torch.Tensor:
    """[B, 3, IMAGE_SIDE, IMAGE_SIDE] normalised pixels, preprocessed as the processor does."""
    size = (IMAGE_SIDE, IMAGE_SIDE)
    images = [pad_to_square(draw_scene(scene)).resize(size, Image.Resampling.BICUBIC) for scene in drawn]
    pixels = (np.stack([np.asarray(image) for image in images]).astype(np.float32) / 255 - PIXEL_MEAN) / PIXEL_STD
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def target_batch(drawn: list[Scene]) -> dict[str, torch.Tensor]:
    """Patch targets of a batch, stacked: see `PatchTargets` for names and shapes."""
    targets = [patch_targets(scene) for scene in drawn]
    names = ("colour", "shape", "label", "box", "presence")
    return {name: torch.from_numpy(np.stack([getattr(t, name) for t in targets])) for name in names}
