"""Questions about a scene, with answers that follow from the scene's data.

Four families mirror the benchmarks of visual-token pruning papers: referring expressions (RefCOCO), reading (TextVQA),
attributes and counts (GQA) and existence (POPE, arXiv 2305.10355). Every question has exactly one right answer: an
expression that fits two objects, or whose relation is a close call, is never asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from swiftvlm_eval.demo.drawing import square_box
from swiftvlm_eval.demo.scenes import COLOURS, NUMBERS, SHAPES, Scene, SceneObject

Task = Literal["refcoco", "textvqa", "gqa", "pope"]
TASKS: tuple[Task, ...] = ("refcoco", "textvqa", "gqa", "pope")

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
GROUNDING = "Please provide the bounding box coordinate of the region this sentence describes: {}."

CENTRE_MARGIN = 0.08
"""A relation such as "left" needs this lead over the runner-up, as a fraction of the longer side."""

AREA_MARGIN = 1.4
""""largest" and "smallest" need this ratio of areas to the runner-up."""


@dataclass(frozen=True)
class Question:
    """One question: `text` as in the data set, `answer` as the model should write it.

    `kind` is the finer type that training curves are split by; `target` is the object's index for grounding.
    """

    task: Task
    kind: str
    text: str
    answer: str
    target: int = -1

    @property
    def prompt(self) -> str:
        """What is written after the image: the text in the wording of LLaVA-1.5's evaluation of this task."""
        if self.task == "refcoco":
            return GROUNDING.format(self.text)
        text = self.text.capitalize() if self.task == "textvqa" else self.text
        return text + SHORT_ANSWER


def _left(item: SceneObject) -> float:
    return -item.centre[0]


def _top(item: SceneObject) -> float:
    return -item.centre[1]


RELATIONS: dict[str, Callable[[SceneObject], float]] = {
    "left": _left,
    "right": lambda item: item.centre[0],
    "top": _top,
    "bottom": lambda item: item.centre[1],
    "largest": lambda item: item.area,
    "smallest": lambda item: -item.area,
}
"""Relation word -> value that the object meant has more of than every other candidate."""


def relation_winner(relation: str, candidates: Sequence[SceneObject], long_side: int) -> SceneObject | None:
    """The candidate a relation picks, or None where it is a close call or there is nothing to choose from.

    Raises:
        ValueError: The relation is unknown.
    """
    if relation not in RELATIONS:
        raise ValueError(f"relation is {relation!r}; allowed: {', '.join(RELATIONS)}")
    if len(candidates) < 2:
        return None
    value = RELATIONS[relation]
    first, second = sorted(candidates, key=value, reverse=True)[:2]
    if relation in ("largest", "smallest"):
        big, small = max(first.area, second.area), min(first.area, second.area)
        return first if big >= AREA_MARGIN * small else None
    return first if value(first) - value(second) >= CENTRE_MARGIN * long_side else None


def expressions(scene: Scene) -> list[tuple[int, str]]:
    """All referring expressions of a scene as (object index, expression); each fits exactly one object.

    An object alone of its kind is "red circle", one among look-alikes "left red circle", and "left circle" where it
    leads all circles of any colour.
    """
    found: list[tuple[int, str]] = []
    for index, item in enumerate(scene.objects):
        twins = [other for other in scene.objects if (other.shape, other.colour) == (item.shape, item.colour)]
        same_shape = [other for other in scene.objects if other.shape == item.shape]
        if len(twins) == 1:
            found.append((index, f"{item.colour} {item.shape}"))
        for relation in RELATIONS:
            if relation_winner(relation, twins, scene.long_side) is item:
                found.append((index, f"{relation} {item.colour} {item.shape}"))
            if len(same_shape) > len(twins) and relation_winner(relation, same_shape, scene.long_side) is item:
                found.append((index, f"{relation} {item.shape}"))
    return found


def grounding_questions(scene: Scene) -> list[Question]:
    """One question for each referring expression; the answer is the box in fractions of the padded square."""
    questions = []
    for index, expression in expressions(scene):
        box = ", ".join(f"{value:.2f}" for value in square_box(scene.objects[index].box, scene))
        kind = "box_relation" if expression.split()[0] in RELATIONS else "box_plain"
        questions.append(Question("refcoco", kind, expression, f"[{box}]", index))
    return questions


