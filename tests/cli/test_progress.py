"""The bar of a run, the log of what libraries say, and the time that is left."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger
from tqdm import tqdm

from swiftvlm_eval.cli import progress
from swiftvlm_eval.cli.progress import LineLog, RunBar, duration, log_file, logged
from swiftvlm_eval.cli.terminal import console, errors


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    own = Clock()
    monkeypatch.setattr(progress, "time", own)
    yield own


def test_of_a_line_written_over_again_the_last_state_is_kept() -> None:
    file = io.StringIO()
    log = LineLog(file)
    for text in ("a\rab", "c\rabcd", "\n", "plain\nwindows\r\n", "\rhalf"):
        assert log.write(text) == len(text)
    assert file.getvalue() == "abcd\nplain\nwindows\n"
    log.close()
    assert file.getvalue().endswith("\nhalf\n")


def test_what_libraries_print_goes_to_the_file_and_our_words_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "deep" / "run.log"
    with logged(path):
        sys.stdout.write("a library prints\n")
        sys.stderr.write("and complains\n")
        for _ in tqdm(range(3), desc="a bar"):
            pass
        logger.info("for the file")
        logger.warning("for [both] \x1b[31m")
        console.print("ours")
        errors.print("our error")
    out, err = capsys.readouterr()
    assert out == "ours\n"
    assert err.splitlines() == ["WARNING: for [both]  [31m", "our error"]
    text = path.read_text(encoding="utf-8")
    for said in ("a library prints", "and complains", "a bar: 100%", "INFO: for the file", "WARNING: for [both]"):
        assert said in text
    assert text.count("a bar") == 1 and "ours" not in text


def test_after_an_error_the_terminal_is_as_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(KeyError), logged(tmp_path / "run.log"):
        raise KeyError("x")
    assert (sys.stdout, sys.stderr) == before
    console.print("again")
    logger.warning("heard")
    out, err = capsys.readouterr()
    assert out == "again\n" and "heard" in err


def test_a_log_has_a_name_of_its_own_below_the_run(tmp_path: Path) -> None:
    path = log_file(tmp_path)
    assert path.parent == tmp_path / "logs" and path.suffix == ".log" and not path.parent.exists()


def test_time_left_is_the_pace_so_far_times_what_is_left(clock: Clock) -> None:
    bar = RunBar(3, 10)
    clock.now += 40
    bar.answered(10)
    assert bar.finished(ran=True) == " in 40 s, about 80 s left"
    clock.now += 20
    bar.answered(10)
    assert bar.finished(ran=True) == " in 20 s, about 30 s left"  # 60 s for 20 documents, 10 are left
    clock.now += 7
    assert bar.finished(ran=True) == " in 7 s"


def test_what_is_not_run_counts_neither_as_done_nor_as_left(clock: Clock) -> None:
    bar = RunBar(3, 10)
    clock.now += 1
    assert bar.finished(ran=False) == ""
    bar.answered(4)
    (task,) = bar._progress.tasks
    assert (task.completed, task.total) == (4, 20)
    clock.now += 49
    assert bar.finished(ran=True) == " in 49 s, about 50 s left"  # 50 s in all for 10 of 20 documents
    assert bar.finished(ran=False) == "" and task.total == task.completed == 10


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (99.4, "99 s"), (100, "2 min"), (5940, "99 min"), (7500, "2 h 05 min"), (360000, "100 h 00 min")],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
