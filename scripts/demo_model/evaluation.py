"""Held-out numbers of a checkpoint: the embedded benchmarks, answered by the stock `generate()` in float32.

A plain loop without lmms-eval, so that the card can be checked with torch and transformers alone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from PIL import Image
from scipy.stats import binomtest
from transformers import AutoProcessor, LlavaForConditionalGeneration

from demo_model.tokenizer import AFTER_IMAGE, BEFORE_IMAGE
from swiftvlm_eval.demo import data_path
from swiftvlm_eval.demo.questions import TASKS, Question, Task
from swiftvlm_eval.models.weights import read_weights

MAX_NEW_TOKENS = 16
HIT_IOU = 0.5
_NUMBER = re.compile(r"\d*\.\d+|\d+")


@dataclass(frozen=True)
class Sample:
    """One question with its image and a function that says whether an answer is right."""

    task: Task
    image: Image.Image
    question: Question
    is_right: Callable[[str], bool]


def read_samples(task: Task, path: Path) -> Iterator[Sample]:
    """Questions of an embedded benchmark; a row of demo_refcoco gives one for each of its expressions."""
    for row in pq.read_table(path).to_pylist():
        image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
        if task == "refcoco":
            for expression in row["answer"]:
                yield Sample(task, image, Question(task, "", expression, ""), _box_check(row["bbox"], image.size))
        else:
            answer = row["answers"][0] if task == "textvqa" else row["answer"]
            yield Sample(task, image, Question(task, "", row["question"], answer), _word_check(answer))


def answer_questions(
    model: LlavaForConditionalGeneration, processor: Any, samples: list[Sample], batch_size: int = 32
) -> list[str]:
    """Greedy answers, in order."""
    answers: list[str] = []
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        prompts = [f"{BEFORE_IMAGE}<image>{AFTER_IMAGE.format(sample.question.prompt)}" for sample in batch]
        inputs = processor(
            images=[sample.image for sample in batch], text=prompts, padding=True, return_tensors="pt"
        ).to(model.device)
        with torch.inference_mode():
            ids = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        answers += processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [answer.strip() for answer in answers]


def evaluate(
    checkpoint: Path, device: torch.device, tasks: Sequence[Task] = TASKS
) -> dict[str, dict[str, float | int]]:
    """Share of right answers of each benchmark: n, right, accuracy and its 95 % Wilson interval."""
    processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=False)
    folder = str(checkpoint)
    model = read_weights(LlavaForConditionalGeneration, folder, name=folder, dtype=torch.float32).to(device)
    scores: dict[str, dict[str, float | int]] = {}
    for task in tasks:
        samples = list(read_samples(task, data_path(f"demo_{task}")))
        answers = answer_questions(model, processor, samples)
        right = sum(sample.is_right(answer) for sample, answer in zip(samples, answers, strict=True))
        interval = binomtest(right, len(samples)).proportion_ci(method="wilson")
        scores[f"demo_{task}"] = {
            "n": len(samples),
            "right": right,
            "accuracy": round(right / len(samples), 4),
            "low": round(float(interval.low), 4),
            "high": round(float(interval.high), 4),
        }
    return scores


def _word_check(answer: str) -> Callable[[str], bool]:
    return lambda given: given.lower() == answer.lower()


def _box_check(bbox: list[float], size: tuple[int, int]) -> Callable[[str], bool]:
    """IoU of at least `HIT_IOU` with the box [x, y, w, h] in pixels, the answer read on the padded square."""
    side = max(size)
    dx, dy = (side - size[0]) // 2, (side - size[1]) // 2
    truth = (bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3])

    def is_right(given: str) -> bool:
        numbers = [float(match) for match in _NUMBER.findall(given)]
        if len(numbers) != 4:
            return False
        x1, y1, x2, y2 = (value * side - shift for value, shift in zip(numbers, (dx, dy, dx, dy), strict=True))
        overlap = max(0.0, min(x2, truth[2]) - max(x1, truth[0])) * max(0.0, min(y2, truth[3]) - max(y1, truth[1]))
        union = max(0.0, x2 - x1) * max(0.0, y2 - y1) + bbox[2] * bbox[3] - overlap
        return overlap >= HIT_IOU * union

    return is_right
