import math
from typing import Any

import pytest

from swiftvlm_eval.check.gates import check_samples, check_window, expectations, interval
from swiftvlm_eval.results import shipped_benchmarks


def box(
    hit: float, other: float, unparsable: float = 0.0, scale: str = "fraction", text: str = "[0.1]"
) -> dict[str, Any]:
    parsed = None if unparsable else {"scale": scale}
    return {
        "acc@0.5": hit,
        "acc@0.5_alt": other,
        "unparsable": unparsable,
        "parsed": parsed,
        "filtered_resps": text,
    }


def verdicts(samples: list[dict[str, Any]], family: str = "llava", published: bool = True) -> dict[str, str]:
    lines = [{**sample, "doc_id": number} for number, sample in enumerate(samples)]
    found = check_samples(family, {"swiftvlm_refcoco_val": lines}, published)
    return {gate.what.split(" at ")[0].split(" within")[0]: gate.verdict for gate in found}


def test_a_sound_run_passes() -> None:
    samples = [box(1, 1)] * 110 + [box(1, 0)] * 42 + [box(0, 0)] * 48  # 76 % against 55 %
    assert set(verdicts(samples).values()) == {"pass"}


def test_swapped_frames_fail_and_close_ones_warn() -> None:
    assert verdicts([box(0, 1)] * 60 + [box(1, 1)] * 40)["main box frame ahead of the other"] == "fail"
    assert verdicts([box(1, 1)] * 99 + [box(1, 0)])["main box frame ahead of the other"] == "warn"


def test_unparsable_pixel_and_empty_answers_fail() -> None:
    found = verdicts([box(1, 0)] * 97 + [box(0, 0, 1.0, text="")] * 3)
    assert found["answers without a box"] == "fail"
    assert found["empty answers"] == "fail"
    assert verdicts([box(1, 0)] * 97 + [box(0, 0, scale="pixel")] * 3)["boxes as fractions"] == "fail"


def test_one_failed_answer_is_enough() -> None:
    sound: dict[str, Any] = {"swiftvlm": {"failed": False}}
    lines = [{**box(1, 0), "token_counts": [dict(sound)]} for _ in range(50)]
    assert verdicts(lines)["no answer failed"] == "pass"
    lines[20]["token_counts"] = [dict(sound), {"swiftvlm": {"failed": True}}]
    assert verdicts(lines)["no answer failed"] == "fail"


