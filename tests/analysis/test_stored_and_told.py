"""What is kept on disk, means with intervals, equal costs and tables."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from swiftvlm_eval.analysis.equal_flops import budget_of_equal_cost
from swiftvlm_eval.analysis.mean_interval import mean_interval
from swiftvlm_eval.analysis.sample_log import SampleLog
from swiftvlm_eval.analysis.sampled_prompts import spread_over
from swiftvlm_eval.analysis.tables import to_csv
from swiftvlm_eval.pruning.budget import BudgetError

SETTINGS = {"model": "demo", "seed": 0}


def test_an_interrupted_log_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    log = SampleLog(path, SETTINGS)
    assert not path.exists()
    log.add("a/0", {"x": 1})
    log.add("a/1", {"x": [0.5]})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"document": "a/2", "val')  # a kill in the middle of a line
    again = SampleLog(path, SETTINGS)
    assert again.found == {"a/0": {"x": 1}, "a/1": {"x": [0.5]}} and path.read_bytes() == whole
    again.add("a/2", {"x": 3})
    assert list(SampleLog(path, SETTINGS).found) == ["a/0", "a/1", "a/2"]


def test_a_log_cut_in_its_first_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"settings": {"mod')
    log = SampleLog(path, SETTINGS)
    log.add("a/0", {"x": 1})
    assert SampleLog(path, SETTINGS).found == {"a/0": {"x": 1}}


def test_another_analysis_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    SampleLog(path, SETTINGS).add("a/0", {"x": 1})
    before = path.read_bytes()
    for other in ({**SETTINGS, "seed": 1}, {"model": "demo"}, {**SETTINGS, "seed": 0, "more": 2}):
        with pytest.raises(
            ValueError, match=r"x.jsonl: (seed|more) is .* there and .* here; allowed is another --out"
        ):
            SampleLog(path, other)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "line", ["nonsense", '{"document": "a/1"}', '{"document": "a/1", "values": {"x": NaN}}', "[]"]
)
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.jsonl"
    SampleLog(path, SETTINGS).add("a/0", {"x": 1})
    with path.open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(ValueError, match="x.jsonl, line 3: broken; allowed is to delete the file"):
        SampleLog(path, SETTINGS)


def test_numbers_that_are_not_finite_are_never_stored(tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "x.jsonl", SETTINGS)
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.add("a/0", {"x": float("nan")})
    assert not log.path.exists() and not log.found


def test_a_mean_with_its_interval() -> None:
    values = np.random.default_rng(3).normal(2.0, 1.0, 400).tolist()
    told = mean_interval(values)
    half = 1.96 * np.std(values) / 20
    assert told["mean"] == pytest.approx(np.mean(values)) and told["documents"] == 400
    assert told["low"] == pytest.approx(told["mean"] - half, abs=0.02)
    assert told["high"] == pytest.approx(told["mean"] + half, abs=0.02)
    assert told == mean_interval(values)
    assert mean_interval([1, 2, 3, 4])["quartiles"] == [1.75, 2.5, 3.25]


def test_one_document_has_no_interval_and_none_no_mean() -> None:
    assert mean_interval([0.5]) | {"quartiles": 0} == {
        **{"mean": 0.5, "low": None, "high": None, "documents": 1},
        "quartiles": 0,
    }
    assert mean_interval([0.5, 0.5])["low"] == 0.5
    for bad in ([], [float("nan")], [1.0, float("inf")]):
        with pytest.raises(ValueError, match="allowed are finite ones, at least one"):
            mean_interval(bad)


def test_equal_costs_are_found() -> None:
    found = budget_of_equal_cost(lambda share: 1e9 * share**2, 1e9 * 0.3**2, 0.9)
    assert found == pytest.approx(0.3, abs=1e-6)
    # steps: the nearest one that there is
    found = budget_of_equal_cost(lambda share: round(10 * share), 4.2, 0.5)
    assert round(10 * found) == 4


def test_shares_that_cannot_be_met_are_passed_by() -> None:
    def cost(share: float) -> float:
        if not 0.25 <= share <= 0.8:
            raise BudgetError(f"budget={share}")
        return share

    assert budget_of_equal_cost(cost, 0.26, 0.3) == pytest.approx(0.26, abs=1e-4)
    assert budget_of_equal_cost(cost, 0.1, 0.3) == pytest.approx(0.25, abs=1e-4)
    with pytest.raises(BudgetError):
        budget_of_equal_cost(lambda share: cost(0.1), 0.5, 0.5)


def test_documents_are_spread_evenly() -> None:
    assert spread_over(10, 3) == [0, 3, 6] and spread_over(4, 4) == [0, 1, 2, 3] and spread_over(500, 1) == [0]
    for count in range(1, 60):
        assert len(set(spread_over(59, count))) == count


def test_tables_are_read_back_and_hold_no_formula() -> None:
    text = to_csv([{"method": "=cmd()", "x": -0.5}, {"method": "a,b\nc", "x": 2}])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [tuple(row.values()) for row in rows] == [("'=cmd()", "-0.5"), ("a,b\nc", "2")]
    with pytest.raises(ValueError, match="allowed is one or more"):
        to_csv([])
