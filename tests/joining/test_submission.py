"""What a submission must bring, one fault at a time: each guard is seen to fire, by file, field, value and cure."""

import gzip
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from submitted_runs import METRICS, checked, lines_of, made, reference, resampled, samples_path, spoiled

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return reference(tmp_path)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return made(tmp_path / "mine", "fastv")


def test_a_good_record_passes(there: Path, mine: Path) -> None:
    found = checked(mine, there=there)
    assert found.ok and [each.name for each in found.accepted] == [mine.name] and len(found.reference) == 3
    assert checked(mine.parent, there=there).ok
    assert checked(mine, samples_path(mine), there=there).ok


def test_the_committed_records_pass(tmp_path: Path) -> None:
    for path in (ROOT / "leaderboards" / "demo" / "records").glob("demo--*a*--0.222--*"):
        if "-vanilla-" in path.name or "-dart-" in path.name:
            shutil.copy(path, tmp_path)
    for path in (ROOT / "leaderboards" / "demo" / "records").glob("demo--vanilla--*"):
        shutil.copy(path, tmp_path)
    from datetime import UTC, datetime

    from swiftvlm_eval.joining.submission import check_submission

    found = check_submission([tmp_path], [], registered=["vanilla", "dart"], now=datetime(2027, 1, 1, tzinfo=UTC))
    assert lines_of(found) == [] and len(found.accepted) == 3


TASK = ("tasks", "demo_gqa")
METRIC = (*TASK, "metrics", "exact_match")
EXECUTION = (*TASK, "execution")


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("schema_version",), 99, "schema_version 99"),
        (("unknown",), 1, "unknown"),
        (("format",), "other", "format"),
        (("settings", "limit"), 10, "settings.limit=10.0: allowed is None"),
        (("settings", "offset"), 3, "settings.offset=3: allowed is 0"),
        (("origin", "created"), None, "origin.created=None: allowed is a time"),
        (("origin", "created"), "2026-04-01T00:00:00Z", "allowed is a time that has been, now is 2026-03-01"),
        (("origin", "created"), "2026-01-01", "origin.created=2026-01-01: allowed is a time"),
        (("origin", "results_file"), "x.json", "origin.results_file=x.json"),
        (("method", "name"), "unheard", "method.name=unheard: allowed is a registered method"),
        (("method", "name"), None, "method.name=None"),
        (("method", "name"), "fastv+unheard", "method.name=fastv+unheard"),
        (("method", "source_sha256"), "ab" * 32, "fastv is the name of a registered one"),
        (("samples_file",), None, "samples_file=none: allowed is the per-sample file"),
        (("samples_file", "sha256"), "00", "samples_file.sha256=00"),
        (("samples_file", "lines"), 7, "samples_file.lines=7: allowed is the number of its lines, 40"),
        (("samples_file", "name"), "../../x.samples.jsonl.gz", "samples_file.name=../../x.samples.jsonl.gz"),
        ((*TASK, "expected"), 11, "tasks.demo_gqa.available=10: allowed is 11"),
        ((*TASK, "expected"), 999_999_999, "allowed is documents 0 to 999999998"),
        ((*TASK, "failed"), 1, "tasks.demo_gqa.failed=1: allowed is 0"),
        ((*TASK, "answered"), 9, "tasks.demo_gqa.answered=9: allowed is 10"),
        ((*TASK, "answered"), None, "tasks.demo_gqa.answered=None: allowed is 10"),
        ((*TASK, "prompts_sha256"), None, "tasks.demo_gqa.prompts_sha256=None"),
        ((*TASK, "prompts_sha256"), "cd" * 32, "tasks.demo_gqa.prompts_sha256"),
        ((*TASK, "documents_sha256"), "cd" * 32, "tasks.demo_gqa.documents_sha256"),
        ((*TASK, "version"), 2.0, "tasks.demo_gqa.version=2.0: allowed is 1.0 as of"),
        ((*METRIC, "value"), 0.7, "what the samples give"),
        ((*METRIC, "value"), 1.5, "tasks.demo_gqa.metrics.exact_match.value=1.5: allowed is 0 to 1"),
        ((*METRIC, "value"), -0.5, "allowed is 0 to 1"),
        ((*METRIC, "value"), None, "tasks.demo_gqa.metrics.exact_match=missing"),
        ((*METRIC, "n"), 4, "metrics.exact_match.n=4: allowed is the 10 lines"),
        ((*TASK, "execution"), None, "tasks.demo_gqa.execution=missing"),
        ((*EXECUTION, "mean_visual_tokens"), 100.0, "execution.mean_visual_tokens=100.0: allowed is what the samples"),
        ((*EXECUTION, "executed_share"), 0.2, "execution.executed_share=0.2"),
        ((*EXECUTION, "visual_tokens"), 500.0, "execution.visual_tokens=500.0"),
        ((*EXECUTION, "samples"), 3, "execution.samples=3"),
        ((*EXECUTION, "rows_per_layer"), [1.0, 1.0], "execution.rows_per_layer=1.0"),
        (("extra",), {"where": "/home/someone/checkpoints/x"}, "extra.where=/home/someone/checkpoints/x"),
        (("extra",), {"/mnt/data/models": 1}, "extra=/mnt/data/models"),
        (("extra",), {"x": "C:\\Users\\me"}, "extra.x=C:"),
        (("extra",), {"x": ["~/models/seven"]}, "extra.x=~/m"),
        (("extra",), {"api_key": "abc"}, "extra.api_key=something hidden here"),
        (("extra",), {"x": "hf_" + "a" * 30}, "extra.x=a Hugging Face token"),
        (("extra",), {"x": "https://me:pass@host.example/x"}, "extra.x=a password in an address"),
        (("tasks",), {}, "tasks=none: allowed is at least one"),
    ],
)
def test_a_spoiled_field_is_refused_by_name(
    there: Path, mine: Path, place: tuple[str, ...], value: Any, said: str
) -> None:
    spoiled(mine, *place, value=value)
    found = checked(mine, there=there)
    assert not found.ok and not found.accepted
    assert any(said in line and line.startswith(f"{mine.name}: ") for line in lines_of(found)), lines_of(found)
    assert all("\n" not in line and len(line) < 800 for line in lines_of(found))
    assert "hf_aaa" not in str(lines_of(found)) and "pass@" not in str(lines_of(found))


