"""Files as they come: links, pipes, odd names, sizes and places are refused before anything in them is read."""

import os
from pathlib import Path

import pytest
from submitted_runs import checked, lines_of, made, reference, samples_path

from swiftvlm_eval.joining.findings import Findings
from swiftvlm_eval.joining.private import machine_path, named_secrets, secret_kind
from swiftvlm_eval.joining.received import MOST_FILES, receive


def said(*paths: Path) -> list[str]:
    findings = Findings()
    receive(paths, findings)
    return [refusal.line for refusal in findings.refusals]


@pytest.mark.parametrize(
    "name",
    ["-rf.record.json", ".hidden.record.json", "a b.record.json", "a\nb.record.json", "\u202ex.record.json",
     "é.record.json", "a;b.record.json", "x" * 241 + ".record.json", "$(id).py"],
)  # fmt: skip
def test_odd_names_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("{}")
    (line,) = said(path)
    assert "letters, digits and . _ + -" in line and line.isprintable()
    assert said(tmp_path) == [line]


def test_other_kinds_of_files_are_refused(tmp_path: Path) -> None:
    for name in ("notes.md", "run.sh", "x.record.json.exe", "model.safetensors"):
        (tmp_path / name).write_text("")
    assert len(said(tmp_path)) == 4 and all("allowed is a file that ends in .record.json" in s for s in said(tmp_path))


def test_links_pipes_and_folders_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "passwd").write_text("secret")
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "a.record.json").symlink_to(outside / "passwd")
    (inside / "b.record.json").symlink_to("/dev/zero")
    (inside / "linked.py").symlink_to(outside)
    os.mkfifo(inside / "c.record.json")
    lines = said(inside)
    assert lines == [
        "a.record.json: file=a link: allowed is a regular file",
        "b.record.json: file=a link: allowed is a regular file",
        "c.record.json: file=no regular file: allowed is a regular file",
        "linked.py: file=a link: allowed is a regular file",
    ]


def test_sizes_are_bounded(tmp_path: Path) -> None:
    for name, size in (("a.record.json", 1 << 21), ("b.samples.jsonl.gz", 1 << 40), ("c.py", 1 << 19)):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(size)  # sparse
    assert [line.split(": ")[1].split("=")[0] for line in said(tmp_path)] == ["size"] * 3


def test_the_number_of_files_is_bounded(tmp_path: Path) -> None:
    for number in range(MOST_FILES + 10):
        (tmp_path / f"{number}.record.json").touch()
    assert "submission: files=more than 2000: allowed is at most 2000 files" in said(tmp_path)


def test_what_is_gone_is_refused(tmp_path: Path) -> None:
    (line,) = said(tmp_path / "gone.record.json")
    assert line.endswith("file=not there: allowed is a file; what is published is neither deleted nor renamed")


@pytest.mark.parametrize(
    ("place", "fits"),
    [("mine", True), (".", False), ("mine/deeper", False), ("Mine", False), ("-x", False), ("m n", False)],
)
def test_submissions_have_one_folder_each(tmp_path: Path, place: str, fits: bool) -> None:
    folder = tmp_path / "submissions" / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.record.json").write_text("{}")
    lines = said(folder / "a.record.json")
    assert (lines == []) is fits and all("folder=" in line for line in lines)


def test_linked_samples_are_not_followed(tmp_path: Path) -> None:
    there = reference(tmp_path)
    mine = made(tmp_path / "mine", "fastv")
    file = samples_path(mine)
    moved = file.rename(tmp_path / "elsewhere.gz")
    file.symlink_to(moved)
    assert any("samples_file.name=" in line and "plain file" in line for line in lines_of(checked(mine, there=there)))


def test_nothing_at_all_is_refused(tmp_path: Path) -> None:
    assert lines_of(checked(tmp_path)) == [
        "submission: files=no record: allowed is at least one *.record.json with its samples"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "/home/me/x",
        "see /root/.cache/y for it",
        "--out=/data/a/b",
        "file:///c",
        "~/x/y",
        "C:\\data",
        "\\\\host\\share",
    ],
)
def test_folders_of_a_machine_are_seen(text: str) -> None:
    assert machine_path(text)


@pytest.mark.parametrize(
    "text",
    ["org/model", "1/3", "and/or", "image/png", "https://host.example/a/b/c", "n/a", "2026/01/02", "acc@0.5", "//",
     "/",
     "local:folder-0123abcd", "Answer: /", "a: b/c/d", "main@48ab885"],
)  # fmt: skip
def test_what_only_looks_like_a_path_is_none(text: str) -> None:
    assert machine_path(text) is None


def test_secrets_are_seen_by_form_and_by_name() -> None:
    forms = ["hf_" + "b" * 34, "ghp_" + "c" * 36, "sk-" + "d" * 40, "AKIA" + "E" * 16, "xoxb-1234567890-abc"]
    forms += ["-----BEGIN RSA PRIVATE KEY-----", "AIza" + "f" * 35, "glpat-" + "g" * 20]
    assert all(secret_kind(f"before {form} after") for form in forms)
    assert not any(map(secret_kind, ["hf_default", "token", "sk-learn", "a password", "llava_hf"]))
    content = {
        "a": [{"api_key": "x"}],
        "HF_TOKEN": "y",
        "token": "hidden",
        "tokens": "z",
        "key": "acc",
        "secret": None,
    }
    assert sorted(named_secrets(content)) == ["HF_TOKEN", "a.api_key"]
