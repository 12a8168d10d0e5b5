"""Latency records on the pages of a leaderboard."""

import csv
import io
import re
from pathlib import Path

import pytest
from latency_runs import contender, content, record
from render.hostile_board import EVIL
from small_runs import RIGHT, one_run

from swiftvlm_eval.joining.site import build_site
from swiftvlm_eval.leaderboard import build
from swiftvlm_eval.leaderboard.render.break_even import break_even_picture
from swiftvlm_eval.leaderboard.render.latency import latency_files
from swiftvlm_eval.results.latency_record import LatencyRecord
from swiftvlm_eval.results.latency_store import StoredLatency, write_latency

METHODS = [
    contender(f"{name} {rows / 576:.3g}", prefill=4 * time, rows=rows)
    for name, times in {"fastv": (0.3, 0.9), "swiftvlm": (0.5, 1.3)}.items()
    for rows, time in zip((192.0, 384.0), times, strict=True)
]


def stored(one: LatencyRecord) -> StoredLatency:
    return StoredLatency(one, Path(f"{one.stem}.latency.json"))


def page(*records: LatencyRecord) -> str:
    return latency_files([stored(one) for one in records])["latency.md"].decode()


def test_a_page_has_times_parts_tails_and_the_share_at_which_a_method_stops_to_pay() -> None:
    one = record(*METHODS, refused={"pdrop 0.01": "feasible is more"})
    files = latency_files([stored(one)])
    text = files["latency.md"].decode()
    assert {Path(name).suffix for name in files} == {".md", ".svg", ".png", ".csv"}
    (picture,) = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text)
    assert picture in files
    row = next(line for line in text.splitlines() if "| fastv 0.333" in line)
    assert [cell.strip() for cell in row.split("|")][2:7] == ["192.0", "1380", "3.33 [3.33, 3.33]", "3.00", "1.11"]
    inside = [line for line in text.splitlines() if "| fastv 0.333" in line][1]
    assert [cell.strip() for cell in inside.split("|")][2:10] == [
        "120",
        "60.0",
        "240",
        "720",
        "60.0",
        "25.0",
        "0.2",
        "0.8",
    ]
    assert "fastv: pays at all measured, up to 0.67" in text and "swiftvlm: pays up to 0.54" in text
    assert "not measured: pdrop 0.01: feasible is more" in text and "AVX2" in text
    figures = list(csv.DictReader(io.StringIO(files[f"latency-{one.stem}.csv"].decode())))
    assert float(figures[3]["prefill_speedup_low"]) == pytest.approx(1 / 0.3) and len(figures) == 7
    assert files == latency_files([stored(one)]), "the same bytes"


def test_runs_of_other_machines_never_share_a_table() -> None:
    other = content()["machine"] | {"name": "Another processor"}
    text = page(record(*METHODS), record(*METHODS, machine=other))
    parts = text.split("\n## ")[1:]
    assert len(parts) == 2 and ["Another processor" in part for part in parts] == [False, True]
    assert all(len(re.findall(r"\| stock +\|", part)) == 3 for part in parts), "times, parts, tails"


def test_a_busy_machine_is_named_and_gives_no_speed_up_and_no_picture() -> None:
    busy = record(*METHODS, again=0.9)
    files = latency_files([stored(busy)])
    text = files["latency.md"].decode()
    assert "Not steady" in text and "0.90 [0.90, 0.90]" in text and not any(name.endswith(".svg") for name in files)
    row = next(line for line in text.splitlines() if "| fastv 0.333" in line)
    cells = [cell.strip() for cell in row.split("|")][2:-1]
    assert [cells[place] for place in (2, 4, 6, 8)] == ["-"] * 4, "speed-ups and of implied"
    assert "pays" not in text and "of implied: from" not in text
    with pytest.raises(ValueError, match="differs from itself"):
        break_even_picture(busy)


def test_emulated_products_are_said() -> None:
    machine = content()["machine"] | {"bfloat16_instructions": False}
    slow = record(*METHODS, machine=machine, settings=content()["settings"] | {"dtype": "bfloat16"})
    assert "products are emulated" in page(slow) and "products are emulated" not in page(record(*METHODS))


def test_texts_of_a_record_stay_texts() -> None:
    label = f"fastv{EVIL} 0.333"
    evil = record(METHODS[0] | {"label": label, "method": f"fastv{EVIL}"}, refused={EVIL: EVIL})
    files = latency_files([stored(evil)])
    assert "<script" not in files["latency.md"].decode() and "<img" not in files["latency.md"].decode()


def test_a_leaderboard_links_to_the_page_of_its_latency_runs(tmp_path: Path) -> None:
    for method in ("vanilla", "fastv"):
        one_run(tmp_path / "in", method, RIGHT)
    path = write_latency(record(*METHODS), tmp_path / "in" / "times")
    (tmp_path / "in" / "broken.latency.json").write_text("{")
    report = build([tmp_path / "in"], tmp_path / "out")
    names = {file.name for file in report.files}
    assert "latency.md" in names and len(report.boards) == 1
    assert [problem.file for problem in report.problems if problem.refused] == ["broken.latency.json"]
    assert "(latency.md)" in (tmp_path / "out" / "index.md").read_text()
    assert 'href="latency.md"' in (tmp_path / "out" / "index.html").read_text()
    alone = build([path], tmp_path / "alone")
    assert alone.boards == () and (tmp_path / "alone" / "latency.md").is_file() and not alone.problems
    build([tmp_path / "in"], tmp_path / "out")
    site = build_site([path.parent, tmp_path / "in"], tmp_path / "site")
    assert "latency.md" in {file.name for file in site.files}


def test_without_latency_runs_there_is_no_page(tmp_path: Path) -> None:
    assert latency_files([]) == {}
    one_run(tmp_path / "in", "vanilla", RIGHT)
    assert not (build([tmp_path / "in"], tmp_path / "out").files[0].parent / "latency.md").exists()
