"""Sweeps with batches: answers, `auto`, and what tells two cells apart."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from small_sweeps import answers, files, make_sweep

from swiftvlm_eval.lmms import sizing
from swiftvlm_eval.results import read_record
from swiftvlm_eval.sweep import Configuration

GRID = [Configuration("fastv", 0.5)]


def test_a_cell_of_auto_finds_its_record_again_and_is_no_other(tmp_path: Path, generated: list[str]) -> None:
    (first,) = make_sweep(tmp_path, batch_size="auto").run(GRID)
    assert first.record is not None
    record = read_record(first.record)
    assert record.settings.batch_size_choice == "estimate" and record.settings.batch_size in (1, 2)
    assert all(task.timing is None for task in record.tasks.values())
    generated.clear()
    (second,) = make_sweep(tmp_path, batch_size="auto").run(GRID)
    assert (second.status, second.record) == ("kept", first.record) and not generated
    (given,) = make_sweep(tmp_path, batch_size=2).run(GRID)
    assert given.status == "done" and given.record is not None and given.record.parent != first.record.parent
    assert answers(given.record) == answers(first.record)


def test_an_interrupted_cell_of_auto_goes_on_with_its_size(
    tmp_path: Path, generated: list[str], interrupted: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizing, "estimated_size", lambda *_: 2)
    interrupted(1)
    with pytest.raises(KeyboardInterrupt):
        list(make_sweep(tmp_path, batch_size="auto").run(GRID))
    (partial,) = (tmp_path / "partial").iterdir()
    assert json.loads(partial.read_text().splitlines()[0])["settled"]["batch_size"] == 2
    (preview,) = make_sweep(tmp_path, batch_size="auto").preview(GRID)
    assert (preview.status, preview.answers) == ("run", 2)
    monkeypatch.setattr(sizing, "estimated_size", lambda *_: pytest.fail("it is known"))
    interrupted(-1)
    generated.clear()
    (resumed,) = make_sweep(tmp_path, batch_size="auto").run(GRID)
    assert resumed.status == "done" and resumed.record is not None and len(generated) == 2
    assert read_record(resumed.record).settings.batch_size == 2
    assert not files(tmp_path / "partial")


def test_a_record_without_times_is_no_stand_in_for_one_with_them(tmp_path: Path) -> None:
    names = {
        (batch_size, look_ahead): make_sweep(tmp_path, batch_size=batch_size, look_ahead=look_ahead)._identity(GRID[0])
        for batch_size in (1, 2, "auto")
        for look_ahead in (None, 0, 3)
    }
    assert len(set(names.values())) == 4
    assert names[1, None] == names[1, 0] != names[1, 3]
    assert len({names[2, look_ahead] for look_ahead in (None, 0, 3)}) == 1
    (timed,) = make_sweep(tmp_path).run(GRID)
    (untimed,) = make_sweep(tmp_path, look_ahead=2).run(GRID)
    assert timed.record is not None and untimed.record is not None
    assert answers(timed.record) == answers(untimed.record)
    times = [[task.timing for task in read_record(each.record).tasks.values()] for each in (timed, untimed)]
    assert all(times[0]) and not any(times[1])
