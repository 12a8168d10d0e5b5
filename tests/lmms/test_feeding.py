"""Batches are prepared ahead of the model, in threads that leave nothing behind."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lmms.tiny_runs import QUESTIONS, SIZES, TASK, make_model, make_requests, visuals
from PIL import Image

from swiftvlm_eval.lmms.feeding import ahead, encoders
from swiftvlm_eval.lmms.reporting import Reporting
from swiftvlm_eval.runs.journal import Journal

SHORT = {"max_new_tokens": 4}


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith(("read", "encod"))]
    assert left == []


def wait_until(true: Callable[[], bool]) -> None:
    """Returns when a condition holds; a test that waits in vain fails by it."""
    for _ in range(2000):
        if true():
            return
        time.sleep(0.005)
    raise AssertionError("waited in vain")


@pytest.mark.parametrize("look_ahead", [1, 2, 3])
def test_so_many_jobs_are_ahead_and_no_more(look_ahead: int) -> None:
    read: list[int] = []
    with ahead(range(8), lambda job: read.append(job) or job, lambda job: 10 * job, look_ahead) as results:
        assert read == []
        for number, result in enumerate(results):
            assert result == 10 * number
            due = min(8, number + 1 + look_ahead)
            wait_until(lambda due=due: len(read) == due)
            time.sleep(0.01)
            assert read == list(range(due))  # in order, and not one more


def test_without_look_ahead_nothing_is_done_before_it_is_asked_for() -> None:
    read: list[tuple[int, str]] = []
    with ahead(range(3), lambda job: read.append((job, threading.current_thread().name)), str, 0) as results:
        next(results)
        assert read == [(0, threading.main_thread().name)]


def test_results_keep_their_order_whichever_is_ready_first() -> None:
    def slow_first(job: int) -> int:
        time.sleep(0.05 if job % 2 == 0 else 0)
        return job

    with ahead(range(6), int, slow_first, 3) as results:
        assert list(results) == list(range(6))


def test_one_thread_reads_and_others_encode() -> None:
    readers: set[str] = set()
    writers: set[str] = set()
    with ahead(
        range(9),
        lambda job: readers.add(threading.current_thread().name),
        lambda found: writers.add(threading.current_thread().name),
        2,
    ) as results:
        list(results)
    assert len(readers) == 1 and 1 <= len(writers) <= encoders(2) <= 2
    assert threading.main_thread().name not in readers | writers


@pytest.mark.parametrize("broken", ["read", "encode"])
def test_an_error_comes_at_its_place(broken: str) -> None:
    def fails(job: int) -> int:
        if job == 3:
            raise OSError("job 3")
        return job

    steps = {"read": int, "encode": int} | {broken: fails}
    got = []
    with pytest.raises(OSError, match="job 3"), ahead(range(9), steps["read"], steps["encode"], 2) as results:
        for result in results:
            got.append(result)
    assert got == [0, 1, 2]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_leaving_early_gives_up_what_has_not_begun(error: type[BaseException]) -> None:
    read: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def stands_still(job: int) -> int:
        read.append(job)
        if job == 1:
            begun.set()
            assert go_on.wait(10)
        return job

    with pytest.raises(error), ahead(range(9), stands_still, int, 4) as results:
        next(results)  # job 0; the reader is at job 1, and jobs 2 to 4 wait
        assert begun.wait(10)
        threading.Timer(0.1, go_on.set).start()
        raise error
    assert read == [0, 1]


@pytest.mark.parametrize(("family", "method"), [("llava", "swiftvlm"), ("llava_next", "random")])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_answers_are_those_without_look_ahead(family: str, method: str, batch_size: int) -> None:
    def made(look_ahead: int) -> list[tuple[Any, ...]]:
        model = make_model(method, family=family, budget=0.6, batch_size=batch_size, look_ahead=look_ahead)
        answers = model.generate_until(make_requests(model, [{"max_new_tokens": 8}] * 7))
        reports = [answer.token_counts.report for answer in answers]
        return [
            (answer.text, report.image, report.rows_per_layer, report.run is None)
            for answer, report in zip(answers, reports, strict=True)
        ]

    found = made(0)
    assert found == made(2) == made(4)
    assert len({text for text, *_ in found}) > 3


@pytest.mark.parametrize(("batch_size", "look_ahead", "timed"), [(1, None, 5), (1, 0, 5), (1, 1, 0), (2, 0, 0)])
def test_seconds_are_told_only_where_nothing_else_goes_on(batch_size: int, look_ahead: int | None, timed: int) -> None:
    """Also of the last batch, which is one of one: the run's batch size is what the record says."""
    model = make_model("vanilla", batch_size=batch_size, look_ahead=look_ahead)
    answers = model.generate_until(make_requests(model, [SHORT] * 5))
    reports = [answer.token_counts.report for answer in answers]
    assert sum(report.prefill_s is not None and report.total_s is not None for report in reports) == timed
    assert sum(report.prefill_s is not None or report.total_s is not None for report in reports) == timed


