"""Writes splits of the demo benchmarks as parquet files in the schemas of their models on the hub.

`demo_refcoco` follows lmms-lab/RefCOCO, `demo_textvqa` lmms-lab/textvqa, `demo_gqa` lmms-lab/GQA (with the image in
the row) and `demo_pope` lmms-lab/POPE (arXiv 2305.10355). Images are embedded; those of a file are stored once each.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, List, Value

from swiftvlm_eval.demo.drawing import draw_scene, encode_png, outline
from swiftvlm_eval.demo.questions import TASKS, Question, Task, existence_questions, sample_questions
from swiftvlm_eval.demo.scenes import Scene, Split, sample_scene, scene_generator

QUESTIONS_PER_IMAGE = 4
CAPTION_REQUEST = "Please carefully observe the area circled in the image and come up with a caption for the area."
"""The `question` field of the hub's RefCOCO rows; the expressions are in `answer`."""

_text, _float = Value("string"), Value("float32")
FEATURES: dict[Task, Features] = {
    "refcoco": Features(
        question_id=_text,
        image=Image(),
        question=_text,
        answer=List(_text),
        segmentation=List(_float),
        bbox=List(_float),
        iscrowd=Value("int8"),
        file_name=_text,
    ),
    "textvqa": Features(
        image_id=_text,
        question_id=Value("int32"),
        question=_text,
        image=Image(),
        image_width=Value("int32"),
        image_height=Value("int32"),
        answers=List(_text),
        ocr_tokens=List(_text),
    ),
    "gqa": Features(id=_text, imageId=_text, image=Image(), question=_text, answer=_text, fullAnswer=_text),
    "pope": Features(
        id=_text,
        question_id=_text,
        question=_text,
        answer=_text,
        image_source=_text,
        image=Image(),
        category=_text,
    ),
}

Row = dict[str, Any]


def generate_split(split: Split, count: int, seed: int, out_dir: Path) -> dict[str, int]:
    """Writes demo_refcoco, demo_textvqa, demo_gqa and demo_pope, each with `count` images, under `out_dir`.

    The same arguments write the same rows. Existing files of these names are replaced.

    Returns:
        File name -> number of rows (for demo_refcoco one row per object, each with its expressions).

    Raises:
        ValueError: The split is unknown, `count` is below 1 or `seed` is negative; nothing is written.
    """
    if count < 1:
        raise ValueError(f"count is {count}; allowed: an integer of 1 or more")
    scene_generator(split, seed, 0)
    out_dir.mkdir(parents=True, exist_ok=True)
    sizes = {}
    for task in TASKS:
        rows = list(itertools.chain.from_iterable(_images(task, split, count, seed)))
        for number, row in enumerate(rows):
            row["id" if task == "gqa" else "question_id"] = number if task == "textvqa" else str(number)
            if task == "pope":
                row["id"] = str(number)
        path = out_dir / f"demo_{task}.parquet"
        _write(rows, FEATURES[task], path)
        sizes[path.name] = len(rows)
    return sizes


def task_questions(task: Task, scene: Scene, rng: np.random.Generator) -> list[Question]:
    """The questions a split asks about one scene: `QUESTIONS_PER_IMAGE`, or none where the scene has fewer than two.

    For pope as many with the answer yes as no, in pairs.
    """
    if task == "pope":
        questions = existence_questions(scene)
        yes = [question for question in questions if question.kind == "yes"]
        absent = sample_questions(scene, "pope", len(questions), rng)
        no = [question for question in absent if question.kind != "yes"]
        pairs = zip(rng.permutation(len(yes)), no, strict=False)
        chosen = [question for index, other in pairs for question in (yes[index], other)]
        return chosen[:QUESTIONS_PER_IMAGE]
    chosen = sample_questions(scene, task, QUESTIONS_PER_IMAGE, rng)
    return chosen if len(chosen) >= 2 else []


def _images(task: Task, split: Split, count: int, seed: int) -> Iterator[list[Row]]:
    """Rows of each of the first `count` scenes of the split that have questions of this task."""
    found = 0
    for index in itertools.count():
        rng = scene_generator(split, seed, index)
        scene = sample_scene(rng)
        questions = task_questions(task, scene, rng)
        if questions:
            found += 1
            yield ROW_BUILDERS[task](scene, questions, f"demo_{split}_{seed}_{index:06d}")
        if found == count:
            return


def _image(scene: Scene, name: str) -> Row:
    return {"bytes": encode_png(draw_scene(scene)), "path": f"{name}.png"}


def _refcoco_rows(scene: Scene, questions: list[Question], name: str) -> list[Row]:
    image = _image(scene, name)
    rows = []
    for target in sorted({question.target for question in questions}):
        item = scene.objects[target]
        x1, y1, x2, y2 = item.box
        rows.append(
            {
                "image": image,
                "question": CAPTION_REQUEST,
                "answer": [question.text for question in questions if question.target == target],
                "segmentation": [round(value, 2) for corner in outline(item) for value in corner],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "iscrowd": 0,
                "file_name": f"{name}.png",
            }
        )
    return rows


def _textvqa_rows(scene: Scene, questions: list[Question], name: str) -> list[Row]:
    shared = {
        "image_id": name,
        "image": _image(scene, name),
        "image_width": scene.width,
        "image_height": scene.height,
        "ocr_tokens": [item.label for item in scene.objects if item.label is not None],
    }
    # Ten annotators of one mind: the scorer of TextVQA wants ten answers.
    return [{**shared, "question": question.text, "answers": [question.answer] * 10} for question in questions]


def _gqa_rows(scene: Scene, questions: list[Question], name: str) -> list[Row]:
    shared = {"imageId": name, "image": _image(scene, name)}
    return [
        {**shared, "question": q.text, "answer": q.answer, "fullAnswer": f"The answer is {q.answer}."}
        for q in questions
    ]


def _pope_rows(scene: Scene, questions: list[Question], name: str) -> list[Row]:
    shared = {"image_source": name, "image": _image(scene, name)}
    rows = []
    for number, question in enumerate(questions):
        # A present kind belongs to the category of the absent one it is paired with, as in POPE.
        category = questions[number | 1].kind
        rows.append({**shared, "question": question.text, "answer": question.answer.lower(), "category": category})
    return rows


ROW_BUILDERS: dict[Task, Callable[[Scene, list[Question], str], list[Row]]] = {
    "refcoco": _refcoco_rows,
    "textvqa": _textvqa_rows,
    "gqa": _gqa_rows,
    "pope": _pope_rows,
}


def _write(rows: list[Row], features: Features, path: Path) -> None:
    table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
    # The limit keeps the image column dictionary-encoded: a picture with several questions is stored once.
    pq.write_table(table, path, compression="zstd", dictionary_pagesize_limit=64 * 2**20)
