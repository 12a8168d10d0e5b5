"""Small data in the hub's schemas, and a model that looks at the image and gives one answer."""

import io
from collections.abc import Callable
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


def hub_rows(rows: list[dict[str, Any]]) -> datasets.Dataset:
    """Rows with an image each, of the sizes in turn."""
    filled = [{"image": encoded_image(*SIZES[number % len(SIZES)]), **row} for number, row in enumerate(rows)]
    return datasets.Dataset.from_list(filled).cast_column("image", datasets.Image())


def official_pope_rows() -> datasets.Dataset:
    """Three subsets: random asks for yes, yes, yes, no; popular for yes, no; adversarial for yes, no, no, no."""
    truths = {"random": ["yes"] * 3 + ["no"], "popular": ["yes", "no"], "adversarial": ["yes"] + ["no"] * 3}
    return hub_rows(
        [
            {
                "id": f"{subset}{number}",
                "question_id": str(number),
                "question": f"Is there a {subset} thing {number}?",
                "answer": truth,
                "image_source": f"COCO_val2014_{number:012d}",
                "category": subset,
            }
            for subset, answers in truths.items()
            for number, truth in enumerate(answers)
        ]
    )


def gqa_hub() -> tuple[datasets.Dataset, datasets.Dataset]:
    """Questions, and in another order the images they are about, of which one has no question."""
    questions = [
        {"id": str(number), "imageId": image, "question": f"What colour is {number}?", "answer": answer}
        for number, (image, answer) in enumerate([("n2", "red"), ("n0", "dark blue"), ("n2", "no")])
    ]
    images = [{"id": f"n{number}", "image": encoded_image(*size)} for number, size in enumerate(SIZES)]
    rows = [{**question, "fullAnswer": "It is so.", "isBalanced": True} for question in questions]
    return (
        datasets.Dataset.from_list(rows),
        datasets.Dataset.from_list(images).cast_column("image", datasets.Image()),
    )


def scienceqa_rows() -> datasets.Dataset:
    common = {"task": "closed choice", "grade": "grade2", "subject": "natural science", "lecture": "", "solution": ""}
    rows = [
        {"question": "Which is it?", "choices": ["ice", "a puck"], "answer": 1, "hint": ""},
        {"question": "Which one?", "choices": ["a", "b", "c", "d", "e"], "answer": 4, "hint": "Look at the map."},
        {"question": "And now?", "choices": ["x", "y", "z"], "answer": 0, "hint": ""},
    ]
    return hub_rows([{**common, **row} for row in rows])


def mmbench_rows() -> datasets.Dataset:
    """Two questions: one of two options in both orders, with a hint; one of four options in four orders."""
    two, four = ["cat", "dog"], ["one", "two", "three", "four"]
    rows = []
    for index, options, hint, right in ((7, two, "Read the sign.", "dog"), (8, four, "nan", "one")):
        for turn in range(len(options)):
            turned = options[turn:] + options[:turn]
            row = dict(zip("ABCD", [*turned, "nan", "nan"], strict=False))
            rows.append(
                {
                    "index": index + 1_000_000 * turn,
                    "question": f"Question {index}?",
                    "hint": hint,
                    "answer": "ABCD"[turned.index(right)],
                    **row,
                    "category": "ocr",
                    "L2-category": "coarse",
                    "source": "here",
                    "comment": "nan",
                    "split": "dev",
                }
            )
    return hub_rows(rows)


def mme_rows() -> datasets.Dataset:
    """Two images of existence, one of OCR, one of code_reasoning, each with a question for yes and one for no."""
    images = [("existence", "a.png"), ("existence", "b.png"), ("OCR", "a.png"), ("code_reasoning", "c.png")]
    return hub_rows(
        [
            {
                "question_id": f"{category}/{name}",
                "question": f"Is there {number} in it? Please answer yes or no.",
                "answer": answer,
                "category": category,
            }
            for category, name in images
            for number, answer in enumerate(["Yes", "No"])
        ]
    )


class EchoModel(lmms):
    """Opens the image of every request and gives one fixed answer, or what is asked of the document."""

    is_simple = True

    def __init__(self, answer: str | Callable[[dict[str, Any]], str]) -> None:
        super().__init__()
        self.answer = answer
        self.prompts: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        self.generation: list[dict[str, Any]] = []

    def generate_until(self, requests: list[Any]) -> list[str]:
        answers = []
        for request in requests:
            prompt, generation, doc_to_visual, doc_id, task, split = request.args
            doc = self.task_dict[task][split][doc_id]
            (image,) = doc_to_visual(doc)
            answers.append(self.answer if isinstance(self.answer, str) else self.answer(doc))
            assert image.mode == "RGB"
            self.prompts.append(prompt)
            self.sizes.append(image.size)
            self.generation.append(generation)
        return answers

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        raise NotImplementedError

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        raise NotImplementedError
