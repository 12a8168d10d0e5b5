"""What a sweep would do, said without doing it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from lmms.tiny_runs import checkpoint
from small_sweeps import LIMIT, documents, files, make_sweep

from swiftvlm_eval.analysis import pace as pace_module
from swiftvlm_eval.analysis.pace import Pace, measured_pace
from swiftvlm_eval.sweep import Configuration, make_grid


def test_everything_is_foretold_and_nothing_is_touched(
    tmp_path: Path, generated: list[str], interrupted: Callable[[int], None]
) -> None:
    grid = make_grid([("vanilla", {}), ("fastv", {"layers": "2"}), ("fastv", {"layers": "99"})], ["0.5", "0.01"])
    (done,) = make_sweep(tmp_path).run(grid[:1])
    interrupted(3)
    with pytest.raises(KeyboardInterrupt):
        list(make_sweep(tmp_path).run(grid[1:2]))
    interrupted(-1)
    generated.clear()
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    previews = make_sweep(tmp_path).preview(grid)
    assert [(each.status, each.answers) for each in previews] == [
        ("stored", 0),
        ("run", 3),
        ("refused", 0),
        ("refused", 0),
        ("refused", 0),
    ]
    assert "budget=0.01 of 16 visual tokens" in previews[2].reason
    assert "layers=[99]: allowed are" in previews[3].reason
    assert not generated and {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before
    # and so it comes
    outcomes = list(make_sweep(tmp_path).run(grid))
    assert [each.status for each in outcomes] == ["kept", "done", "refused", "refused", "refused"]
    assert done.record == outcomes[0].record and len(generated) == 2 * LIMIT - 3


def test_a_preview_makes_no_folder(tmp_path: Path) -> None:
    (preview,) = make_sweep(tmp_path / "none", "demo_gqa").preview([Configuration("vanilla", 1.0)])
    assert preview.status == "run" and not (tmp_path / "none").exists()


def test_the_pace_is_the_mean_of_all_but_the_first_document(
    monkeypatch: pytest.MonkeyPatch, generated: list[str]
) -> None:
    ticks = iter([0.0, 50.0, 100.0, 101.0, 200.0, 203.0])
    monkeypatch.setattr(pace_module, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    monkeypatch.setattr(pace_module, "MEASURED", 2)
    found = measured_pace(checkpoint(), documents("demo_gqa", "demo_refcoco"))
    assert found == Pace("demo_refcoco", 2, 2.0)  # of 671 documents, the larger task
    assert generated == ["demo_refcoco/0", "demo_refcoco/223", "demo_refcoco/447"]
    assert found is not None and found.hours(1800) == 1.0


def test_a_limit_bounds_the_documents_that_are_measured(generated: list[str]) -> None:
    found = measured_pace(checkpoint(), documents("demo_gqa"), limit=2)
    assert found is not None and (found.task, found.documents) == ("demo_gqa", 1)
    assert generated == ["demo_gqa/0", "demo_gqa/1"]


def test_tasks_without_generated_answers_have_no_pace(monkeypatch: pytest.MonkeyPatch, generated: list[str]) -> None:
    own = documents("demo_gqa")
    monkeypatch.setattr(own.tasks["demo_gqa"], "OUTPUT_TYPE", "loglikelihood")
    assert measured_pace(checkpoint(), own) is None and not generated
