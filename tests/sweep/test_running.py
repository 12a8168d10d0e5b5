"""The records a sweep leaves, and what happens after an interruption."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lmms.tiny_runs import checkpoint
from small_sweeps import LIMIT, answers, documents, files, make_sweep
from tiny_checkpoint import in_memory

from swiftvlm_eval.lmms import reporting as lmms_module
from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.pruning.methods.random import Random
from swiftvlm_eval.results import read_record
from swiftvlm_eval.sweep import Configuration, Sweep, make_grid
from swiftvlm_eval.sweep import running as sweep_module
from swiftvlm_eval.sweep.claims import Claim


def test_a_record_for_every_cell_and_a_second_call_that_runs_nothing(tmp_path: Path, generated: list[str]) -> None:
    grid = make_grid([("vanilla", {}), ("fastv", {"layers": "2"})], ["0.5"])
    first = list(make_sweep(tmp_path).run(grid))
    assert [outcome.status for outcome in first] == ["done", "done"]
    assert sorted(generated) == sorted(["demo_gqa/0", "demo_gqa/1", "demo_refcoco/0", "demo_refcoco/1"] * 2)
    for outcome, cell in zip(first, grid, strict=True):
        assert outcome.record is not None
        record = read_record(outcome.record)
        assert (record.method.name, record.method.budget) == (cell.method, cell.budget)
        assert set(record.tasks) == {"demo_gqa", "demo_refcoco"}
        assert record.status == "limited" and record.settings.limit == LIMIT
        for task in record.tasks.values():
            assert (task.answered, task.failed, task.expected) == (LIMIT, 0, LIMIT)
            assert task.execution is not None and task.execution.mean_visual_tokens == pytest.approx(
                16 if cell.method == "vanilla" else 8, abs=0.5
            )
    fastv = record  # the last one
    assert fastv.method.options["layers"] in ([2], (2,))
    assert fastv.model.lmms_eval_model == "swiftvlm_llava" and fastv.model.pretrained == "tiny"
    assert not (tmp_path / "partial").exists() or not files(tmp_path / "partial")

    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    generated.clear()
    second = list(make_sweep(tmp_path).run(grid))
    assert [outcome.status for outcome in second] == ["kept", "kept"]
    assert [outcome.record for outcome in second] == [outcome.record for outcome in first]
    assert not generated
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


@pytest.mark.parametrize("change", ["weights", "config"])
def test_another_model_of_the_same_name_is_another_cell(tmp_path: Path, change: str) -> None:
    same, other = in_memory(grid=4, layers=12), in_memory(grid=4, layers=12)
    if change == "weights":
        with torch.no_grad():
            other.model.lm_head.weight.mul_(2)
    else:
        other.model.config.pruning_layers = {"fastv": [3]}
    base, documents_ = Configuration("fastv", 0.5), documents("demo_gqa")
    names = {
        Sweep(own, documents_, tmp_path, limit=2)._identity(base)
        for own in (same, other, in_memory(grid=4, layers=12))
    }
    assert len(names) == 2


def test_another_setting_is_another_cell(tmp_path: Path) -> None:
    base = Configuration("fastv", 0.5)
    sweep = make_sweep(tmp_path)
    others = [
        sweep._identity(Configuration("fastv", 0.25)),
        sweep._identity(Configuration("fastv", 0.5, {"layers": "2"})),
        sweep._identity(Configuration("fastv", 0.5, seed=1)),
        make_sweep(tmp_path, "demo_gqa")._identity(base),
        make_sweep(tmp_path, batch_size=2)._identity(base),
        make_sweep(tmp_path, limit=None)._identity(base),
    ]
    assert len({sweep._identity(base), *others}) == 7
    assert make_sweep(tmp_path, "demo_refcoco", "demo_gqa")._identity(base) == sweep._identity(base)


def test_an_interrupted_run_goes_on_where_it_stopped(
    tmp_path: Path, generated: list[str], interrupted: Callable[[int], None]
) -> None:
    grid = [Configuration("fastv", 0.5)]
    (whole,) = make_sweep(tmp_path / "whole").run(grid)
    asked = list(generated)
    generated.clear()

    interrupted(3)
    with pytest.raises(KeyboardInterrupt):
        list(make_sweep(tmp_path / "parts").run(grid))
    assert not (tmp_path / "parts/records").exists() or not files(tmp_path / "parts/records")
    (partial,) = (tmp_path / "parts/partial").iterdir()
    assert len(partial.read_text().splitlines()) == 3
    # a kill in the middle of a line
    with partial.open("a") as stream:
        stream.write('{"key": "demo_refcoco/1/0')

    interrupted(-1)
    generated.clear()
    (resumed,) = make_sweep(tmp_path / "parts").run(grid)
    assert resumed.status == "done"
    assert generated == asked[3:] and len(generated) == 1
    assert not files(tmp_path / "parts/partial")
    assert whole.record is not None and resumed.record is not None
    assert answers(resumed.record) == answers(whole.record)
    one, other = read_record(whole.record), read_record(resumed.record)
    assert {name: task.metrics for name, task in one.tasks.items()} == {
        name: task.metrics for name, task in other.tasks.items()
    }
    assert one.status == other.status and one.method == other.method


def test_answers_of_other_code_are_not_mixed_in(
    tmp_path: Path, generated: list[str], interrupted: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = [Configuration("fastv", 0.5)]
    for module in (sweep_module, lmms_module):
        monkeypatch.setattr(module, "commit", lambda: "0" * 40)
    interrupted(3)
    with pytest.raises(KeyboardInterrupt):
        list(make_sweep(tmp_path).run(grid))
    for module in (sweep_module, lmms_module):
        monkeypatch.setattr(module, "commit", lambda: "1" * 40)
    interrupted(-1)
    generated.clear()
    (resumed,) = make_sweep(tmp_path).run(grid)
    assert len(generated) == 2 * LIMIT
    assert resumed.record is not None and read_record(resumed.record).software.commit == "1" * 40
    assert not files(tmp_path / "partial")


def test_a_budget_out_of_reach_is_refused_and_the_others_run(tmp_path: Path, generated: list[str]) -> None:
    grid = [Configuration("fastv", 0.01), Configuration("fastv", 0.5, {"layers": "99"}), Configuration("random", 0.5)]
    budget, layers, done = make_sweep(tmp_path, "demo_gqa").run(grid)
    assert (budget.status, budget.record) == ("refused", None)
    # one token from layer 1 of 12: (16 + 11) / 12
    assert "budget=0.01 of 16 visual tokens" in budget.reason and "is 2.2 to 16 tokens" in budget.reason
    assert layers.status == "refused" and "layers=[99]: allowed are" in layers.reason
    assert done.status == "done" and done.record is not None and done.record.is_file()
    assert generated == ["demo_gqa/0", "demo_gqa/1"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(BudgetError("budget=0.5 of 3 visual tokens: too few"), "refused"), (RuntimeError("out of memory"), None)],
)
def test_only_a_budget_that_an_image_forbids_is_refused_while_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str | None
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(checkpoint().model, "generate", fails)
    grid = [Configuration("fastv", 0.5)]
    if status is None:
        with pytest.raises(RuntimeError, match="demo_gqa doc_id 0: out of memory"):
            list(make_sweep(tmp_path, "demo_gqa").run(grid))
    else:
        (outcome,) = make_sweep(tmp_path, "demo_gqa").run(grid)
        assert (outcome.status, outcome.record) == (status, None)
        assert "too few" in outcome.reason
    # either way nobody is kept from trying again
    assert Claim(tmp_path / "claims", make_sweep(tmp_path, "demo_gqa")._identity(grid[0])).take() is None


def test_every_seed_draws_its_own_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[int, list[list[int]]] = {0: [], 7: []}
    select = Random.select
    current = [0]

    def note(self: Random, signals: Any) -> Any:
        edit = select(self, signals)
        drawn[current[0]].append(edit.index.tolist())
        return edit

    monkeypatch.setattr(Random, "select", note)
    sweep = make_sweep(tmp_path, "demo_gqa")
    for seed in drawn:
        current[0] = seed
        (outcome,) = sweep.run([Configuration("random", 0.5, seed=seed)])
        assert outcome.record is not None and read_record(outcome.record).settings.seed == seed
    assert len(drawn[0]) == len(drawn[7]) == LIMIT
    assert all(one != other for one, other in zip(drawn[0], drawn[7], strict=True))
