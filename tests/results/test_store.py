import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from fake_runs import description, grid, samples_of, write_run

from swiftvlm_eval.results import SampleLine, import_run, load_records, read_record, write_record
from swiftvlm_eval.results.record import RunRecord


@pytest.fixture
def run(tmp_path: Path) -> tuple[RunRecord, list[SampleLine]]:
    lines = samples_of([1.0, 0.0, 1.0], "exact_match", description())
    return import_run(write_run(tmp_path / "lmms", {"gqa": ("exact_match", lines)}))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_back(tmp_path: Path, run: tuple[RunRecord, list[SampleLine]]) -> None:
    path = write_record(*run, tmp_path / "records")
    (stored,), problems = load_records([tmp_path / "records"])
    assert problems == []
    assert stored.samples() == run[1]
    assert stored.record.samples_file is not None and stored.record.samples_file.lines == 3
    assert stored.record.model_copy(update={"samples_file": None}) == run[0]
    assert names(path.parent) == sorted([path.name, stored.record.samples_file.name])


def test_writing_twice_changes_nothing(tmp_path: Path, run: tuple[RunRecord, list[SampleLine]]) -> None:
    path = write_record(*run, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    assert write_record(*run, tmp_path) == path
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before


def test_a_record_is_never_overwritten(tmp_path: Path, run: tuple[RunRecord, list[SampleLine]]) -> None:
    path = write_record(*run, tmp_path)
    before = path.read_text()
    other = run[0].model_copy(update={"wall_time_s": 99.0})
    with pytest.raises(ValueError, match="never edited"):
        write_record(other, run[1], tmp_path)
    assert path.read_text() == before


def test_an_interrupted_write_leaves_no_record(
    tmp_path: Path, run: tuple[RunRecord, list[SampleLine]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "records"
    replace = Path.replace

    def fail_on_record(self: Path, target: Path) -> Path:
        if str(target).endswith(".record.json"):
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_on_record)
    with pytest.raises(KeyboardInterrupt):
        write_record(*run, folder)
    assert [name for name in names(folder) if not name.endswith(".samples.jsonl.gz")] == []
    monkeypatch.undo()
    assert write_record(*run, folder).exists()


def test_changed_samples_are_refused(tmp_path: Path, run: tuple[RunRecord, list[SampleLine]]) -> None:
    write_record(*run, tmp_path / "records")
    (stored,), _ = load_records([tmp_path / "records"])
    assert stored.record.samples_file is not None
    file = tmp_path / "records" / stored.record.samples_file.name
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()).replace(b"1.0", b"0.0")))
    with pytest.raises(ValueError, match=f"{file.name} differs"):
        stored.samples()
    file.unlink()
    with pytest.raises(ValueError, match=f"{file.name} cannot be read"):
        stored.samples()


