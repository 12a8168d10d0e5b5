from typing import Any

import pytest

from swiftvlm_eval.health import check_samples, check_window, expectations, interval


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


def verdicts(samples: list[dict[str, Any]], family: str = "llava15", published: bool = True) -> dict[str, str]:
    found = check_samples(family, {"swiftvlm_refcoco_val": samples}, published)
    return {gate.what.split(" at ")[0].split(" within")[0]: gate.verdict for gate in found}


def test_a_healthy_pilot_passes() -> None:
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


def test_score_window_allows_for_sampling_error() -> None:
    window = {"metric": "exact_match", "low": 0.455, "high": 0.475}
    few = [{"exact_match": 1.0}] * 6 + [{"exact_match": 0.0}] * 4  # 60 %, but 10 answers cannot tell
    many = few * 100
    assert check_window("t", few, window).verdict == "pass"
    assert check_window("t", many, window).verdict == "fail"
    assert check_window("t", few, None).verdict == "warn"


def test_interval_by_hand() -> None:
    low, high = interval([0.0, 1.0] * 200)
    assert (low, high) == (pytest.approx(0.45, abs=0.02), pytest.approx(0.55, abs=0.02))
    assert interval([1.0]) == (0.0, 1.0)


def test_no_published_range_for_the_demo_model() -> None:
    assert verdicts([box(1, 0)] * 50, published=False)["score as published"] == "warn"


def test_windows_hold_the_published_vanilla_scores() -> None:
    rows = {
        "llava15": {"swiftvlm_refcoco_val": 75.9, "swiftvlm_refcoco+_val": 67.0, "swiftvlm_refcocog_val": 70.7}
        | {"swiftvlm_textvqa_noocr_val": 46.9, "gqa": 61.4},
        "llava_next": {"swiftvlm_refcoco_val": 85.3, "swiftvlm_textvqa_noocr_val": 65.5, "gqa": 63.9},
    }
    windows = expectations()["windows"]
    for family, scores in rows.items():
        assert set(windows[family]) == set(scores)
        for task, score in scores.items():
            assert windows[family][task]["low"] <= score / 100 <= windows[family][task]["high"]