def test_times_are_taken_with_nothing_prepared_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    model = make_model("vanilla")
    requests = make_requests(
        model, [SHORT] * 3, doc_to_visual=lambda document: read.append(threading.active_count()) or visuals(document)
    )
    threads, generate = threading.active_count(), model.checkpoint.model.generate
    seen = []

    def noting(*arguments: Any, **options: Any) -> Any:
        seen.append((len(read), threading.active_count()))
        return generate(*arguments, **options)

    monkeypatch.setattr(model.checkpoint.model, "generate", noting)
    model.generate_until(requests)
    assert seen == [(1, threads), (2, threads), (3, threads)]


def fails_on(size: tuple[int, int]) -> Callable[[Any], list[Image.Image]]:
    def doc_to_visual(document: Any) -> list[Image.Image]:
        if document["sizes"] == [size]:
            raise OSError("image is gone")
        return visuals(document)

    return doc_to_visual


@pytest.mark.parametrize("look_ahead", [0, 2])
def test_a_failing_document_is_named_alone_and_the_answers_before_it_are_kept(tmp_path: Path, look_ahead: int) -> None:
    journal = Journal(tmp_path / "answers.jsonl")
    model = make_model("vanilla", batch_size=2, look_ahead=look_ahead, journal=journal)
    requests = make_requests(model, [SHORT] * 6, doc_to_visual=fails_on(SIZES[2]))
    # batches by length: documents 3 and 1, 2 and 0, 5 and 4
    with pytest.raises(RuntimeError, match=f"^{TASK} doc_id 2: image is gone$"):
        model.generate_until(requests)
    assert [journal.find(request) is not None for request in requests] == [False, True, False, True, False, False]


def test_what_the_journal_has_is_not_prepared_and_batches_stay_as_they_were(tmp_path: Path) -> None:
    def run(doc_to_visual: Callable[[Any], Any]) -> Any:
        model = make_model("vanilla", batch_size=2, journal=Journal(tmp_path / "answers.jsonl"))
        return model.generate_until(make_requests(model, [SHORT] * 6, doc_to_visual=doc_to_visual))

    with pytest.raises(RuntimeError, match="doc_id 2"):
        run(fails_on(SIZES[2]))
    read: list[Any] = []
    answers = run(lambda document: read.append(document["sizes"][0]) or visuals(document))
    assert read == [SIZES[2], SIZES[0], SIZES[5], SIZES[4]]
    model = make_model("vanilla", batch_size=2)
    whole = model.generate_until(make_requests(model, [SHORT] * 6))
    assert [answer.text for answer in answers] == [answer.text for answer in whole]
    described = [answer.token_counts.report.run is not None for answer in answers]
    # document 0 comes first, so it speaks for the task, although it was not the first one to be answered
    assert described == [True, False, False, False, False, False]


def test_the_first_document_describes_the_run_in_whatever_order_they_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[int] = []
    counts = Reporting.counts

    def noting(self: Reporting, request: Any, *rest: Any) -> Any:
        order.append(request.args[-3])
        return counts(self, request, *rest)

    monkeypatch.setattr(Reporting, "counts", noting)
    model = make_model("fastv", budget=0.6, family="llava_next", batch_size=2)
    answers = model.generate_until(make_requests(model, [SHORT] * 4))
    assert order == [3, 1, 2, 0]
    (described,) = [place for place, answer in enumerate(answers) if answer.token_counts.report.run is not None]
    assert described == 0
    report = answers[0].token_counts.report
    assert report.run.planned_mean == pytest.approx(report.mean_rows, abs=0.51)
    assert QUESTIONS[0] == "Why?"  # the shortest
