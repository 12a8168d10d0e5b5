"""The parts of a prefill, on a clock that counts how often it is read: nothing here is timed."""

from collections.abc import Callable
from itertools import count

import pytest
import torch

from swiftvlm_eval.efficiency import parts
from swiftvlm_eval.efficiency.parts import EDGES, PARTS, Spans, watched
from swiftvlm_eval.pruning.engine import PruningSession
from swiftvlm_eval.pruning.prune import prune
from swiftvlm_eval.pruning.registry import make_method
from swiftvlm_eval.testing.tiny_models import make_image, make_inputs, tiny_llava


def ticking() -> Callable[[], float]:
    ticks = count()
    return lambda: float(next(ticks))


def test_what_a_part_calls_is_its_own_and_the_sum_is_the_whole() -> None:
    times = iter([1.0, 3.0, 10.0, 12.0, 17.0, 20.0])  # tower 1-3; decoder 10-20; selection in it 12-17
    spans = Spans(lambda: next(times))
    spans.begin("tower")
    spans.begin("projector")  # inside the tower: the tower's
    spans.end()
    spans.end()
    spans.begin("decoder")
    spans.begin("selection")
    for inner in ("projector", "selection"):  # a method may project, an edge may call another
        spans.begin(inner)
        spans.end()
    spans.end()
    spans.end()
    assert next(times, None) is None, "read at other seams"
    assert spans.split(30.0) == {"tower": 2.0, "projector": 0.0, "selection": 5.0, "decoder": 5.0, "other": 18.0}
    assert tuple(spans.split(30.0)) == PARTS


@pytest.mark.parametrize("method", [None, "vanilla", "fastv", "visionzip", "tome"])
def test_the_seams_of_a_real_model(method: str | None) -> None:
    """Each seam is passed, the model is itself again, and the answer is that of an unwatched run."""
    model, processor = tiny_llava(fresh=True)
    inputs = make_inputs(processor, make_image(60, 60))
    core = model.model
    hooked = (core.vision_tower, core.multi_modal_projector, core.language_model)
    budget = 1.0 if method in (None, "vanilla") else 0.5
    with torch.no_grad():
        if method is None:
            expected = model(**inputs, use_cache=True).logits
            with watched(model, None, ticking()) as spans:
                found = model(**inputs, use_cache=True).logits
        else:
            with prune(model, make_method(method), budget) as session:
                expected = model(**inputs, use_cache=True).logits
                with watched(model, session, ticking()) as spans:
                    found = model(**inputs, use_cache=True).logits
                assert not set(EDGES) & set(vars(session)), "the engine is itself again"
    assert torch.equal(found, expected)
    assert spans.took["tower"] == spans.took["projector"] == 1
    assert (spans.took["selection"] > 0) is (method is not None)
    assert spans.took["decoder"] == 1 + 2 * spans.took["selection"], "two readings a selection inside it"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in hooked)


def test_the_engine_has_the_functions_that_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(callable(getattr(PruningSession, name)) for name in EDGES)
    monkeypatch.setattr(parts, "EDGES", ("_renamed",))
    model, _ = tiny_llava()
    with (
        prune(model, make_method("fastv"), 0.5) as session,
        pytest.raises(AttributeError, match="_renamed"),
        watched(model, session, ticking()),
    ):
        pass
    assert not model.model.vision_tower._forward_hooks, "taken out although it failed"


def test_a_failing_selection_ends_its_span() -> None:
    spans = Spans(ticking())

    def fails() -> None:
        raise RuntimeError("no")

    spans.begin("decoder")
    with pytest.raises(RuntimeError, match="no"):
        parts._timed(fails, spans)()
    spans.end()
    assert spans.took == {"selection": 1.0, "decoder": 3.0}
