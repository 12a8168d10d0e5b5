"""Stored answers of unfinished runs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swiftvlm_eval.runs.journal import Journal

NO_COUNTS = b'{"key": "task/1/ab", "text": "yes", "counts": null}\n'


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def request(doc_id: int = 0, prompt: str = "Why?", **generation: Any) -> SimpleNamespace:
    return SimpleNamespace(args=(prompt, generation, None, doc_id, "task", "test"))


def test_the_journal_finds_the_same_request_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "answers.jsonl"
    journal = Journal(path)
    assert journal.find(request()) is None and not path.exists()
    journal.add(request(max_new_tokens=4, until=["\n"]), "ja\n\u2028 §", {"input_tokens": 3})
    for found in (journal, Journal(path)):
        assert len(found) == 1
        assert found.find(request(until=["\n"], max_new_tokens=4)) == ("ja\n\u2028 §", {"input_tokens": 3})
        others: list[dict[str, Any]] = [{"doc_id": 1}, {"prompt": "Who?"}, {"max_new_tokens": 5}, {"until": []}]
        for other in others:
            same: dict[str, Any] = {"max_new_tokens": 4, "until": ["\n"]}
            assert found.find(request(**{**same, **other})) is None


@pytest.mark.parametrize(
    "broken",
    [b'{"key": "task/1/ab', b"not json\n", b"[1, 2]\n", b'{"key": "k"}\n', b"\x00\x00\xff\n", NO_COUNTS],
    ids=["cut", "text", "list", "incomplete", "bytes", "no-counts"],
)
def test_a_broken_line_costs_that_line(tmp_path: Path, broken: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    journal = Journal(path)
    journal.add(request(0), "first", {"output_tokens": 1})
    sound = path.read_bytes()
    path.write_bytes(sound + broken)
    again = Journal(path)
    assert len(again) == 1 and again.find(request(0)) == ("first", {"output_tokens": 1})
    again.add(request(1), "second", {"output_tokens": 2})
    last = Journal(path)
    assert (len(last), last.find(request(0)), last.find(request(1))) == (
        2,
        ("first", {"output_tokens": 1}),
        ("second", {"output_tokens": 2}),
    )
    assert path.read_bytes().startswith(sound)


def test_answers_of_every_process_are_found_whatever_their_number_now(tmp_path: Path) -> None:
    path, report = tmp_path / "cell-code.jsonl", {"visual_tokens": 16, "run": {"seed": 3, "world_size": 2}}
    for process in range(2):
        journal = Journal(path, process, 2)
        journal.add(request(process), f"answer {process}", {"swiftvlm": report, "input_tokens": 5})
    (tmp_path / "cell-code.1.jsonl").open("a").write('{"key": "ta')  # cut off by a kill
    Journal(tmp_path / "cell-other.jsonl").add(request(2), "of other code", {})
    assert files(tmp_path) == ["cell-code.1.jsonl", "cell-code.jsonl", "cell-other.jsonl"]
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    for process, count in [(0, 1), (0, 3), (2, 3)]:
        journal = Journal(path, process, count)
        assert len(journal) == 2 and journal.find(request(2)) is None
        for number in range(2):
            text, counts = journal.find(request(number)) or ("", {})
            assert text == f"answer {number}" and counts["input_tokens"] == 5
            # an answer is part of the run that ends now
            assert counts["swiftvlm"] == {"visual_tokens": 16, "run": {"seed": 3, "world_size": count}}
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before
    Journal(path, 1, 2).add(request(5), "after the cut", {})
    assert len(Journal(path)) == 3
    Journal(path).close()
    assert files(tmp_path) == ["cell-other.jsonl"]


def test_closing_removes_the_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "answers.jsonl")
    journal.close()
    journal.add(request(), "a", {})
    journal.close()
    assert not files(tmp_path)


def test_what_a_run_settled_is_kept_beside_its_answers(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    journal = Journal(path, process=1)
    journal.settle(batch_size=8, choice="trial")
    journal.settle(batch_size=4)
    with journal.path.open("a") as stream:
        stream.write('{"settled": ["batch_size", 2]}\n{"settled": {"batch_si')
    for process in (0, 1):
        found = Journal(path, process, 2)
        assert dict(found.settled) == {"batch_size": 4, "choice": "trial"} and len(found) == 0
    found.close()
    assert not list(tmp_path.iterdir())
