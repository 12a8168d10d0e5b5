import math
import re
from pathlib import Path
from typing import Any

import pytest
from fake_runs import description, samples_of, write_run
from pydantic import ValidationError

from swiftvlm_eval.results import RunRecord, import_run


def record(folder: Path, run: dict[str, Any] | None = None, **arguments: Any) -> RunRecord:
    lines = samples_of([1.0, 0.0, 1.0], "exact_match", run or description())
    return import_run(write_run(folder, {"gqa": ("exact_match", lines)}, **arguments))[0]


def test_a_record_survives_json(tmp_path: Path) -> None:
    before = record(tmp_path)
    assert RunRecord.model_validate_json(before.to_json()) == before


def test_a_record_is_frozen_and_refuses_unknown_keys(tmp_path: Path) -> None:
    made = record(tmp_path)
    with pytest.raises(ValidationError, match="frozen"):
        made.status = "partial"
    with pytest.raises(ValidationError, match="surprise"):
        RunRecord.model_validate({**made.model_dump(), "surprise": 1})


def test_a_record_holds_no_nan(tmp_path: Path) -> None:
    content = record(tmp_path).model_dump()
    content["wall_time_s"] = math.nan
    with pytest.raises(ValidationError, match="wall_time_s"):
        RunRecord.model_validate(content)


def test_another_set_of_tasks_is_another_record_of_the_same_configuration(tmp_path: Path) -> None:
    def of(*tasks: str) -> RunRecord:
        lines = samples_of([1.0, 0.0], "score", description())
        folder = tmp_path / "-".join(tasks)
        return import_run(write_run(folder, {task: ("score", lines) for task in tasks}))[0]

    records = [of("gqa"), of("pope"), of("gqa", "pope")]
    assert len({record.record_id for record in records}) == 3
    assert records[0].configuration == records[1].configuration == records[2].configuration
    turned = dict(reversed(records[2].tasks.items()))
    assert records[2].model_copy(update={"tasks": turned}).record_id == records[2].record_id


def test_a_family_is_read_by_its_earlier_name(tmp_path: Path) -> None:
    new = record(tmp_path / "new", description(family="llava"))
    old = record(tmp_path / "old", description(family="llava15"))
    assert old.model.family == new.model.family == "llava"
    assert old.record_id == new.record_id
    stored = new.to_json().replace('"family": "llava"', '"family": "llava15"')
    assert stored != new.to_json() and RunRecord.model_validate_json(stored) == new
    for other in ("llava_next", "another", None):
        assert record(tmp_path / str(other), description(family=other)).model.family == other


def test_a_status_needs_its_reason(tmp_path: Path) -> None:
    content = record(tmp_path).model_dump()
    with pytest.raises(ValidationError, match="status 'partial' does not fit"):
        RunRecord.model_validate({**content, "status": "partial"})


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "fastv"},
        {"budget": 0.25},
        {"options": {"layer": 3}},
        {"pretrained": "other/model"},
        {"revision": "def456"},
        {"seed": 1},
        {"dtype": "bfloat16"},
        {"image_mode": "hf_default"},
    ],
)
def test_each_part_of_a_configuration_makes_another_record(tmp_path: Path, changes: dict[str, Any]) -> None:
    first = record(tmp_path / "a")
    other = record(tmp_path / "b", description(**changes))
    assert first.record_id != other.record_id
    assert first.stem != other.stem


def test_limit_makes_another_record_but_time_and_device_do_not(tmp_path: Path) -> None:
    first = record(tmp_path / "a")
    assert record(tmp_path / "b", config={"limit": 3}).record_id != first.record_id
    later = record(tmp_path / "c", description(device="Other GPU"), stamp="20270101_000000")
    assert later.record_id == first.record_id


def test_a_file_name_holds_no_path_of_the_machine(tmp_path: Path) -> None:
    made = record(tmp_path, description(pretrained="/data/somebody/checkpoints/mine", method="a/../b"))
    assert "somebody" not in made.to_json()
    assert re.fullmatch("local:mine-[0-9a-f]{8}", made.model.pretrained or "")
    assert "/" not in made.stem
    assert not made.stem.startswith(".")