def drop_last(lines: list[dict[str, Any]]) -> None:
    lines.pop()


def repeat_first(lines: list[dict[str, Any]]) -> None:
    lines[1] = dict(lines[0])


def fail_one(lines: list[dict[str, Any]]) -> None:
    lines[0]["failed"] = True


def turn_wrong_into_right(lines: list[dict[str, Any]]) -> None:
    next(line for line in lines if line["scores"] == {"exact_match": 0.0})["scores"]["exact_match"] = 1.0


def score_of_five(lines: list[dict[str, Any]]) -> None:
    lines[0]["scores"] = {key: 5.0 for key in lines[0]["scores"]}


def lose_a_score(lines: list[dict[str, Any]]) -> None:
    lines[0]["scores"] = {}


def keep_more_than_there_is(lines: list[dict[str, Any]]) -> None:
    lines[0]["kept_visual_tokens"] = 5000.0


def other_task(lines: list[dict[str, Any]]) -> None:
    lines[0]["task"] = "gqa"


def token_in_an_answer(lines: list[dict[str, Any]]) -> None:
    lines[0]["prediction"] = "ghp_" + "a" * 30


def path_in_an_image(lines: list[dict[str, Any]]) -> None:
    lines[0]["cluster_id"] = "/scratch/me/image.jpg"


def not_finite(lines: list[dict[str, Any]]) -> None:
    lines[0]["scores"] = {"exact_match": float("nan")}


def unknown_field(lines: list[dict[str, Any]]) -> None:
    lines[0]["more"] = 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop_last, "allowed is documents 0 to 9, each once"),
        (repeat_first, "allowed is documents 0 to 9, each once"),
        (fail_one, "1 failed: allowed is answers to all documents"),
        (turn_wrong_into_right, "add up to"),
        (score_of_five, "=5.0: allowed is 0 to 1"),
        (lose_a_score, "1 without exact_match"),
        (keep_more_than_there_is, "more tokens kept than there are"),
        (other_task, "samples=lines of gqa"),
        (token_in_an_answer, "prediction=a GitHub token"),
        (path_in_an_image, "cluster_id=/scratch/me/image.jpg"),
        (not_finite, "samples_file, line 1"),
        (unknown_field, "samples_file, line 1"),
    ],
)
def test_spoiled_samples_are_refused(
    there: Path, mine: Path, change: Callable[[list[dict[str, Any]]], None], said: str
) -> None:
    resampled(mine, change)
    found = checked(mine, there=there)
    assert any(said in line for line in lines_of(found)), lines_of(found)
    assert "ghp_aaa" not in str(lines_of(found))


