"""The image that the model reported is what a score is resampled by where the task's log names none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_runs import description, report, samples_of, write_run

from swiftvlm_eval.leaderboard import build
from swiftvlm_eval.leaderboard.compute.statistics import ratio_draws
from swiftvlm_eval.leaderboard.compute.units import Units, reduce_samples
from swiftvlm_eval.results import SampleLine, import_run, shipped_benchmarks
from swiftvlm_eval.results.lmms_output import sample_line

COLUMNS = shipped_benchmarks().benchmarks
Floats = np.ndarray[Any, np.dtype[np.float64]]


def seen(scores: list[Any], metric: str, images: list[Any], **arguments: Any) -> list[dict[str, Any]]:
    """Samples whose model reports these image names; the word `unknown` is an answer without a report."""
    lines = samples_of(scores, metric, arguments.pop("run", description()), **arguments)
    for line, image in zip(lines, images, strict=True):
        if image == "unknown":
            line["token_counts"] = None
        else:
            line["token_counts"][0]["swiftvlm"]["image"] = image
    return lines


def reduced(key: str, scores: list[Any], images: list[Any], reported: float) -> Units:
    column = COLUMNS[key]
    lines = [sample_line(column.task, sample, [column.metric]) for sample in seen(scores, column.metric, images)]
    return reduce_samples(lines, column, reported)


def test_what_names_a_sample_s_image() -> None:
    samples = seen([1.0] * 4, "exact_match", ["aa", None, "unknown", "aa"])
    names = [sample_line("gqa", sample, ["exact_match"]).cluster_id for sample in samples]
    assert names == ["image aa", "gqa document 1", None, "image aa"]
    # the task's own name is the one that other tasks use as well; a missing field may be formatted as a word
    for own, expected in (("COCO_7", "COCO_7"), ("None", "image aa"), ("", "image aa"), (None, "image aa")):
        assert sample_line("gqa", samples[0] | {"cluster_id": own}, ["exact_match"]).cluster_id == expected


@pytest.mark.parametrize(("key", "reported"), [("gqa", 0.6), ("sqa", 0.6), ("pope", 0.6)])
def test_questions_on_one_image_are_one_unit(key: str, reported: float) -> None:
    units = reduced(key, [1.0, 0.0, 1.0, 1.0, 0.0], ["aa", "aa", "bb", "aa", None], reported)
    found = dict(zip(units.ids.tolist(), zip(units.contributions, units.expected, strict=True), strict=True))
    assert found == {
        "image aa": pytest.approx((0.4, 0.36)),
        "image bb": pytest.approx((0.2, 0.12)),
        f"{COLUMNS[key].task} document 4": pytest.approx((0.0, 0.12)),
    }
    assert (units.named, units.clustered) == (True, True)


def test_one_answer_without_a_name_is_enough_to_fall_back_to_documents() -> None:
    units = reduced("gqa", [1.0, 0.0, 1.0, 1.0], ["aa", "aa", "unknown", "aa"], 0.75)
    assert units.ids.size == 4
    assert (units.named, units.clustered) == (False, False)


def mme(category: str, name: str, score: float) -> dict[str, Any]:
    return {"question_id": f"{category}/{name}", "category": category, "score": score}


def test_an_mme_image_that_two_categories_use_is_one_unit() -> None:
    from lmms_eval.tasks.mme.utils import mme_aggregate_results

    scores = [
        *(mme("existence", "1.png", score) for score in (1.0, 1.0)),  # 100 (1 + 1) / 2
        *(mme("existence", "2.png", score) for score in (1.0, 0.0)),  # 100 (0.5 + 0) / 2
        *(mme("count", "1.png", score) for score in (0.0, 1.0)),  # 100 (0.5 + 0) / 1
    ]
    units = reduced("mme", scores, ["aa", "aa", "bb", "bb", "aa", "aa"], mme_aggregate_results(scores))
    assert dict(zip(units.ids.tolist(), units.contributions, strict=True)) == {"image aa": 150.0, "image bb": 25.0}
    # existence is 125 over two pairs, count 50 over one
    assert units.expected.tolist() == pytest.approx([62.5 + 50, 62.5])
    assert (units.named, units.clustered) == (True, True)


def choice(question: int, rotation: int, prediction: str) -> dict[str, Any]:
    index = question + rotation * 1_000_000
    options = {"A": "cat", "B": "dog", "C": "nan", "D": "nan"}
    return {"index": index, "question": "what", "answer": "A", "prediction": prediction, "category": "c", **options}


def test_mmbench_questions_stay_whole_inside_an_image() -> None:
    answers = [choice(1, 0, "A"), choice(1, 1, "A"), choice(2, 0, "A"), choice(2, 1, "B"), choice(3, 0, "A")]
    units = reduced("mmb", answers, ["aa", "aa", "aa", "aa", "bb"], 200 / 3)
    assert dict(zip(units.ids.tolist(), units.contributions, strict=True)) == {
        "image aa": pytest.approx(100 / 3),
        "image bb": pytest.approx(100 / 3),
    }
    assert units.expected.tolist() == pytest.approx([400 / 9, 200 / 9])
    assert (units.named, units.clustered) == (True, True)
    alone = reduced("mmb", answers, ["aa", "aa", "bb", "bb", "cc"], 200 / 3)
    assert (alone.ids.size, alone.clustered) == (3, False)


def test_a_question_on_two_images_is_not_torn_apart() -> None:
    units = reduced("mmb", [choice(1, 0, "A"), choice(1, 1, "A"), choice(2, 0, "B")], ["aa", "bb", "bb"], 50.0)
    assert units.contributions.tolist() == [50.0, 0.0]
    assert not units.named


def test_lines_from_before_the_field_are_read_as_they_were() -> None:
    """Then the pair, or the question, stood where the image stands now."""
    old = []
    for number, score in enumerate((1.0, 1.0, 0.0, 1.0)):
        (raw,) = samples_of([mme("count", f"{number // 2}.png", score)], COLUMNS["mme"].metric, description())
        line = sample_line("mme", raw | {"doc_id": number}, [COLUMNS["mme"].metric])
        content = line.model_dump()
        content |= {"cluster_id": content.pop("group")}
        old.append(SampleLine.model_validate(content))
    units = reduce_samples(old, COLUMNS["mme"], 125.0)
    assert units.ids.tolist() == ["count count/0.png", "count count/1.png"]
    assert units.contributions.tolist() == [100.0, 25.0]
    assert not units.named


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ([f"{number // 2}" for number in range(40)], "resampled by image in 20 units"),
        (["aa"] * 39 + ["unknown"], "taken as independent, since not every sample names"),
    ],
)
def test_the_caption_says_what_is_resampled(tmp_path: Path, images: list[str], sentence: str) -> None:
    right = [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0] * 5
    for number, method in enumerate(("vanilla", "fastv")):
        scores = right if method == "vanilla" else right[1:] + right[:1]
        lines = seen(scores, "exact_match", images, run=description(method))
        path = write_run(tmp_path / "in" / method, {"gqa": ("exact_match", lines)}, stamp=f"20260102_00000{number}")
        assert import_run(path)[0].tasks["gqa"].clustered == ("unknown" not in images)
    (board,) = build([tmp_path / "in"], tmp_path / "out").boards
    assert sentence in " ".join(board.caption)


# GQA's testdev: 398 images with 31 questions each; what pruning spoils differs from image to image
IMAGES, QUESTIONS = 398, 31


def population(rng: np.random.Generator, images: int) -> tuple[Floats, Floats]:
    """Chances of a right answer of vanilla and of a method, by image."""
    ease = rng.normal(0.6, 1.0, images)
    loss = rng.gamma(1.0, 0.35, images)
    return 1 / (1 + np.exp(-ease)), 1 / (1 + np.exp(loss - ease))


def answers(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Right and wrong of both, [images x questions]; a question's difficulty is the same for both."""
    vanilla, method = population(rng, IMAGES)
    luck = rng.random((IMAGES, QUESTIONS))
    return (luck < vanilla[:, None]).astype(float), (luck < method[:, None]).astype(float)