def test_an_old_version_is_lifted_step_by_step(tmp_path: Path, run: tuple[RunRecord, list[SampleLine]]) -> None:
    path = write_record(*run, tmp_path)
    content = json.loads(path.read_text())
    content["schema_version"] = -1
    content["duration_minutes"] = content.pop("wall_time_s") / 60
    content["oldest"] = True
    path.write_text(json.dumps(content))

    def from_minus_one(old: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in old.items() if key != "oldest"}

    def from_zero(old: dict[str, Any]) -> dict[str, Any]:
        assert old["schema_version"] == 0
        rest = {key: value for key, value in old.items() if key != "duration_minutes"}
        return {**rest, "wall_time_s": old["duration_minutes"] * 60}

    lifted = read_record(path, {-1: from_minus_one, 0: from_zero})
    assert lifted.wall_time_s == pytest.approx(12.5)
    assert lifted.schema_version == 1
    with pytest.raises(ValueError, match=f"{path.name} has schema_version -1, for which there is no migration"):
        read_record(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": "other"}, "is not a run record"),
        ({"schema_version": 2}, "schema_version 2; this package reads up to 1"),
        ({"schema_version": "1"}, "schema_version '1'"),
        ({"wall_time_s": "long"}, "not a valid run record"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_foreign_and_broken_records_are_refused_by_name(
    tmp_path: Path, run: tuple[RunRecord, list[SampleLine]], change: dict[str, Any], reason: str
) -> None:
    path = write_record(*run, tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    runs, (problem,) = load_records([path])
    assert runs == []
    assert problem.file == path.name
    assert reason in problem.reason


def test_half_a_file_is_refused_and_the_rest_is_read(tmp_path: Path, run: tuple[RunRecord, list[SampleLine]]) -> None:
    path = write_record(*run, tmp_path / "records")
    (tmp_path / "records" / "half.record.json").write_text(path.read_text()[:200])
    (tmp_path / "records" / "notes.json").write_text("{}")
    runs, problems = load_records([tmp_path / "records"])
    assert [stored.path for stored in runs] == [path]
    assert [problem.file for problem in problems] == ["half.record.json"]


def test_a_named_file_of_another_kind_is_a_problem_and_a_missing_path_an_error(tmp_path: Path) -> None:
    other = tmp_path / "notes.json"
    other.write_text("{}")
    assert load_records([other])[1][0].file == "notes.json"
    with pytest.raises(ValueError, match="does not exist"):
        load_records([tmp_path / "absent"])


def test_a_run_and_its_record_are_one(tmp_path: Path) -> None:
    (path, *_) = grid(tmp_path / "lmms", {}, documents=8)
    record = write_record(*import_run(path), tmp_path / "records")
    runs, problems = load_records([tmp_path])
    assert ([stored.path for stored in runs], problems) == ([record], [])


@pytest.mark.parametrize("pretrained", ["llava-hf/llava-1.5-7b-hf", "0lab/model"])
def test_of_a_renamed_copy_and_a_record_the_record_stays(tmp_path: Path, pretrained: str) -> None:
    """Whichever of the two file names comes first."""
    lines = samples_of([1.0, 0.0], "exact_match", description(pretrained=pretrained))
    results = write_run(tmp_path / "lmms", {"gqa": ("exact_match", lines)})
    record = write_record(*import_run(results), tmp_path / "records")
    for file in list(results.parent.iterdir()):
        file.rename(file.with_name(file.name.replace("20260102_030405", "20270102_030405")))
    names = [record.name, "20270102_030405_results.json"]
    assert (sorted(names) == names) == pretrained.startswith("0")
    runs, problems = load_records([tmp_path])
    assert ([stored.path for stored in runs], problems) == ([record], [])


def test_two_copies_of_a_results_file_are_one_run(tmp_path: Path) -> None:
    lines = samples_of([1.0, 0.0], "exact_match", description())
    for folder in ("a", "b"):
        write_run(tmp_path / folder, {"gqa": ("exact_match", lines)})
    other = samples_of([1.0, 1.0], "exact_match", description())
    write_run(tmp_path / "c", {"gqa": ("exact_match", other)})
    runs, problems = load_records([tmp_path])
    assert (len(runs), problems) == (2, [])


def test_order_of_paths_does_not_matter(tmp_path: Path) -> None:
    paths = grid(tmp_path, {"fastv": 0.1, "pdrop": 0.1}, documents=8)
    forward, backward = load_records(paths)[0], load_records(paths[::-1])[0]
    assert [run.path for run in forward] == [run.path for run in backward]
    assert len(forward) == 5


def test_a_file_that_breaks_a_reader_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    good, bad, counts = (
        write_run(
            tmp_path / stamp,
            {"gqa": ("exact_match", samples_of([1.0, 0.0], "exact_match", description()))},
            stamp=stamp,
        )
        for stamp in ("20260101_000001", "20260101_000002", "20260101_000003")
    )
    bad.write_text(json.dumps({**json.loads(bad.read_text()), "n-samples": {"gqa": {"original": 2}}}))
    samples = next(counts.parent.glob("*.jsonl"))
    samples.write_bytes(samples.read_bytes() + b"\xff\n")
    (tmp_path / "20260101_000004_results.json").symlink_to(tmp_path / "gone")
    (tmp_path / "linked.record.json").symlink_to(tmp_path / "gone too")
    (tmp_path / "folder.record.json").mkdir()
    runs, problems = load_records([tmp_path])
    assert [run.path for run in runs] == [good]
    assert [problem.file for problem in problems] == [
        *(bad.name, counts.name, "20260101_000004_results.json", "folder.record.json", "linked.record.json")
    ]
    assert samples.name in problems[1].reason
    assert not [problem.reason for problem in problems if str(tmp_path) in problem.reason]