def test_an_answer_with_a_slash_is_no_path(there: Path, mine: Path) -> None:
    def answer(lines: list[dict[str, Any]]) -> None:
        for line, text in zip(lines, ("/usr/bin/env", "1/2", "and/or", "n/a", "~"), strict=False):
            line["prediction"] = text

    resampled(mine, answer)
    assert lines_of(checked(mine, there=there)) == []


def test_a_field_given_twice_is_refused(there: Path, mine: Path) -> None:
    text = mine.read_text()
    assert text.count('"wall_time_s": ') == 1
    mine.write_text(text.replace('"wall_time_s": ', '"wall_time_s": 1.0, "wall_time_s": '))
    assert f"{mine.name}: wall_time_s=given twice: allowed is every field once" in lines_of(checked(mine, there=there))


def test_partial_and_limited_runs_are_refused(there: Path, mine: Path) -> None:
    spoiled(mine, "status", value="limited")
    spoiled(mine, "status_reasons", value=["limit 10"])
    assert any(
        "status=limited (limit 10): allowed is complete" in line for line in lines_of(checked(mine, there=there))
    )


def test_known_benchmarks_have_all_their_documents(tmp_path: Path) -> None:
    tasks = {"gqa": "exact_match"}
    vanilla, mine = (made(tmp_path / "in", method, tasks=tasks) for method in ("vanilla", "fastv"))
    found = checked(mine, vanilla)
    wanted = "tasks.gqa.expected=10: allowed is 12578, all of GQA"
    assert [line for line in lines_of(found) if wanted in line] == [
        f"{mine.name}: {wanted}",
        f"{vanilla.name}: {wanted}",
    ]


def test_tasks_outside_of_the_table_are_refused(there: Path, tmp_path: Path) -> None:
    mine = made(tmp_path / "mine", "fastv", tasks=METRICS | {"invented": "acc"})
    assert any(
        "tasks=invented: allowed is a task of the benchmark table" in s for s in lines_of(checked(mine, there=there))
    )


def test_no_test_may_vanish(there: Path, tmp_path: Path) -> None:
    mine = made(tmp_path / "mine", "fastv", tasks={"demo_gqa": "exact_match"})
    (line,) = lines_of(checked(mine, there=there))
    assert line.startswith(f"{mine.name}: tasks=demo_gqa: allowed is all of those of org-model--vanilla")
    assert line.endswith("missing: demo_pope, demo_refcoco, demo_textvqa")


def test_tests_may_come_in_two_records(there: Path, tmp_path: Path) -> None:
    first = made(tmp_path / "mine", "fastv", tasks={"demo_gqa": "exact_match", "demo_pope": "pope_accuracy"})
    rest = {"demo_textvqa": "exact_match", "demo_refcoco": "acc@0.5"}
    second = made(tmp_path / "mine", "fastv", tasks=rest, stamp="20260109_000000")
    assert lines_of(checked(first, second, there=there)) == []


def test_without_rows_beside_it_a_whole_set_is_needed(tmp_path: Path) -> None:
    tasks = {"demo_gqa": "exact_match", "demo_pope": "pope_accuracy"}
    vanilla, mine = (made(tmp_path / "part", method, tasks=tasks) for method in ("vanilla", "fastv"))
    (line, _) = lines_of(checked(vanilla, mine))
    assert "all of the set demo; missing: demo_refcoco, demo_textvqa" in line
    vanilla, mine = (made(tmp_path / "whole", method) for method in ("vanilla", "fastv"))
    assert lines_of(checked(vanilla, mine)) == []


def test_a_metric_may_not_vanish(there: Path, mine: Path) -> None:
    for path in there.glob("*vanilla*.record.json"):
        metric = {"value": 0.0, "stderr": None, "n": None, "higher_is_better": False}
        spoiled(path, "tasks", "demo_gqa", "metrics", "unparsable", value=metric)
    assert any(
        "tasks.demo_gqa.metrics=exact_match: allowed is unparsable as in org-model--vanilla" in line
        for line in lines_of(checked(mine, there=there))
    )