def covers(method: Floats, vanilla: Floats, truth: float, seed: int) -> bool:
    (draws,) = ratio_draws(method[None], vanilla, seed=seed, resamples=200)
    low, high = draws.interval()
    return low <= truth <= high


def test_intervals_by_image_cover_where_those_by_document_do_not() -> None:
    rng = np.random.default_rng(11)
    chances = population(rng, 2_000_000)
    truth = float(chances[1].mean() / chances[0].mean())
    by_image, by_document = [], []
    for number in range(300):
        vanilla, method = answers(rng)
        by_image.append(covers(method.sum(axis=1), vanilla.sum(axis=1), truth, number))
        if number < 60:
            by_document.append(covers(method.ravel(), vanilla.ravel(), truth, number))
    assert 0.92 <= np.mean(by_image) <= 0.98
    assert np.mean(by_document) <= 0.9


def test_the_units_of_such_a_run_are_its_images() -> None:
    """What the simulation sums up by hand is what is made of a run's samples."""
    right, _ = answers(np.random.default_rng(12))
    names = [f"{image:016x}" for image in range(IMAGES) for _ in range(QUESTIONS)]
    lines = [
        SampleLine(
            **sample_line("gqa", {"doc_id": 0, "token_counts": [{"swiftvlm": report(None, image=name)}]}, [])
            .model_copy(update={"doc_id": number, "scores": {"exact_match": score}})
            .model_dump()
        )
        for number, (name, score) in enumerate(zip(names, right.ravel().tolist(), strict=True))
    ]
    units = reduce_samples(lines, COLUMNS["gqa"], float(right.mean()))
    assert units.ids.size == IMAGES
    assert units.contributions == pytest.approx(right.sum(axis=1) / right.size)
