from pathlib import Path

import pytest
from command_line import run
from fake_runs import description, grid, samples_of, write_run
from typer.testing import CliRunner

from swiftvlm_eval.cli import app
from swiftvlm_eval.leaderboard.compute.paper_table import SHIPPED

PUBLISHED = SHIPPED / "swiftvlm-table2.yaml"


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


def test_leaderboard_says_what_it_made_and_where(tmp_path: Path, runner: CliRunner) -> None:
    grid(tmp_path / "in", {"fastv": 0.3}, documents=40, budgets=(1 / 3,))
    out = tmp_path / "out"
    done = runner.invoke(app, ["leaderboard", str(tmp_path / "in"), "--out", str(out), "--published", str(PUBLISHED)])
    assert done.exit_code == 0, done.output
    for name in ("index.md", "index.html", "llava-hf-llava-1.5-7b-hf.md", "published-2602-03134-table2.md"):
        assert (out / name).exists()
        assert f"wrote {out / name}" in done.output
    assert "33.3 %" in done.output and "fastv" in done.output and "192.0" in done.output


def test_leaderboard_fails_with_a_reason_and_writes_nothing(tmp_path: Path, runner: CliRunner) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "20260101_000000_results.json").write_text("{")
    done = runner.invoke(app, ["leaderboard", str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "20260101_000000_results.json" in done.output
    assert not (tmp_path / "out").exists()


def test_strict_fails_if_anything_was_left_out(tmp_path: Path, runner: CliRunner) -> None:
    grid(tmp_path / "in", {}, documents=16)
    (tmp_path / "in" / "20270101_000000_results.json").write_text("{}")
    arguments = ["leaderboard", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert runner.invoke(app, arguments).exit_code == 0
    assert runner.invoke(app, [*arguments, "--strict"]).exit_code == 1


def test_a_path_that_is_not_there_is_a_usage_error(tmp_path: Path, runner: CliRunner) -> None:
    done = runner.invoke(app, ["leaderboard", str(tmp_path / "absent"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "absent" in "".join(done.output.split()).replace("│", "")


def test_records_are_imported_once_and_listed(tmp_path: Path, runner: CliRunner) -> None:
    path, *_ = grid(tmp_path / "in", {}, documents=16)
    records = tmp_path / "records"
    for _ in range(2):
        done = runner.invoke(app, ["import", str(path), "--out", str(records)])
        assert done.exit_code == 0, done.output
    assert len(list(records.glob("*.record.json"))) == 1
    listed = runner.invoke(app, ["records", str(records)])
    assert listed.exit_code == 0
    assert "complete" in listed.output and "gqa 16/16" in listed.output and "vanilla" in listed.output


def test_a_changed_run_does_not_replace_a_record(tmp_path: Path, runner: CliRunner) -> None:
    for stamp, score in (("20260101_000000", 1.0), ("20260102_000000", 0.0)):
        lines = samples_of([score] * 4, "exact_match", description())
        path = write_run(tmp_path / "in", {"gqa": ("exact_match", lines)}, stamp=stamp)
        done = runner.invoke(app, ["import", str(path), "--out", str(tmp_path / "records")])
    assert done.exit_code == 1
    assert "never edited" in done.output


def test_records_list_shows_limited_and_partial_runs_and_fails_on_broken_files(
    tmp_path: Path, runner: CliRunner
) -> None:
    lines = samples_of([1.0] * 4, "exact_match", description())
    write_run(tmp_path / "limited", {"gqa": ("exact_match", lines)}, config={"limit": 4})
    write_run(tmp_path / "partial", {"gqa": ("exact_match", lines)}, stamp="20260103_000000", expected={"gqa": 5})
    (tmp_path / "broken.record.json").write_text("[]")
    done = runner.invoke(app, ["records", str(tmp_path)])
    assert done.exit_code == 1
    assert "limit 4" in done.output and "4 of 5 documents answered" in done.output
    assert "refused broken.record.json" in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["leaderboard", "--help"], ["--include-limited", "--published", "vanilla", "--log_samples"]),
        (["records", "--help"], ["unverified", "Exit status 1"]),
    ],
)
def test_help_teaches(runner: CliRunner, arguments: list[str], words: list[str]) -> None:
    done = runner.invoke(app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})
    assert done.exit_code == 0
    assert [word for word in words if word not in done.output] == []


def test_unfinished_runs_of_a_sweep_are_listed(tmp_path: Path, runner: CliRunner) -> None:
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / "fastv-0.3333-abc.jsonl").write_text('{"key": "a"}\n{"key": "b"}\n', encoding="utf-8")
    listed = runner.invoke(app, ["records", str(tmp_path)])
    assert "unfinished fastv-0.3333-abc: 2 answers" in " ".join(listed.output.split())
    assert listed.exit_code == 0


def test_the_shipped_tables_are_meant_by_one_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, said = run("leaderboard", "--published", "papers", "--out", "pages")
    assert status == 0, said
    tables = {path.stem for path in (tmp_path / "pages").glob("published-*.md")}
    assert tables == {f"published-2602-03134-table{number}" for number in (1, 2, 3, 4)}
    status, _, said = run("leaderboard", "--published", "papersx", "--out", "other")
    assert status == 1 and "published='papersx': no such file; allowed are YAML files, or papers" in said
    assert not (tmp_path / "other").exists()
