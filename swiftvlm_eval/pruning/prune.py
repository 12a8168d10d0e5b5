"""`prune`: a pruning method at work on a LLaVA model, for the length of a `with` block."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

from torch import nn

from swiftvlm_eval.models.adapter import adapter_for
from swiftvlm_eval.models.families import visual_tokens_per_image
from swiftvlm_eval.pruning.binding import refuse_compiled
from swiftvlm_eval.pruning.budget import parse_budget
from swiftvlm_eval.pruning.contract import PruningMethod
from swiftvlm_eval.pruning.engine import PruningSession


@contextmanager
def prune(
    model: nn.Module, method: PruningMethod, budget: str | int | float | Fraction | None = None, *, seed: int = 0
) -> Iterator[PruningSession]:
    """Runs a LLaVA model with visual-token pruning.

        with prune(model, SwiftVLM(), budget=192) as session:
            model.generate(**inputs)
        session.traces[0].mean_visual_tokens

    Args:
        model: `LlavaForConditionalGeneration` or `LlavaNextForConditionalGeneration`; attention sdpa, eager or flash.
        method: what to prune.
        budget: mean visual tokens per decoder layer: a share, a count of a stated whole, or a count for 576 tokens
            (`parse_budget`); None keeps everything unless the method's own counts say otherwise.
        seed: seeds methods that draw at random.

    Yields:
        The session; its `traces` tell what happened in the last prefill.

    Raises:
        BudgetError: a malformed budget. A budget that cannot be met is reported by the first prefill, because it
            depends on the prompt's number of visual tokens.
        UnsupportedModelError: no adapter knows the model.
        ValueError: the model or its decoder is compiled as a whole: torch would trace engine and selection, too.
    """
    adapter = adapter_for(model)
    refuse_compiled(model, adapter.model, adapter.core, adapter.decoder.module)
    share = None if budget is None else parse_budget(budget, visual_tokens_per_image(adapter.model.config))
    session = PruningSession(adapter, method, share, seed)
    with session.bound():
        yield session
