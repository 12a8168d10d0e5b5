"""Records that are broken, absurd or hostile: refused by file name, and the rest is built."""

import copy
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_runs import description, samples_of, write_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_runs import RIGHT, one_run
from typer.testing import CliRunner

from swiftvlm_eval.cli import app
from swiftvlm_eval.leaderboard import build
from swiftvlm_eval.leaderboard.build import pages
from swiftvlm_eval.leaderboard.compute.assemble import assemble
from swiftvlm_eval.leaderboard.compute.entries import group_entries
from swiftvlm_eval.results import import_run, load_records, shipped_benchmarks, write_record
from swiftvlm_eval.results.store import StoredRun, read_record

TABLE = shipped_benchmarks()
ESCAPES = "\x1b[2J\x1b[31m\u202eevil\u2066\x07\x9b\x7f\ufeff\u2028\r\n# heading"


def records(folder: Path) -> tuple[Path, Path]:
    """A vanilla record and one of fastv."""
    for method in ("vanilla", "fastv"):
        one_run(folder / "lmms", method, RIGHT)
    written = [
        write_record(*import_run(path), folder / "in") for path in sorted((folder / "lmms").rglob("*_results.json"))
    ]
    fastv, vanilla = sorted(written)
    return vanilla, fastv


def changed(path: Path, *place: str | int, value: Any) -> None:
    """Changes one field of a record file; `value` is JSON text where it is bytes."""
    content = json.loads(path.read_text())
    target = content
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = "@here@" if isinstance(value, bytes) else value
    text = json.dumps(content)
    path.write_text(text.replace('"@here@"', value.decode()) if isinstance(value, bytes) else text)


METRIC = ("tasks", "gqa", "metrics", "exact_match")
EXECUTION = ("tasks", "gqa", "execution")


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (("method", "options", "layers"), b"[" * 100_000 + b"]" * 100_000, "nested"),
        (("method", "options", "layers"), b"[" * 60 + b"]" * 60, "nested"),
        (("extra", "deep"), b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested"),
        (("method", "options", "k"), b"NaN", "NaN"),
        (("method", "options", "k"), b"-Infinity", "-Infinity"),
        (("method", "options", "k"), b"1e999", "1e999"),
        (("method", "options", "k"), b"9" * 5000, "digits"),
        (("extra", "k"), b'[1, {"x": Infinity}]', "Infinity"),
        (("tasks", "gqa", "version"), b"NaN", "NaN"),
        ((*METRIC, "value"), 1e308, "exact_match.value"),
        ((*METRIC, "value"), -1e300, "exact_match.value"),
        ((*METRIC, "value"), 1e-308, "exact_match.value"),
        ((*METRIC, "stderr"), 1e200, "exact_match.stderr"),
        ((*METRIC, "n"), -3, "exact_match.n"),
        ((*EXECUTION, "mean_visual_tokens"), 1e300, "mean_visual_tokens"),
        ((*EXECUTION, "visual_tokens"), -1.0, "visual_tokens"),
        ((*EXECUTION, "executed_tflops"), 1e-300, "executed_tflops"),
        ((*EXECUTION, "rows_per_layer"), [1e300], "rows_per_layer"),
        (("tasks", "gqa", "timing", "prefill_ms_median"), -5, "prefill_ms_median"),
        (("tasks", "gqa", "expected"), b"1" + b"0" * 400, "expected"),
        (("settings", "seed"), b"1" + b"0" * 400, "seed"),
        (("settings", "limit"), 1e308, "limit"),
    ],
)
def test_an_absurd_record_is_refused_by_name_and_the_rest_is_built(
    tmp_path: Path, place: tuple[str, ...], value: Any, reason: str
) -> None:
    _, fastv = records(tmp_path)
    changed(fastv, *place, value=value)
    runs, problems = load_records([tmp_path / "in"])
    assert [run.record.method.name for run in runs] == ["vanilla"]
    assert [(problem.file, problem.refused) for problem in problems] == [(fastv.name, True)]
    assert reason in problems[0].reason
    assert len(problems[0].reason) < 500 and "\n" not in problems[0].reason