def test_vanilla_of_the_same_setting_is_needed(there: Path, tmp_path: Path, mine: Path) -> None:
    assert any(": vanilla=none on demo_gqa" in line for line in lines_of(checked(mine)))
    half = made(tmp_path / "half", "fastv", dtype="bfloat16")
    assert any(": vanilla=none on demo_gqa" in line for line in lines_of(checked(half, there=there)))
    own = made(tmp_path / "half", "vanilla", dtype="bfloat16")
    assert lines_of(checked(half, own, there=there)) == []


def test_other_questions_are_refused(there: Path, tmp_path: Path) -> None:
    mine = made(tmp_path / "mine", "fastv", prompt="another question {}")
    assert any("tasks.demo_gqa.prompts_sha256" in line for line in lines_of(checked(mine, there=there)))


def test_a_new_vanilla_is_pointed_out(there: Path, tmp_path: Path) -> None:
    mine = made(tmp_path / "mine", "vanilla", stamp="20260201_000000", scores=[1.0] * 10)
    found = checked(mine, there=there)
    assert found.ok and any("every percentage of the board changes" in note.text for note in found.findings.notes)


def test_copies_are_refused(there: Path, tmp_path: Path) -> None:
    """The record of another method with its name changed; the same run again; the same configuration run anew."""
    swiftvlm = next(there.glob("*swiftvlm*.record.json"))
    renamed = made(tmp_path / "renamed", "pdrop", scores=[0.0] + [1.0] * 8 + [0.0], stamp="20260109_000000")
    (line,) = lines_of(checked(renamed, there=there))
    assert line == f"{renamed.name}: samples=the answers of {swiftvlm.name}: allowed is answers of its own"
    again = tmp_path / "again"
    again.mkdir()
    for path in (swiftvlm, samples_path(swiftvlm)):
        shutil.copy(path, again)
    (line,) = lines_of(checked(again, there=there))
    assert "origin.results_sha256=" in line and f"a run other than {swiftvlm.name}" in line
    repeated = made(tmp_path / "repeated", "swiftvlm", stamp="20260109_000000")
    found = checked(repeated, there=there)
    assert found.ok and [note.text for note in found.findings.notes] == [
        f"repeats {swiftvlm.name}: every answer is the same"
    ]


def test_a_copy_within_a_submission_is_refused(there: Path, tmp_path: Path, mine: Path) -> None:
    second = made(mine.parent, "pdrop", scores=[1.0] * 5 + [0.0] * 4 + [1.0])
    (line,) = lines_of(checked(mine, second, there=there))
    assert "samples=the answers of" in line
    twice = made(tmp_path / "twice", "fastv", stamp="20260105_000000", scores=[1.0] * 7 + [0.0] * 3)
    assert any("configuration=that of" in line for line in lines_of(checked(mine, twice, there=there)))


def test_a_published_record_is_never_edited(there: Path, tmp_path: Path) -> None:
    copy = tmp_path / "checkout" / "there"
    shutil.copytree(there, copy)
    shutil.rmtree(copy)
    copy.mkdir()
    changed = made(copy, "swiftvlm", scores=[1.0] * 10, stamp="20260103_000000")
    assert any("file=already published" in line for line in lines_of(checked(changed, there=there)))


