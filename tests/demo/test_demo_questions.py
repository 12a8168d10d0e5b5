"""Questions against an independent reading of the scene, written here from the words of the question alone."""

from collections import Counter

import numpy as np
import pytest

from swiftvlm_eval.demo.questions import (
    attribute_questions,
    existence_questions,
    expressions,
    grounding_questions,
    reading_questions,
    relation_winner,
    sample_questions,
)
from swiftvlm_eval.demo.scenes import Scene, SceneObject, sample_scene, scene_generator

SCENES = [sample_scene(scene_generator("train", 0, index)) for index in range(150)]

HAND = Scene(
    200,
    100,
    (205, 205, 205),
    (
        SceneObject("circle", "red", (10, 10, 40, 40), "7"),
        SceneObject("circle", "red", (150, 50, 190, 90)),
        SceneObject("circle", "blue", (80, 12, 110, 42), "cat"),
        SceneObject("star", "green", (60, 60, 90, 90)),
    ),
)


def resolve(scene: Scene, expression: str) -> list[SceneObject]:
    """Objects an expression could mean, with no margins: all that tie for the extreme are returned."""
    words = expression.split()
    found = [o for o in scene.objects if o.shape == words[-1]]
    colours = {o.colour for o in scene.objects}
    if len(words) > 1 and words[-2] in colours:
        found = [o for o in found if o.colour == words[-2]]
    rule = {
        "left": lambda o: o.box[0] + o.box[2],
        "right": lambda o: -o.box[0] - o.box[2],
        "top": lambda o: o.box[1] + o.box[3],
        "bottom": lambda o: -o.box[1] - o.box[3],
        "largest": lambda o: -(o.box[2] - o.box[0]) * (o.box[3] - o.box[1]),
        "smallest": lambda o: (o.box[2] - o.box[0]) * (o.box[3] - o.box[1]),
    }.get(words[0])
    if rule is None:
        return found
    best = min(rule(o) for o in found)
    return [o for o in found if rule(o) == best]


def test_every_expression_means_exactly_one_object():
    seen = 0
    for scene in SCENES:
        for index, expression in expressions(scene):
            assert resolve(scene, expression) == [scene.objects[index]], expression
            seen += 1
    assert seen > 600


def test_hand_made_scene_gives_these_expressions():
    found = {(index, text) for index, text in expressions(HAND)}
    # Areas 900, 1600, 900, 900: the blue circle ties for smallest circle and is neither leftmost nor highest.
    assert found == {
        (0, "left red circle"),
        (0, "left circle"),
        (0, "top red circle"),
        (0, "smallest red circle"),
        (1, "right red circle"),
        (1, "right circle"),
        (1, "bottom red circle"),
        (1, "bottom circle"),
        (1, "largest red circle"),
        (1, "largest circle"),
        (2, "blue circle"),
        (3, "green star"),
    }


def test_close_calls_are_not_asked():
    near = [SceneObject("star", "red", (10, 10, 40, 40)), SceneObject("star", "red", (20, 60, 50, 90))]
    assert relation_winner("left", near, 200) is None  # centres 10 pixels apart, 16 wanted
    assert relation_winner("top", near, 200) is near[0]
    assert relation_winner("largest", near, 200) is None
    assert relation_winner("top", near[:1], 200) is None
    with pytest.raises(ValueError, match="relation is 'behind'"):
        relation_winner("behind", near, 200)


def test_box_answers_are_fractions_of_the_padded_square():
    answers = {question.text: question.answer for question in grounding_questions(HAND)}
    # 50 pixels of padding above: (10, 10, 40, 40) -> (10, 60, 40, 90) / 200.
    assert answers["left red circle"] == "[0.05, 0.30, 0.20, 0.45]"


def test_reading_answers_by_hand():
    found = {(q.text, q.answer) for q in reading_questions(HAND)}
    assert ("what number is on the left red circle?", "7") in found
    assert ("what word is on the blue circle?", "cat") in found
    assert all(answer in ("7", "cat") for _, answer in found)


def test_attribute_answers_by_hand():
    found = {q.text: q.answer for q in attribute_questions(HAND)}
    assert found["How many circles are there?"] == "3"
    assert found["What color is the star?"] == "green"
    assert found["What shape is the blue object?"] == "circle"
    assert found["What color is the right circle?"] == "red"
    assert "What color is the circle?" not in found and "What shape is the red object?" not in found


def test_attributes_agree_with_the_resolver():
    kinds = Counter()
    for scene in SCENES:
        for question in attribute_questions(scene):
            words = question.text.rstrip("?").split()
            kinds[question.kind] += 1
            if question.kind in ("colour", "colour_relation"):
                assert [o.colour for o in resolve(scene, " ".join(words[4:]))] == [question.answer]
            elif question.kind == "shape":
                assert [o.shape for o in scene.objects if o.colour == words[4]] == [question.answer]
            else:
                singular = words[2].removesuffix("es") if words[2] == "crosses" else words[2].removesuffix("s")
                assert sum(o.shape == singular for o in scene.objects) == int(question.answer)
    assert set(kinds) == {"colour", "colour_relation", "shape", "count"}


def test_existence_answers_and_categories():
    for scene in SCENES:
        present = {(o.colour, o.shape) for o in scene.objects}
        colours, shapes = {c for c, _ in present}, {s for _, s in present}
        for question in existence_questions(scene):
            colour, shape = question.text.split()[3:5]
            assert (question.answer == "Yes") == ((colour, shape) in present)
            both, none = colour in colours and shape in shapes, colour not in colours and shape not in shapes
            if question.answer == "No":
                assert question.kind == ("adversarial" if both else "random" if none else "popular")


def test_prompts_have_the_wording_of_each_benchmark():
    rng = np.random.default_rng(0)
    prompts = {task: sample_questions(HAND, task, 1, rng)[0].prompt for task in ("refcoco", "textvqa", "gqa")}
    start = "Please provide the bounding box coordinate of the region this sentence describes: "
    assert prompts["refcoco"].startswith(start) and prompts["refcoco"].endswith(".")
    assert prompts["textvqa"].startswith("What ")
    assert prompts["gqa"].endswith("?\nAnswer the question using a single word or phrase.")
    with pytest.raises(ValueError, match="task is 'mme'"):
        sample_questions(HAND, "mme", 1, rng)


def test_sampled_existence_questions_are_balanced():
    rng = np.random.default_rng(1)
    answers = Counter(q.answer for scene in SCENES for q in sample_questions(scene, "pope", 1, rng))
    assert 0.35 < answers["Yes"] / sum(answers.values()) < 0.65
