"""The report of a sample: what is written is read again, and what others wrote is understood."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from swiftvlm_eval.runs.report import RunDescription, SampleReport, report_in, run_lengths

OLD: dict[str, Any] = {
    "visual_tokens": 576,
    "rows_per_layer": [[576, 2], [96.5, 2]],
    "flops_t": 2.0,
    "run": {"method": "fastv", "seed": 3, "novelty": [1, {"deep": None}]},
    "later_key": {"unknown": True},
}


def test_run_lengths_and_back() -> None:
    assert run_lengths([576, 576, 98, 98, 576]) == ((576, 2), (98, 2), (576, 1))
    assert run_lengths([]) == ()
    assert SampleReport(rows_per_layer=run_lengths([9, 9, 4])).rows == [9.0, 9.0, 4.0]


def test_what_is_written_is_what_was_set_and_in_that_form_read_again() -> None:
    run = RunDescription(method="fastv", options={"layers": (3, 9)}, seed=0)
    report = SampleReport(failed=False, image=None, rows_per_layer=((576, 1), (7, 3)), prefill_s=None, run=run)
    written = report.to_dict()
    assert written["rows_per_layer"] == [[576, 1], [7, 3]] and type(written["rows_per_layer"][0][0]) is int
    assert written["prefill_s"] is None and "total_s" not in written and "error" not in written
    assert written["run"] == {"method": "fastv", "options": {"layers": (3, 9)}, "seed": 0}
    again = report_in({"swiftvlm": json.loads(json.dumps(written))})
    assert json.dumps(again.to_dict()) == json.dumps(written)


def test_reports_of_other_versions_are_read_and_kept_whole() -> None:
    report = report_in({"swiftvlm": OLD})
    assert report.to_dict() == OLD
    assert report.mean_rows == (2 * 576 + 2 * 96.5) / 4
    assert not report.is_failure and not report.names_images
    assert report.run is not None and report.run.model_extra == {"novelty": [1, {"deep": None}]}


@pytest.mark.parametrize("counts", [{}, {"swiftvlm": None}, {"swiftvlm": "text"}])
def test_no_report_is_an_empty_one(counts: dict[str, Any]) -> None:
    assert report_in(counts).to_dict() == {}
    assert (report_in(counts).rows, report_in(counts).mean_rows) == (None, None)


@pytest.mark.parametrize(("said", "failure"), [({"failed": True}, True), ({"error": "gone"}, True), ({}, False)])
def test_a_failure_is_said_in_either_word(said: dict[str, Any], failure: bool) -> None:
    assert report_in({"swiftvlm": said}).is_failure is failure


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ({"rows_per_layer": [[576]]}, "rows_per_layer"),
        ({"visual_tokens": "many"}, "visual_tokens"),
        ({"run": {"seed": "x"}}, "seed"),
    ],
)
def test_a_value_of_another_type_is_named(said: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        report_in({"swiftvlm": said})


def test_descriptions_differ_in_what_is_not_a_samples_own() -> None:
    one = RunDescription.model_validate({"method": "fastv", "planned_mean": 7.0, "novelty": 1})
    assert one.differences(RunDescription.model_validate({"method": "fastv", "planned_mean": 9.0, "novelty": 1})) == []
    other = RunDescription.model_validate({"method": "pdrop", "seed": 1})
    assert one.differences(other) == other.differences(one) == ["method", "novelty", "seed"]


def test_the_processes_of_a_run_are_those_that_end_it() -> None:
    report = report_in({"swiftvlm": OLD}).on_processes(4)
    assert report.to_dict()["run"] == {**OLD["run"], "world_size": 4}
    assert report_in({"swiftvlm": {"image": None}}).on_processes(4).to_dict() == {"image": None}
