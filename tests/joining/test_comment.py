"""The comment: new rows beside the others with the right numbers, and no text of a stranger acts as Markdown."""

import html
import re
from pathlib import Path

import pytest
from command_line import run
from submitted_runs import checked, made, reference, spoiled

from swiftvlm_eval.joining.comment import MOST_LINES, comment, quoted
from swiftvlm_eval.joining.findings import Findings
from swiftvlm_eval.joining.submission import Submission

HOSTILE = [
    "@everyone look", "#1", "[click](https://evil.example)", "![x](http://evil.example/a.png)",
    "<img src=x onerror=1>",
    "a | b", "`code`", "</code><script>alert(1)</script>", "www.evil.example", "**bold**", "\\| \\`",
    "a\nb\n# heading",
    "&lt;b&gt;", ":smile:", "<!-- x", "\u202eevil", "me@evil.example", "| --- |", "::error::x", "~~gone~~",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_quoted_text_cannot_act(text: str) -> None:
    written = quoted(text)
    inside = re.fullmatch(r"<code>(.*)</code>", written)
    assert inside and "\n" not in written
    # letters, digits, spaces, hyphens and numeric references alone
    assert re.fullmatch(r"(?:[^\W_]|[ -]|&#\d+;)*", inside[1]), written
    shown = html.unescape(inside[1])
    assert shown == " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def cells(text: str, heading: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {heading} |")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_new_rows_stand_beside_vanilla_the_first_and_random(tmp_path: Path) -> None:
    """By hand: vanilla 9 of 10, fastv 6, swiftvlm 8, random 4; 6 / 9 = 66.7 %, 8 / 9 = 88.9 %, 4 / 9 = 44.4 %."""
    there, mine = reference(tmp_path), made(tmp_path / "mine", "fastv")
    text = comment(checked(mine, there=there), baselines=["random"])
    header = next(line for line in text.splitlines() if line.startswith("| | "))
    assert [html.unescape(re.sub("</?code>", "", part)).strip() for part in header.split("|")[2:-1]] == [
        "new: fastv", "before", "vanilla", "first: swiftvlm", "random: random",
    ]  # fmt: skip
    found = cells(text, "demo grounding")
    assert [cell.partition(" [")[0] for cell in (found[0], found[3], found[4])] == [
        "60.0 (66.7 %", "80.0 (88.9 %", "40.0 (44.4 %"
    ]  # fmt: skip
    assert found[1] == "-" and found[2].startswith("90.0 (100.0 %")
    assert cells(text, "visual tokens (per layer)") == ["192", "-", "576", "192", "192"]
    assert "Nothing was refused; records that can be compared: 1" in text


def test_the_value_before_is_that_of_the_same_configuration(tmp_path: Path) -> None:
    there = reference(tmp_path)
    mine = made(tmp_path / "mine", "swiftvlm", scores=[1.0] * 7 + [0.0] * 3, stamp="20260201_000000")
    text = comment(checked(mine, there=there), baselines=["random"])
    found = cells(text, "demo existence")
    assert found[0].startswith("70.0 (77.8 %") and found[1].startswith("80.0 (88.9 %")


def test_a_new_vanilla_is_shown_with_the_old_one(tmp_path: Path) -> None:
    there = reference(tmp_path)
    mine = made(tmp_path / "mine", "vanilla", scores=[1.0] * 8 + [0.0] * 2, stamp="20260201_000000")
    found = cells(comment(checked(mine, there=there)), "demo existence")
    assert len(found) == 2 and found[0].startswith("80.0") and found[1].startswith("90.0")


def test_hostile_records_stay_text(tmp_path: Path) -> None:
    there = reference(tmp_path)
    for number, text in enumerate(HOSTILE):
        mine = made(tmp_path / f"m{number}", "fastv", options={"mode": text}, scores=[1.0] * 5 + [0.0] * 5)
        spoiled(mine, "extra", value={"note": text, "at": "/home/me/x"})
        second = made(tmp_path / f"m{number}", "pdrop", options={"mode": text}, caveat=text)
        third = made(tmp_path / f"m{number}", "pdrop", options={"mode": text + "2"}, scores=[0.0, 1.0] * 5)
        found = checked(mine, second, third, there=there)
        assert not found.ok and len(found.accepted) == 2
        written = comment(found, baselines=["random"])
        bare = re.sub(r"<code>(?:[^\W_]|[ -]|&#\d+;)*</code>", "", written)
        assert not set("<>@`[\\") - set("[") & set(bare.replace("`before`", "").replace("`first`", "")), bare
        assert re.sub(r"\[-?\d+\.\d, -?\d+\.\d\]", "", bare).count("[") == 0
        tables = [line for line in written.splitlines() if line.startswith("|")]
        assert {line.count("|") for line in tables} == {7}


def test_the_comment_is_bounded() -> None:
    findings = Findings()
    for number in range(5000):
        findings.refuse(f"{number}.record.json", "@" * 5000, "|" * 5000, "z")
        findings.note(f"{number}.record.json", "n" * 5000)
    text = comment(Submission((), (), findings))
    assert len(text) < 65_536 and "**Reasons to refuse: at least 1000**" in text
    assert "... cut here" in text
    few = Findings()
    for number in range(100):
        few.refuse(f"{number}.record.json", "x", "y", "z")
    text = comment(Submission((), (), few))
    assert f"... and {100 - MOST_LINES} more" in text and "**Reasons to refuse: 100**" in text


def test_the_command_prints_the_comment_and_its_reasons(tmp_path: Path) -> None:
    there, mine = reference(tmp_path), made(tmp_path / "mine", "fastv")
    status, out, _ = run("submit-check", str(mine), "--reference", str(there))
    assert status == 0 and out.startswith("## Submission check") and "### <code>fastv</code>" in out
    spoiled(mine, "settings", "limit", value=3)
    status, out, said = run("submit-check", str(mine), "--reference", str(there))
    assert status == 1 and f"refused {mine.name}: settings.limit=3.0: allowed is None: all documents" in said
    assert "**Reasons to refuse: 3**" in out  # and the names of both files, which hold the configuration


def test_help_teaches() -> None:
    status, _, said = run("submit-check", "--help")
    assert status == 0 and "Exit status 1" in said and said.count("# ") == 2
