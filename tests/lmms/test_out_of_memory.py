"""A batch that does not fit is answered in halves, and the record says how often."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from lmms.test_failed_samples import recorded
from lmms.tiny_runs import TASK, make_model, make_requests
from tiny_checkpoint import in_memory

from swiftvlm_eval.leaderboard.compute.caption import board_caption
from swiftvlm_eval.leaderboard.compute.entries import Entry
from swiftvlm_eval.lmms.out_of_memory import in_halves, is_out_of_memory
from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.results import RunRecord
from swiftvlm_eval.results.store import StoredRun
from swiftvlm_eval.runs.journal import Journal

SHORT = {"max_new_tokens": 6}
CUDA_SAYS = "CUDA out of memory. Tried to allocate 20.00 MiB.\nSee documentation"


def small(most: int, family: str = "llava", layer: int = 5) -> tuple[Checkpoint, list[int]]:
    """A model one layer of which runs out of memory above so many prompts, and the sizes of the batches it saw."""
    own, seen = in_memory(family, grid=4, layers=12), []

    def limit(module: Any, arguments: tuple[Any, ...]) -> None:
        size = len(arguments[0])
        if arguments[0].shape[1] > 1:
            seen.append(size)
        if size > most:
            raise torch.OutOfMemoryError(CUDA_SAYS)

    own.adapter.decoder.layers[layer].register_forward_pre_hook(limit)
    return own, seen


def halved(answers: Any) -> list[int | None]:
    return [answer.token_counts.report.halved_batches for answer in answers]


@pytest.mark.parametrize("method", ["vanilla", "swiftvlm", "visionzip", "random"])
@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_halves_give_the_answers_of_the_whole(family: str, method: str) -> None:
    own, seen = small(2, family)
    model = make_model(method, family=family, own=own, budget=0.6, batch_size=5)
    answers = model.generate_until(make_requests(model, [SHORT] * 7))
    # by length 5 and 2; 5 -> 3 and 2, 3 -> 2 and 1
    assert seen == [5, 3, 2, 1, 2, 2]
    alone = make_model(method, family=family, budget=0.6)
    expected = alone.generate_until(make_requests(alone, [SHORT] * 7))
    assert [answer.text for answer in answers] == [answer.text for answer in expected]
    assert len({answer.text for answer in answers}) > 2
    assert sorted(halved(answers)) == [0, 0, 0, 0, 0, 0, 2]  # two batches did not fit
    assert halved(expected) == [None] * 7
    assert all(answer.token_counts.report.total_s is None for answer in answers)


def test_a_document_that_does_not_fit_alone_is_named(tmp_path: Path) -> None:
    own, _ = small(0)
    model = make_model("fastv", own=own, budget=0.6, batch_size=4)
    message = rf"^{TASK} doc_id 3: out of memory with this document alone \(CUDA out of memory. Tried .* MiB.\)$"
    with pytest.raises(RuntimeError, match=message) as raised:
        model.generate_until(make_requests(model, [SHORT] * 4))
    assert isinstance(raised.value.__cause__, RuntimeError)
    assert "forward" not in own.adapter.decoder.module.__dict__


def test_other_errors_are_not_tried_again() -> None:
    own, seen = small(9)
    own.adapter.decoder.layers[7].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("shape")))
    model = make_model("vanilla", own=own, batch_size=4)
    with pytest.raises(RuntimeError, match="doc_id 3, .* doc_id 0: shape"):
        model.generate_until(make_requests(model, [SHORT] * 4))
    assert seen == [4]


def test_nothing_of_a_failed_batch_is_held_while_its_halves_are_answered() -> None:
    own, held, alive = in_memory(grid=4, layers=12), [], []

    def limit(module: Any, arguments: tuple[Any, ...]) -> None:
        gc.collect()
        alive.append(sum(ref() is not None for ref in held))
        if len(arguments[0]) > 2:
            held.append(weakref.ref(arguments[0]))
            raise torch.OutOfMemoryError(CUDA_SAYS)

    own.adapter.decoder.layers[5].register_forward_pre_hook(limit)
    model = make_model("vanilla", own=own, batch_size=4)
    model.generate_until(make_requests(model, [{"max_new_tokens": 1}] * 4))
    assert held and alive == [0, 0, 0]


def test_the_first_half_is_kept_if_the_second_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, _ = small(2)
    journal = Journal(tmp_path / "answers.jsonl")
    model = make_model("vanilla", own=own, batch_size=4, journal=journal)
    requests = make_requests(model, [SHORT] * 4)  # by length 3, 1, 2, 0
    generate, calls = own.model.generate, []

    def third_call_ends(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return generate(*arguments, **options)

    monkeypatch.setattr(own.model, "generate", third_call_ends)
    with pytest.raises(KeyboardInterrupt):
        model.generate_until(requests)
    assert [journal.find(request) is not None for request in requests] == [False, True, False, True]
    resumed = make_model("vanilla", own=small(2)[0], batch_size=4, journal=Journal(tmp_path / "answers.jsonl"))
    answers = resumed.generate_until(make_requests(resumed, [SHORT] * 4))
    assert sum(number or 0 for number in halved(answers)) == 1


@pytest.mark.parametrize("size", [1, 2, 5, 7, 8])
@pytest.mark.parametrize("most", [1, 2, 3, 8])
def test_parts_come_in_order_and_failures_add_up(size: int, most: int) -> None:
    failures = []

    def attempt(part: list[int], before: int) -> list[int] | None:
        if len(part) > most:
            failures.append(part)
            return None
        told.append(before)
        return part

    told: list[int] = []
    whole = list(range(size))
    answers = list(in_halves(attempt, whole, lambda part: [part[: len(part) // 2], part[len(part) // 2 :]]))
    assert [each for part in answers for each in part] == whole
    assert sum(told) == len(failures) and (len(failures) > 0) == (size > most)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError(CUDA_SAYS), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("out of memory"), False),
        (MemoryError(), False),
        (ValueError("MPS backend out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_the_allocator_of_the_cpu_is_understood() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 50)
    assert is_out_of_memory(raised.value)


def caption_of(record: RunRecord) -> tuple[str, ...]:
    run = StoredRun(record, Path("a.record.json"))
    return board_caption([Entry("", "", dict.fromkeys(record.tasks, run))], [], {}, ())


def test_the_record_and_the_board_say_how_often(tmp_path: Path) -> None:
    own, _ = small(2)
    record, samples = recorded(
        make_model("fastv", own=own, budget=0.5, batch_size=6), tmp_path / "run", "demo_gqa", "demo_pope"
    )
    assert (record.settings.batch_size, record.settings.batch_size_choice) == (6, None)
    # the tasks differ in their generation arguments: two batches of 3, each answered as 2 and 1
    assert [task.halved_batches for task in record.tasks.values()] == [1, 1]
    assert all(task.timing is None for task in record.tasks.values()) and len(samples) == 6
    again = type(record).model_validate_json(record.to_json())
    assert again == record
    (said,) = [line for line in caption_of(record) if "halves" in line]
    assert said == "Batches that ran out of memory and were answered in halves: 2."
    plain, _ = recorded(make_model("fastv", budget=0.5, batch_size=6), tmp_path / "plain", "demo_gqa")
    assert plain.tasks["demo_gqa"].halved_batches == 0 and not [t for t in caption_of(plain) if "halves" in t]
    single, _ = recorded(make_model("fastv", budget=0.5), tmp_path / "single", "demo_gqa")
    assert single.tasks["demo_gqa"].halved_batches is None and single.tasks["demo_gqa"].timing is not None
