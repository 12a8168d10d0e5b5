"""Latency records: what is refused, and that files come back as they were written."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from latency_runs import contender, content, record
from pydantic import ValidationError

from swiftvlm_eval.results.latency_record import LatencyRecord
from swiftvlm_eval.results.latency_store import load_latency, read_latency, write_latency

FASTV = contender("fastv 0.333", prefill=2.0, rows=192.0)


def changed(path: str, value: Any) -> dict:
    """The content with one field replaced, named by its steps."""
    found = deepcopy(content(FASTV))
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place: Any = found
    for step in way:
        place = place[step]
    place[last] = value
    return found


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    one = record(FASTV, refused={"swiftvlm 0.01": "too small"})
    path = write_latency(one, tmp_path / "new" / "folder")
    assert read_latency(path) == one
    assert path.name == f"64x4--N576--b1--float32--cpu--{one.record_id}.latency.json"
    assert json.loads(path.read_text()) == json.loads(one.model_dump_json()), "numbers in one line change none"
    assert '"prefill_s": [2.0, 2.2, ' in path.read_text()
    assert write_latency(one, path.parent).read_bytes() == path.read_bytes()
    assert record(FASTV, created="2027-01-01T00:00:00+00:00").stem != one.stem


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("again.steady", False, "its own intervals contradict"),
        ("again.prefill", [1.1, 0.9, 1.2], "prefill_s of the stock model have another ratio"),
        ("again.decode", [1.0, 1.01, 1.2], "its own intervals contradict"),
        ("contenders.1.decode_s", [0.05] * 4, "decode_s of the stock model have another ratio"),
        ("contenders.3.prefill_s", [1.0] * 3, "fastv 0.333: prefill_s has 3 entries, 4 are expected"),
        ("contenders.3.prefill_s", [1.0, 1.0, 0.0, 1.0], "greater than 0"),
        ("contenders.3.prefill_s", [1.0, 1.0, float("nan"), 1.0], "finite"),
        ("contenders.3.rows_per_layer", [1.0] * 5, "rows_per_layer has 5 entries, 4 are expected"),
        ("contenders.3.steps_s", [1.0] * 7, "steps_s has 7 entries, 6 are expected"),
        ("contenders.3.parts_s", {"tower": [1.0, 1.0]}, "parts_s has tower"),
        ("contenders.3.role", "stock", "allowed are stock, again, engine, then methods"),
        ("contenders.2.role", "method", "allowed are stock, again, engine, then methods"),
        ("contenders.3.label", "stock", "two have the same label"),
        ("contenders.3.speedup", 2.0, "Extra inputs"),
        ("settings.part_rounds", 0, "steps_s has 6 entries, 0 are expected"),
        ("settings.clock", "sun", "'wall' or 'cpu'"),
        ("machine.hostname", "here", "Extra inputs"),
        ("workload.batch_size", 0, "greater than 0"),
        ("schema_version", 2, "Input should be 1"),
    ],
)
def test_what_does_not_fit_is_refused(path: str, value: Any, said: str) -> None:
    LatencyRecord.model_validate(content(FASTV))
    with pytest.raises(ValidationError, match=said.replace(".", r"\.")):
        LatencyRecord.model_validate(changed(path, value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read as JSON"),
        ('{"format": "swiftvlm-eval/run-record"}', "is not a latency record"),
        ('{"format": "swiftvlm-eval/latency-record", "schema_version": 9}', "schema_version 9; this package reads 1"),
        ('{"format": "swiftvlm-eval/latency-record", "schema_version": 1}', "is not a valid latency record"),
        ('{"x": NaN}', "NaN is not JSON"),
    ],
)
def test_broken_files_are_problems_that_name_file_and_reason(tmp_path: Path, text: str, said: str) -> None:
    good = write_latency(record(FASTV), tmp_path)
    (tmp_path / "bad.latency.json").write_text(text)
    found, (problem,) = load_latency([tmp_path])
    assert [run.path for run in found] == [good]
    assert problem.refused and problem.file == "bad.latency.json" and said in problem.reason
    assert "bad.latency.json" in problem.reason and "\n" not in problem.reason


def test_a_copy_counts_once_and_other_files_are_left_alone(tmp_path: Path) -> None:
    path = write_latency(record(FASTV), tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "copy.latency.json").write_bytes(path.read_bytes())
    (tmp_path / "b" / "other.json").write_text("{}")
    for inputs in ([tmp_path], [tmp_path / "b", tmp_path / "a"], [path, path]):
        found, problems = load_latency(inputs)
        assert len(found) == 1 and not problems and found[0].record == record(FASTV)
