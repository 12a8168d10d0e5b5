"""The visual rows of an image as the decoder receives them: read at the input of its first layer, where a run ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.models.families import family_of
from swiftvlm_eval.models.images import image_digest
from swiftvlm_eval.models.prompts import FORMS
from swiftvlm_eval.pruning.contract import PruningMethod
from swiftvlm_eval.pruning.engine import PruningSession
from swiftvlm_eval.pruning.servable import why_plan_not_servable

STAND_INS = ("What is in the picture?", "Read the second word on the sign; is it 3 or 41?")
"""Asked where nobody names a question: a method that does not read it chooses the same rows for both."""


@dataclass(frozen=True)
class VisualRows:
    """One image's rows.

    Attributes:
        states: [V, hidden_size], in sequence order, in the model's dtype, on the CPU.
        before: N, visual tokens of the unpruned prompt.
    """

    states: Tensor
    before: int


class _Reached(Exception):
    """The decoder's first layer has its input: the rest of the run is not needed."""


def prompt_of(checkpoint: Checkpoint, question: str) -> str:
    """The conversation in which the image is shown, with one placeholder, as the evaluations have it.

    Raises:
        ValueError: no conversation form is known for the language model.
    """
    prompts = family_of(checkpoint.family).prompts
    language_model = checkpoint.model.config.text_config.model_type
    if language_model not in prompts:
        raise ValueError(f"language model {language_model!r}: no prompt is known; allowed are {', '.join(prompts)}")
    return FORMS[prompts[language_model]](question)


def visual_rows(
    checkpoint: Checkpoint,
    method: PruningMethod,
    share: float,
    image: Image.Image,
    question: str | None = None,
    *,
    seed: int = 0,
) -> VisualRows:
    """Runs a method on one image up to the decoder's first layer.

    Args:
        checkpoint: of any family.
        method: one that can be served.
        share: the budget, a share of N.
        image: the only one of the prompt.
        question: what is asked; None where the rows must not depend on it.
        seed: of methods that draw; the draw also depends on the image's pixels.

    Raises:
        ValueError: the method cannot be served, drops nothing though it should, or reads the question that is not
            given. A budget that cannot be met is one (`BudgetError`).
    """
    if question is not None:
        return _rows(checkpoint, method, share, image, question, seed)
    found, other = (_rows(checkpoint, method, share, image, text, seed) for text in STAND_INS)
    if not torch.equal(found.states, other.states):
        raise ValueError(
            f"question=None: {method.name} chooses other rows for another question; allowed is the text of one"
        )
    return found


def _rows(
    checkpoint: Checkpoint, method: PruningMethod, share: float, image: Image.Image, question: str, seed: int
) -> VisualRows:
    adapter = checkpoint.adapter
    inputs = checkpoint.encode([prompt_of(checkpoint, question)], [[image]])
    session = PruningSession(adapter, method, share, seed)
    plan = session.plan(int((inputs["input_ids"] == adapter.image_token_id).sum()))
    if reason := why_plan_not_servable(session.method, plan):
        raise ValueError(f"method={method.name!r}: {reason}; `swiftvlm-eval methods` lists those that can be served")
    if not plan.stages and share < 1:
        raise ValueError(f"budget={share:.4g}: {method.name} drops no rows; allowed is 1")
    session.sample_keys, session.questions = [str(image_digest([image]))], [question]
    hidden, rotation = _first_input(session, inputs)
    trace = session.traces[0]
    _check_positions(checkpoint, hidden, rotation)
    start, count = trace.num_text - trace.num_question, trace.rows_per_layer[0]
    states = hidden[0, start : start + count].detach().to("cpu").clone()
    return VisualRows(states, trace.num_visual)


def _first_input(session: PruningSession, inputs: Mapping[str, Any]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """What the first layer is given: [1, n, hidden_size], and the rotary tables of its rows."""
    found: list[tuple[Tensor, tuple[Tensor, Tensor]]] = []

    def stop(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        found.append((args[0], kwargs["position_embeddings"]))
        raise _Reached

    with session.bound(), torch.inference_mode():
        hook = session.adapter.decoder.layers[0].register_forward_pre_hook(stop, with_kwargs=True)
        try:
            session.adapter.model(**inputs, use_cache=True)
        except _Reached:
            pass
        finally:
            hook.remove()
    return found[0]


def _check_positions(checkpoint: Checkpoint, hidden: Tensor, rotation: tuple[Tensor, Tensor]) -> None:
    """Compares the positions that really were used with those that an engine gives to the same rows.

    Raises:
        RuntimeError: the rows do not stand at 0..n-1, so that no engine would see what was measured.
    """
    decoder = checkpoint.adapter.decoder
    count = hidden.shape[1]
    ids = torch.arange(count, device=hidden.device).float().expand(decoder.position_axes, 1, count)
    if not all(torch.equal(own, stock) for own, stock in zip(rotation, decoder.rotary(hidden, ids), strict=True)):
        raise RuntimeError("rows at other positions than 0 to n-1: they cannot be handed to a serving engine")