def reading_questions(scene: Scene) -> list[Question]:
    """What is printed on a labelled object, for each expression that names one by its colour and shape."""
    questions = []
    for index, expression in expressions(scene):
        label = scene.objects[index].label
        if label is not None and len(expression.split()) == 2 + (expression.split()[0] in RELATIONS):
            what = "number" if label in NUMBERS else "word"
            questions.append(Question("textvqa", what, f"what {what} is on the {expression}?", label, index))
    return questions


def attribute_questions(scene: Scene) -> list[Question]:
    """Colour of the only circle, shape of the only red object, colour of the left circle, number of circles."""
    questions = []
    for shape in SHAPES:
        same = [item for item in scene.objects if item.shape == shape]
        if len(same) == 1:
            questions.append(Question("gqa", "colour", f"What color is the {shape}?", same[0].colour))
        for relation in RELATIONS:
            winner = relation_winner(relation, same, scene.long_side)
            if winner is not None and len({item.colour for item in same}) > 1:
                text = f"What color is the {relation} {shape}?"
                questions.append(Question("gqa", "colour_relation", text, winner.colour))
        # Mostly shapes that occur more than once, so that "1" is not the answer to bet on.
        if len(same) > 1 or (same and shape == scene.objects[0].shape):
            plural = "crosses" if shape == "cross" else f"{shape}s"
            questions.append(Question("gqa", "count", f"How many {plural} are there?", str(len(same))))
    for colour in COLOURS:
        alike = [item for item in scene.objects if item.colour == colour]
        if len(alike) == 1:
            questions.append(Question("gqa", "shape", f"What shape is the {colour} object?", alike[0].shape))
    return questions


def existence_questions(scene: Scene) -> list[Question]:
    """Asks for every coloured shape whether it is there; `kind` is yes or POPE's way of choosing the absent one.

    Absent kinds are `random` (neither its colour nor its shape is there), `popular` (one of them is) or
    `adversarial` (both are, but on different objects).
    """
    present = {(item.colour, item.shape) for item in scene.objects}
    colours, shapes = {c for c, _ in present}, {s for _, s in present}
    questions = []
    for colour in COLOURS:
        for shape in SHAPES:
            article = "an" if colour == "orange" else "a"
            text = f"Is there {article} {colour} {shape} in the image?"
            if (colour, shape) in present:
                questions.append(Question("pope", "yes", text, "Yes"))
            else:
                kind = ("random", "popular", "adversarial")[(colour in colours) + (shape in shapes)]
                questions.append(Question("pope", kind, text, "No"))
    return questions


BUILDERS: dict[Task, Callable[[Scene], list[Question]]] = {
    "refcoco": grounding_questions,
    "textvqa": reading_questions,
    "gqa": attribute_questions,
    "pope": existence_questions,
}


def sample_questions(
    scene: Scene, task: Task, count: int, rng: np.random.Generator, skip: Sequence[str] = ()
) -> list[Question]:
    """At most `count` different questions of a task, its kinds drawn evenly; for pope, half of them yes.

    Kinds named in `skip` are left out.

    Raises:
        ValueError: The task is unknown.
    """
    if task not in BUILDERS:
        raise ValueError(f"task is {task!r}; allowed: {', '.join(TASKS)}")
    by_kind: dict[str, list[Question]] = {}
    for question in BUILDERS[task](scene):
        if question.kind not in skip:
            by_kind.setdefault(question.kind, []).append(question)
    pools = [[group[i] for i in rng.permutation(len(group))] for group in by_kind.values()]
    chosen: list[Question] = []
    yes_turn = int(rng.integers(2))
    while len(chosen) < count and any(pools):
        usable = [pool for pool in pools if pool]
        if task == "pope":
            wanted = (len(chosen) + yes_turn) % 2 == 0
            usable = [pool for pool in usable if (pool[0].kind == "yes") == wanted] or usable
        chosen.append(usable[int(rng.integers(len(usable)))].pop())
    return chosen
