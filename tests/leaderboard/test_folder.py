"""The folder of pages: all of one build or all of the other, and nothing of anybody else's."""

import errno
import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path

import pytest
from fake_runs import description
from small_runs import RIGHT, one_run
from typer.testing import CliRunner

from swiftvlm_eval.cli import app
from swiftvlm_eval.leaderboard import build, folder
from swiftvlm_eval.leaderboard.folder import replace_pages

OLD = {f"{name}.md": f"old {name}".encode() for name in ("index", "a", "b")}
NEW = {f"{name}.md": f"new {name}".encode() for name in ("index", "a", "c")}


def pages(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and not path.name.startswith(".")}


def no_rest(out: Path) -> bool:
    return not [path for path in out.iterdir() if path.is_dir() and path.name.startswith(".")]


def test_pages_of_boards_that_are_gone_go_and_other_files_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert replace_pages(out, OLD) == tuple(out / name for name in sorted(OLD))
    (out / "records").mkdir()
    (out / "records" / "b.md").write_text("mine")
    (out / "mine.md").write_text("mine")
    (out / ".git").mkdir()
    replace_pages(out, NEW)
    assert pages(out) == {**NEW, "mine.md": b"mine"}
    assert (out / "records" / "b.md").read_text() == "mine" and (out / ".git").is_dir()


@pytest.mark.parametrize("directory", [False, True])
def test_a_file_of_the_users_in_a_pages_place_is_not_replaced(tmp_path: Path, directory: bool) -> None:
    out = tmp_path / "out"
    out.mkdir()
    if directory:
        (out / "a.md").mkdir()
    else:
        (out / "a.md").write_text("mine")
    with pytest.raises(ValueError, match=r"out holds a\.md.*not a page"):
        replace_pages(out, NEW)
    assert [path.name for path in out.iterdir() if not path.name.startswith(".")] == ["a.md"]


def test_a_board_from_before_there_was_a_list_of_pages_is_replaced(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    report = build([tmp_path / "in"], tmp_path / "out")
    (tmp_path / "out" / folder.MANIFEST).unlink()
    assert build([tmp_path / "in"], tmp_path / "out").files == report.files


@pytest.mark.parametrize("name", ["../outside.md", "/etc/outside.md", "..", "records", "mine.txt", ".hidden.md", ""])
def test_a_forged_list_of_pages_deletes_nothing_else(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    replace_pages(out, OLD)
    for kept in ("../outside.md", "mine.txt", ".hidden.md"):
        (out / kept).write_text("mine")
    (out / "records").mkdir()
    (out / folder.MANIFEST).write_text(f"{name}\nb.md\n")
    with pytest.raises(ValueError, match="holds"):
        replace_pages(out, NEW)  # a.md and index.md are no longer on the list
    (out / folder.MANIFEST).write_text(f"{name}\n" + "\n".join(OLD))
    replace_pages(out, NEW)
    assert (out / "records").is_dir() and not (out / "b.md").exists()
    for kept in ("../outside.md", "mine.txt", ".hidden.md"):
        assert (out / kept).read_text() == "mine"


def test_nothing_is_changed_before_everything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    replace_pages(out, OLD)
    replace, seen = Path.replace, []

    def watch(self: Path, target: Path) -> Path:
        if not seen:
            seen.append((pages(out), {name: (self.parent / name).read_bytes() for name in NEW}))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watch)
    replace_pages(out, NEW)
    assert seen == [(OLD, NEW)]
    assert pages(out) == NEW and no_rest(out)


@pytest.mark.parametrize("place", range(1, 5))
def test_a_swap_that_fails_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    out = tmp_path / "out"
    replace_pages(out, OLD)
    (out / "mine.txt").write_text("mine")
    replace, calls = Path.replace, []

    def fail(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == place:
            raise OSError(errno.EIO, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ValueError, match=r"pages in .*out not written: Input/output error"):
        replace_pages(out, NEW)
    monkeypatch.undo()
    assert pages(out) == {**OLD, "mine.txt": b"mine"} and no_rest(out)
    replace_pages(out, NEW)
    assert pages(out) == {**NEW, "mine.txt": b"mine"}


def test_a_full_disk_is_one_line_and_leaves_the_old_board(tmp_path: Path) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT)
    arguments = ["leaderboard", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    before = pages(tmp_path / "out")
    one_run(tmp_path / "in", "fastv", RIGHT)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        done = CliRunner().invoke(app, arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    assert done.output.splitlines() == [
        f"error pages in {tmp_path / 'out'} not written: File too large; what was there is unchanged"
    ]
    assert pages(tmp_path / "out") == before and no_rest(tmp_path / "out")


def test_no_space_left_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ValueError, match="No space left on device; what was there is unchanged"):
        replace_pages(tmp_path / "out", NEW)
    assert pages(tmp_path / "out") == {}


def _build_often(out: Path, mark: str, names: list[str], until: float) -> None:
    files = {f"{name}.md": f"{mark} {name}".encode() * 1000 for name in names}
    while time.monotonic() < until:
        replace_pages(out, files)


def test_builders_at_once_leave_one_complete_board(tmp_path: Path) -> None:
    out = tmp_path / "out"
    sets = {"first": ["index", "a", "b", "c"], "second": ["index", "b", "d", "e", "f"], "third": ["index", "z"]}
    context = multiprocessing.get_context("fork")
    until = time.monotonic() + 3
    builders = [context.Process(target=_build_often, args=(out, mark, names, until)) for mark, names in sets.items()]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(60)
        assert builder.exitcode == 0
    found = pages(out)
    (mark,) = {content.split()[0].decode() for content in found.values()}
    assert sorted(found) == sorted(f"{name}.md" for name in sets[mark])
    assert no_rest(out)


def test_a_killed_builder_leaves_a_whole_board_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    out = tmp_path / "out"
    replace_pages(out, OLD)
    context = multiprocessing.get_context("fork")
    for _ in range(10):
        builder = context.Process(
            target=_build_often, args=(out, "x", [f"p{i}" for i in range(30)], time.monotonic() + 60)
        )
        builder.start()
        time.sleep(0.05)
        builder.kill()
        builder.join(10)
    replace_pages(out, NEW)
    assert pages(out) == NEW and no_rest(out)


def _killed_at(out: Path, place: int) -> None:
    """Replaces pages, and ends without a word at the renaming of that number."""
    replace, calls = Path.replace, []

    def die(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == place:
            os._exit(9)
        return replace(self, target)

    Path.replace = die  # type: ignore[method-assign]
    replace_pages(out, NEW)


@pytest.mark.parametrize("place", range(1, 6))
def test_a_builder_killed_while_renaming_is_made_good_by_the_next(tmp_path: Path, place: int) -> None:
    out = tmp_path / "out"
    replace_pages(out, OLD)
    # a fresh interpreter: a forked one may not take a lock that its parent's libraries have seen
    builder = multiprocessing.get_context("spawn").Process(target=_killed_at, args=(out, place))
    builder.start()
    builder.join(60)
    assert builder.exitcode == 9
    for files in (NEW, OLD):
        replace_pages(out, files)
        assert pages(out) == files and no_rest(out)


def test_the_out_folder_may_be_a_link_or_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_run(tmp_path / "in", "vanilla", RIGHT, run=description("vanilla"))
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    build([tmp_path / "in"], tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "index.md").is_file()
    monkeypatch.chdir(tmp_path / "real")
    build([tmp_path / "in"], Path())
    assert Path("index.md").is_file()