def test_a_method_from_outside_needs_its_source_which_is_not_run(there: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    source = f"from pathlib import Path\nPath({str(trap.name)!r}).touch()\nraise SystemExit\n"
    digest = hashlib.sha256(source.encode()).hexdigest()
    mine = made(tmp_path / "mine", "fastv", source_sha256=digest)
    spoiled(mine, "method", "name", value="owned")
    content = json.loads(mine.read_text())
    # the name of the files follows the method's
    from swiftvlm_eval.results.record import RunRecord

    stem = RunRecord.model_validate(content).stem
    samples = samples_path(mine).rename(mine.with_name(f"{stem}.samples.jsonl.gz"))
    spoiled(mine, "samples_file", "name", value=samples.name)
    mine = mine.rename(mine.with_name(f"{stem}.record.json"))
    assert any("method.source_sha256=" in line for line in lines_of(checked(mine, there=there)))
    attached = mine.with_name("owned.py")
    attached.write_text(source + "# edited\n")
    assert any("method.source_sha256=" in line for line in lines_of(checked(mine, there=there)))
    attached.write_text(source)
    assert lines_of(checked(mine, attached, there=there)) == []
    assert not trap.exists() and not Path(trap.name).exists()
    spare = mine.with_name("spare.py")
    spare.write_text("x = 1\n")
    assert lines_of(checked(mine, spare, there=there)) == [
        "spare.py: file=belongs to no record of the submission: allowed is files that a record names"
    ]
    spare.write_bytes(b"\xff\xfe")
    assert any("spare.py: content=no UTF-8 text" in line for line in lines_of(checked(mine, spare, there=there)))
    attached.write_text(source + "# /home/me/data/x\n")
    assert any("owned.py: content=/home/me/data/x" in line for line in lines_of(checked(mine, there=there)))


def test_a_gzip_bomb_is_not_unpacked(there: Path, mine: Path) -> None:
    file = samples_path(mine)
    bomb = gzip.compress(b"\0" * (300 << 20), compresslevel=9, mtime=0)
    assert len(bomb) < 1 << 20
    file.write_bytes(bomb)
    spoiled(mine, "samples_file", "sha256", value=hashlib.sha256(bomb).hexdigest())
    (line,) = lines_of(checked(mine, there=there))
    assert "samples_file=larger when unpacked" in line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no gzip", "allowed is a gzip file"),
        (gzip.compress(b"{}", mtime=0)[:-4], "one whole gzip file"),
        (gzip.compress(b"{}", mtime=0) + b"more", "one whole gzip file"),
        (gzip.compress(b"x" * (1 << 17), mtime=0), "bytes: allowed is at most"),
        (gzip.compress(b"[" * 60_000, mtime=0), "samples_file, line 1"),
    ],
    ids=["no gzip", "cut", "more behind it", "too large", "too deep"],
)
def test_broken_samples_are_refused(there: Path, mine: Path, content: bytes, said: str) -> None:
    samples_path(mine).write_bytes(content)
    spoiled(mine, "samples_file", "sha256", value=hashlib.sha256(content).hexdigest())
    spoiled(mine, "samples_file", "lines", value=1)
    (line,) = lines_of(checked(mine, there=there))
    assert said in line


def test_a_vanilla_run_that_pruned_is_refused(tmp_path: Path) -> None:
    """It would lower the number that every percentage is taken of."""
    mine = made(tmp_path / "mine", "fastv", budget=0.5)
    content = json.loads(mine.read_text())
    content["method"]["name"] = "vanilla"
    mine.write_text(json.dumps(content))
    from swiftvlm_eval.results.record import RunRecord

    stem = RunRecord.model_validate(content).stem
    samples = samples_path(mine).rename(mine.with_name(f"{stem}.samples.jsonl.gz"))
    spoiled(mine, "samples_file", "name", value=samples.name)
    mine = mine.rename(mine.with_name(f"{stem}.record.json"))
    assert any("executed_share=0.5: allowed is 1: vanilla prunes nothing" in line for line in lines_of(checked(mine)))


def test_options_that_a_method_does_not_take_are_refused(tmp_path: Path) -> None:
    there = reference(tmp_path)
    for options, said in (({"cheat": 1}, "no such option"), ({"layers": "auto:/etc/passwd"}, "may name a file")):
        mine = made(tmp_path / f"mine{len(said)}", "fastv", options=options)
        status, _, out = run("submit-check", str(mine), "--reference", str(there))
        assert status == 1 and "method.options=" in out and said in out
    mine = made(tmp_path / "good", "fastv", options={"layers": [3]})
    assert run("submit-check", str(mine), "--reference", str(there))[0] == 0


def test_texts_made_to_be_slow_are_not(there: Path, mine: Path) -> None:
    """Quadratic matching of these would take hours."""
    slow = ["eyJ-" * 120_000, "a-" * 200_000, "-----BEGIN " + "A " * 200_000, "+/a" * 100_000 + " /", "~a" * 200_000]
    key = "k" * 300_000
    for text in slow:
        spoiled(mine, "extra", value={"x": text})
        start = time.process_time()
        checked(mine, there=there)
        assert time.process_time() - start < 20
    spoiled(mine, "extra", value={key: {str(number): {"token": "x"} for number in range(20_000)}})
    found = checked(mine, there=there)
    assert len(found.findings.refusals) == 1000 and not found.accepted


def test_refusals_are_bounded_and_no_file_slips_through(there: Path, mine: Path) -> None:
    def leak(lines: list[dict[str, Any]]) -> None:
        lines += [dict(lines[0], doc_id=100 + number, prediction="hf_" + "a" * 30) for number in range(3000)]

    resampled(mine, leak)
    found = checked(mine, there=there)
    assert len(found.findings.refusals) == 1000 and found.findings.refused(mine.name) and not found.accepted
