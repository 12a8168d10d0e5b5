"""The workflows: few rights, known actions, nothing of a stranger run, and the check's own step run as it stands."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from submitted_runs import made, reference, spoiled

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))


def loaded(path: Path) -> dict[Any, Any]:
    content: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in loaded(path)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_rights_are_few_and_actions_known(path: Path) -> None:
    content = loaded(path)
    triggers = content[True]  # YAML 1.1 reads `on` as a truth value
    assert "pull_request_target" not in triggers and "workflow_run" not in triggers
    assert content["permissions"] == {"contents": "read"}
    for job in content["jobs"].values():
        assert job.get("permissions", {}).keys() <= {"pages", "id-token"}
        assert job["timeout-minutes"] <= 60
    for step in steps(path):
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) if "uses" in step else step["run"]
        # texts of a pull request reach no script
        assert "${{" not in step.get("run", "")


def test_the_check_runs_code_of_the_base_alone() -> None:
    checkouts = [step["with"] for step in steps(FOLDER / "submissions.yml") if "checkout" in step.get("uses", "")]
    assert [(each["path"], each["persist-credentials"]) for each in checkouts] == [
        ("base", False),
        ("proposed", False),
    ]
    assert checkouts[0]["ref"] == "${{ github.event.pull_request.base.sha }}"
    commands = "\n".join(step["run"] for step in steps(FOLDER / "submissions.yml") if "run" in step)
    assert "install --constraint base/constraints.txt './base[eval]'" in commands
    assert not re.search(r"(?:python|pip|bash|sh|source|make|cd)\b[^\n]*\bproposed", commands)
    assert loaded(FOLDER / "submissions.yml")[True] == {"pull_request": {"paths": ["leaderboards/submissions/**"]}}


def test_forms_are_read() -> None:
    form = loaded(ROOT / ".github" / "ISSUE_TEMPLATE" / "submission.yml")
    assert form["name"] and form["description"]
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(ids) == len(set(ids)) and {"rows", "check", "agreed"} <= set(ids)


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """`base` and `proposed` as the check-outs leave them, and the command in `bin`."""
    base = tmp_path / "base"
    shutil.copytree(reference(tmp_path / "made"), base / "leaderboards" / "there")
    (base / "leaderboards" / "submissions").mkdir()
    (base / "leaderboards" / "submissions" / "README.md").write_text("layout")
    published = made(base / "leaderboards" / "submissions" / "old", "pdrop")
    assert published.is_file()
    shutil.copytree(base, tmp_path / "proposed")
    git(tmp_path / "proposed", "init", "-q", "-b", "main")
    git(tmp_path / "proposed", "add", "-A")
    git(tmp_path / "proposed", "commit", "-qm", "base")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "swiftvlm-eval"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m swiftvlm_eval.cli "$@"\n')
    command.chmod(0o755)
    return tmp_path


def step_run(workplace: Path) -> tuple[int, str, str]:
    """Commits what stands in `proposed` and runs the step; exit status, summary, errors."""
    git(workplace / "proposed", "add", "-A")
    git(workplace / "proposed", "commit", "-qm", "proposed", "--allow-empty")
    (script,) = [step["run"] for step in steps(FOLDER / "submissions.yml") if step.get("name") == "submit-check"]
    environment = {
        **os.environ,
        "PATH": f"{workplace / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "GITHUB_STEP_SUMMARY": str(workplace / "summary"),
        "COLUMNS": "400",
    }
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=workplace, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, (workplace / "summary").read_text(), done.stderr


def test_the_step_passes_a_good_submission_and_shows_it(workplace: Path) -> None:
    made(workplace / "proposed" / "leaderboards" / "submissions" / "mine", "fastv")
    (workplace / "proposed" / "leaderboards" / "submissions" / "README.md").write_text("new words")
    status, summary, said = step_run(workplace)
    assert status == 0, said
    assert "### <code>fastv</code>" in summary and "Nothing was refused" in summary


def test_the_step_refuses_edited_and_deleted_records(workplace: Path) -> None:
    old = workplace / "proposed" / "leaderboards" / "submissions" / "old"
    path = next(old.glob("*.record.json"))
    spoiled(path, "wall_time_s", value=1.0)
    next(old.glob("*.gz")).unlink()
    status, _, said = step_run(workplace)
    assert status == 1
    assert f"refused {path.name}: file=already published" in said or "samples_file.name=" in said
    assert "file=not there: allowed is a file; what is published is neither deleted nor renamed" in said


def test_the_step_refuses_names_that_would_be_options_or_commands(workplace: Path) -> None:
    folder = workplace / "proposed" / "leaderboards" / "submissions" / "mine"
    folder.mkdir()
    for name in ("--help", "$(touch owned).record.json", "a\nb.record.json", "x.sh"):
        (folder / name).write_text("touch owned")
    (folder / "link.record.json").symlink_to("/etc/passwd")
    status, summary, said = step_run(workplace)
    assert status == 1 and said.count("refused") >= 5 and "root:" not in summary + said
    assert not list(workplace.rglob("owned"))


def test_a_change_of_the_readme_alone_passes(workplace: Path) -> None:
    (workplace / "proposed" / "leaderboards" / "submissions" / "README.md").write_text("new words")
    assert step_run(workplace)[0] == 0