def test_files_that_are_no_files_are_refused_without_being_opened(tmp_path: Path) -> None:
    vanilla, fastv = records(tmp_path)
    os.mkfifo(tmp_path / "in" / "pipe.record.json")
    os.mkfifo(tmp_path / "in" / "20260101_000000_results.json")
    (tmp_path / "in" / "device.record.json").symlink_to("/dev/zero")
    (tmp_path / "in" / "folder.record.json").mkdir()
    with (tmp_path / "in" / "huge.record.json").open("wb") as stream:
        stream.truncate(1 << 40)  # sparse
    samples = tmp_path / "in" / json.loads(fastv.read_text())["samples_file"]["name"]
    samples.unlink()
    os.mkfifo(samples)
    runs, problems = load_records([tmp_path / "in"])
    assert [run.path for run in runs] == sorted([vanilla, fastv], key=lambda path: read_record(path).record_id)
    reasons = {problem.file: problem.reason for problem in problems}
    kinds = {
        name: "is not a regular file" for name in ("pipe.record.json", "device.record.json", "folder.record.json")
    }
    kinds |= {"20260101_000000_results.json": "is not a regular file", "huge.record.json": "has 1099511627776 bytes"}
    assert {name: reason.split("; ")[0] for name, reason in reasons.items()} == {
        name: f"{name} {kind}" for name, kind in kinds.items()
    }
    report = build([tmp_path / "in"], tmp_path / "out")
    assert any("is not a regular file" in problem.reason and problem.file == fastv.name for problem in report.problems)


def test_a_pipe_in_place_of_lmms_evals_samples_is_refused(tmp_path: Path) -> None:
    path = one_run(tmp_path, "fastv", RIGHT)
    samples = next(path.parent.glob("*.jsonl"))
    samples.unlink()
    os.mkfifo(samples)
    runs, (problem,) = load_records([tmp_path])
    assert not runs and problem.file == path.name and f"{samples.name} is not a regular file" in problem.reason


def test_deep_lmms_eval_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "20260101_000000_results.json").write_text("[" * 200_000)
    _, (problem,) = load_records([tmp_path])
    assert problem.file == "20260101_000000_results.json" and "nested" in problem.reason
    path = one_run(tmp_path / "run", "fastv", RIGHT)
    samples = next(path.parent.glob("*.jsonl"))
    samples.write_text('{"doc_id": 0, "x": ' + "[" * 200_000)
    _, problems = load_records([tmp_path / "run"])
    assert [problem.file for problem in problems] == [path.name] and "nested" in problems[0].reason


