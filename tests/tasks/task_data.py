"""Small data in the hub's schemas, and a model that looks at the image and gives one answer."""

import io
from typing import Any

import datasets
from lmms_eval.api.model import lmms
from PIL import Image

SIZES = [(64, 48), (48, 64), (50, 50), (33, 61)]


class FakeHub(dict[tuple[str, str], Any]):
    """Splits by (repository, split), and which of them were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts: list[tuple[str, str]] = []


def encoded_image(
    width: int, height: int, colour: tuple[int, int, int] = (200, 30, 30), **options: Any
) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, format="PNG", **options)
    return {"bytes": buffer.getvalue(), "path": None}


def ref_rows(rows: list[dict[str, Any]]) -> datasets.Dataset:
    """Rows of the hub's REC schema; each entry may set any column and the rest is filled in."""
    filled = []
    for number, row in enumerate(rows):
        width, height = row.pop("size", SIZES[number % len(SIZES)])
        filled.append(
            {
                "question_id": str(1000 + number),
                "image": encoded_image(width, height),
                "question": "Please describe the marked object.",
                "answer": ["the red one"],
                "segmentation": [0.0, 0.0, 1.0, 1.0],
                "bbox": [4.0, 6.0, 20.0, 24.0],
                "iscrowd": 0,
                "file_name": f"COCO_train2014_{number + 1:012d}.jpg",
                **row,
            }
        )
    return datasets.Dataset.from_list(filled).cast_column("image", datasets.Image())


def textvqa_rows() -> datasets.Dataset:
    answers = ["red", "red", "red", "blue", "Red.", "a red", "green", "one", "1", "red"]
    rows = [
        {
            "image_id": f"image{number // 2}",
            "question_id": number,
            "question": "what COLOUR is it?",
            "image": encoded_image(*size),
            "image_width": size[0],
            "image_height": size[1],
            "answers": answers,
            "ocr_tokens": ["STOP", "12"],
        }
        for number, size in enumerate(SIZES)
    ]
    return datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())


def gqa_rows() -> datasets.Dataset:
    rows = [
        {
            "id": str(number),
            "imageId": f"image{number // 2}",
            "question": "What colour is the circle?",
            "answer": "red" if number % 2 == 0 else "blue",
            "fullAnswer": "It is coloured.",
            "image": encoded_image(*size),
        }
        for number, size in enumerate(SIZES)
    ]
    return datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())


def pope_rows() -> datasets.Dataset:
    rows = [
        {
            "id": str(number),
            "question_id": str(number),
            "question": " Is there a circle?\n",
            "answer": "yes" if number < 3 else "no",
            "image_source": f"image{number // 2}",
            "image": encoded_image(*size),
            "category": "random",
        }
        for number, size in enumerate(SIZES)
    ]
    return datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())


class EchoModel(lmms):
    """Opens the image of every request and gives one fixed answer."""

    is_simple = True

    def __init__(self, answer: str) -> None:
        super().__init__()
        self.answer = answer
        self.prompts: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        self.generation: list[dict[str, Any]] = []

    def generate_until(self, requests: list[Any]) -> list[str]:
        for request in requests:
            prompt, generation, doc_to_visual, doc_id, task, split = request.args
            (image,) = doc_to_visual(self.task_dict[task][split][doc_id])
            assert image.mode == "RGB"
            self.prompts.append(prompt)
            self.sizes.append(image.size)
            self.generation.append(generation)
        return [self.answer] * len(requests)

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        raise NotImplementedError

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        raise NotImplementedError