def numbered(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines as lmms-eval writes them."""
    return [{"doc_id": number, "filtered_resps": "red", **line} for number, line in enumerate(lines)]


def seen(task: str, lines: list[dict[str, Any]], low: float, high: float, **more: Any) -> tuple[str, str]:
    gate = check_window(task, numbered(lines), {"low": low, "high": high, "source": "a table", **more})
    return gate.verdict, gate.seen


def test_score_window_allows_for_sampling_error() -> None:
    few = [{"exact_match": 1.0}] * 6 + [{"exact_match": 0.0}] * 4  # 60 %, but 10 answers cannot tell
    assert seen("swiftvlm_textvqa_noocr_val", few, 45.5, 47.5)[0] == "pass"
    assert seen("swiftvlm_textvqa_noocr_val", few * 100, 45.5, 47.5)[0] == "fail"
    assert seen("swiftvlm_textvqa_noocr_val", [{"exact_match": 1.0}] * 5, 45.5, 47.5) == (
        "warn",
        "n = 5, too few to tell",
    )
    assert check_window("gqa", few, None).verdict == "warn"


def test_pope_is_read_from_its_dictionaries() -> None:
    lines = [{"pope_accuracy": {"question_id": str(n), "score": float(n % 10 < 6)}} for n in range(400)]
    assert seen("pope", lines, 85, 88) == ("fail", seen("pope", lines, 85, 88)[1])
    assert seen("pope", lines, 58, 62)[1].startswith("60.0 [")


def mme_pairs(category: str, images: int, right: int) -> list[dict[str, Any]]:
    """Images with two questions, of which `right` have both right and the others one."""
    return [
        {"mme_perception_score": {"question_id": f"{category}/{image}", "category": category, "score": score}}
        for image in range(images)
        for score in (1.0, float(image < right))
    ]


def test_mme_is_a_sum_over_all_ten_categories_or_cannot_be_told() -> None:
    # Per category: 45 of 60 images have both right: accuracy 105/120, accuracy+ 45/60, together 162.5; ten times that.
    whole = [line for number in range(10) for line in mme_pairs(f"part{number}", 60, 45)]
    verdict, text = seen("mme", whole, 1480, 1540, strata=10)
    assert (verdict, text.split(" [")[0]) == ("fail", "1625")
    assert seen("mme", whole, 1600, 1650, strata=10)[0] == "pass"
    # The first two categories of a check say nothing about the sum, although they would be far below 1480.
    assert seen("mme", whole[:240], 1480, 1540, strata=10) == ("warn", "2 of 10 categories in 240 samples")
    # Half an image is no image: with it, and wrong, the score would be another.
    cognition = [{"mme_cognition_score": {"question_id": "c", "category": "code", "score": 0.0}}] * 3
    half = mme_pairs("part0", 1, 0)[:1]
    half[0]["mme_perception_score"] |= {"question_id": "half", "score": 0.0}
    assert seen("mme", [*whole, *half, *cognition], 1480, 1540, strata=10)[1] == text


def rotations(index: int, options: int, letters: str) -> list[dict[str, Any]]:
    """The orders of one question as stock MMBench logs them, to each of which B is right."""
    texts = {letter: f"thing {letter}" if number < options else "nan" for number, letter in enumerate("ABCD")}
    row = {"answer": "B", "question": "what?", **texts}
    return [
        {"gpt_eval_score": {**row, "index": index + 1_000_000 * turn, "prediction": letter}}
        for turn, letter in enumerate(letters)
    ]


def test_mmbench_counts_questions_of_which_every_order_is_there() -> None:
    right = [line for index in range(30) for line in rotations(index, 2, "BB")]
    wrong = [line for index in range(30, 60) for line in rotations(index, 4, "BBBA")]
    verdict, text = seen("mmbench_en_dev_static", right + wrong, 63, 66)
    assert (verdict, text.split(" [")[0]) == ("fail", "50.0")
    # Right so far, but only two orders of four are there.
    parts = [line for index in range(60, 160) for line in rotations(index, 4, "BB")]
    assert seen("mmbench_en_dev_static", right + wrong + parts, 63, 66)[1] == text
    assert seen("mmbench_en_dev_static", parts, 63, 66) == ("warn", "no whole question in 200 samples")


def test_official_pope_is_the_mean_f1_of_its_subsets() -> None:
    def line(subset: str, yes: int, truth: int) -> dict[str, Any]:
        score = float(yes == truth)
        return {"pope_f1": {"score": score}, "pope_yes_ratio": {"score": float(yes)}, "stratum": subset}

    # random: 40 right yes, 10 wrong yes, 10 missed: F1 80/100. popular: 20, 20, 20: F1 1/2. Mean 65 %.
    lines = [line("random", 1, 1)] * 40 + [line("random", 1, 0)] * 10 + [line("random", 0, 1)] * 10
    lines += [line("random", 0, 0)] * 60
    lines += [line("popular", *answer) for answer in ((1, 1), (1, 0), (0, 1), (0, 0)) for _ in range(20)]
    assert seen("swiftvlm_official_pope", lines, 64, 66)[1].startswith("65.0 [")


def test_interval_by_hand() -> None:
    low, high = interval([0.0, 1.0] * 200)
    assert (low, high) == (pytest.approx(0.45, abs=0.02), pytest.approx(0.55, abs=0.02))
    assert interval([1.0]) == (-math.inf, math.inf)


def test_no_published_range_for_the_demo_model() -> None:
    assert verdicts([box(1, 0)] * 50, published=False)["score as published"] == "warn"


# arXiv 2602.03134, tables 1 and 4.
PAPER = {
    "llava": {"refcoco": 75.9, "refcoco+": 67.0, "refcocog": 70.7, "textvqa": 46.9}
    | {"gqa": 61.4, "sqa": 69.6, "mme": 1509, "mmb": 64.6, "pope": 86.8},
    "llava_next": {"refcoco": 85.3, "textvqa": 65.5, "gqa": 63.9, "mmb": 67.9},
}
# LLaVA's model zoo, scored by its own scripts.
ZOO = {"textvqa": 58.2, "gqa": 62.0, "sqa": 66.8, "mme": 1510.7, "mmb": 64.3, "pope": 85.9}


def test_windows_hold_the_published_vanilla_scores() -> None:
    windows, columns = expectations()["windows"], shipped_benchmarks().benchmarks
    published = {family: {columns[key].task: score for key, score in row.items()} for family, row in PAPER.items()}
    published["llava"] |= {columns[f"{key}_official"].task: score for key, score in ZOO.items()}
    for family, scores in published.items():
        assert set(windows[family]) == set(scores)
        for task, score in scores.items():
            window = windows[family][task]
            assert window["low"] <= score <= window["high"]
            assert f"{score:.1f}".removesuffix(".0") in window["source"]


def test_every_column_of_the_papers_has_a_window_and_every_window_a_column() -> None:
    windows, table = expectations()["windows"], shipped_benchmarks()
    sets = {"llava": ("paper", "paper_official"), "llava_next": ("paper_next",)}
    for family, names in sets.items():
        assert set(windows[family]) == {table.benchmarks[key].task for name in names for key in table.sets[name]}
