import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fake_runs import description, grid, samples_of, write_run
from small_runs import RIGHT, one_run, row_of

from swiftvlm_eval.leaderboard import BuildReport, build
from swiftvlm_eval.leaderboard.board import Board


def only_board(report: BuildReport) -> Board:
    (board,) = report.boards
    return board


def test_the_same_runs_in_any_order_and_place_give_the_same_bytes(tmp_path: Path) -> None:
    paths = grid(tmp_path / "in", {"swiftvlm": 0.05, "fastv": 0.2, "random": 0.3}, documents=80)
    first = build([tmp_path / "in"], tmp_path / "first")
    second = build(paths[::-1], tmp_path / "second")
    assert [path.name for path in first.files] == [path.name for path in second.files]
    assert {path.suffix for path in first.files} == {".md", ".csv", ".json", ".html", ".svg", ".png"}
    for one, other in zip(first.files, second.files, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_limited_runs_enter_only_on_request_and_are_labelled(tmp_path: Path) -> None:
    for method, scores in (("vanilla", RIGHT), ("fastv", [1.0] * 3 + [0.0] * 5)):
        one_run(tmp_path / "in", method, scores, config={"limit": 8})
    with pytest.raises(ValueError, match=r"nothing to show: .*_results.json: limited run left out: limit 8"):
        build([tmp_path / "in"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    board = only_board(build([tmp_path / "in"], tmp_path / "out", include_limited=True))
    assert "limited runs, not the whole benchmarks" in board.title
    assert any("limited run: limit 8" in note for note in board.notes)
    assert row_of(board, "fastv").cells["gqa"].relative == 50.0


def test_bad_input_leaves_an_old_leaderboard_alone(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    report = build([tmp_path / "in"], tmp_path / "out")
    before = {path: path.read_bytes() for path in report.files}
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no run records or lmms-eval results files found"):
        build([tmp_path / "empty"], tmp_path / "out")
    assert {path: path.read_bytes() for path in report.files} == before


def test_the_demo_model_is_never_called_llava(tmp_path: Path) -> None:
    for method in ("vanilla", "swiftvlm"):
        run = description(method, pretrained="demo", revision=None)
        lines = samples_of(RIGHT, "acc@0.5", run, clusters=list("aabbccdd"))
        write_run(tmp_path / "in" / method, {"demo_refcoco": ("acc@0.5", lines)})
    report = build([tmp_path / "in"], tmp_path / "out")
    board = only_board(report)
    assert board.title == "Demo model (synthetic scenes)"
    assert board.caption[0].startswith("These are numbers of the demo model")
    page = (tmp_path / "out" / "demo.md").read_text()
    assert "llava-hf" not in page
    assert page.count("LLaVA") == 1 and "They say nothing about LLaVA." in page


def test_names_with_markup_stay_text(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>|**x**[a](b)$y$\n# z"
    one_run(tmp_path / "in", "vanilla", RIGHT)
    lines = samples_of(RIGHT, "exact_match", description(name))
    write_run(tmp_path / "in" / "evil", {"gqa": ("exact_match", lines)})
    build([tmp_path / "in"], tmp_path / "out")
    markdown = (tmp_path / "out" / "llava-hf-llava-1.5-7b-hf.md").read_text()
    assert "<script>" not in markdown
    lines = [line for line in markdown.splitlines() if "alert" in line and line.startswith("| &lt;")]
    assert lines and all(r"\|\*\*x\*\*\[a\](b)" in line for line in lines)
    html = (tmp_path / "out" / "index.html").read_text()
    assert "<script>alert" not in html
    assert "\\u003cscript\\u003ealert" in html  # in the JSON block


def test_formulas_do_not_reach_a_spreadsheet(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    lines = samples_of(RIGHT, "exact_match", description("=1+1"))
    write_run(tmp_path / "in" / "evil", {"gqa": ("exact_match", lines)})
    build([tmp_path / "in"], tmp_path / "out")
    text = (tmp_path / "out" / "llava-hf-llava-1.5-7b-hf.csv").read_text()
    assert [row["method"] for row in csv.DictReader(io.StringIO(text))] == ["vanilla", "'=1+1"]


def test_csv_and_json_hold_the_figures_of_the_page(tmp_path: Path) -> None:
    grid(tmp_path / "in", {"fastv": 0.2}, documents=60, budgets=(1 / 3,))
    board = only_board(build([tmp_path / "in"], tmp_path / "out"))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / f"{board.slug}.csv").read_text())))
    content = json.loads((tmp_path / "out" / f"{board.slug}.json").read_text())
    fastv = row_of(board, "fastv")
    assert float(rows[1]["gqa relative"]) == pytest.approx(fastv.cells["gqa"].relative)
    assert float(rows[1]["prefill_ms"]) == pytest.approx(fastv.figures["prefill_ms"])
    stored = content["sections"][1]["rows"][0]
    assert stored["cells"]["gqa"]["score"] == pytest.approx(fastv.cells["gqa"].score)
    assert stored["records"] == [fastv.records[0].record_id]
    page = (tmp_path / "out" / f"{board.slug}.md").read_text()
    assert f"{fastv.cells['gqa'].score:.1f} ({fastv.cells['gqa'].relative:.1f} %)" in page.replace("**", "")


def test_no_page_names_a_folder_of_this_machine(tmp_path: Path) -> None:
    grid(tmp_path / "in", {"fastv": 0.2}, documents=24, pretrained=str(tmp_path / "checkpoint"))
    report = build([tmp_path / "in"], tmp_path / "out")
    assert re.fullmatch("local:checkpoint-[0-9a-f]{8}", only_board(report).title)
    for path in report.files:
        if path.suffix != ".png":
            assert str(tmp_path) not in path.read_text(), path.name


def test_results_and_leaderboard_import_no_torch() -> None:
    code = (
        "import sys, swiftvlm_eval.results, swiftvlm_eval.leaderboard.build, swiftvlm_eval.leaderboard.compute.units\n"
        "heavy = {'torch', 'transformers', 'lmms_eval', 'datasets'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_pages_in_other_folders_are_linked_by_index_and_page(tmp_path: Path) -> None:
    out = tmp_path / "pages"
    one_run(tmp_path / "in", "vanilla", RIGHT)
    build([tmp_path / "in"], out, elsewhere={"../papers/index.html": "papers <b>"})
    assert "- [papers &lt;b&gt;](../papers/index.html)" in (out / "index.md").read_text()
    assert '<a href="../papers/index.html">papers &lt;b&gt;</a>' in (out / "index.html").read_text()
