"""The checks that every method must pass see methods that do not."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from swiftvlm_eval.pruning import engine
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.scores import top_k
from swiftvlm_eval.pruning.trace import SampleTrace
from swiftvlm_eval.pruning.words import Need
from swiftvlm_eval.pruning.work import PromptWork, Work
from swiftvlm_eval.testing import MethodCheckError, check_method, checks
from swiftvlm_eval.testing.checks import CHECKS, Subject

CALLS = itertools.count()


@dataclass(frozen=True, kw_only=True)
class First(PruningMethod):
    """Keeps the first rows after layer 2, or does what a test plants."""

    name: ClassVar[str] = "first"
    title: ClassVar[str] = "First"
    source: ClassVar[str] = "test"
    summary: ClassVar[str] = "test"
    default_layers: ClassVar[tuple[int, ...]] = (2,)
    needs: ClassVar[frozenset[Need]] = frozenset({"pixels"})

    def select(self, signals: Signals) -> RowEdit:
        return signals.keep(torch.arange(signals.stage.kept))

    def work(self, prompt: PromptWork) -> Work:
        return Work()


def some(signals: Signals, scores: torch.Tensor) -> RowEdit:
    return signals.keep(top_k(scores, signals.stage.kept))


def leaves_a_mark(signals: Signals) -> RowEdit:
    signals.vision.adapter.model.marked = True
    return signals.keep(torch.arange(signals.stage.kept))


def too_few_of_two_images(signals: Signals) -> RowEdit:
    fewer = 3 * len(signals.layout.tilings) - 3
    return signals.keep(torch.arange(signals.stage.kept - fewer))


def not_finite_in_half(signals: Signals) -> RowEdit:
    edit = signals.keep(torch.arange(signals.stage.kept))
    return replace(edit, states=edit.states * torch.nan) if edit.states.dtype == torch.bfloat16 else edit


def scaled(signals: Signals) -> RowEdit:
    return replace(signals.keep(torch.arange(signals.stage.kept)), states=signals.states[: signals.stage.kept] * 1.01)


def counting(signals: Signals) -> RowEdit:
    return some(signals, torch.arange(signals.num_visual).roll(7 * next(CALLS)).float())


def unordered(signals: Signals) -> RowEdit:
    edit = signals.keep(torch.arange(signals.stage.kept))
    return replace(edit, index=edit.index.flip(0))


PLANTED: list[tuple[Callable[[Subject], None], Callable[[Signals], RowEdit]]] = [
    (checks.keep_all_is_the_stock_model, scaled),
    (checks.executed_rows_are_the_plan, lambda s: s.keep(torch.arange(s.stage.kept - 1))),
    (checks.kept_indices_are_unique, lambda s: s.keep(torch.zeros(s.stage.kept, dtype=torch.int64))),
    (checks.kept_indices_are_unique, unordered),
    (checks.a_batch_answers_as_its_samples, counting),
    (checks.eager_and_sdpa_choose_the_same, counting),
    (checks.the_model_is_itself_afterwards, leaves_a_mark),
    (checks.the_model_is_itself_afterwards, counting),
    (
        checks.only_a_method_that_draws_depends_on_the_seed,
        lambda s: some(s, torch.rand(s.num_visual, generator=s.generator)),
    ),
    (checks.half_precision_runs, not_finite_in_half),
    (checks.several_images_are_one_visual_set, too_few_of_two_images),
    (checks.a_second_turn_continues_from_the_pruned_cache, counting),
    (checks.beams_are_pruned_as_their_sample, counting),
]


def subject(select: Callable[[Signals], RowEdit]) -> Subject:
    cls: Any = type("Planted", (First,), {"select": lambda self, signals: select(signals)})
    return Subject(lambda options: cls(**options), {})


@pytest.mark.parametrize(("check", "select"), PLANTED)
def test_a_planted_fault_is_seen(check: Callable[[Subject], None], select: Callable[[Signals], RowEdit]) -> None:
    check(Subject(lambda options: First(**options), {}))
    with pytest.raises(AssertionError):
        check(subject(select))


def test_caches_that_do_not_hold_the_rows_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    check, own = checks.cache_holds_the_rows_of_each_layer, Subject(lambda options: First(**options), {})
    check(own)
    check(subject(lambda s: replace(s.keep(torch.arange(s.stage.kept)), evict_from=0)))

    class Lying(SampleTrace):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.rows_per_layer.append(1)

    monkeypatch.setattr(engine, "SampleTrace", Lying)
    with pytest.raises(AssertionError, match="caches"):
        check(own)


def test_text_that_is_pruned_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Subject(lambda options: First(**options), {})
    checks.text_alone_runs_unpruned(own)
    real, calls = checks.generate, itertools.count()
    monkeypatch.setattr(checks, "generate", lambda *given: _shifted(real(*given), next(calls)))
    with pytest.raises(AssertionError, match="text alone"):
        checks.text_alone_runs_unpruned(own)


def _shifted(answer: Any, by: int) -> Any:
    answer.sequences = answer.sequences + by
    return answer


def test_every_failure_is_reported_and_the_rest_still_runs() -> None:
    def breaks(signals: Signals) -> RowEdit:
        raise RuntimeError("planted")

    cls: Any = type("Breaks", (First,), {"select": lambda self, signals: breaks(signals)})
    with pytest.raises(MethodCheckError, match=rf"first fails \d+ of {len(CHECKS)} checks:\n  keep_all.*planted"):
        check_method(cls)


def test_a_good_method_passes_by_class_and_by_name() -> None:
    assert check_method(First) == [check.__name__ for check in CHECKS]
    own = Path(__file__).parents[2] / "examples" / "own_method" / "cls_top.py"
    assert len(check_method(f"{own}:ClsTop")) == len(CHECKS)
    with pytest.raises(ValueError, match="method='nobody': unknown"):
        check_method("nobody")