def test_refused_files_are_named_in_the_terminal_and_on_the_pages(tmp_path: Path) -> None:
    _, fastv = records(tmp_path)
    changed(fastv, "method", "options", "k", value=b"NaN")
    done = CliRunner().invoke(app, ["leaderboard", str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert f"refused {fastv.name}: " in done.output
    for page in ("index.md", "index.html"):
        text = (tmp_path / "out" / page).read_text()
        assert "Refused" in text and "NaN" in text.partition("Refused")[2]


def test_a_model_called_index_has_another_page(tmp_path: Path) -> None:
    for model in ("index", "published-vs-ours", "Index", "a/b", "a-b", "a_b"):
        one_run(tmp_path / "in" / model, "vanilla", RIGHT, run=description("vanilla", pretrained=model))
    report = build([tmp_path / "in"], tmp_path / "out")
    slugs = [board.slug for board in report.boards]
    assert len(slugs) == 6 and len({slug.casefold() for slug in slugs}) == 6
    assert not {"index", "published-vs-ours"} & set(slugs)
    assert (tmp_path / "out" / "index.md").read_text().startswith("# Leaderboards")
    for board in report.boards:
        assert (tmp_path / "out" / f"{board.slug}.md").read_text().startswith(f"# {board.title}".replace("_", r"\_"))


def test_long_names_are_cut_with_a_hash(tmp_path: Path) -> None:
    names = [f"org/{'long' * 100}{end}" for end in ("a", "b")]
    for name in names:
        for method in ("vanilla", "m" * 400):
            run = description(method, pretrained=name, options={"x" * 400: "y" * 4000})
            path = one_run(tmp_path / "lmms" / name[-1], method[:9], RIGHT, run=run)
            write_record(*import_run(path), tmp_path / "in")
    report = build([tmp_path / "in"], tmp_path / "out")
    assert len({board.slug for board in report.boards}) == 2
    assert len({board.title for board in report.boards}) == 2
    assert all(len(path.name) < 200 for path in report.files)
    for board in report.boards:
        assert len(board.title) <= 100 and all(len(row.label) <= 100 for row in board.rows)


@pytest.mark.parametrize("place", ["method", "pretrained", "option", "device", "file", "key"])
def test_control_characters_reach_neither_text_nor_terminal(tmp_path: Path, place: str) -> None:
    changes: dict[str, dict[str, Any]] = {
        "pretrained": {"pretrained": ESCAPES},
        "option": {"options": {"mode": ESCAPES}},
        "key": {"options": {ESCAPES: 1}},
        "device": {"device": ESCAPES},
    }
    for number, method in enumerate(("vanilla", "fastv", ESCAPES if place == "method" else "pdrop")):
        run = description(method, **changes.get(place, {}))
        write_run(tmp_path / "in" / str(number), {"gqa": ("exact_match", samples_of(RIGHT, "exact_match", run))})
    run = description("fastv", options={"other": 2})
    one_run(tmp_path / "in" / "again", "fastv", RIGHT, run=run)
    if place == "file":
        (tmp_path / "in" / f"x{ESCAPES.replace('/', '')}.record.json").write_text("{}")
    arguments = ["leaderboard", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    shown = [
        CliRunner().invoke(app, arguments).output,
        CliRunner().invoke(app, ["records", str(tmp_path / "in")]).output,
    ]
    texts = [path.read_text() for path in (tmp_path / "out").iterdir() if path.suffix in (".md", ".csv", ".json")]
    for text in [*shown, *texts]:
        bad = [sign for sign in text if not sign.isprintable() and sign not in "\n"]
        assert bad == [], (place, text[:300])
        assert not [line for line in text.splitlines() if line.startswith("# heading")]


def leaves(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [place, *(found for key, part in value.items() for found in leaves(part, (*place, key)))]
    if isinstance(value, list):
        return [place, *(found for key, part in enumerate(value) for found in leaves(part, (*place, key)))]
    return [place]


NASTY: list[Any] = [
    *(None, True, "", [], {}, 0, -1, 10**400, 2**63, 1e308, -1e308, 5e-324, 1e-13, 1e9, float("nan"), float("inf")),
    *("\x00", "../x", "x" * 400, ESCAPES, "</script><script>", "=1+1", {"a": {"b": [float("nan")]}}, [[]] * 50, "nan"),
]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    folder = tmp_path_factory.mktemp("fuzz")
    vanilla, fastv = records(folder)
    return vanilla, fastv, fastv.read_text()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_change_of_any_field_stops_a_leaderboard(
    stored: tuple[Path, Path, str], monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    monkeypatch.setattr(sys.modules[pages.__module__], "board_pictures", lambda board: {})
    vanilla, fastv, text = stored
    content = json.loads(text)
    content["extra"], content["method"]["options"] = {"a": {"b": 1}}, {"k": 2, "l": [1]}
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from([place for place in leaves(content) if place]))
        target = content
        for step in place[:-1]:
            target = target[step]
        target[place[-1]] = copy.deepcopy(data.draw(st.sampled_from(NASTY)))
    fastv.write_text(json.dumps(content))
    runs, problems = load_records([fastv.parent])
    assert vanilla in [run.path for run in runs] and len(runs) + len(problems) == 2
    boards, _ = assemble(group_entries(runs)[0], TABLE)
    files = pages(boards, [], [])
    for name, made in files.items():
        if name.endswith(".json"):
            json.loads(made, parse_constant=refuse)
    script = files["index.html"].decode().partition('id="data">')[2].partition("</script>")[0]
    json.loads(script, parse_constant=refuse)


def refuse(name: str) -> None:
    raise AssertionError(name)


def test_per_sample_scores_that_overflow_give_no_interval(tmp_path: Path) -> None:
    _, fastv = records(tmp_path)
    stored = StoredRun(read_record(fastv), fastv)
    lines = stored.samples()
    bad = [line.model_copy(update={"scores": {"exact_match": 1e308}}) for line in lines]
    record = stored.record.model_copy(update={"samples_file": None})
    write_record(record, bad, tmp_path / "bad")
    (tmp_path / "in" / "x").mkdir()
    for path in (tmp_path / "bad").iterdir():
        path.rename(tmp_path / "in" / "x" / path.name)
    fastv.unlink()
    report = build([tmp_path / "in"], tmp_path / "out")
    assert any("no interval" in problem.reason for problem in report.problems)
